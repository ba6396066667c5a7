//! What the remote portal's host should look like (dissertation 3.3.1): everything to the public
//! address goes into the tunnel, but for what the host keeps.

use std::net::IpAddr;

use super::link;
use super::links::{Observed, device_setting, neighbour_setting};
use super::resource::{Filter, FilterClause, HostState, LocalTable, Resource, Route, Rule};
use crate::config::units::{Family, Prefix, RulePref, TableId};
use crate::config::{Config, Keep, PortProtocol, Remote, Transport};

/// The remote portal's host.
///
/// The look-up order for a packet to the public address: at `keep_pref` (1) the host's own ports
/// and its own connections to table local, at 19 all others to table 19 and so into the tunnel,
/// and only then, at 20, table local. When the tunnel's device is gone table 19 is empty and the
/// look-up falls through to local: the host stays reachable.
pub fn desired(config: &Config, role: &Remote, observed: &Observed) -> HostState {
    let mut state = HostState::new();
    link::tunnel_addresses(&mut state, config);
    if !config.manage_routing {
        return state;
    }
    link::forwarding(&mut state, config, observed);
    for address in config.public.iter() {
        hand_over(&mut state, config, address);
        keep(&mut state, config, role, address);
        answer_arp(&mut state, observed, address);
    }
    state.insert(Resource::Filter(Filter {
        tunnel: config.name.clone(),
        clauses: config
            .public
            .iter()
            .map(|address| FilterClause::MarkOwn {
                address,
                mark: config.numbers.mark,
                mask: config.numbers.mark_mask,
            })
            .collect(),
    }));
    link::tables(&mut state, config, observed);
    link::habits(&mut state, config, observed);
    state
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
        state.insert(Resource::Rule(Rule {
            protocol: Some(keep.protocol),
            ports: Some((keep.first, keep.last)),
            ..to_host.clone()
        }));
    }
    state.insert(Resource::Rule(Rule {
        mark: Some((numbers.mark, numbers.mark_mask)),
        ..to_host
    }));
}

/// Linux answers who has an address by a routing look-up, which here ends in the tunnel: the
/// gateway would lose the host as soon as its ARP entry is old (tried). As a proxy the device
/// answers for what is routed by another one, which is this address; without the proxy's pause of
/// up to 0.8 s. IPv6 looks at the device's own addresses, and needs nothing.
fn answer_arp(state: &mut HostState, observed: &Observed, address: IpAddr) {
    if address.is_ipv4() {
        for holder in observed.holders(address) {
            let device = holder.device.as_str();
            link::set(state, device_setting(Family::V4, device, "proxy_arp"), 1);
            link::set(state, neighbour_setting(device, "proxy_delay"), 0);
        }
    }
}

/// What stays on the host at this address: the configured ports and those where flows are waited
/// for.
pub(super) fn kept(config: &Config, role: &Remote, address: IpAddr) -> Vec<Keep> {
    let listened = config
        .listen
        .iter()
        .filter(|listen| listen.address.is_none_or(|own| own == address))
        .map(|listen| Keep {
            protocol: match listen.transport {
                Transport::Udp => PortProtocol::Udp,
                Transport::Tcp => PortProtocol::Tcp,
            },
            first: listen.port,
            last: listen.port,
        });
    role.keep.iter().copied().chain(listened).collect()
}
