//! The tunnel's border on this host: who may pass it, as the packet filter holds it beside the tunnel
//! itself (`packet::crossing`), and what the filter alone can hold: where a packet goes on this host.

use std::net::IpAddr;

use super::beside::{covers, is_private, overlap};
use super::insiders::{Insiders, beyond, insiders};
use super::kinds::{is_of_machines, is_tunnel};
use super::links::{Observed, ObservedLink};
use super::{forwarding, link};
use crate::config::units::{Family, IfName, Prefix, TableId};
use crate::config::{Config, Deliver, Keep, NativeV6, Role, WithoutTunnel};

/// What the filter has to know for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Border {
    /// The tunnel's device.
    pub device: IfName,
    /// The addresses of the families that are carried.
    pub ends: Vec<Ends>,
    /// Networks that may pass beside them.
    pub allow: Vec<Prefix>,
    /// Ports of this host that are open to the tunnel.
    pub keep: Vec<Keep>,
    /// What this host is to it.
    pub side: Side,
    /// The networks at home: nothing comes from them by the tunnel.
    pub near: Vec<Prefix>,
    /// Who is at home: nobody speaks as they do by an uplink.
    pub insiders: Insiders,
    /// On the VPS: what its routes say is at home. No neighbour of it is there.
    pub beyond: Vec<Prefix>,
    /// The devices that lead to the Internet.
    pub uplinks: Vec<IfName>,
    /// The devices whose IPv6 does not leave by a link.
    pub no_v6: Vec<IfName>,
    /// Families that this host did not forward before us: between `devices` it still does not.
    pub closed: Vec<Family>,
    /// The devices between which nothing is forwarded then.
    pub devices: Vec<IfName>,
    /// Those of them that are bridges: what goes from port to port is filtered as if it were forwarded, where
    /// Docker has loaded `br_netfilter`.
    pub bridges: Vec<IfName>,
}

/// The addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// The public address.
    pub public: Option<IpAddr>,
    /// The local portal's address inside the tunnel.
    pub local: IpAddr,
    /// The remote portal's.
    pub remote: IpAddr,
}

/// What this host is to the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The remote portal.
    Remote,
    /// The local portal, and to whom it delivers.
    Local(Delivery),
}

/// To whom the local portal delivers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// To the client behind this device, and its networks.
    Client(IfName, Vec<Prefix>),
    /// To the LANs behind these devices, what they asked for and what is handed on.
    Nat(Vec<IfName>, WithoutTunnel),
    /// To whom the administrator routes.
    Anybody,
}

/// Bridges of containers and virtual machines, by the names that their managers give them. What these
/// send and get is routed by somebody else, who may come after us. A port of such a bridge (`veth`,
/// `vnet`) routes nothing; one that does is somebody's own, and was closed while forwarding was off.
const MANAGED: [&str; 6] = ["docker", "virbr", "lxc", "lxd", "cni", "podman"];

/// At most so many networks behind other routers count: each is an element of a set, on FreeBSD a rule.
const MOST_ROUTED: usize = 32;

/// The border of a configuration on a host.
pub(super) fn border(config: &Config, observed: &Observed) -> Border {
    let tunnel = &config.tunnel;
    let ends = link::tunnel_families(config).map(|family| match family {
        Family::V4 => Ends {
            public: config.public.v4.map(IpAddr::V4),
            local: tunnel.local.into(),
            remote: tunnel.remote.into(),
        },
        Family::V6 => Ends {
            public: config.public.v6.map(IpAddr::V6),
            local: tunnel.local_v6.into(),
            remote: tunnel.remote_v6.into(),
        },
    });
    let networks = |device: &IfName| {
        let link = observed.link(device);
        let prefixes = link.map(|link| link.addresses.iter().map(Prefix::network));
        prefixes.into_iter().flatten().collect()
    };
    let (keep, side) = match &config.role {
        Role::Remote(remote) => (&remote.keep, Side::Remote),
        Role::Local(local) => {
            let delivery = match &local.deliver {
                Deliver::Client { device, .. } => {
                    Delivery::Client(device.clone(), networks(device))
                }
                Deliver::Nat { devices, .. } => {
                    Delivery::Nat(devices.clone(), local.without_tunnel)
                }
                Deliver::Nothing => Delivery::Anybody,
            };
            (&local.keep, Side::Local(delivery))
        }
    };
    let off = |family: &Family| observed.number(forwarding::switch(*family)) == Some(0);
    let forwards_for_us = side != Side::Local(Delivery::Anybody);
    let closed = config.public.iter().map(Family::of).filter(off);
    let uplinks = uplinks(config, observed);
    let devices = unopened(
        observed,
        &uplinks,
        link::delivery_devices(config),
        &config.name,
    );
    let is_bridge = |device: &&IfName| {
        let link = observed.link(device);
        link.is_some_and(|link| link.kind == "bridge")
    };
    Border {
        device: config.name.clone(),
        ends: ends.collect(),
        allow: config.allow.clone(),
        keep: keep.clone(),
        side,
        no_v6: match &config.role {
            Role::Local(local) if local.native_ipv6 == NativeV6::Block && !config.carries_v6() => {
                link::delivery_devices(config).to_vec()
            }
            Role::Local(_) | Role::Remote(_) => Vec::new(),
        },
        near: near(config, observed),
        insiders: insiders(config, observed),
        beyond: beyond(config, observed),
        bridges: devices.iter().filter(is_bridge).cloned().collect(),
        devices,
        uplinks,
        closed: closed.filter(|_| forwards_for_us).collect(),
    }
}

/// The networks at home, without one of which a part lies beyond the tunnel (`allow`), and without one that claims
/// an address of the tunnel's own, as a link's lease can. That all of a network at home may be asked from beyond
/// does not make anybody there one of its machines.
pub(super) fn near(config: &Config, observed: &Observed) -> Vec<Prefix> {
    let tunnel = &config.tunnel;
    let inside: [IpAddr; 4] = [
        tunnel.local.into(),
        tunnel.remote.into(),
        tunnel.local_v6.into(),
        tunnel.remote_v6.into(),
    ];
    let mut found = routed_at_home(config, observed);
    found.retain(|network| !config.allow.iter().any(|it| overlap(it, network)));
    found.extend(at_home(config, observed));
    found.retain(|network| {
        !network.is_host()
            && !config
                .allow
                .iter()
                .any(|it| it != network && covers(network, it))
            && !config
                .public
                .iter()
                .chain(inside)
                .any(|it| network.contains(it))
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// The networks of the devices that do not lead to the Internet. Where no links are configured, a link whose
/// lease has no default route looks like a LAN: of the networks of such a device only private ones count.
pub(super) fn at_home(config: &Config, observed: &Observed) -> Vec<Prefix> {
    if matches!(config.role, Role::Remote(_)) {
        return Vec::new();
    }
    let uplinks = uplinks(config, observed);
    let at_home = observed
        .links
        .iter()
        .filter(|link| !uplinks.contains(&link.device) && link.device != config.name);
    let networks = at_home.flat_map(|link| {
        let networks = link.addresses.iter().map(Prefix::network);
        networks.filter(move |it| is_believed(config, link) || is_private(it))
    });
    networks.collect()
}

/// Private networks behind other routers at home.
pub(super) fn routed_at_home(config: &Config, observed: &Observed) -> Vec<Prefix> {
    if matches!(config.role, Role::Remote(_)) {
        return Vec::new();
    }
    let uplinks = uplinks(config, observed);
    let routes = observed.foreign_routes.iter().filter(|route| {
        let leads_by = |link: &&ObservedLink| route.device.as_deref() == Some(link.device.as_str());
        let link = observed.links.iter().find(leads_by);
        let link = link.filter(|link| !uplinks.contains(&link.device));
        route.table == TableId::MAIN.0 && link.is_some_and(|link| is_believed(config, link))
    });
    let networks = routes.map(|route| route.destination);
    networks.filter(is_private).take(MOST_ROUTED).collect()
}

/// True for a device that is no link for certain, when it is no uplink.
fn is_believed(config: &Config, link: &ObservedLink) -> bool {
    let lans = link::delivery_devices(config);
    !config.links.is_empty() || lans.contains(&link.device) || is_tunnel(link)
}

/// The links, what has or had a default route, what holds the public address, and at home, where no
/// links are configured, what leads to the Internet by other routes.
pub(super) fn uplinks(config: &Config, observed: &Observed) -> Vec<IfName> {
    let holds = |address| observed.holders(address).map(|link| &link.device);
    let holders: Vec<_> = config.public.iter().flat_map(holds).collect();
    let links = config.links.iter().map(|link| &link.device);
    let at_home = matches!(config.role, Role::Local(_));
    let defaults = observed.links.iter().filter(|link| {
        let had_default = || observed.were_links.contains(&link.device);
        let leads_out = || config.links.is_empty() && leads_out(config, observed, link);
        link.has_any_default() || at_home && (had_default() || leads_out())
    });
    let mut found: Vec<IfName> = links
        .chain(defaults.map(|link| &link.device))
        .chain(holders)
        .filter(|device| !link::delivery_devices(config).contains(device))
        .cloned()
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// True for a device with routes to what is neither private nor its own network. A DHCP server can give
/// such ones instead of a default route.
fn leads_out(config: &Config, observed: &Observed, link: &ObservedLink) -> bool {
    let is_public = |network: &Prefix| {
        let mut own = link.addresses.iter().map(Prefix::network);
        let mut client = config.public.iter().map(Prefix::host);
        !is_private(network) && !own.any(|own| own == *network) && !client.any(|it| it == *network)
    };
    let routes = observed.foreign_routes.iter().filter(|route| {
        let device = route.device.as_deref();
        route.table == TableId::MAIN.0 && device == Some(link.device.as_str())
    });
    !is_tunnel(link)
        && !is_of_machines(link.device.as_str())
        && routes.map(|it| it.destination).any(|it| is_public(&it))
}

/// The devices of this host that are nobody else's to route between. Who forwards (Docker, libvirt) may have
/// come after us, and then forwarding is on by us alone: it has its own devices, and no others.
pub fn unopened(
    observed: &Observed,
    uplinks: &[IfName],
    ours: &[IfName],
    tunnel: &IfName,
) -> Vec<IfName> {
    let opened = |device: &IfName| {
        let mut opened = observed.opened.iter();
        opened.any(|it| it == device.as_str()) && !uplinks.contains(device)
    };
    let managed = |device: &IfName| {
        let name = device.as_str();
        is_of_machines(name) || MANAGED.iter().any(|known| name.starts_with(known))
    };
    let mut found: Vec<IfName> = observed
        .links
        .iter()
        .map(|link| &link.device)
        .filter(|device| ours.contains(device) || !managed(device))
        .filter(|device| *device != tunnel && !opened(device))
        .cloned()
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use crate::route::lower::nft::script;
    use crate::route::resource::Resource;
    use crate::route::{cases, desired};

    /// Where `br_netfilter` is loaded, what goes from port to port of a bridge passes the filter too. The kernel's
    /// part is in `tests/netns/forwarders.rs`, for kernels that have it.
    #[test]
    fn the_ports_of_a_bridge_reach_each_other() {
        let mut observed = cases::vps();
        for (device, kind) in [("apps0", "bridge"), ("eth1", "")] {
            let mut other = observed.links[0].clone();
            other.device = cases::name(device);
            other.kind = kind.to_owned();
            (other.addresses, other.gateways) = (Vec::new(), Vec::new());
            observed.links.push(other);
        }
        let state = desired(&cases::remote(), &observed);
        let filter = state.iter().find_map(|it| {
            let Resource::Filter(filter) = it else {
                return None;
            };
            Some(script(filter))
        });
        let filter = filter.unwrap();
        let accepted = |device: &str| {
            filter.contains(&format!("iifname \"{device}\" oifname \"{device}\" accept"))
        };
        assert!(accepted("apps0") && !accepted("eth1"), "{filter}");
    }
}
