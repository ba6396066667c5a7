//! What the tunnel takes from the remote portal's host: the public addresses, except for the ports that
//! the host keeps.

use std::net::{IpAddr, SocketAddr};

use super::remote::kept;
use super::resource::{HostState, Resource};
use crate::config::units::{Prefix, TableId};
use crate::config::{Config, Keep, PortProtocol, Role};
use crate::sorted::Set;

/// Addresses that go to the client, and the ports at them that stay.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// The addresses.
    pub addresses: Set<IpAddr>,
    /// What the host keeps of them.
    pub kept: Set<(IpAddr, Keep)>,
}

impl HandedOver {
    /// By this configuration, once all its addresses are there.
    pub fn by(config: &Config) -> Self {
        let mut handed = Self::default();
        if let Role::Remote(role) = &config.role
            && config.manage_routing
        {
            for address in config.public.iter() {
                handed.addresses.insert(address);
                for keep in kept(config, role, address) {
                    handed.kept.insert((address, keep));
                }
            }
        }
        handed
    }

    /// By the rules of a host.
    pub fn in_state(state: &HostState) -> Self {
        let mut handed = Self::default();
        for resource in state.iter() {
            let Resource::Rule(rule) = resource else {
                continue;
            };
            let Some(address) = rule.to.filter(Prefix::is_host).map(|it| it.address()) else {
                continue;
            };
            match (rule.protocol, rule.ports) {
                (Some(protocol), Some((first, last))) if rule.table == TableId::LOCAL => {
                    let keep = Keep {
                        protocol,
                        first,
                        last,
                    };
                    handed.kept.insert((address, keep));
                }
                (None, None) if rule.table != TableId::LOCAL => {
                    handed.addresses.insert(address);
                }
                _ => {}
            }
        }
        handed
    }

    /// True when what comes for this place goes to the client.
    pub fn takes(&self, protocol: PortProtocol, place: SocketAddr) -> bool {
        let (own, port) = (place.ip().to_canonical(), place.port());
        let keeps = |(address, keep): &(IpAddr, Keep)| {
            (*address, keep.protocol) == (own, protocol) && (keep.first..=keep.last).contains(&port)
        };
        self.addresses.contains(&own) && !self.kept.iter().any(keeps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{cases, desired};

    /// Field row B1: what a killed daemon had handed over is known by its rules.
    #[test]
    fn a_configuration_and_its_rules_say_the_same() {
        let config = cases::remote();
        let handed = HandedOver::by(&config);
        assert_eq!(
            HandedOver::in_state(&desired(&config, &cases::vps())),
            handed
        );
        let takes = |place: &str| handed.takes(PortProtocol::Tcp, place.parse().unwrap());
        assert!(!takes("203.0.113.2:22") && takes("203.0.113.2:2222"));
        assert!(!takes("10.0.0.5:2222"));
    }
}
