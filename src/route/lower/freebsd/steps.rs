//! What is done on a FreeBSD host, in order, and how each step is undone.
//!
//! The anchor is loaded before anything that attracts or forwards packets, so at no moment does a
//! packet leave that the anchor would have stopped.

use std::net::{IpAddr, Ipv4Addr};

use super::{Command, anchor, anchor_name};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Config, Deliver, Role};
use crate::route::forwarding::freebsd_switch;
use crate::route::link::{self, Hop, Used};
use crate::route::links::{Observed, ObservedLink};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it makes, so that it can be looked for on the host.
    pub what: What,
    /// The command that makes it.
    pub up: Command,
    /// The command that takes it away; `None`: it goes with the device.
    pub down: Option<Command>,
}

/// What a step makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// How the tunnel's device deals with IPv6: it configures nothing by itself.
    Ipv6 {
        /// The tunnel.
        device: IfName,
        /// It has IPv6 addresses of ours.
        wanted: bool,
    },
    /// An address on a device.
    Address {
        /// The device.
        device: IfName,
        /// The address.
        address: IpAddr,
    },
    /// A route.
    Route {
        /// Where it leads.
        to: Prefix,
        /// The next hop; `None`: straight out of the device.
        via: Option<IpAddr>,
        /// The device it leaves by.
        device: IfName,
        /// It is there for the flows, for which any route of the administrator's does as well.
        flows: bool,
    },
    /// The pf anchor.
    Anchor,
    /// A setting of the kernel that is 1.
    Setting(&'static str),
}

/// Every step, in order.
pub fn steps(config: &Config, observed: &Observed) -> Vec<Step> {
    let mut steps = vec![ipv6(config)];
    let families = link::tunnel_families(config);
    steps.extend(families.map(|family| tunnel_address(config, family)));
    if !config.manage_routing {
        return steps;
    }
    steps.extend(flow_routes(config, observed));
    let name = anchor_name(&config.name);
    steps.push(Step {
        what: What::Anchor,
        up: Command {
            input: Some(anchor(config, observed)),
            ..Command::of(format!("pfctl -a {name} -f -"))
        },
        // An empty file empties the anchor, which is gone with its last rule. `-F all` removes the
        // anchor first and then fails on its tables.
        down: Some(Command::of(format!("pfctl -a {name} -f /dev/null"))),
    });
    steps.extend(own_routes(config, observed));
    if let Some((device, gateway)) = client(config)
        && let Some(link) = observed.link(device).filter(|link| link.up)
    {
        steps.extend(to_client(config, link, gateway));
    }
    if delivers(config) {
        for address in config.public.iter() {
            let key = freebsd_switch(Family::of(address));
            let before = observed.settings.get(key);
            steps.push(Step {
                what: What::Setting(key),
                up: Command::of(format!("sysctl {key}=1")),
                down: before.map(|value| Command::of(format!("sysctl {key}={value}"))),
            });
        }
    }
    steps
}

/// The device makes itself no link-local address, tests none of ours for duplicates (the question
/// would go through the tunnel), and believes no router that advertises itself from there.
fn ipv6(config: &Config) -> Step {
    let device = &config.name;
    let wanted = config.carries_v6();
    let flags = if wanted {
        "-auto_linklocal -accept_rtadv no_dad -ifdisabled"
    } else {
        "ifdisabled"
    };
    Step {
        what: What::Ipv6 {
            device: device.clone(),
            wanted,
        },
        up: Command::of(format!("ifconfig {device} inet6 {flags}")),
        down: None,
    }
}

/// Its own two addresses on the tunnel.
fn tunnel_address(config: &Config, family: Family) -> Step {
    let device = &config.name;
    let own = link::tunnel_own(config, family);
    let peer = link::tunnel_peer(config, family);
    let (inet, length) = match family {
        Family::V4 => ("inet", "netmask 255.255.255.255"),
        Family::V6 => ("inet6", "prefixlen 128"),
    };
    Step {
        what: What::Address {
            device: device.clone(),
            address: own,
        },
        up: Command::of(format!("ifconfig {device} {inet} {own} {peer} {length}")),
        down: Some(Command::of(format!(
            "ifconfig {device} {inet} {own} -alias"
        ))),
    }
}

/// The client's gateway address, and the way to the client.
fn to_client(config: &Config, link: &ObservedLink, gateway: Ipv4Addr) -> Vec<Step> {
    let mut steps = Vec::new();
    let device = &link.device;
    let gateway = IpAddr::V4(gateway);
    if link.holds(gateway).is_none_or(|prefix| prefix.is_host()) {
        steps.push(Step {
            what: What::Address {
                device: device.clone(),
                address: gateway,
            },
            up: Command::of(format!(
                "ifconfig {device} inet {gateway} netmask 255.255.255.255 alias"
            )),
            down: Some(Command::of(format!(
                "ifconfig {device} inet {gateway} -alias"
            ))),
        });
    }
    let routes = config.public.iter();
    steps.extend(routes.map(|address| host_route(address, device, Hop::Direct, false)));
    steps
}

/// FreeBSD looks a route up before pf's `route-to` sends a packet elsewhere: without any route to
/// the other portal no flow leaves, so none may hang on the default route, which goes with the
/// lease of one link. Each target has a host route by a link that is up.
fn flow_routes(config: &Config, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    if config.remote.is_none() && config.links.iter().all(|link| link.remote.is_none()) {
        return steps;
    }
    let used = link::used(config, observed);
    let to_client = client(config).and_then(|(device, _)| observed.link(device));
    let to_client = to_client.is_some_and(|link| link.up);
    for target in link::flow_targets(config, observed) {
        let has_one = to_client && config.public.iter().any(|address| address == target);
        if has_one || observed.holders(target).next().is_some() {
            continue;
        }
        if let Some((device, hop)) = way_to(config, &used, target) {
            steps.push(host_route(target, device, hop, true));
        }
    }
    steps
}

/// While no link has a default route, for one that has lost its lease, what this router sends itself goes
/// by the tunnel. A default route that comes is kept out by nothing: these are two halves of one.
fn own_routes(config: &Config, observed: &Observed) -> Vec<Step> {
    let family = Family::V4;
    let has_default = |link: &ObservedLink| link.gateway(family).is_some();
    let used = link::used(config, observed);
    // The flows must not go into their own tunnel.
    let leaves = |target: &IpAddr| {
        Family::of(*target) != family
            || is_near(&used, *target)
            || way_to(config, &used, *target).is_some()
    };
    if !link::shares_address(config)
        || config.public.v4.is_none()
        || observed.tunnel_down
        || observed.links.iter().any(has_default)
        || !link::flow_targets(config, observed).iter().all(leaves)
    {
        return Vec::new();
    }
    let peer = link::tunnel_peer(config, family);
    let halves = Prefix::default_of(family).halves().into_iter().flatten();
    let steps = halves.map(|half| Step {
        what: What::Route {
            to: half,
            via: Some(peer),
            device: config.name.clone(),
            flows: false,
        },
        up: Command::of(format!("route add -net {half} {peer}")),
        down: Some(Command::of(format!("route delete -net {half}"))),
    });
    steps.collect()
}

/// True for a target on a link's own network.
fn is_near(used: &[Used<'_>], target: IpAddr) -> bool {
    let mut ways = used
        .iter()
        .filter(|used| used.hop(Family::of(target)).is_some());
    ways.any(|used| {
        let mut prefixes = used.link.addresses_of(Family::of(target));
        prefixes.any(|prefix| prefix.contains(target))
    })
}

/// The link by which a target is reached: best one that is meant for it, and one with a next hop.
/// `None`: no link leads there, or a link's own network does.
fn way_to<'a>(config: &Config, used: &[Used<'a>], target: IpAddr) -> Option<(&'a IfName, Hop)> {
    let family = Family::of(target);
    let named = |device: &IfName| {
        config.links.iter().any(|link| {
            let remote = link.remote.as_ref();
            link.device == *device && remote.is_some_and(|it| it.host.parse() == Ok(target))
        })
    };
    let mut ways: Vec<_> = used
        .iter()
        .filter_map(|used| Some((used, used.hop(family)?)))
        .collect();
    if is_near(used, target) {
        return None;
    }
    ways.sort_by_key(|(used, hop)| (!named(&used.link.device), *hop == Hop::Direct));
    let (used, hop) = ways.first()?;
    Some((&used.link.device, *hop))
}

fn host_route(to: IpAddr, device: &IfName, hop: Hop, flows: bool) -> Step {
    let family = match Family::of(to) {
        Family::V4 => "",
        Family::V6 => "-inet6 ",
    };
    let (via, by) = match hop {
        Hop::Direct => (None, format!("-interface {device}")),
        Hop::Via(gateway) => (Some(gateway), scoped(gateway, device)),
    };
    Step {
        what: What::Route {
            to: Prefix::host(to),
            via,
            device: device.clone(),
            flows,
        },
        up: Command::of(format!("route add {family}-host {to} {by}")),
        // Without the next hop: it can be undone even when it was forgotten.
        down: Some(Command::of(format!("route delete {family}-host {to}"))),
    }
}

/// A next hop as FreeBSD's programs want it: a link-local one with its device.
pub(super) fn scoped(gateway: IpAddr, device: &IfName) -> String {
    match gateway {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{v6}%{device}"),
        IpAddr::V4(_) | IpAddr::V6(_) => gateway.to_string(),
    }
}

/// This host forwards packets.
pub(super) fn delivers(config: &Config) -> bool {
    match &config.role {
        Role::Local(local) => local.deliver != Deliver::Nothing,
        Role::Remote(_) => true,
    }
}

fn client(config: &Config) -> Option<(&IfName, Ipv4Addr)> {
    match &config.role {
        Role::Local(local) => match &local.deliver {
            Deliver::Client { device, gateway } => Some((device, *gateway)),
            Deliver::Nat { .. } | Deliver::Nothing => None,
        },
        Role::Remote(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;

    /// The routes for the flows: where they lead, and by what.
    fn routes(config: &Config, observed: &Observed) -> Vec<String> {
        let steps = steps(config, observed).into_iter();
        let up = steps.filter(|step| matches!(step.what, What::Route { flows: true, .. }));
        up.map(|step| step.up.line()).collect()
    }

    /// Field row F3: every target of the flows has a route that does not hang on the default
    /// route, and it moves when its link loses its address.
    #[test]
    fn a_targets_route_follows_the_links() {
        let mut config = cases::local_nat();
        let mut observed = cases::router();
        let by_first = "route add -host 203.0.113.2 198.51.100.1";
        assert_eq!(routes(&config, &observed), [by_first]);
        let lease = std::mem::take(&mut observed.links[1].addresses);
        let by_second = "route add -host 203.0.113.2 192.0.2.10";
        assert_eq!(routes(&config, &observed), [by_second]);
        observed.links[1].addresses = lease;
        observed.links[1].up = false;
        assert_eq!(routes(&config, &observed), [by_second]);
        observed.links[2].up = false;
        assert!(routes(&config, &observed).is_empty());

        // Names: what they were resolved to, of both families; a link's own place by that link.
        let mut observed = cases::router();
        observed.remotes = ["198.18.0.9", "2001:db8:77::1"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        if let Some(remote) = &mut config.remote {
            remote.host = "vps.example".into();
        }
        config.links = vec![cases::link("wan0"), cases::link("wan1")];
        config.links[1].remote = Some(crate::config::Endpoint {
            host: "198.18.0.10".into(),
            port: 4725,
        });
        assert_eq!(
            routes(&config, &observed),
            [
                "route add -host 198.18.0.9 198.51.100.1",
                "route add -host 198.18.0.10 192.0.2.10",
                "route add -inet6 -host 2001:db8:77::1 fe80::9%wan1",
            ]
        );
    }

    /// A resolver that lies leads neither the tunnel's addresses nor a machine at home to a link, also one
    /// that may cross the tunnel.
    #[test]
    fn a_lying_resolver_moves_nobody() {
        let mut observed = cases::router();
        observed.remotes = ["172.19.152.2", "172.19.152.3", "192.168.7.20", "198.18.0.9"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        for allow in [None, Some("192.168.7.0/24")] {
            let mut config = cases::local_nat();
            config.allow = allow.iter().map(|it| it.parse().unwrap()).collect();
            if let Some(remote) = &mut config.remote {
                remote.host = "vps.example".into();
            }
            let by_first = "route add -host 198.18.0.9 198.51.100.1";
            assert_eq!(routes(&config, &observed), [by_first]);
        }
    }

    #[test]
    fn no_route_where_there_is_one() {
        // The client's, which is the other portal's address; a neighbour; one's own.
        let mut config = cases::local_client();
        let mut observed = cases::router();
        assert!(routes(&config, &observed).is_empty());
        // Without the client's device, or without a carrier on it, the flows have their own.
        observed.links[0].up = false;
        assert_eq!(routes(&config, &observed).len(), 1);
        let all = steps(&config, &observed);
        assert!(!all.iter().any(|step| step.up.line().contains("lan")));
        observed.links.remove(0);
        assert_eq!(routes(&config, &observed).len(), 1);
        let mut config_at = |host: &str| {
            if let Some(remote) = &mut config.remote {
                remote.host = host.into();
            }
            routes(&config, &observed)
        };
        assert!(config_at("198.51.100.200").is_empty());
        assert!(config_at("198.51.100.7").is_empty());
        assert!(routes(&cases::remote(), &cases::vps()).is_empty());
    }

    /// Field row F10: no link-local address, no test for duplicates through the tunnel.
    #[test]
    fn the_device_is_quiet() {
        let mut config = cases::local_client();
        let first = |config: &Config| steps(config, &cases::router())[0].up.line();
        assert_eq!(first(&config), "ifconfig nc0 inet6 ifdisabled");
        config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
        assert_eq!(
            first(&config),
            "ifconfig nc0 inet6 -auto_linklocal -accept_rtadv no_dad -ifdisabled"
        );
    }

    #[test]
    fn the_filter_comes_before_the_forwarding() {
        let steps = steps(&cases::local_client(), &cases::router());
        let anchor = steps.iter().position(|step| step.what == What::Anchor);
        let setting = |step: &Step| matches!(step.what, What::Setting(_));
        let forwarding = steps.iter().position(setting);
        assert!(anchor < forwarding && anchor.is_some(), "{steps:?}");
    }
}
