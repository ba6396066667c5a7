//! What stands in the way of a configuration on a host: questions of `netcombiner check`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::diff::{routes, rules};
use super::link;
use super::links::{Observed, device_setting};
use super::resource::HostState;
use crate::config::units::{Family, Prefix, TableId};
use crate::config::{Config, Role, Warning};

/// Everything about this host that will not work, or not as one thinks.
pub fn conflicts(config: &Config, observed: &Observed) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let state = super::desired(config, observed);
    numbers(&mut warnings, config);
    occupied(&mut warnings, &state, observed);
    marks(&mut warnings, config, observed);
    public_address(&mut warnings, config, observed);
    devices(&mut warnings, config, observed);
    reverse_path(&mut warnings, config, observed);
    warnings
}

fn warn(warnings: &mut Vec<Warning>, place: impl Into<String>, text: impl Into<String>) {
    warnings.push(Warning {
        place: place.into(),
        text: text.into(),
    });
}

/// The order of our own preferences: kept ports, links, the tunnel.
fn numbers(warnings: &mut Vec<Warning>, config: &Config) {
    let numbers = &config.numbers;
    let base = numbers.table_base.0;
    for (name, pref) in [
        ("keep_pref", numbers.keep_pref),
        ("link_pref", numbers.link_pref),
    ] {
        if pref.0 == 0 || pref.0 >= base {
            warn(
                warnings,
                name,
                format!(
                    "{pref} is not between 0 and table_base ({base}): its rules would not be asked before the tunnel's"
                ),
            );
        }
    }
    // Table main is asked at 32766 (kernel); a rule below it is never reached by what has a route.
    const MAIN_PREF: u32 = 32766;
    if base.saturating_add(2) >= MAIN_PREF {
        warn(
            warnings,
            "table_base",
            format!("{base} leaves no place before table main, which is asked at {MAIN_PREF}"),
        );
    }
}

/// Our preferences and tables in the hands of somebody else.
fn occupied(warnings: &mut Vec<Warning>, state: &HostState, observed: &Observed) {
    let ours: BTreeSet<_> = rules(state)
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
    let tables: BTreeSet<_> = routes(state)
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

/// Somebody else's rules that look at bits of our mark.
fn marks(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
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
                "the rule at preference {} looks for the mark {mark:#x}/{mask:#x}, which shares bits with ours ({ours:#x})",
                rule.pref
            ),
        );
    }
}

/// Who holds the public address.
fn public_address(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    for address in config.public.iter() {
        let holder = observed.holders(address).next();
        match (&config.role, holder) {
            (Role::Remote(_), None) => {
                let have: Vec<_> = observed
                    .links
                    .iter()
                    .flat_map(|link| link.addresses_of(Family::of(address)))
                    .map(|prefix| prefix.address().to_string())
                    .collect();
                let have = if have.is_empty() {
                    "none of this family".to_owned()
                } else {
                    have.join(", ")
                };
                warn(
                    warnings,
                    "public_address",
                    format!(
                        "no interface of this host holds {address} (they hold {have}); behind a cloud's 1:1 NAT name the private address here, and the public one as `remote` on the local portal"
                    ),
                );
            }
            (Role::Local(_), Some(link)) => warn(
                warnings,
                "public_address",
                format!(
                    "{} of this router holds {address}, which belongs to the client: remove it there",
                    link.device
                ),
            ),
            (Role::Remote(_), Some(_)) | (Role::Local(_), None) => {}
        }
    }
}

/// Links and the client's device: there, up, with a way out, and apart from each other.
fn devices(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    for (index, configured) in config.links.iter().enumerate() {
        let device = &configured.device;
        let place = format!("link[{index}].device");
        match observed.link(device) {
            None => warn(warnings, place, format!("there is no device {device}")),
            Some(link) if !link.up => warn(warnings, place, format!("{device} is down")),
            Some(_) => {}
        }
        if link::delivery_device(config) == Some(device) {
            warn(
                warnings,
                format!("link[{index}].device"),
                format!("{device} is the client's device too"),
            );
        }
    }
    let used = link::used(config, observed);
    for used in &used {
        if link::FAMILIES
            .iter()
            .all(|family| used.hop(*family).is_none())
        {
            let device = &used.link.device;
            warn(
                warnings,
                "link",
                format!(
                    "{device} has no address with a way out: no default route leaves by it, and no `gateway` is given"
                ),
            );
        }
    }
    if used.is_empty() && matches!(config.role, Role::Local(_)) && config.links.is_empty() {
        warn(
            warnings,
            "link",
            "no device has a default route, and none is configured",
        );
    }
    if let Some(device) = link::delivery_device(config) {
        if observed.link(device).is_none() {
            warn(
                warnings,
                "client.device",
                format!("there is no device {device}"),
            );
        }
    }
    let mut owners: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for used in &used {
        for prefix in used.link.addresses.iter().map(Prefix::address) {
            owners
                .entry(prefix)
                .or_default()
                .push(used.link.device.as_str());
        }
    }
    for (address, devices) in owners.iter().filter(|(_, devices)| devices.len() > 1) {
        warn(
            warnings,
            "link",
            format!(
                "{} all hold {address}: what the kernel itself sends from there leaves by the first of them",
                devices.join(", ")
            ),
        );
    }
}

/// Strict reverse-path filters that we do not loosen.
fn reverse_path(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    if config.manage_routing {
        return;
    }
    let all = observed.number(&device_setting(Family::V4, "all", "rp_filter"));
    for used in link::used(config, observed) {
        let key = device_setting(Family::V4, used.link.device.as_str(), "rp_filter");
        if observed.number(&key).max(all) == Some(1) {
            warn(
                warnings,
                "manage_routing",
                format!(
                    "the reverse-path filter of {} is strict and drops what comes back by it: `sysctl -w {key}=2`",
                    used.link.device
                ),
            );
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip -4",
        Family::V6 => "ip -6",
    }
}
