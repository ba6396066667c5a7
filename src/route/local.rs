//! What the local portal's host should look like (dissertation 3.3.2): the public address is
//! handed to a client or held by this router, and the flows' own packets, which go to the very
//! same address, leave by their links.

use std::net::{IpAddr, Ipv4Addr};

use super::link;
use super::links::Observed;
use super::resource::{Address, Filter, FilterClause, HostState, Resource, Route, Rule};
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::config::{Config, Deliver, Forward, Local};

/// Answers this short are no destination of the LAN: a default route, or the two halves of one
/// that OpenVPN's `def1` makes. Not 0, since wg-quick and pbr delete every rule that suppresses 0,
/// whose ever it is (PLATFORMS.md 0.4).
const SUPPRESSED: u8 = 1;

/// The local portal's host.
pub fn desired(config: &Config, role: &Local, observed: &Observed) -> HostState {
    let mut state = HostState::new();
    link::tunnel_addresses(&mut state, config);
    if !config.manage_routing {
        return state;
    }
    link::tables(&mut state, config, observed);
    link::habits(&mut state, config, observed);
    match &role.deliver {
        Deliver::Client { device, gateway } => {
            link::forwarding(&mut state, config, observed);
            if observed.link(device).is_some() {
                gateway_address(&mut state, device, *gateway, observed);
                for address in config.public.iter() {
                    to_client(&mut state, config, device, address);
                }
            }
        }
        Deliver::Nat { device, forwards } => {
            link::forwarding(&mut state, config, observed);
            let lan = observed.link(device).map(|link| &link.device);
            for address in config.public.iter() {
                hold(&mut state, config, lan, address);
            }
            state.insert(Resource::Filter(translation(config, forwards)));
        }
        Deliver::Nothing => {}
    }
    state
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

/// One public address to the client and back.
fn to_client(state: &mut HostState, config: &Config, device: &IfName, address: IpAddr) {
    let family = Family::of(address);
    let (out, back) = (table(config, 1), table(config, 2));
    let host = Prefix::host(address);
    // In main too, as in the dissertation: who flushes our tables (mwan3, up to 60) does not cut
    // the client off from this router.
    for table in [TableId::MAIN, back] {
        state.insert(Resource::Route(Route::direct(table, host, device)));
    }
    into_tunnel(state, config, family);
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

/// One public address on this router: the LAN's packets and the router's own from that address go
/// into the tunnel, those for networks that table main knows stay.
fn hold(state: &mut HostState, config: &Config, lan: Option<&IfName>, address: IpAddr) {
    let family = Family::of(address);
    let (near, out) = (table(config, 0), table(config, 1));
    let host = Prefix::host(address);
    state.insert(Resource::Address(Address {
        device: config.name.clone(),
        prefix: host,
        peer: None,
    }));
    into_tunnel(state, config, family);
    let from_lan = lan.map(|lan| (None, Some(lan.clone())));
    for (from, iif) in from_lan.into_iter().chain([(Some(host), None)]) {
        state.insert(Resource::Rule(Rule {
            from,
            iif: iif.clone(),
            suppress_prefix_length: Some(SUPPRESSED),
            ..Rule::new(family, RulePref(near.0), TableId::MAIN)
        }));
        state.insert(Resource::Rule(Rule {
            from,
            iif,
            ..Rule::new(family, RulePref(out.0), out)
        }));
    }
}

/// Table 20: all by the other portal.
fn into_tunnel(state: &mut HostState, config: &Config, family: Family) {
    state.insert(Resource::Route(Route {
        via: Some(link::tunnel_peer(config, family)),
        ..Route::direct(table(config, 1), Prefix::default_of(family), &config.name)
    }));
}

/// The LAN behind the public addresses, and the ports handed on to it.
fn translation(config: &Config, forwards: &[Forward]) -> Filter {
    let device = &config.name;
    let mut filter = Filter {
        tunnel: device.clone(),
        clauses: std::collections::BTreeSet::new(),
    };
    for address in config.public.iter() {
        filter.clauses.insert(FilterClause::SourceNat {
            device: device.clone(),
            address,
        });
        for forward in forwards {
            if Family::of(forward.to) == Family::of(address) {
                filter.clauses.insert(FilterClause::Forward {
                    device: device.clone(),
                    address,
                    forward: forward.clone(),
                });
            }
        }
    }
    filter
}

/// Table 19, 20 or 21; its number is also the preference of the rules that ask it.
fn table(config: &Config, which: u32) -> TableId {
    TableId(config.numbers.table_base.0.saturating_add(which))
}
