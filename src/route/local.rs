//! What the local portal's host should look like (dissertation 3.3.2): the public address is
//! handed to a client or held by this router, and the flows' own packets, which go to the very
//! same address, leave by their links.

use std::net::{IpAddr, Ipv4Addr};

use super::awaited::is_held;
use super::beside::beside;
use super::border::border;
use super::link;
use super::links::{Observed, ObservedLink};
use super::resource::{
    Address, Filter, FilterClause, HostState, LocalTable, Resource, Route, Rule,
};
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::config::{Config, Deliver, Forward, Local, WithoutTunnel};

/// Answers this short are no destination of the LAN: a default route, or the parts of one that others make,
/// such as the two halves of OpenVPN's `def1`. Private networks are /8 and longer. Not 0, since wg-quick and
/// pbr delete every rule that suppresses 0, whose ever it is (PLATFORMS.md 0.4).
const SUPPRESSED: u8 = 7;

/// The last preference before the kernel's rule for table main, which is 32766 (ip-rule(8)).
const BEFORE_MAIN: u32 = 32_765;

/// The local portal's host.
pub fn desired(config: &Config, role: &Local, observed: &Observed) -> HostState {
    let mut state = HostState::new();
    link::tunnel_addresses(&mut state, config);
    if !config.manage_routing {
        return state;
    }
    link::tables(&mut state, config, observed);
    link::habits(&mut state, config, observed);
    portals(&mut state, config);
    let border = FilterClause::Border(Box::new(border(config, observed)));
    match &role.deliver {
        Deliver::Client { device, gateway } => {
            link::forwarding(&mut state, config, observed);
            let mut filter = inside(config, device);
            filter.clauses.insert(border);
            state.insert(Resource::Filter(filter));
            let client = observed.link(device);
            if client.is_some() {
                gateway_address(&mut state, device, *gateway, observed);
            }
            // A device that is down takes no routes.
            let reachable = client.is_some_and(|link| link.up);
            for address in config.public.iter() {
                to_client(&mut state, config, device, reachable, address);
                if is_held(observed, address) {
                    before_local(&mut state, config, address);
                }
                if let Some(client) = client {
                    to_neighbours(&mut state, config, client, address);
                }
            }
        }
        Deliver::Nat { devices, forwards } => {
            link::forwarding(&mut state, config, observed);
            for address in config.public.iter() {
                let direct = role.without_tunnel == WithoutTunnel::Direct;
                hold(&mut state, config, (devices, direct), observed, address);
            }
            let mut filter = translation(config, devices, forwards);
            filter.clauses.insert(border);
            state.insert(Resource::Filter(filter));
        }
        Deliver::Nothing => {
            for address in config.public.iter() {
                not_by_default(&mut state, config, address);
            }
            state.insert(Resource::Filter(Filter {
                tunnel: config.name.clone(),
                clauses: [border].into(),
            }));
        }
    }
    state
}

/// The portals' addresses inside the tunnel, whatever a link's routes say, and while the daemon is dead. The
/// router's answers to a network of `allow` go by the tunnel as well, unless that is here.
fn portals(state: &mut HostState, config: &Config) {
    let (near, out) = (table(config, 0), table(config, 1));
    for family in link::tunnel_families(config) {
        into_tunnel(state, config, family);
        state.insert(Resource::Rule(Rule {
            to: Some(Prefix::host(link::tunnel_peer(config, family))),
            ..Rule::new(family, config.numbers.link_pref, out)
        }));
        let allowed = config.allow.iter().filter(|it| it.family() == family);
        for network in allowed {
            let answers = |table: TableId, into| Rule {
                from: Some(Prefix::host(link::tunnel_own(config, family))),
                to: Some(network.network()).filter(|it| !it.is_default()),
                ..Rule::new(family, RulePref(table.0), into)
            };
            state.insert(Resource::Rule(Rule {
                suppress_prefix_length: Some(SUPPRESSED),
                ..answers(near, TableId::MAIN)
            }));
            state.insert(Resource::Rule(answers(out, out)));
        }
    }
}

/// Packets for the public address that the administrator does not route end here: by the default route they
/// would leave in clear, and come back by the tunnel. Rules of the administrator stand before these, and so do
/// routes in table main.
fn not_by_default(state: &mut HostState, config: &Config, address: IpAddr) {
    let (host, end) = (Prefix::host(address), table(config, 2));
    let comes = |pref, table| Rule {
        to: Some(host),
        iif: Some(config.name.clone()),
        ..Rule::new(Family::of(address), RulePref(pref), table)
    };
    state.insert(Resource::Rule(Rule {
        suppress_prefix_length: Some(SUPPRESSED),
        ..comes(BEFORE_MAIN - 1, TableId::MAIN)
    }));
    state.insert(Resource::Rule(comes(BEFORE_MAIN, end)));
    state.insert(Resource::Route(Route::unreachable(end, host)));
}

/// The client's gateway on its device, unless the device has it anyway, with the prefix length of
/// a whole LAN. For IPv6 the client's gateway is the device's link-local address.
fn gateway_address(state: &mut HostState, device: &IfName, gateway: Ipv4Addr, observed: &Observed) {
    let gateway = IpAddr::V4(gateway);
    let there = observed
        .link(device)
        .is_some_and(|link| link.holds(gateway).is_some_and(|prefix| !prefix.is_host()));
    if !there {
        state.insert(Resource::Address(Address {
            device: device.clone(),
            prefix: Prefix::host(gateway),
            peer: None,
        }));
    }
}

/// One public address to the client and back. The rules and the ends of their tables stand whatever
/// becomes of the client's device: without them packets for the client would follow the default
/// route, in clear, and come back from the remote portal.
fn to_client(
    state: &mut HostState,
    config: &Config,
    device: &IfName,
    reachable: bool,
    address: IpAddr,
) {
    let family = Family::of(address);
    let (out, back) = (table(config, 1), table(config, 2));
    let host = Prefix::host(address);
    // In main too, as in the dissertation: who flushes our tables (mwan3, up to 60) does not cut
    // the client off from this router.
    if reachable {
        for table in [TableId::MAIN, back] {
            state.insert(Resource::Route(Route::direct(table, host, device)));
        }
    }
    state.insert(Resource::Route(Route::unreachable(back, host)));
    state.insert(Resource::Rule(Rule {
        from: Some(host),
        iif: Some(device.clone()),
        ..Rule::new(family, RulePref(out.0), out)
    }));
    state.insert(Resource::Rule(Rule {
        to: Some(host),
        ..Rule::new(family, RulePref(back.0), back)
    }));
}

/// A link has leased the client's address, and table local would give the client's packets to this router: so
/// that table moves behind the client's. The links' own rules, by which flows go to the same address, stay
/// before both. Where the configured preferences leave no place the packet filter drops what comes.
fn before_local(state: &mut HostState, config: &Config, address: IpAddr) {
    let family = Family::of(address);
    let after = |count| RulePref(config.numbers.link_pref.0.saturating_add(count));
    if after(2).0 < config.numbers.table_base.0 {
        state.insert(Resource::Rule(Rule {
            to: Some(Prefix::host(address)),
            ..Rule::new(family, after(1), table(config, 2))
        }));
        state.insert(Resource::LocalTable(LocalTable {
            family,
            pref: after(2),
        }));
    }
}

/// The client and its neighbours on the same device: it may have this router alone as its way to
/// them, and its packets would go into the tunnel else.
fn to_neighbours(state: &mut HostState, config: &Config, client: &ObservedLink, address: IpAddr) {
    let family = Family::of(address);
    let link_local = |prefix: &Prefix| match prefix.address() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    for prefix in client.addresses.iter().filter(|it| it.family() == family) {
        if prefix.is_host() || prefix.is_default() || link_local(prefix) {
            continue;
        }
        state.insert(Resource::Rule(Rule {
            from: Some(Prefix::host(address)),
            to: Some(prefix.network()),
            iif: Some(client.device.clone()),
            ..Rule::new(family, RulePref(table(config, 0).0), TableId::MAIN)
        }));
    }
}

/// One public address on this router: the LANs' packets and the router's own go into the tunnel, except
/// for what is reached [beside](super::beside) it by table main.
///
/// Table 19 has no end: what need not go into the tunnel finds it there as long as there is one.
fn hold(
    state: &mut HostState,
    config: &Config,
    (lans, direct): (&[IfName], bool),
    observed: &Observed,
    address: IpAddr,
) {
    let family = Family::of(address);
    let (near, out) = (table(config, 0), table(config, 1));
    let host = Prefix::host(address);
    state.insert(Resource::Address(Address {
        device: config.name.clone(),
        prefix: host,
        peer: None,
    }));
    let beside = beside(config, observed, family);
    let mut into = |from, iif: Option<IfName>, into| {
        for network in &beside {
            state.insert(Resource::Rule(Rule {
                from,
                to: Some(*network),
                iif: iif.clone(),
                suppress_prefix_length: Some(SUPPRESSED),
                ..Rule::new(family, RulePref(near.0), TableId::MAIN)
            }));
        }
        state.insert(Resource::Rule(Rule {
            from,
            iif,
            ..Rule::new(family, RulePref(out.0), into)
        }));
    };
    into(Some(host), None, out);
    for lan in lans {
        if !direct {
            into(None, Some(lan.clone()), out);
        } else if !observed.tunnel_down {
            into(None, Some(lan.clone()), near);
        }
    }
    // What the router sends without a source of its own choice. IPv6 asks no rule with a source for
    // such packets (fib6_rule_match), and its own leave by the links.
    let own = family == Family::V4 && !observed.tunnel_down;
    if own {
        let unbound = Prefix::host(Ipv4Addr::UNSPECIFIED.into());
        into(Some(unbound), Some(IfName::loopback()), near);
    }
    if own || direct {
        state.insert(Resource::Route(Route {
            via: Some(link::tunnel_peer(config, family)),
            source: Some(address),
            ..Route::direct(near, Prefix::default_of(family), &config.name)
        }));
    }
}

/// Table 20: all by the other portal, or nowhere.
fn into_tunnel(state: &mut HostState, config: &Config, family: Family) {
    let (table, everything) = (table(config, 1), Prefix::default_of(family));
    state.insert(Resource::Route(Route {
        via: Some(link::tunnel_peer(config, family)),
        ..Route::direct(table, everything, &config.name)
    }));
    state.insert(Resource::Route(Route::unreachable(table, everything)));
}

/// The client's packets stay inside when the tunnel's device is gone, and table 20 empty with it.
fn inside(config: &Config, client: &IfName) -> Filter {
    let keep = |address| FilterClause::KeepInside {
        client: client.clone(),
        device: config.name.clone(),
        address,
    };
    Filter {
        tunnel: config.name.clone(),
        clauses: config.public.iter().map(keep).collect(),
    }
}

/// The LANs behind the public addresses, and the ports handed on to them.
fn translation(config: &Config, lans: &[IfName], forwards: &[Forward]) -> Filter {
    let device = &config.name;
    let (mark, mask) = (config.numbers.mark, config.numbers.mark_mask);
    let mut filter = Filter {
        tunnel: device.clone(),
        clauses: crate::sorted::Set::new(),
    };
    for address in config.public.iter() {
        filter.clauses.insert(FilterClause::SourceNat {
            device: device.clone(),
            address,
        });
        let family = Family::of(address);
        let peer = link::tunnel_peer(config, family);
        filter.clauses.insert(FilterClause::PortalSource {
            device: device.clone(),
            own: link::tunnel_own(config, family),
            peer,
        });
        filter.clauses.insert(FilterClause::Services {
            lans: lans.to_vec(),
            address,
            peer,
        });
        let of_family = |forward: &&Forward| Family::of(forward.to) == family;
        let forwards: Vec<_> = forwards.iter().filter(of_family).cloned().collect();
        if !forwards.is_empty() {
            filter.clauses.insert(FilterClause::Forwards {
                device: device.clone(),
                lans: lans.to_vec(),
                address,
                forwards,
                mark,
                mask,
            });
        }
    }
    filter
}

/// Table 19, 20 or 21; its number is also the preference of the rules that ask it.
fn table(config: &Config, which: u32) -> TableId {
    TableId(config.numbers.table_base.0.saturating_add(which))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::route::cases;
    use crate::route::diff::{routes, rules};
    use crate::route::resource::Setting;

    fn state(config: &Config, observed: &Observed) -> HostState {
        crate::route::desired(config, observed)
    }

    fn has(state: &HostState, key: &str, value: u8) -> bool {
        state.contains(&Resource::Setting(Setting::new(key, value)))
    }

    /// Field row D6: what one LAN's packets find, another's find too.
    #[test]
    fn every_lan_has_its_rules() {
        let mut config = cases::local_nat();
        let mut observed = cases::router();
        for (direct, down) in [(false, false), (false, true), (true, false), (true, true)] {
            let Role::Local(role) = &mut config.role else {
                panic!("a local portal");
            };
            role.without_tunnel = match direct {
                true => WithoutTunnel::Direct,
                false => WithoutTunnel::Block,
            };
            role.deliver = Deliver::Nat {
                devices: ["lan", "guest"].map(cases::name).to_vec(),
                forwards: Vec::new(),
            };
            observed.tunnel_down = down;
            let state = state(&config, &observed);
            let by = |name: &str| {
                let name = cases::name(name);
                let found = rules(&state).filter(move |rule| rule.iif.as_ref() == Some(&name));
                found
                    .map(|rule| Rule {
                        iif: None,
                        ..rule.clone()
                    })
                    .collect::<Vec<_>>()
            };
            assert_eq!(by("lan").is_empty(), direct && down);
            assert_eq!(by("lan"), by("guest"));
        }
    }

    /// Field row D3.
    #[test]
    fn the_client_reaches_the_networks_of_its_device_alone() {
        let mut observed = cases::router();
        let lan = ["192.168.1.1/24", "fe80::1/64", "fd00::1/64", "10.1.1.1/32"];
        observed.links[0].addresses = lan.map(|prefix| prefix.parse().unwrap()).to_vec();
        let mut config = cases::local_client();
        config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
        let state = state(&config, &observed);
        let near = rules(&state).filter(|rule| rule.to.is_some() && rule.iif.is_some());
        let near: Vec<_> = near
            .map(|rule| (rule.to.unwrap().to_string(), rule.pref.0))
            .collect();
        assert_eq!(
            near,
            [
                ("192.168.1.0/24".to_owned(), 19),
                ("fd00::/64".to_owned(), 19)
            ]
        );
    }

    #[test]
    fn flows_are_asked_for_before_the_client() {
        for config in [cases::local_client(), cases::local_nat()] {
            let state = state(&config, &cases::router());
            for rule in rules(&state) {
                let of_links = rule.table.0 >= config.numbers.link_table_base.0;
                let to_portal = rule.to == Some("172.19.152.2/32".parse().unwrap());
                assert_eq!(of_links || to_portal, rule.pref.0 < 19, "{rule:?}");
                if of_links {
                    assert!(rule.oif.is_some() || rule.from.is_some() && rule.to.is_some());
                }
            }
        }
    }

    #[test]
    fn a_link_that_is_gone_or_down_leaves_nothing_and_moves_no_other() {
        let mut config = cases::local_client();
        config.links = vec![cases::link("wan0"), cases::link("wan1")];
        let mut observed = cases::router();
        observed.links[1].up = false;
        let down = state(&config, &observed);
        observed.links.remove(1);
        // The filter names the devices that there are.
        let but_filter = |state: &HostState| -> Vec<Resource> {
            let kept = state.iter().filter(|it| !matches!(it, Resource::Filter(_)));
            kept.cloned().collect()
        };
        assert_eq!(but_filter(&down), but_filter(&state(&config, &observed)));
        let tables: Vec<_> = routes(&down)
            .filter(|route| route.device == Some(cases::name("wan1")))
            .map(|route| route.table.0)
            .collect();
        assert!(
            !tables.is_empty() && tables.iter().all(|table| *table == 28261),
            "{tables:?}"
        );
        assert!(routes(&down).all(|route| route.device != Some(cases::name("wan0"))));
    }

    #[test]
    fn a_second_address_of_a_network_makes_no_second_route() {
        let mut observed = cases::router();
        let before = routes(&state(&cases::local_client(), &observed)).count();
        observed.links[1]
            .addresses
            .push("198.51.100.8/24".parse().unwrap());
        let state = state(&cases::local_client(), &observed);
        assert_eq!(routes(&state).count(), before);
    }

    #[test]
    fn every_interface_with_a_default_route_is_a_link() {
        let state = state(&cases::local_client(), &cases::router());
        let oifs: Vec<_> = rules(&state).filter_map(|rule| rule.oif.as_ref()).collect();
        // wan1 in both families.
        assert_eq!(
            oifs,
            [
                &cases::name("wan0"),
                &cases::name("wan1"),
                &cases::name("wan1")
            ]
        );
    }

    #[test]
    fn a_tunnel_has_so_many_links_and_no_more() {
        let mut observed = cases::router();
        for number in 2..20 {
            let mut link = observed.links[1].clone();
            link.device = cases::name(&format!("wan{number}"));
            link.index += number;
            observed.links.push(link);
        }
        let config = cases::local_client();
        let links = link::automatic_links(&config, &observed);
        assert_eq!(links.len(), crate::proto::wire::MAX_PATHS);
        let last = config.numbers.link_table_base.0 + 7;
        assert!(routes(&state(&config, &observed)).all(|route| route.table.0 <= last));
    }

    #[test]
    fn a_named_gateway_off_the_link_is_onlink() {
        let mut config = cases::local_client();
        config.links = vec![cases::link("wan0")];
        config.links[0].gateway = Some("10.0.0.1".parse().unwrap());
        let state = state(&config, &cases::router());
        let route = routes(&state)
            .find(|r| r.via == config.links[0].gateway)
            .unwrap();
        assert!(route.onlink && route.destination.is_default());
    }

    #[test]
    fn strict_filters_become_loose_and_stricter_arp_stays() {
        let state = state(&cases::local_client(), &cases::router());
        // `all` is strict, so wan1's own 0 does not help.
        assert!(has(&state, "net.ipv4.conf.wan0.rp_filter", 2));
        assert!(has(&state, "net.ipv4.conf.wan1.rp_filter", 2));
        assert!(has(&state, "net.ipv4.conf.all.arp_announce", 2));
        assert!(has(&state, "net.ipv4.conf.all.arp_ignore", 1));
        assert!(!has(&state, "net.ipv4.conf.wan0.accept_local", 1));
    }

    #[test]
    fn who_holds_the_other_portals_address_takes_packets_from_it() {
        let mut config = cases::local_nat();
        let key = "net.ipv4.conf.wan0.accept_local";
        assert!(has(&state(&config, &cases::router()), key, 1));
        // Behind a cloud's 1:1 NAT the two addresses differ.
        if let Some(remote) = &mut config.remote {
            remote.host = "198.18.0.1".into();
        }
        assert!(!has(&state(&config, &cases::router()), key, 1));
    }

    #[test]
    fn an_address_of_the_lan_that_serves_as_gateway_stays_as_it_is() {
        let config = cases::local_client();
        let mut observed = cases::router();
        let added = |observed: &Observed| {
            state(&config, observed)
                .iter()
                .any(|r| matches!(r, Resource::Address(a) if a.device == cases::name("lan")))
        };
        assert!(added(&observed));
        observed.links[0].addresses = vec!["192.168.1.1/24".parse().unwrap()];
        assert!(!added(&observed));
        // Our own from before is not the LAN's.
        observed.links[0].addresses = vec!["192.168.1.1/32".parse().unwrap()];
        assert!(added(&observed));
    }

    /// Field row B3: the rules stand, and their tables end, whatever devices there are.
    #[test]
    fn without_the_clients_device_its_packets_go_nowhere() {
        let whole = cases::router();
        let (mut down, mut gone) = (whole.clone(), whole.clone());
        down.links[0].up = false;
        gone.links.remove(0);
        for mut config in [cases::local_client(), cases::local_nat()] {
            config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
            let whole = state(&config, &whole);
            for observed in [&down, &gone] {
                let state = state(&config, observed);
                assert!(routes(&state).all(|route| route.device != Some(cases::name("lan"))));
                // The way to its neighbours goes with the device.
                let fixed = |rule: &&Rule| rule.to.is_none() || rule.iif.is_none();
                assert!(rules(&state).filter(fixed).eq(rules(&whole).filter(fixed)));
                for rule in rules(&state).filter(|rule| [20, 21].contains(&rule.table.0)) {
                    let ends = |route: &&Route| {
                        (route.table, route.device.is_none()) == (rule.table, true)
                            && route.destination.family() == rule.family
                    };
                    assert!(routes(&state).any(|route| ends(&route)), "{rule:?}");
                }
            }
            // The gateway's address stays while there is a device for it.
            let addresses = |of: &Observed| {
                let state = state(&config, of);
                let on_lan = |r: &&Resource| matches!(r, Resource::Address(a) if a.device == cases::name("lan"));
                state.iter().filter(on_lan).count()
            };
            assert_eq!(addresses(&down), addresses(&cases::router()));
            assert_eq!(addresses(&gone), 0);
        }
    }

    #[test]
    fn hands_off_means_the_tunnel_alone() {
        let config = Config {
            manage_routing: false,
            ..cases::local_client()
        };
        let state = state(&config, &cases::router());
        assert_eq!(state.len(), 1);
        assert!(state.iter().all(|r| matches!(r, Resource::Address(_))));
    }
}
