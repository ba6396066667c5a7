//! Routes of others that our rules hide from the LAN.

use crate::sorted::Set;

use super::{ip, warn};
use crate::config::units::{Prefix, TableId};
use crate::config::{Config, Warning};
use crate::route::diff::rules;
use crate::route::link;
use crate::route::links::{ForeignRule, Observed};
use crate::route::resource::HostState;

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
    let connected: Set<Prefix> = observed
        .links
        .iter()
        .flat_map(|link| link.addresses.iter().map(Prefix::network))
        .collect();
    for (ours, lan) in takes_all {
        let asks = |rule: &&ForeignRule| rule.family == ours.family && rule.table.is_some();
        let foreign = || observed.foreign_rules.iter().filter(asks);
        for rule in foreign().filter(|rule| rule.pref > ours.pref.0) {
            let table = rule.table.unwrap_or_default();
            let is_before = |it: &ForeignRule| it.pref < ours.pref.0 && it.table == rule.table;
            if TableId(table) == TableId::MAIN || foreign().any(is_before) {
                continue;
            }
            let mut prefixes: Vec<String> = observed
                .foreign_routes
                .iter()
                .filter(|it| it.table == table && it.destination.family() == ours.family)
                .map(|it| it.destination)
                .filter(|it| it.length() > HALF && !connected.contains(it))
                .map(|it| it.to_string())
                .collect();
            if prefixes.is_empty() {
                continue;
            }
            let more = prefixes.len().saturating_sub(MOST_NAMED);
            prefixes.truncate(MOST_NAMED);
            let mut named = prefixes.join(", ");
            if more > 0 {
                named.push_str(&format!(" and {more} more"));
            }
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
