//! The way from one state of a host to another, in an order that is safe at every step.
//!
//! What is new comes in the order packet filter, settings, addresses, proxy neighbours, routes, rules; then
//! the table local moves; then what is old goes in the opposite order. So nothing attracts or forwards packets without the filter, no rule ever
//! asks an empty table, table local moves only while the keep rules stand, and at every moment it is asked
//! somewhere.

use std::cmp::Reverse;

use super::forwarding::{SWITCHES, written_over};
use super::links::KERNEL_LOCAL_PREF;
use super::operation::Lookup;
use super::resource::{Filter, HostState, LocalTable, Resource, Route, Rule, Setting};
use crate::config::units::{Family, Prefix, TableId};
use crate::sorted::{Set, sort_by_key};

/// One step between two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Give a setting this value, or put this packet filter in the place of the one before.
    /// A setting is never removed: it goes back to its value of the baseline.
    Put(Resource),
    /// Put this route in the place of the one of the same table and destination.
    Replace(Route),
    /// Add an address, a proxy neighbour, a route, a rule, or the rule `from all lookup local` at this preference.
    Add(Resource),
    /// Remove one.
    Remove(Resource),
    /// Go on only when the kernel answers so.
    Verify(Lookup),
}

/// The steps from one state to another.
///
/// What is borrowed (settings, the place of table local) and is named by `from` alone is left as
/// it is; it goes back when `to` names the baseline's value.
pub fn diff(from: &HostState, to: &HostState) -> Vec<Change> {
    let parts = Parts::of(from, to);
    let mut changes = Vec::new();
    let put = |setting: Setting| Change::Put(Resource::Setting(setting));
    changes.extend(parts.put_filters.into_iter().map(Change::Put));
    changes.extend(parts.raised.into_iter().map(put));
    changes.extend(parts.added_addresses.into_iter().map(Change::Add));
    changes.extend(parts.added_neighbours.into_iter().map(Change::Add));
    for (route, replaces) in parts.added_routes {
        changes.push(if replaces {
            Change::Replace(route)
        } else {
            Change::Add(Resource::Route(route))
        });
    }
    changes.extend(parts.added_rules.into_iter().map(Change::Add));
    for family in [Family::V4, Family::V6] {
        move_local(&mut changes, family, from, to);
    }
    let routes = parts.removed_routes.into_iter().map(Resource::Route);
    changes.extend(parts.removed_rules.into_iter().rev().map(Change::Remove));
    changes.extend(routes.rev().map(Change::Remove));
    let neighbours = parts.removed_neighbours.into_iter();
    changes.extend(neighbours.rev().map(Change::Remove));
    let addresses = parts.removed_addresses.into_iter();
    changes.extend(addresses.rev().map(Change::Remove));
    changes.extend(parts.lowered.into_iter().rev().map(put));
    changes.extend(parts.removed_filters.into_iter().map(Change::Remove));
    say_after_switches(&mut changes, to);
    changes
}

/// What a switch of forwarding writes over is said after it, even where it was right before.
fn say_after_switches(changes: &mut Vec<Change>, to: &HostState) {
    let said = |changes: &[Change], key: &str| {
        let puts = |c: &Change| matches!(c, Change::Put(Resource::Setting(s)) if s.key == key);
        changes.iter().position(puts)
    };
    for switch in settings(to).filter(|s| SWITCHES.contains(&s.key.as_str())) {
        if said(changes, &switch.key).is_none() {
            continue;
        }
        for setting in settings(to) {
            let Some((by, written)) = written_over(&setting.key, switch.value != "0") else {
                continue;
            };
            let before = said(changes, &setting.key);
            if by != switch.key || (before.is_none() && setting.value == written) {
                continue;
            }
            if let Some(before) = before {
                changes.remove(before);
            }
            if let Some(at) = said(changes, &switch.key) {
                let put = Change::Put(Resource::Setting(setting.clone()));
                changes.insert(at + 1, put);
            }
        }
    }
}

/// The differences, by kind and each in the order of building up.
#[derive(Default)]
struct Parts {
    raised: Vec<Setting>,
    lowered: Vec<Setting>,
    added_addresses: Vec<Resource>,
    removed_addresses: Vec<Resource>,
    added_neighbours: Vec<Resource>,
    removed_neighbours: Vec<Resource>,
    added_routes: Vec<(Route, bool)>,
    removed_routes: Vec<Route>,
    put_filters: Vec<Resource>,
    removed_filters: Vec<Resource>,
    added_rules: Vec<Resource>,
    removed_rules: Vec<Resource>,
}

impl Parts {
    fn of(from: &HostState, to: &HostState) -> Self {
        let mut parts = Self::default();
        for resource in to.iter().filter(|resource| !from.contains(resource)) {
            match resource {
                Resource::Setting(setting) => {
                    if raises(setting, from) {
                        parts.raised.push(setting.clone());
                    } else {
                        parts.lowered.push(setting.clone());
                    }
                }
                Resource::Address(_) => parts.added_addresses.push(resource.clone()),
                Resource::Neighbour(_) => parts.added_neighbours.push(resource.clone()),
                Resource::Route(route) => {
                    let replaces = routes(from).any(|old| same_place(old, route));
                    parts.added_routes.push((route.clone(), replaces));
                }
                Resource::Filter(_) => parts.put_filters.push(resource.clone()),
                Resource::Rule(_) => parts.added_rules.push(resource.clone()),
                Resource::LocalTable(_) => {}
            }
        }
        for resource in from.iter().filter(|resource| !to.contains(resource)) {
            match resource {
                Resource::Address(_) => parts.removed_addresses.push(resource.clone()),
                Resource::Neighbour(_) => parts.removed_neighbours.push(resource.clone()),
                Resource::Route(route) => {
                    if !routes(to).any(|new| same_place(route, new)) {
                        parts.removed_routes.push(route.clone());
                    }
                }
                Resource::Filter(filter) => {
                    if !filters(to).any(|new| new.tunnel == filter.tunnel) {
                        parts.removed_filters.push(resource.clone());
                    }
                }
                Resource::Rule(_) => parts.removed_rules.push(resource.clone()),
                Resource::Setting(_) | Resource::LocalTable(_) => {}
            }
        }
        // A next hop must be known before the route by it: the longer prefixes first.
        let place = |route: &Route| (route.table, Reverse(route.destination.length()));
        sort_by_key(&mut parts.added_routes, |(route, _)| place(route));
        sort_by_key(&mut parts.removed_routes, place);
        sort_by_key(&mut parts.raised, setting_order);
        sort_by_key(&mut parts.lowered, setting_order);
        parts
    }
}

/// `accept_ra=2` is set before IPv6 forwarding, which would forget the routers otherwise; the rest
/// by name.
fn setting_order(setting: &Setting) -> (bool, String) {
    (!setting.key.ends_with(".accept_ra"), setting.key.clone())
}

/// True when the value grows, or is no number: all our settings are raised on the way up and
/// lowered on the way back.
fn raises(setting: &Setting, from: &HostState) -> bool {
    let number = |value: &str| value.trim().parse::<i64>().ok();
    let before = settings(from).find(|old| old.key == setting.key);
    match (
        before.and_then(|old| number(&old.value)),
        number(&setting.value),
    ) {
        (Some(before), Some(after)) => after > before,
        (None, _) | (_, None) => true,
    }
}

/// Two routes of one table to one destination with one metric: the kernel keeps one of them.
fn same_place(a: &Route, b: &Route) -> bool {
    a.table == b.table && a.destination == b.destination && a.metric == b.metric
}

/// Moves the rule `from all lookup local` of a family: the new one is added before the old goes.
///
/// The look-ups before the old one goes say that this host holds the address and that the kernel
/// knows how to answer for a port; those after it, that the keep rules catch each kept port. Had
/// the second only been asked before, the rule at preference 0 would have answered it.
fn move_local(changes: &mut Vec<Change>, family: Family, from: &HostState, to: &HostState) {
    let wanted = locals(to, family);
    if wanted.is_empty() {
        return;
    }
    let mut present = locals(from, family);
    if present.is_empty() {
        present.insert(LocalTable {
            family,
            pref: KERNEL_LOCAL_PREF,
        });
    }
    if wanted == present {
        return;
    }
    let lookups = || kept_lookups(to, family).map(Change::Verify);
    for table in wanted.difference(&present) {
        changes.push(Change::Add(Resource::LocalTable(table.clone())));
    }
    changes.extend(lookups());
    for table in present.difference(&wanted) {
        changes.push(Change::Remove(Resource::LocalTable(table.clone())));
    }
    changes.extend(lookups());
}

fn locals(state: &HostState, family: Family) -> Set<LocalTable> {
    state
        .iter()
        .filter_map(|resource| match resource {
            Resource::LocalTable(table) if table.family == family => Some(table.clone()),
            Resource::Setting(_)
            | Resource::Address(_)
            | Resource::Neighbour(_)
            | Resource::Route(_)
            | Resource::Filter(_)
            | Resource::Rule(_)
            | Resource::LocalTable(_) => None,
        })
        .collect()
}

/// One look-up for each keep rule; for a range, its first port.
fn kept_lookups(state: &HostState, family: Family) -> impl Iterator<Item = Lookup> {
    rules(state).filter_map(move |rule| {
        let kept = rule.family == family && rule.table == TableId::LOCAL;
        let to = rule.to.filter(Prefix::is_host)?.address();
        let port = rule.protocol.zip(rule.ports.map(|(first, _)| first))?;
        kept.then_some(Lookup {
            to,
            iif: None,
            port: Some(port),
            table: TableId::LOCAL,
        })
    })
}

fn settings(state: &HostState) -> impl Iterator<Item = &Setting> {
    state.iter().filter_map(|resource| match resource {
        Resource::Setting(setting) => Some(setting),
        Resource::Address(_)
        | Resource::Neighbour(_)
        | Resource::Route(_)
        | Resource::Filter(_)
        | Resource::Rule(_)
        | Resource::LocalTable(_) => None,
    })
}

pub(super) fn routes(state: &HostState) -> impl Iterator<Item = &Route> {
    state.iter().filter_map(|resource| match resource {
        Resource::Route(route) => Some(route),
        Resource::Setting(_)
        | Resource::Address(_)
        | Resource::Neighbour(_)
        | Resource::Filter(_)
        | Resource::Rule(_)
        | Resource::LocalTable(_) => None,
    })
}

pub(super) fn rules(state: &HostState) -> impl Iterator<Item = &Rule> {
    state.iter().filter_map(|resource| match resource {
        Resource::Rule(rule) => Some(rule),
        Resource::Setting(_)
        | Resource::Address(_)
        | Resource::Neighbour(_)
        | Resource::Route(_)
        | Resource::Filter(_)
        | Resource::LocalTable(_) => None,
    })
}

fn filters(state: &HostState) -> impl Iterator<Item = &Filter> {
    state.iter().filter_map(|resource| match resource {
        Resource::Filter(filter) => Some(filter),
        Resource::Setting(_)
        | Resource::Address(_)
        | Resource::Neighbour(_)
        | Resource::Route(_)
        | Resource::Rule(_)
        | Resource::LocalTable(_) => None,
    })
}

#[cfg(test)]
mod tests;
