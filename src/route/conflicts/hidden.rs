//! Routes of others that our rules hide from the LAN.

use crate::sorted::Set;

use super::{ip, warn};
use crate::config::units::{Prefix, TableId};
use crate::config::{Config, Warning};
use crate::route::beside::is_private;
use crate::route::border::uplinks;
use crate::route::diff::rules;
use crate::route::link;
use crate::route::links::{ForeignRule, Observed};
use crate::route::resource::{HostState, Rule};

/// So many prefixes of a table are named.
const MOST_NAMED: usize = 4;

/// As long as this a prefix is a default route, or one of the two halves that VPNs make of one: these
/// are replaced by the tunnel on purpose.
const HALF: u8 = 1;

/// Tables that rules of others ask after our rule for the LAN, and which so are asked no more: a VPN's
/// subnets there would go into the tunnel.
pub(super) fn hidden(
    warnings: &mut Vec<Warning>,
    config: &Config,
    state: &HostState,
    observed: &Observed,
) {
    let lans = link::delivery_devices(config);
    let takes_all = rules(state).filter_map(|rule| {
        let lan = rule.iif.as_ref().filter(|iif| lans.contains(iif))?;
        let all = rule.from.is_none() && rule.to.is_none();
        (all && rule.suppress_prefix_length.is_none()).then_some((rule, lan))
    });
    let connected = connected(observed);
    for (ours, lan) in takes_all {
        let asks = |rule: &&ForeignRule| rule.family == ours.family && rule.table.is_some();
        let foreign = || observed.foreign_rules.iter().filter(asks);
        for rule in foreign().filter(|rule| rule.pref > ours.pref.0) {
            let table = rule.table.unwrap_or_default();
            let is_before = |it: &ForeignRule| it.pref < ours.pref.0 && it.table == rule.table;
            if TableId(table) == TableId::MAIN || foreign().any(is_before) {
                continue;
            }
            let routes = observed.foreign_routes.iter();
            let prefixes = routes
                .filter(|it| it.table == table && it.destination.family() == ours.family)
                .map(|it| it.destination)
                .filter(|it| it.length() > HALF && !connected.contains(it));
            let Some(named) = named(prefixes) else {
                continue;
            };
            let (family, pref) = (ip(rule.family), rule.pref);
            // Before our look-up of table main, and behind the flows' rules.
            let before = config.numbers.table_base.0.saturating_sub(1);
            warn(
                warnings,
                "table_base",
                format!(
                    "the rule of somebody else at preference {pref} is hidden from the LAN by ours at {}: what the LAN sends to {named} (table {table}) goes into the tunnel; `{family} rule add pref {before} iif {lan} lookup {table} suppress_prefixlength {HALF}` lets it go there",
                    ours.pref
                ),
            );
        }
    }
}

/// Networks to which table main leads by a link, and which the LAN reaches by the tunnel all the same: the
/// owner may have meant it otherwise, or the link's DHCP server.
pub(super) fn beside_links(
    warnings: &mut Vec<Warning>,
    config: &Config,
    state: &HostState,
    observed: &Observed,
) {
    let lans = link::delivery_devices(config);
    let asks_main = |rule: &&Rule| {
        let of_lan = rule.iif.as_ref().is_some_and(|iif| lans.contains(iif));
        of_lan && rule.from.is_none() && rule.table == TableId::MAIN
    };
    let (connected, uplinks) = (connected(observed), uplinks(config, observed));
    for family in link::FAMILIES {
        let Some(ours) = rules(state).find(|rule| asks_main(rule) && rule.family == family) else {
            continue;
        };
        let before = |it: &ForeignRule| {
            it.pref < ours.pref.0 && (it.family, it.table) == (family, Some(TableId::MAIN.0))
        };
        if observed.foreign_rules.iter().any(before) {
            continue;
        }
        let by_link = observed.foreign_routes.iter().filter(|it| {
            let device = it.device.as_deref();
            it.table == TableId::MAIN.0
                && uplinks.iter().any(|uplink| device == Some(uplink.as_str()))
        });
        let destinations: Vec<Prefix> = by_link
            .map(|it| it.destination)
            .filter(|it| it.family() == family && it.length() > HALF && !connected.contains(it))
            .filter(|it| !is_private(it))
            .filter(|it| !config.public.iter().any(|own| *it == Prefix::host(own)))
            .collect();
        let (Some(first), Some(named), Some(lan)) = (
            destinations.first(),
            named(destinations.iter().copied()),
            &ours.iif,
        ) else {
            continue;
        };
        let before = ours.pref.0.saturating_sub(1);
        warn(
            warnings,
            "lan",
            format!(
                "table main leads to {named} by a link, and what the LAN sends there goes into the tunnel all the same; `{} rule add pref {before} iif {lan} to {first} lookup main` lets it leave by the link",
                ip(family)
            ),
        );
    }
}

/// The networks of this host's devices.
fn connected(observed: &Observed) -> Set<Prefix> {
    let links = observed.links.iter();
    let networks = links.flat_map(|link| link.addresses.iter().map(Prefix::network));
    networks.collect()
}

/// Some prefixes, by name as far as they are few; `None`: there are none.
fn named(prefixes: impl Iterator<Item = Prefix>) -> Option<String> {
    let mut prefixes: Vec<String> = prefixes.map(|it| it.to_string()).collect();
    let more = prefixes.len().saturating_sub(MOST_NAMED);
    prefixes.truncate(MOST_NAMED);
    let mut named = prefixes.join(", ");
    if more > 0 {
        named.push_str(&format!(" and {more} more"));
    }
    (!named.is_empty()).then_some(named)
}
