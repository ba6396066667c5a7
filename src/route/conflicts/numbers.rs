//! Our preferences, tables and marks in the hands of somebody else.

use crate::sorted::Set;

use super::{ip, warn};
use crate::config::units::TableId;
use crate::config::{Config, Role, Warning};
use crate::route::diff::{routes, rules};
use crate::route::links::Observed;
use crate::route::resource::{HostState, Resource};

/// Our preferences and tables in the hands of somebody else.
pub(super) fn occupied(warnings: &mut Vec<Warning>, state: &HostState, observed: &Observed) {
    let ours: Set<_> = rules(state)
        .map(|rule| (rule.family, rule.pref.0))
        .collect();
    for rule in &observed.foreign_rules {
        if ours.contains(&(rule.family, rule.pref)) {
            let asks = rule
                .table
                .map_or_else(String::new, |table| format!(" (it asks table {table})"));
            let family = ip(rule.family);
            warn(
                warnings,
                "table_base",
                format!(
                    "preference {pref} already has a rule of somebody else{asks}: see `{family} rule show pref {pref}`, or move ours with table_base, link_pref or keep_pref",
                    pref = rule.pref
                ),
            );
        }
    }
    let tables: Set<_> = routes(state)
        .map(|route| (route.destination.family(), route.table))
        .filter(|(_, table)| *table != TableId::MAIN)
        .collect();
    for (family, table) in tables {
        let foreign = observed
            .foreign_routes
            .iter()
            .filter(|route| route.table == table.0 && route.destination.family() == family)
            .count();
        if foreign > 0 {
            let family = ip(family);
            warn(
                warnings,
                "table_base",
                format!(
                    "table {table} already holds {foreign} route(s) of somebody else: see `{family} route show table {table}`, or move ours with table_base or link_table_base"
                ),
            );
        }
    }
    for route in routes(state).filter(|route| route.table == TableId::MAIN) {
        for foreign in &observed.foreign_routes {
            if foreign.table == TableId::MAIN.0 && foreign.destination == route.destination {
                let family = ip(route.destination.family());
                warn(
                    warnings,
                    "public_address",
                    format!(
                        "table main already has a route to {} that is not ours: remove it (`{family} route del {}`), flows need none",
                        route.destination.address(),
                        route.destination
                    ),
                );
            }
        }
    }
}

/// Rules of somebody else that are asked before table local from now on, since it moves behind ours.
pub(super) fn before_local(warnings: &mut Vec<Warning>, state: &HostState, observed: &Observed) {
    let places = state.iter().filter_map(|resource| match resource {
        Resource::LocalTable(local) => Some(local),
        Resource::Setting(_)
        | Resource::Address(_)
        | Resource::Neighbour(_)
        | Resource::Route(_)
        | Resource::Filter(_)
        | Resource::Rule(_) => None,
    });
    for local in places {
        // At 0 they stood before the kernel's own, or beside it, already.
        let passed = observed
            .foreign_rules
            .iter()
            .filter(|rule| rule.family == local.family && (1..local.pref.0).contains(&rule.pref));
        for rule in passed {
            let (family, pref, to) = (ip(rule.family), rule.pref, local.pref);
            warn(
                warnings,
                "table_base",
                format!(
                    "the rule of somebody else at preference {pref} will be asked before table local, which moves to {to}, and may take packets for this host's own addresses elsewhere: see `{family} rule show pref {pref}`, or choose a table_base below {pref}"
                ),
            );
        }
    }
}

/// Somebody else's rules that look at bits of our mark.
pub(super) fn marks(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let ours = config.numbers.mark_mask;
    if !matches!(config.role, Role::Remote(_)) {
        return;
    }
    for rule in &observed.foreign_rules {
        let Some((mark, mask)) = rule.mark.filter(|(_, mask)| mask & ours != 0) else {
            continue;
        };
        warn(
            warnings,
            "mark_mask",
            format!(
                "the rule at preference {} looks for the mark {mark:#x}/{mask:#x}, which shares bits with ours ({ours:#x}): choose others with mark and mark_mask",
                rule.pref
            ),
        );
    }
}
