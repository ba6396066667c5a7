//! What both portals share: the tunnel's addresses, forwarding, and a routing table for each link
//! that only our own flows look into.

use std::net::IpAddr;

use super::border::at_home;
use super::links::{Observed, ObservedLink, device_setting};
use super::resource::{Address, HostState, Resource, Route, Rule, Setting};
use super::ways::Way;
use super::{forwarding, kinds, ways};
use crate::config::units::{Family, IfName, Prefix, TableId};
use crate::config::{Config, Deliver, Link, Role};
use crate::proto::wire::MAX_PATHS;
use crate::sorted::Set;

/// Both families, IPv4 first.
pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A way that flows leave by, and the table that is its own.
pub(super) struct Used<'a> {
    pub(super) link: &'a ObservedLink,
    pub(super) table: TableId,
    way: Way,
    /// The addresses of the device that are this way's.
    own: Vec<&'a Prefix>,
    /// Other ways leave by the same device.
    shared: bool,
    /// The configuration names the device: it is a link even without a default route.
    named: bool,
}

/// How packets leave a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// By a router.
    Via(IpAddr),
    /// The device has one other end.
    Direct,
}

impl Used<'_> {
    fn own_of(&self, family: Family) -> impl Iterator<Item = &Prefix> {
        let own = self.own.iter().copied();
        own.filter(move |prefix| prefix.family() == family)
    }

    /// How packets of a family leave this link; nothing: they do not.
    pub(super) fn hop(&self, family: Family) -> Option<Hop> {
        self.own_of(family).next()?;
        match ways::gateway(&self.way, &self.own, self.link, family) {
            Some(gateway) if gateway.is_unspecified() => Some(Hop::Direct),
            Some(gateway) => Some(Hop::Via(gateway)),
            None if self.named && self.link.point_to_point => Some(Hop::Direct),
            None => None,
        }
    }
}

/// The address of the tunnel's other end.
pub(super) fn tunnel_peer(config: &Config, family: Family) -> IpAddr {
    let tunnel = &config.tunnel;
    match (&config.role, family) {
        (Role::Local(_), Family::V4) => tunnel.remote.into(),
        (Role::Local(_), Family::V6) => tunnel.remote_v6.into(),
        (Role::Remote(_), Family::V4) => tunnel.local.into(),
        (Role::Remote(_), Family::V6) => tunnel.local_v6.into(),
    }
}

/// Our address on the tunnel.
pub(super) fn tunnel_own(config: &Config, family: Family) -> IpAddr {
    let tunnel = &config.tunnel;
    match (&config.role, family) {
        (Role::Local(_), Family::V4) => tunnel.local.into(),
        (Role::Local(_), Family::V6) => tunnel.local_v6.into(),
        (Role::Remote(_), Family::V4) => tunnel.remote.into(),
        (Role::Remote(_), Family::V6) => tunnel.remote_v6.into(),
    }
}

/// The families the tunnel has addresses of: IPv4 always, IPv6 where it may cross.
pub(super) fn tunnel_families(config: &Config) -> impl Iterator<Item = Family> {
    let v6 = config.carries_v6().then_some(Family::V6);
    [Family::V4].into_iter().chain(v6)
}

/// The two ends' addresses on the tunnel.
pub(super) fn tunnel_addresses(state: &mut HostState, config: &Config) {
    for family in tunnel_families(config) {
        state.insert(Resource::Address(Address {
            device: config.name.clone(),
            prefix: Prefix::host(tunnel_own(config, family)),
            peer: Some(tunnel_peer(config, family)),
        }));
    }
}

/// Forwarding for the families of the public addresses (dissertation 3.3.1).
///
/// A Linux host that forwards IPv6 forgets the routers it learnt of and listens to no more of
/// them, unless the device says `accept_ra=2`: said for every device that lives on them.
pub(super) fn forwarding(state: &mut HostState, config: &Config, observed: &Observed) {
    for address in config.public.iter() {
        match Family::of(address) {
            Family::V4 => forwarding::turn_on(state, observed, "net.ipv4.ip_forward"),
            Family::V6 => {
                forwarding::turn_on(state, observed, "net.ipv6.conf.all.forwarding");
                for link in &observed.links {
                    let key = device_setting(Family::V6, link.device.as_str(), "accept_ra");
                    if link.gateways.iter().any(IpAddr::is_ipv6) && observed.number(&key) == Some(1)
                    {
                        set(state, key, 2);
                    }
                }
            }
        }
    }
}

pub(super) fn set(state: &mut HostState, key: impl Into<String>, value: impl ToString) {
    state.insert(Resource::Setting(Setting::new(key, value)));
}

/// The devices that the local portal hands the public address to.
pub(super) fn delivery_devices(config: &Config) -> &[IfName] {
    match &config.role {
        Role::Local(local) => match &local.deliver {
            Deliver::Client { device, .. } => std::slice::from_ref(device),
            Deliver::Nat { devices, .. } => devices,
            Deliver::Nothing => &[],
        },
        Role::Remote(_) => &[],
    }
}

/// True when this router holds the public address, and the LANs share it.
pub(super) fn shares_address(config: &Config) -> bool {
    matches!(&config.role, Role::Local(local) if matches!(local.deliver, Deliver::Nat { .. }))
}

/// The links of a configuration that names none: every device that a user would call a WAN, as many as
/// a tunnel can have. A portal that only waits has none.
pub fn automatic_links(config: &Config, observed: &Observed) -> Vec<Link> {
    let judged = judge_links(config, observed);
    let taken = judged.into_iter().filter(|(_, reason)| reason.is_ok());
    taken
        .map(|(link, _)| Link::by(link.device.clone()))
        .collect()
}

/// Why each device of the host is a link or is none, where the configuration names no links.
pub fn judge_links<'a>(
    config: &Config,
    observed: &'a Observed,
) -> Vec<(&'a ObservedLink, Result<String, &'static str>)> {
    if matches!(config.role, Role::Remote(_)) && config.remote.is_none() {
        return Vec::new();
    }
    let mut links: Vec<_> = observed.links.iter().collect();
    links.sort_unstable_by_key(|link| (link.index, &link.device));
    let mut places = MAX_PATHS;
    let mut judge = |link: &ObservedLink| {
        if link.device == config.name {
            return Err("it is the tunnel");
        } else if delivery_devices(config).contains(&link.device) {
            return Err("it leads to the client or the LAN");
        }
        kinds::is_wan(link)?;
        places = places
            .checked_sub(1)
            .ok_or("a tunnel has no more than eight links")?;
        let gateways: Vec<String> = link
            .gateways
            .iter()
            .chain(&link.v4_by_v6)
            .map(|gateway| match gateway.is_unspecified() {
                true => "the other end".to_owned(),
                false => gateway.to_string(),
            })
            .collect();
        Ok(format!("it has a default route by {}", gateways.join(", ")))
    };
    links.into_iter().map(|link| (link, judge(link))).collect()
}

/// The devices that flows leave by and that are there, each with the number of its table: the
/// place of the device among the configured ones, or among those with a default route when none
/// is configured.
pub(super) fn used<'a>(config: &Config, observed: &'a Observed) -> Vec<Used<'a>> {
    let ways = ways::ways(config, observed);
    (config.numbers.link_table_base.0..)
        .zip(&ways)
        .filter_map(|(table, way)| {
            let link = observed.link(&way.device).filter(|link| link.up)?;
            Some(Used {
                link,
                table: TableId(table),
                way: way.clone(),
                own: ways::addresses(&ways, way, link),
                shared: ways.iter().filter(|it| it.device == way.device).count() > 1,
                named: !config.links.is_empty(),
            })
        })
        .collect()
}

/// Where the flows lead: the addresses of the other portal that are known. When none is, the
/// public addresses, which they are unless a cloud translates between the two. A resolver may be anybody's:
/// what it names is not within the tunnel, nor on a network at home.
pub(super) fn flow_targets(config: &Config, observed: &Observed) -> Set<IpAddr> {
    let named = config.links.iter().filter_map(|link| link.remote.as_ref());
    let targets: Set<IpAddr> = named
        .chain(&config.remote)
        .filter_map(|endpoint| endpoint.host.parse().ok())
        .chain(
            observed
                .remotes
                .iter()
                .copied()
                .filter(|it| !is_inside(config, observed, *it)),
        )
        .collect();
    if targets.is_empty() {
        config.public.iter().collect()
    } else {
        targets
    }
}

/// True for an address that is reached by no link.
fn is_inside(config: &Config, observed: &Observed, address: IpAddr) -> bool {
    if config.public.iter().any(|public| public == address) {
        return false;
    }
    let family = Family::of(address);
    let portals = [tunnel_own(config, family), tunnel_peer(config, family)];
    portals.contains(&address)
        || at_home(config, observed)
            .iter()
            .any(|network| network.contains(address))
}

/// A table for each link, and the rules that send our flows there and nobody else:
///
/// - what a socket bound to the device sends (`oif`), and where several ways leave by that device,
///   from the way's own address;
/// - what is sent from the link's address to the other portal: the kernel's own answers there
///   (resets, unreachables, and the packets of sockets bound to the address alone). The rule also
///   answers the kernel's reverse-path look-up for what comes back, which knows no `oif`.
///
/// Both stand above the rules for the public address, which is the other portal's address too
/// (dissertation 3.3.2: "there must be a higher priority table for proxy packets").
pub(super) fn tables(state: &mut HostState, config: &Config, observed: &Observed) {
    let targets = flow_targets(config, observed);
    for used in used(config, observed) {
        for family in FAMILIES {
            let Some(hop) = used.hop(family) else {
                continue;
            };
            table(state, &used, family, hop);
            let pref = config.numbers.link_pref;
            let bound = Rule {
                oif: Some(used.link.device.clone()),
                ..Rule::new(family, pref, used.table)
            };
            if !used.shared {
                state.insert(Resource::Rule(bound.clone()));
            }
            for prefix in used.own_of(family) {
                if used.shared {
                    state.insert(Resource::Rule(Rule {
                        from: Some(Prefix::host(prefix.address())),
                        ..bound.clone()
                    }));
                }
                for target in targets.iter().filter(|t| Family::of(**t) == family) {
                    state.insert(Resource::Rule(Rule {
                        from: Some(Prefix::host(prefix.address())),
                        to: Some(Prefix::host(*target)),
                        ..Rule::new(family, pref, used.table)
                    }));
                }
            }
        }
    }
}

/// The link's neighbours and its way out.
fn table(state: &mut HostState, used: &Used<'_>, family: Family, hop: Hop) {
    let device = &used.link.device;
    let on_link = |address: IpAddr| {
        matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
            || used.own.iter().any(|p| p.contains(address))
    };
    // The source of what is sent without one; IPv6 has better rules of its own (RFC 6724).
    let source = |prefix: Option<&Prefix>| match family {
        Family::V4 => prefix.map(Prefix::address),
        Family::V6 => None,
    };
    // Several addresses of one network: a table has one route there.
    let mut networks = Set::new();
    for prefix in used.own_of(family) {
        if !prefix.is_host() && networks.insert(prefix.network()) {
            state.insert(Resource::Route(Route {
                source: source(Some(prefix)),
                ..Route::direct(used.table, prefix.network(), device)
            }));
        }
    }
    let route = Route {
        source: source(used.own_of(family).next()),
        ..Route::direct(used.table, Prefix::default_of(family), device)
    };
    state.insert(Resource::Route(match hop {
        Hop::Direct => route,
        Hop::Via(gateway) => Route {
            via: Some(gateway),
            onlink: !on_link(gateway),
            ..route
        },
    }));
}

/// The habits of a host on several networks.
///
/// - ARP: speak for an address on its own device alone (dissertation 3.3.3); a stricter value
///   that is there already stays.
/// - Reverse path: the kernel takes the larger of `all` and the device's value. Where that is
///   strict (1), the link's own value becomes loose (2): an ICMP error of a router on the way
///   (path MTU) comes in by the second link, while the way back to that router is the first.
/// - `accept_local`: a router that itself holds the other portal's address would take the packets that
///   come from there for forged ones. It holds it where that is the public address that the LAN shares, or
///   where a link's DHCP server has leased it, and then the other links carry on.
pub(super) fn habits(state: &mut HostState, config: &Config, observed: &Observed) {
    let links: Vec<_> = used(config, observed)
        .into_iter()
        .filter(|used| used.hop(Family::V4).is_some())
        .collect();
    if links.is_empty() {
        return;
    }
    for name in ["arp_announce", "arp_ignore"] {
        let key = device_setting(Family::V4, "all", name);
        let value = observed.number(&key).map_or(1, |before| before.max(1));
        set(state, key, value);
    }
    let targets = flow_targets(config, observed);
    let holds = |target: IpAddr| {
        let shared = || config.public.v4.is_some_and(|it| target == it);
        let leased = observed.holders(target).next().is_some();
        leased || observed.has_on_loopback(target) || shares_address(config) && shared()
    };
    let holds_remote = matches!(config.role, Role::Local(_))
        && targets.iter().any(|it| it.is_ipv4() && holds(*it));
    for used in links {
        let key = |name| device_setting(Family::V4, used.link.device.as_str(), name);
        let all = device_setting(Family::V4, "all", "rp_filter");
        if observed
            .number(&all)
            .max(observed.number(&key("rp_filter")))
            == Some(1)
        {
            set(state, key("rp_filter"), 2);
        }
        if holds_remote {
            set(state, key("accept_local"), 1);
        }
    }
}
