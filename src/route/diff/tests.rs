//! Properties of the way between any two states that make sense.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::config::PortProtocol;
use crate::config::units::RulePref;
use crate::route::resource::{Address, FilterClause};
use crate::route::{cases, desired};

/// What a kernel would hold after a change.
fn apply(state: &HostState, change: &Change) -> HostState {
    let without = |gone: &dyn Fn(&Resource) -> bool| -> HostState {
        state.iter().filter(|r| !gone(r)).cloned().collect()
    };
    match change {
        Change::Put(Resource::Setting(new)) => {
            let mut next = without(&|r| matches!(r, Resource::Setting(old) if old.key == new.key));
            next.insert(Resource::Setting(new.clone()));
            next
        }
        Change::Put(Resource::Filter(new)) => {
            let mut next =
                without(&|r| matches!(r, Resource::Filter(old) if old.tunnel == new.tunnel));
            next.insert(Resource::Filter(new.clone()));
            next
        }
        Change::Put(other) => panic!("{other:?} has no place of its own"),
        Change::Replace(new) => {
            assert!(
                routes(state).any(|old| same_place(old, new)),
                "nothing there to replace by {new:?}"
            );
            let mut next = without(&|r| matches!(r, Resource::Route(old) if same_place(old, new)));
            next.insert(Resource::Route(new.clone()));
            next
        }
        Change::Add(new) => {
            assert!(!state.contains(new), "{new:?} is there already");
            if let Resource::Route(new) = new {
                assert!(
                    !routes(state).any(|old| same_place(old, new)),
                    "EEXIST: {new:?}"
                );
            }
            let mut next = state.clone();
            next.insert(new.clone());
            next
        }
        Change::Remove(old) => {
            assert!(state.contains(old), "{old:?} is not there");
            without(&|r| r == old)
        }
        Change::Verify(lookup) => {
            assert!(kept_lookups(state, Family::of(lookup.to)).any(|kept| kept == *lookup));
            state.clone()
        }
    }
}

/// No rule asks an empty table; table local is asked; it stands below preference 0 only with the
/// keep rules of `kept` in place.
fn check(state: &HostState, families: &[Family], kept: &[&Rule]) {
    for rule in rules(state).filter(|rule| rule.table.0 < 253 || rule.table.0 > 255) {
        assert!(
            routes(state).any(|route| {
                route.table == rule.table && route.destination.family() == rule.family
            }),
            "{rule:?} asks an empty table"
        );
    }
    for family in families {
        let at = locals(state, *family);
        let first = at.first().expect("nobody asks table local");
        if first.pref.0 > 0 {
            for rule in kept.iter().filter(|rule| rule.family == *family) {
                assert!(
                    state.contains(&Resource::Rule((*rule).clone())),
                    "cut off: {rule:?}"
                );
            }
        }
    }
}

fn walk(from: &HostState, to: &HostState) -> HostState {
    let families: Vec<_> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| !locals(from, *family).is_empty())
        .collect();
    let kept: Vec<_> = rules(from)
        .filter(|rule| rule.table == TableId::LOCAL && rules(to).any(|other| other == *rule))
        .collect();
    let mut state = from.clone();
    check(&state, &families, &kept);
    for change in diff(from, to) {
        state = apply(&state, &change);
        check(&state, &families, &kept);
    }
    state
}

/// `to`, and what `from` has borrowed that `to` does not speak of.
fn expected(from: &HostState, to: &HostState) -> HostState {
    let mut state = to.clone();
    for resource in from.iter() {
        let unspoken = match resource {
            Resource::Setting(old) => !to
                .iter()
                .any(|r| matches!(r, Resource::Setting(new) if new.key == old.key)),
            Resource::LocalTable(old) => locals(to, old.family).is_empty(),
            Resource::Address(_)
            | Resource::Neighbour(_)
            | Resource::Route(_)
            | Resource::Filter(_)
            | Resource::Rule(_) => false,
        };
        if unspoken {
            state.insert(resource.clone());
        }
    }
    state
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Some routes, at most one of a table and destination, and rules to the tables they fill.
fn arb_routing() -> impl Strategy<Value = Vec<Resource>> {
    let places: Vec<(u32, Prefix)> = [19, 20, 28260]
        .into_iter()
        .flat_map(|table| {
            [
                "0.0.0.0/0",
                "203.0.113.2/32",
                "198.51.100.0/24",
                "::/0",
                "2001:db8::2/128",
            ]
            .map(|text| (table, text.parse().unwrap()))
        })
        .collect();
    let routes = subsequence(places.clone(), 0..=places.len()).prop_flat_map(|places| {
        let vias = proptest::collection::vec(0..3u8, places.len());
        (Just(places), vias)
    });
    (
        routes,
        proptest::collection::vec(any::<(bool, bool, bool)>(), 6),
    )
        .prop_map(|((places, vias), wanted)| {
            let mut resources = Vec::new();
            for ((table, destination), via) in places.iter().zip(vias) {
                let via = match (via, destination.family()) {
                    (0, _) => None,
                    (n, Family::V4) => Some(ip(&format!("198.51.100.{n}"))),
                    (n, Family::V6) => Some(ip(&format!("fe80::{n}"))),
                };
                resources.push(Resource::Route(Route {
                    via,
                    ..Route::direct(TableId(*table), *destination, &cases::name("nc0"))
                }));
            }
            let tables: Set<_> = places
                .iter()
                .map(|(table, destination)| (*table, destination.family()))
                .collect();
            for ((table, family), (plain, iif, short)) in tables.into_iter().zip(wanted) {
                let rule = Rule::new(family, RulePref(table.min(5500)), TableId(table));
                let shapes = [
                    (plain, rule.clone()),
                    (
                        iif,
                        Rule {
                            iif: Some(cases::name("lan")),
                            ..rule.clone()
                        },
                    ),
                    (
                        short,
                        Rule {
                            suppress_prefix_length: Some(1),
                            ..rule
                        },
                    ),
                ];
                for (wanted, rule) in shapes {
                    if wanted {
                        resources.push(Resource::Rule(rule));
                    }
                }
            }
            resources
        })
}

/// Settings, table local, keep rules, an address and the packet filter.
fn arb_rest() -> impl Strategy<Value = Vec<Resource>> {
    let settings = proptest::collection::vec(proptest::option::of(0..3u8), 3);
    let local = proptest::option::of(prop_oneof![Just(0u32), Just(20), Just(25)]);
    let kept = subsequence(vec![22u16, 80, 4725], 0..=3);
    let filter = proptest::option::of(any::<u32>());
    (settings, local.clone(), local, kept, any::<bool>(), filter).prop_map(
        |(settings, v4, v6, kept, address, filter)| {
            let mut resources = Vec::new();
            let keys = [
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.wan0.accept_ra",
            ];
            for (key, value) in keys.into_iter().zip(settings) {
                if let Some(value) = value {
                    resources.push(Resource::Setting(Setting::new(key, value)));
                }
            }
            for (family, pref) in [(Family::V4, v4), (Family::V6, v6)] {
                if let Some(pref) = pref {
                    let pref = RulePref(pref);
                    resources.push(Resource::LocalTable(LocalTable { family, pref }));
                }
            }
            for port in kept {
                resources.push(Resource::Rule(Rule {
                    to: Some(Prefix::host(ip("203.0.113.2"))),
                    protocol: Some(PortProtocol::Tcp),
                    ports: Some((port, port)),
                    ..Rule::new(Family::V4, RulePref(1), TableId::LOCAL)
                }));
            }
            if address {
                resources.push(Resource::Address(Address {
                    device: cases::name("nc0"),
                    prefix: Prefix::host(ip("172.19.152.2")),
                    peer: Some(ip("172.19.152.3")),
                }));
            }
            if let Some(mark) = filter {
                let address = ip("203.0.113.2");
                let mask = u32::MAX;
                resources.push(Resource::Filter(Filter {
                    tunnel: cases::name("nc0"),
                    clauses: [FilterClause::MarkOwn {
                        address,
                        mark,
                        mask,
                    }]
                    .into(),
                }));
            }
            resources
        },
    )
}

fn arb_state() -> impl Strategy<Value = HostState> {
    (arb_routing(), arb_rest()).prop_map(|(a, b)| a.into_iter().chain(b).collect())
}

/// A state as a kernel would show it: it asks table local somewhere.
fn on_a_host(mut state: HostState) -> HostState {
    for family in [Family::V4, Family::V6] {
        if locals(&state, family).is_empty() {
            let pref = KERNEL_LOCAL_PREF;
            state.insert(Resource::LocalTable(LocalTable { family, pref }));
        }
    }
    state
}

proptest! {
    #[test]
    fn every_step_is_safe_and_the_last_arrives(a in arb_state(), b in arb_state()) {
        let a = on_a_host(a);
        let there = walk(&a, &b);
        prop_assert_eq!(&there, &expected(&a, &b));
        let back = walk(&there, &a);
        prop_assert_eq!(back, expected(&there, &a));
    }

    #[test]
    fn from_a_state_to_itself_is_nothing(a in arb_state()) {
        prop_assert_eq!(diff(&a, &a), Vec::new());
    }

    #[test]
    fn arrived_is_arrived(a in arb_state(), b in arb_state()) {
        let a = on_a_host(a);
        prop_assert_eq!(diff(&walk(&a, &b), &b), Vec::new());
    }
}

/// Where in the way this change stands.
fn place(changes: &[Change], wanted: impl Fn(&Change) -> bool) -> usize {
    changes.iter().position(wanted).unwrap()
}

#[test]
fn table_local_moves_after_the_keep_rules_and_back_before_they_go() {
    let observed = cases::vps();
    let wanted = desired(&cases::remote(), &observed);
    let before = observed.baseline(&wanted);
    let up = diff(&before, &wanted);
    let rule = |c: &Change| matches!(c, Change::Add(Resource::Rule(_)));
    let verify = |c: &Change| matches!(c, Change::Verify(_));
    let arrives = |c: &Change| matches!(c, Change::Add(Resource::LocalTable(_)));
    let leaves = |c: &Change| matches!(c, Change::Remove(Resource::LocalTable(_)));
    let last_rule = up.iter().rposition(rule).unwrap();
    assert!(last_rule < place(&up, arrives));
    assert!(place(&up, arrives) < place(&up, verify));
    assert!(place(&up, verify) < place(&up, leaves));
    assert_eq!(
        up.iter().filter(|c| verify(c)).count(),
        2 * 4,
        "before and after, 4 ports"
    );
    let setting = |c: &&Change| matches!(c, Change::Put(Resource::Setting(_)));
    assert!(verify(up.iter().rev().find(|c| !setting(c)).unwrap()));

    let down = diff(&wanted, &before);
    let moved = down.iter().find(|c| !setting(c)).unwrap();
    assert!(arrives(moved), "{down:?}");
    let first_rule = place(&down, |c| matches!(c, Change::Remove(Resource::Rule(_))));
    assert_eq!(place(&down, leaves) + 1, first_rule);
    // Field row A1: the filter stands before anything attracts or forwards packets, and until nothing does.
    assert!(matches!(up.first(), Some(Change::Put(Resource::Filter(_)))));
    assert!(matches!(
        down.last(),
        Some(Change::Remove(Resource::Filter(_)))
    ));
    assert!(!down.iter().any(verify), "no port is kept any more");
    walk(&before, &wanted);
    assert_eq!(walk(&wanted, &before), before);
}

#[test]
fn two_local_rules_of_a_crash_become_one() {
    let local = |pref| {
        Resource::LocalTable(LocalTable {
            family: Family::V4,
            pref: RulePref(pref),
        })
    };
    let both: HostState = [local(0), local(20)].into_iter().collect();
    let one: HostState = [local(20)].into_iter().collect();
    assert_eq!(diff(&both, &one), [Change::Remove(local(0))]);
    // A host of which nothing was said has the kernel's.
    let blank = HostState::new();
    assert_eq!(
        diff(&blank, &one),
        [Change::Add(local(20)), Change::Remove(local(0))]
    );
}

#[test]
fn routers_are_kept_over_the_switch_to_forwarding() {
    let setting = |key: &str, value: u8| Resource::Setting(Setting::new(key, value));
    let (ra, forwarding) = (
        "net.ipv6.conf.eth0.accept_ra",
        "net.ipv6.conf.all.forwarding",
    );
    let off: HostState = [setting(ra, 1), setting(forwarding, 0)]
        .into_iter()
        .collect();
    let on: HostState = [setting(ra, 2), setting(forwarding, 1)]
        .into_iter()
        .collect();
    let put = |key: &str, value| Change::Put(setting(key, value));
    assert_eq!(diff(&off, &on), [put(ra, 2), put(forwarding, 1)]);
    assert_eq!(diff(&on, &off), [put(forwarding, 0), put(ra, 1)]);
}

#[test]
fn a_new_gateway_takes_the_place_of_the_old_one() {
    let config = cases::local_client();
    let mut observed = cases::router();
    let before = desired(&config, &observed);
    observed.links[1].gateways = vec![ip("198.51.100.254")];
    let after = desired(&config, &observed);
    let changes = diff(&before, &after);
    assert!(
        matches!(&changes[..], [Change::Replace(route)] if route.via == Some(ip("198.51.100.254"))),
        "{changes:?}"
    );
}

/// The kernel writes over some settings when forwarding is switched: they are said after it.
#[test]
fn what_forwarding_writes_over_is_said_after_it() {
    let mut observed = cases::vps();
    for (key, value) in [
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.docker0.forwarding", "1"),
        ("net.ipv4.conf.eth0.forwarding", "0"),
    ] {
        observed.settings.insert(key.into(), value.into());
    }
    let there = desired(&cases::remote(), &observed);
    let before = observed.baseline(&there);
    let says = |changes: Vec<Change>| -> Vec<String> {
        let mut said = Vec::new();
        for change in changes {
            if let Change::Put(Resource::Setting(s)) = change {
                said.push(format!("{}={}", s.key, s.value));
            }
        }
        said
    };
    let delay = |value| format!("net.ipv4.neigh.eth0.proxy_delay={value}");
    assert_eq!(
        says(diff(&before, &there)),
        ["net.ipv4.ip_forward=1".to_owned(), delay(0)]
    );
    assert_eq!(
        says(diff(&there, &before)),
        [
            delay(80),
            "net.ipv4.ip_forward=0".to_owned(),
            "net.ipv4.conf.docker0.forwarding=1".to_owned(),
            "net.ipv4.conf.all.accept_redirects=0".to_owned(),
        ]
    );
}
