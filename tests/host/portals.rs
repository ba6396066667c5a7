//! What the two portals want of a host, with every kind of resource and selector.

use std::net::IpAddr;

use netcombiner::config::units::{Family, Prefix, RulePref, TableId};
use netcombiner::config::{Forward, Keep, PortProtocol, Taken};
use netcombiner::route::resource::{
    Address, Filter, FilterClause, LocalTable, ProxyNeighbour, Route, Rule, Setting,
};
use netcombiner::route::{HostState, Resource};
use netcombiner::sorted::Set;

use crate::namespace::{address, name, prefix, public};

fn rule(family: Family, pref: u32, table: TableId) -> Rule {
    Rule::new(family, RulePref(pref), table)
}

fn setting(key: &str, value: &str) -> Resource {
    Resource::Setting(Setting::new(key, value))
}

/// What a remote portal wants, in both families.
pub(crate) fn remote() -> HostState {
    let mut state: HostState = [
        setting("net.ipv4.ip_forward", "1"),
        setting("net.ipv6.conf.all.forwarding", "1"),
        setting("net.ipv4.neigh.wan0.proxy_delay", "0"),
        Resource::Neighbour(ProxyNeighbour {
            device: name("wan0"),
            address: public(Family::V4),
        }),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("172.19.152.2/32"),
            peer: Some(address("172.19.152.3")),
        }),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("fd6e:6362::2/128"),
            peer: Some(address("fd6e:6362::3")),
        }),
    ]
    .into_iter()
    .collect();
    let mut clauses = Set::new();
    for family in [Family::V4, Family::V6] {
        let public = public(family);
        let to = Some(Prefix::host(public));
        state.insert(Resource::Route(Route {
            table: TableId(19),
            destination: Prefix::host(public),
            via: Some(address(match family {
                Family::V4 => "172.19.152.3",
                Family::V6 => "fd6e:6362::3",
            })),
            device: Some(name("nc0")),
            source: None,
            onlink: family == Family::V4,
            metric: 0,
        }));
        state.insert(Resource::LocalTable(LocalTable {
            family,
            pref: RulePref(20),
        }));
        for (protocol, ports, mark) in [
            (PortProtocol::Tcp, (22, 22), None),
            (PortProtocol::Udp, (60000, 61000), Some((0, 0x0200_0000))),
        ] {
            state.insert(Resource::Rule(Rule {
                to,
                protocol: Some(protocol),
                ports: Some(ports),
                mark,
                ..rule(family, 1, TableId::LOCAL)
            }));
        }
        state.insert(Resource::Rule(Rule {
            to,
            mark: Some((0x0100_0000, 0x0f00_0000)),
            ..rule(family, 1, TableId::LOCAL)
        }));
        state.insert(Resource::Rule(Rule {
            to,
            ..rule(family, 19, TableId(19))
        }));
        add_remote_clauses(&mut clauses, family);
    }
    state.insert(Resource::Filter(Filter {
        tunnel: name("nc0"),
        clauses,
    }));
    state
}

/// The clauses of a remote portal's packet filter for one family.
fn add_remote_clauses(clauses: &mut Set<FilterClause>, family: Family) {
    let public = public(family);
    clauses.insert(FilterClause::HoldClient {
        device: name("nc0"),
        address: public,
        mark: 0x0200_0000,
        mask: 0x0f00_0000,
    });
    clauses.insert(FilterClause::MarkOwn {
        address: public,
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
    });
    let ports = |protocol, first, last| {
        vec![Keep {
            protocol,
            first,
            last,
        }]
    };
    clauses.insert(FilterClause::GuardOwn {
        device: name("nc0"),
        address: public,
        ports: ports(PortProtocol::Tcp, 22, 22),
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
    });
    for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
        clauses.insert(FilterClause::ClientAnswers {
            device: name("nc0"),
            address: public,
            ports: ports(protocol, 60000, 61000),
            mark: 0x0200_0000,
            own: 0x0100_0000,
            mask: 0x0f00_0000,
        });
    }
    clauses.insert(FilterClause::Untracked {
        device: name("nc0"),
        address: public,
        ports: ports(PortProtocol::Tcp, 22, 22),
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
    });
    clauses.insert(FilterClause::PublicSource {
        device: name("nc0"),
        address: public,
    });
    clauses.insert(FilterClause::KeptServices {
        device: name("nc0"),
        address: public,
        own: address(match family {
            Family::V4 => "172.19.152.2",
            Family::V6 => "fd6e:6362::2",
        }),
        peer: address(match family {
            Family::V4 => "172.19.152.3",
            Family::V6 => "fd6e:6362::3",
        }),
        ports: ports(PortProtocol::Tcp, 22, 22),
    });
}

/// What a local portal wants that delivers by NAT, with the rules of a client as well, so that
/// every selector is used.
pub(crate) fn local() -> HostState {
    let mut clauses = Set::new();
    let mut state: HostState = [
        setting("net.ipv4.ip_forward", "1"),
        setting("net.ipv4.conf.all.arp_announce", "1"),
        Resource::Address(Address {
            device: name("lan"),
            prefix: prefix("192.168.1.1/32"),
            peer: None,
        }),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("198.51.100.9/32"),
            peer: None,
        }),
    ]
    .into_iter()
    .collect();
    for (family, gateway, own, inner) in [
        (Family::V4, "203.0.113.1", "203.0.113.2", "192.168.1.20"),
        (Family::V6, "2001:db8:113::1", "2001:db8:113::2", "fd00::20"),
    ] {
        state.insert(Resource::Route(Route {
            table: TableId(28260),
            destination: Prefix::default_of(family),
            via: Some(address(gateway)),
            device: Some(name("wan0")),
            source: Some(address(own)),
            onlink: false,
            metric: 0,
        }));
        state.insert(Resource::Route(Route {
            table: TableId(20),
            destination: Prefix::default_of(family),
            via: None,
            device: Some(name("nc0")),
            source: None,
            onlink: false,
            metric: 0,
        }));
        state.insert(Resource::Route(Route::unreachable(
            TableId(20),
            Prefix::default_of(family),
        )));
        state.insert(Resource::Rule(Rule {
            oif: Some(name("wan0")),
            ..rule(family, 10, TableId(28260))
        }));
        state.insert(Resource::Rule(Rule {
            from: Some(Prefix::host(address(own))),
            iif: Some(name("lan")),
            ..rule(family, 20, TableId(20))
        }));
        state.insert(Resource::Rule(Rule {
            suppress_prefix_length: Some(0),
            ..rule(family, 18, TableId::MAIN)
        }));
        add_local_clauses(&mut clauses, [gateway, own, inner].map(address));
    }
    state.insert(Resource::Filter(Filter {
        tunnel: name("nc0"),
        clauses,
    }));
    state
}

/// The clauses of a local portal's packet filter for one family.
fn add_local_clauses(clauses: &mut Set<FilterClause>, [gateway, own, inner]: [IpAddr; 3]) {
    clauses.insert(FilterClause::KeepInside {
        client: name("lan"),
        device: name("nc0"),
        address: own,
    });
    clauses.insert(FilterClause::SourceNat {
        device: name("nc0"),
        address: own,
    });
    clauses.insert(FilterClause::PortalSource {
        device: name("nc0"),
        own: inner,
        peer: gateway,
    });
    clauses.insert(FilterClause::Services {
        lans: vec![name("lan")],
        address: own,
        peer: gateway,
    });
    clauses.insert(FilterClause::Forwards {
        device: name("nc0"),
        lans: vec![name("lan")],
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
        address: own,
        forwards: vec![
            Forward {
                taken: Taken::Ports {
                    tcp: true,
                    udp: false,
                    first: 443,
                    last: 443,
                    to_first: 8443,
                },
                to: inner,
            },
            Forward {
                taken: Taken::Ports {
                    tcp: true,
                    udp: true,
                    first: 8000,
                    last: 8100,
                    to_first: 8000,
                },
                to: inner,
            },
            Forward {
                taken: Taken::Ports {
                    tcp: true,
                    udp: false,
                    first: 8101,
                    last: 65535,
                    to_first: 8101,
                },
                to: gateway,
            },
            Forward {
                taken: Taken::Rest,
                to: inner,
            },
        ],
    });
}
