//! What the remote portal's host should look like (dissertation 3.3.1): everything to the public
//! address goes into the tunnel, except for what the host keeps.

use std::net::IpAddr;

use super::awaited::is_held;
use super::border::border;
use super::foreign::needs_state;
use super::link;
use super::links::{Observed, device_setting, neighbour_setting};
use super::resource::{
    Filter, FilterClause, HostState, LocalTable, ProxyNeighbour, Resource, Route, Rule,
};
use crate::config::units::{Family, Prefix, RulePref, TableId};
use crate::config::{Config, Keep, PortProtocol, Remote, Transport};

/// The remote portal's host.
///
/// The look-up order for a packet to the public address: at `keep_pref` (1) the host's own ports
/// and its own connections to table local, at 19 all others to table 19 and so into the tunnel,
/// and only then, at 20, table local. When the tunnel's device is gone table 19 is empty and the
/// look-up falls through to local: the host stays reachable. Only the TCP connections that were
/// the client's wait for the tunnel instead of being reset.
pub fn desired(config: &Config, role: &Remote, observed: &Observed) -> HostState {
    let mut state = HostState::new();
    link::tunnel_addresses(&mut state, config);
    if !config.manage_routing {
        return state;
    }
    link::forwarding(&mut state, config, observed);
    if config.public.v4.is_some() && !shared(role).is_empty() {
        let device = config.name.as_str();
        let key = device_setting(Family::V4, device, "src_valid_mark");
        link::set(&mut state, key, 1);
    }
    // An address that is not there yet (DHCP, a provider's script) is waited for: without it no look-up
    // could show that the host stays reachable.
    let held = config.public.iter();
    for address in held.filter(|address| is_held(observed, *address)) {
        hand_over(&mut state, config, address);
        keep(&mut state, config, role, address);
        answer_arp(&mut state, observed, address);
    }
    state.insert(Resource::Filter(Filter {
        tunnel: config.name.clone(),
        clauses: config
            .public
            .iter()
            .flat_map(|address| connections(config, role, observed, address))
            .chain([FilterClause::Border(Box::new(border(config, observed)))])
            .collect(),
    }));
    link::tables(&mut state, config, observed);
    link::habits(&mut state, config, observed);
    state
}

/// From here on the client's system may choose a port for any of its sockets: Linux does from
/// 32768 to 60999 (net.ipv4.ip_local_port_range), others from 49152 (RFC 6335 section 6).
pub(super) const FIRST_SHARED: u16 = 32_768;

/// The part of the kept ports that is the host's alone.
fn firm(config: &Config, role: &Remote, address: IpAddr) -> Vec<Keep> {
    let below = |keep: &Keep| Keep {
        last: keep.last.min(FIRST_SHARED - 1),
        ..*keep
    };
    let kept = role.keep.iter().filter(|keep| keep.first < FIRST_SHARED);
    kept.map(below).chain(listened(config, address)).collect()
}

/// The part of them that the client's sockets may have too.
fn shared(role: &Remote) -> Vec<Keep> {
    let above = |keep: &Keep| Keep {
        first: keep.first.max(FIRST_SHARED),
        ..*keep
    };
    let kept = role.keep.iter().filter(|keep| keep.last >= FIRST_SHARED);
    kept.map(above).collect()
}

/// So many ports of a kept range are asked about one by one.
const MOST_ASKED: u16 = 16;

/// Ports of the host's alone whose connections nobody's rules have to know: those of the tunnel
/// itself, ssh, a web server.
fn untracked(config: &Config, role: &Remote, observed: &Observed, address: IpAddr) -> Vec<Keep> {
    let rules = &observed.filters;
    if rules.legacy || rules.unknown {
        return Vec::new();
    }
    let mut ports = firm(config, role, address);
    ports.retain(|keep| {
        let needs = |port| needs_state(config, observed, rules, keep.protocol, port);
        keep.last - keep.first < MOST_ASKED && !(keep.first..=keep.last).any(needs)
    });
    ports
}

/// The host's connections and the client's, told apart.
fn connections(
    config: &Config,
    role: &Remote,
    observed: &Observed,
    address: IpAddr,
) -> Vec<FilterClause> {
    let numbers = &config.numbers;
    let mask = numbers.mark_mask;
    let device = || config.name.clone();
    let family = Family::of(address);
    let own = FilterClause::MarkOwn {
        address,
        mark: numbers.mark,
        mask,
    };
    let mut clauses = vec![
        own,
        FilterClause::MarkKept {
            address,
            ports: kept(config, role, address),
            mark: numbers.mark,
            mask,
        },
        FilterClause::GuardOwn {
            device: device(),
            address,
            ports: firm(config, role, address),
            mark: numbers.mark,
            mask,
        },
        FilterClause::PublicSource {
            device: device(),
            address,
        },
        FilterClause::Untracked {
            device: device(),
            address,
            ports: untracked(config, role, observed, address),
            mark: numbers.mark,
            mask,
        },
        FilterClause::KeptServices {
            device: device(),
            address,
            own: link::tunnel_own(config, family),
            peer: link::tunnel_peer(config, family),
            ports: role.keep.clone(),
        },
    ];
    if let Some(mark) = numbers.client_mark() {
        clauses.push(FilterClause::HoldClient {
            device: device(),
            address,
            mark,
            mask,
        });
        clauses.push(FilterClause::Reclaim {
            address,
            client: mark,
            mark: numbers.mark,
            mask,
        });
        clauses.push(FilterClause::ClientAnswers {
            device: device(),
            address,
            ports: shared(role),
            mark,
            own: numbers.mark,
            mask,
        });
    }
    clauses
}

/// The public address into the tunnel, and table local below that.
fn hand_over(state: &mut HostState, config: &Config, address: IpAddr) {
    let family = Family::of(address);
    let table = config.numbers.table_base;
    state.insert(Resource::Route(Route {
        via: Some(link::tunnel_peer(config, family)),
        ..Route::direct(table, Prefix::host(address), &config.name)
    }));
    state.insert(Resource::Rule(Rule {
        to: Some(Prefix::host(address)),
        ..Rule::new(family, RulePref(table.0), table)
    }));
    state.insert(Resource::LocalTable(LocalTable {
        family,
        pref: RulePref(table.0.saturating_add(1)),
    }));
}

/// The ports and the connections that stay on this host.
fn keep(state: &mut HostState, config: &Config, role: &Remote, address: IpAddr) {
    let numbers = &config.numbers;
    let to_host = Rule {
        to: Some(Prefix::host(address)),
        ..Rule::new(Family::of(address), numbers.keep_pref, TableId::LOCAL)
    };
    for keep in kept(config, role, address) {
        // Where the client may have begun something, its answers are marked.
        let unmarked = numbers.client_mark().map(|mark| (0, mark));
        state.insert(Resource::Rule(Rule {
            protocol: Some(keep.protocol),
            ports: Some((keep.first, keep.last)),
            mark: unmarked.filter(|_| keep.last >= FIRST_SHARED),
            ..to_host.clone()
        }));
    }
    // The answers of a kept port to this host itself: marks are given to what comes in only.
    state.insert(Resource::Rule(Rule {
        from: Some(Prefix::host(address)),
        ..to_host.clone()
    }));
    state.insert(Resource::Rule(Rule {
        mark: Some((numbers.mark, numbers.mark_mask)),
        ..to_host
    }));
}

/// Linux answers who has an address by a routing look-up, which here ends in the tunnel: the
/// gateway would lose the host as soon as its ARP entry is old (tried). So the device answers as a
/// proxy, for this address alone: while forwarding is on and the address is routed by another
/// device (arp_process). Without the proxy's pause, by chance up to 0.8 s, that every packet for
/// this host would wait for. With table local before it again, or the tunnel gone, the kernel
/// answers as ever. IPv6 looks at the device's own addresses (ndisc_recv_ns), and needs nothing.
fn answer_arp(state: &mut HostState, observed: &Observed, address: IpAddr) {
    if address.is_ipv4() {
        let floats = observed.has_on_loopback(address);
        let asked = observed.links.iter().filter(|link| {
            link.holds(address).is_some() || floats && link.gateway(Family::V4).is_some()
        });
        for holder in asked {
            let device = holder.device.as_str();
            link::set(state, neighbour_setting(device, "proxy_delay"), 0);
            state.insert(Resource::Neighbour(ProxyNeighbour {
                device: holder.device.clone(),
                address,
            }));
        }
    }
}

/// What stays on the host at this address: the configured ports and those where flows are waited
/// for.
pub(super) fn kept(config: &Config, role: &Remote, address: IpAddr) -> Vec<Keep> {
    let listened = listened(config, address);
    role.keep.iter().copied().chain(listened).collect()
}

/// Where flows are waited for at this address.
fn listened(config: &Config, address: IpAddr) -> impl Iterator<Item = Keep> {
    config
        .listen
        .iter()
        .filter(move |listen| listen.address.is_none_or(|own| own == address))
        .map(|listen| Keep {
            protocol: match listen.transport {
                Transport::Udp => PortProtocol::Udp,
                Transport::Tcp => PortProtocol::Tcp,
            },
            first: listen.port,
            last: listen.port,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;
    use crate::route::diff::{routes, rules};
    use crate::route::resource::Setting;

    fn state(config: &Config, observed: &Observed) -> HostState {
        crate::route::desired(config, observed)
    }

    #[test]
    fn nothing_reaches_the_tunnel_before_what_is_kept() {
        let config = Config {
            numbers: cases::moved(),
            ..cases::remote()
        };
        let state = state(&config, &cases::vps());
        for rule in rules(&state) {
            let base = config.numbers.table_base.0;
            if rule.table == TableId::LOCAL {
                assert!(rule.pref.0 < base, "{rule:?}");
                assert!(
                    rule.ports.is_some() || rule.mark.is_some() || rule.from == rule.to,
                    "{rule:?} keeps all"
                );
            } else {
                assert_eq!((rule.pref.0, rule.table.0), (base, base), "{rule:?}");
            }
        }
        assert!(state.contains(&Resource::LocalTable(LocalTable {
            family: Family::V4,
            pref: RulePref(5501),
        })));
    }

    #[test]
    fn both_families_are_handed_over() {
        let mut config = cases::remote();
        config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
        let state = state(&config, &cases::vps());
        let v6 = |state: &HostState| {
            routes(state)
                .filter(|route| route.destination.family() == Family::V6)
                .count()
        };
        assert_eq!(v6(&state), 1);
        let keeps = |family| {
            rules(&state)
                .filter(|rule| rule.family == family && rule.table == TableId::LOCAL)
                .count()
        };
        assert_eq!(keeps(Family::V4), keeps(Family::V6));
        // Its router is known by advertisements, which a forwarding host ignores by default.
        let setting = Setting::new("net.ipv6.conf.eth0.accept_ra", 2);
        assert!(state.contains(&Resource::Setting(setting)));
    }

    /// Field row C6.
    #[test]
    fn an_address_that_is_not_there_is_not_handed_over() {
        let mut config = cases::remote();
        config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
        let mut observed = cases::vps();
        observed.links[0].addresses.remove(0);
        let state = state(&config, &observed);
        let of = |family| rules(&state).filter(|rule| rule.family == family).count();
        assert_eq!(of(Family::V4), 0);
        assert!(of(Family::V6) > 0);
        assert!(routes(&state).all(|route| route.destination.family() == Family::V6));
    }

    #[test]
    fn a_listener_of_one_address_keeps_that_one() {
        let mut config = cases::remote();
        config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
        for listen in &mut config.listen {
            listen.address = Some("203.0.113.2".parse().unwrap());
        }
        let role = Remote { keep: Vec::new() };
        assert_eq!(
            kept(&config, &role, "203.0.113.2".parse().unwrap()).len(),
            2
        );
        assert_eq!(kept(&config, &role, "2001:db8:2::2".parse().unwrap()), []);
    }

    /// Field row D12: where nothing is known of others' rules, they may need to know every connection.
    #[test]
    fn what_is_not_known_of_is_tracked() {
        let untracked = |observed: &Observed| {
            let state = state(&cases::remote(), observed);
            let filter = state.iter().find_map(|it| {
                let Resource::Filter(filter) = it else {
                    return None;
                };
                Some(filter)
            });
            let ports = filter.unwrap().clauses.iter().find_map(|it| {
                let FilterClause::Untracked { ports, .. } = it else {
                    return None;
                };
                Some(ports.len())
            });
            ports.unwrap()
        };
        let mut observed = cases::vps();
        assert_eq!(untracked(&observed), 3);
        observed.filters.unknown = true;
        assert_eq!(untracked(&observed), 0);
        observed.filters.unknown = false;
        observed.filters.legacy = true;
        assert_eq!(untracked(&observed), 0);
    }

    #[test]
    fn a_floating_address_is_answered_for_where_the_router_is() {
        let mut observed = cases::vps();
        observed.links[0].addresses = vec!["203.0.113.9/24".parse().unwrap()];
        let asked = Resource::Neighbour(ProxyNeighbour {
            device: cases::name("eth0"),
            address: "203.0.113.2".parse().unwrap(),
        });
        assert!(!state(&cases::remote(), &observed).contains(&asked));
        observed.loopback = vec!["203.0.113.2/32".parse().unwrap()];
        assert!(state(&cases::remote(), &observed).contains(&asked));
        assert_eq!(crate::route::conflicts(&cases::remote(), &observed), []);
    }

    #[test]
    fn a_portal_that_only_waits_has_no_link_tables() {
        let state = state(&cases::remote(), &cases::vps());
        assert!(routes(&state).all(|route| route.table.0 == 19));
    }
}
