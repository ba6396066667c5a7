//! Who is at home. Nobody on a link, or beyond it, speaks as one of them: where the kernel's own check of
//! sources did not let that in before, it would now, as `link::habits` loosens it.

use std::net::IpAddr;

use super::beside::{covers, overlap, without};
use super::border::{at_home, routed_at_home, uplinks};
use super::link;
use super::links::{Observed, ObservedLink};
use crate::config::units::{Family, Prefix, TableId};
use crate::config::{Config, Keep, PortProtocol, Role, Transport};

/// A setting that only kernels with IPsec have: the others know no packets that were decrypted, and refuse
/// a rule about them.
pub const IPSEC: &str = "net.core.xfrm_acq_expires";

/// What the filter has to know for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Insiders {
    /// Networks at home and addresses of this router: by an uplink nothing begins with such a source.
    pub sources: Vec<Prefix>,
    /// Where the flows lead, whose address may be one of these.
    pub flows: Vec<(IpAddr, Keep)>,
    /// A machine of the LAN may be on the way, and come in by IPsec.
    pub ipsec: bool,
}

/// Those of the local portal's host.
pub(super) fn insiders(config: &Config, observed: &Observed) -> Insiders {
    if matches!(config.role, Role::Remote(_)) {
        return Insiders::default();
    }
    let mut sources = networks(config, observed);
    let own = observed.links.iter().flat_map(|link| &link.addresses);
    let own = own.chain(&observed.loopback).map(|own| own.address());
    // The VPS itself may speak as the public address, unless this router has it.
    let is_public = |address: &IpAddr| config.public.iter().any(|public| public == *address);
    let mut own: Vec<IpAddr> = own.filter(|address| !is_public(address)).collect();
    if link::shares_address(config) {
        own.extend(config.public.iter());
    }
    for family in link::tunnel_families(config) {
        own.push(link::tunnel_own(config, family));
        own.push(link::tunnel_peer(config, family));
    }
    sources.extend(own.into_iter().map(Prefix::host));
    sources.sort_unstable();
    sources.dedup();
    Insiders {
        sources,
        flows: flows(config, observed),
        ipsec: observed.settings.contains_key(IPSEC),
    }
}

/// The networks at home, without those that an uplink leads to as well: their machines may come in by either
/// way. A LAN's own counts all the same, or a link's DHCP server would open it by naming it: only answers
/// come from a modem in the same network. IPv6 never had such a check, and a LAN may share its network with
/// the uplink (NDP proxies).
fn networks(config: &Config, observed: &Observed) -> Vec<Prefix> {
    let networks = |link: &ObservedLink| -> Vec<Prefix> {
        let own = link.addresses.iter().map(Prefix::network);
        own.filter(|network| !network.is_host()).collect()
    };
    let of = |devices: &[_]| -> Vec<Prefix> {
        let links = observed.links.iter();
        let links = links.filter(|link| devices.contains(&link.device));
        links.flat_map(networks).collect()
    };
    let (lans, out) = (
        of(link::delivery_devices(config)),
        of(&uplinks(config, observed)),
    );
    let mut found = at_home(config, observed);
    found.extend(routed_at_home(config, observed));
    found.retain(|network| {
        let is_lan = network.family() == Family::V4 && lans.contains(network);
        !network.is_host()
            && !network.is_default()
            && !config.public.iter().any(|it| network.contains(it))
            && (is_lan || !out.iter().any(|it| covers(network, it)))
    });
    found
}

/// What is at home as the VPS sees it: where table main leads into the tunnel, without what longer routes lead
/// elsewhere. Only what overlaps `allow` matters.
pub(in crate::route) fn beyond(config: &Config, observed: &Observed) -> Vec<Prefix> {
    if matches!(config.role, Role::Local(_)) {
        return Vec::new();
    }
    let connected = observed.links.iter().flat_map(|link| &link.addresses);
    let connected = connected.map(Prefix::network);
    let routed = observed.foreign_routes.iter();
    let routed = routed.filter(|route| route.table == TableId::MAIN.0 && route.device.is_some());
    let elsewhere = connected.chain(routed.map(|route| route.destination));
    let inside = observed.into_tunnel.iter();
    let mut routes: Vec<(Prefix, bool)> = elsewhere
        .map(|to| (to, false))
        .chain(inside.map(|to| (to.network(), true)))
        .filter(|(to, _)| config.allow.iter().any(|it| overlap(it, to)))
        .collect();
    // Shorter ones first. Of two alike the one into the tunnel counts.
    routes.sort_unstable_by_key(|(to, inside)| (to.length(), *inside, *to));
    routes.dedup();
    let mut beyond = Vec::new();
    for (to, inside) in routes {
        match inside {
            true => beyond.push(to),
            false => {
                beyond = beyond.iter().flat_map(|it| without(*it, &to)).collect();
            }
        }
    }
    beyond.sort_unstable();
    beyond.dedup();
    beyond
}

/// The other portal's addresses and ports.
fn flows(config: &Config, observed: &Observed) -> Vec<(IpAddr, Keep)> {
    let links = config.links.iter();
    let endpoints = links.clone().filter_map(|link| link.remote.as_ref());
    let ports = endpoints.chain(&config.remote).map(|it| it.port);
    let ports: crate::sorted::Set<u16> = ports.collect();
    let mut flows = Vec::new();
    for (protocol, transport) in [
        (PortProtocol::Udp, Transport::Udp),
        (PortProtocol::Tcp, Transport::Tcp),
    ] {
        let is_used = match config.links.is_empty() {
            true => transport == Transport::Udp,
            false => links.clone().any(|link| link.transport == transport),
        };
        for target in link::flow_targets(config, observed) {
            flows.extend(ports.iter().filter(|_| is_used).map(|port| {
                let keep = Keep {
                    protocol,
                    first: *port,
                    last: *port,
                };
                (target, keep)
            }));
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Deliver;
    use crate::route::cases;

    fn found(config: &Config, observed: &Observed, address: &str) -> bool {
        let address = address.parse().unwrap();
        let sources = insiders(config, observed).sources;
        sources.iter().any(|it| it.contains(address))
    }

    #[test]
    fn the_lans_and_the_routers_own_are_inside() {
        let observed = cases::router();
        for config in [
            cases::local_nat(),
            cases::local_client(),
            cases::local(Deliver::Nothing),
        ] {
            for inside in [
                "192.168.7.20",
                "192.168.7.1",
                "198.51.100.7",
                "2001:db8:9::9",
                "172.19.152.2",
                "172.19.152.3",
            ] {
                assert!(found(&config, &observed, inside), "{inside}");
            }
            for outside in ["198.51.100.1", "2001:db8:9::1", "10.0.0.1"] {
                assert!(!found(&config, &observed, outside), "{outside}");
            }
            // The VPS speaks as it, to a router that has it not.
            let shares = link::shares_address(&config);
            assert_eq!(found(&config, &observed, "203.0.113.2"), shares);
        }
        assert_eq!(
            insiders(&cases::remote(), &cases::vps()),
            Insiders::default()
        );
    }

    /// One card is LAN and link, or the machines of a network come in by either card.
    #[test]
    fn nobody_is_cut_off_who_comes_in_by_a_link() {
        let mut observed = cases::router();
        // One card.
        let mut config = cases::local(Deliver::Nat {
            devices: vec![cases::name("wan0")],
            forwards: Vec::new(),
        });
        let border = crate::route::border::border(&config, &observed);
        assert!(!border.uplinks.contains(&cases::name("wan0")));
        config = cases::local(Deliver::Nothing);
        observed.links.remove(0);
        assert!(!found(&config, &observed, "198.51.100.20"));
        // A second card in the network of the first, and one in a wider network.
        let mut second = cases::router().links[0].clone();
        second.addresses = vec!["198.51.100.9/24".parse().unwrap()];
        observed.links.push(second);
        config.links = vec![cases::link("wan0"), cases::link("wan1")];
        assert!(!found(&config, &observed, "198.51.100.20"));
        observed.links[2].addresses = vec!["198.51.0.9/16".parse().unwrap()];
        assert!(!found(&config, &observed, "198.51.100.20"));
        observed.links[2].addresses = vec!["198.51.100.129/25".parse().unwrap()];
        assert!(found(&config, &observed, "198.51.100.220"));
        // A lease that names the LAN's network opens it to nobody.
        let mut observed = cases::router();
        observed.links[1].addresses = vec!["192.168.7.9/24".parse().unwrap()];
        assert!(found(&cases::local_nat(), &observed, "192.168.7.20"));
        for link in [0, 2] {
            observed.links[link].addresses = vec!["2001:db8:9::9/64".parse().unwrap()];
        }
        assert!(!found(&cases::local_nat(), &observed, "2001:db8:9::20"));
    }

    #[test]
    fn what_the_vps_routes_home_is_beyond() {
        let prefixes = |texts: &[&str]| -> Vec<Prefix> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mut config = cases::remote();
        config.allow = prefixes(&["10.0.0.0/8", "2001:db8:7::/48", "203.0.113.0/24"]);
        let mut observed = cases::vps();
        let mut private = observed.links[0].clone();
        private.device = cases::name("eth1");
        private.addresses = prefixes(&["10.55.0.2/16"]);
        observed.links.push(private);
        let mut route = |to: &str| {
            observed
                .foreign_routes
                .push(crate::route::links::ForeignRoute {
                    table: TableId::MAIN.0,
                    destination: to.parse().unwrap(),
                    device: Some("eth1".to_owned()),
                });
        };
        route("10.0.0.0/8");
        route("10.1.0.0/17");
        assert_eq!(beyond(&config, &observed), []);
        observed.into_tunnel = prefixes(&["10.1.0.0/16", "192.168.1.0/24", "2001:db8:7::/64"]);
        let home = prefixes(&["10.1.128.0/17", "2001:db8:7::/64"]);
        assert_eq!(beyond(&config, &observed), home);
        // A longer one again, and one of two alike.
        observed.into_tunnel = prefixes(&["10.1.0.0/17", "10.1.0.0/24", "10.0.0.0/15"]);
        let home = prefixes(&["10.0.0.0/16", "10.1.0.0/17", "10.1.0.0/24", "10.1.128.0/17"]);
        assert_eq!(beyond(&config, &observed), home);
        observed.into_tunnel = prefixes(&["10.54.0.0/15"]);
        assert_eq!(beyond(&config, &observed), prefixes(&["10.54.0.0/16"]));
        assert_eq!(beyond(&cases::local_nat(), &observed), []);
    }
}
