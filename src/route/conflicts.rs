//! What stands in the way of a configuration on a host: questions of `netcombiner check`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::diff::{routes, rules};
use super::links::{Observed, device_setting};
use super::resource::HostState;
use super::{link, reach};
use crate::config::units::{Family, Prefix, TableId};
use crate::config::{Config, Role, Warning};

/// Everything about this host that will not work, or not as one thinks.
pub fn conflicts(config: &Config, observed: &Observed) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let state = super::desired(config, observed);
    occupied(&mut warnings, &state, observed);
    marks(&mut warnings, config, observed);
    public_address(&mut warnings, config, observed);
    devices(&mut warnings, config, observed);
    reverse_path(&mut warnings, config, observed);
    reach::listeners(&mut warnings, config, observed);
    warnings
}

fn warn(warnings: &mut Vec<Warning>, place: impl Into<String>, text: impl Into<String>) {
    warnings.push(Warning {
        place: place.into(),
        text: text.into(),
    });
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
            (Role::Remote(_), None) if observed.has_on_loopback(address) => {}
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
        let place = format!("link[{}].device", index + 1);
        match observed.link(device) {
            None => warn(warnings, place, format!("there is no device {device}")),
            Some(link) if !link.up => warn(warnings, place, format!("{device} is down")),
            Some(_) => {}
        }
        if link::delivery_device(config) == Some(device) {
            warn(
                warnings,
                format!("link[{}].device", index + 1),
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
    if let Some(device) = link::delivery_device(config)
        && observed.link(device).is_none()
    {
        warn(
            warnings,
            "client.device",
            format!("there is no device {device}"),
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;
    use crate::route::links::{ForeignRoute, ForeignRule};

    /// One warning of `conflicts` that says this word.
    fn said(config: &Config, observed: &Observed, place: &str, word: &str) {
        let warnings = conflicts(config, observed);
        assert!(
            warnings
                .iter()
                .any(|warning| warning.place == place && warning.text.contains(word)),
            "{place}: {word} is not in {warnings:#?}"
        );
    }

    #[test]
    fn good_hosts_have_none() {
        for (config, observed) in [
            (cases::remote(), cases::vps()),
            (cases::local_client(), cases::router()),
            (cases::local_nat(), cases::router()),
        ] {
            assert_eq!(conflicts(&config, &observed), []);
        }
    }

    #[test]
    fn preferences_tables_and_marks_of_others() {
        let rule = |pref, mark| ForeignRule {
            family: Family::V4,
            pref,
            table: Some(7),
            mark,
        };
        let mut observed = cases::vps();
        observed.foreign_rules = vec![rule(19, None), rule(5210, Some((0x0200_0000, 0xff00_0000)))];
        observed.foreign_routes = vec![ForeignRoute {
            table: 19,
            destination: "10.0.0.0/8".parse().unwrap(),
            device: None,
        }];
        let config = cases::remote();
        said(&config, &observed, "table_base", "preference 19");
        said(&config, &observed, "table_base", "table 19 already");
        said(&config, &observed, "mark_mask", "preference 5210");
        let moved = Config {
            numbers: cases::moved(),
            ..config
        };
        let left = conflicts(&moved, &observed);
        assert!(left.iter().all(|w| w.place == "mark_mask"), "{left:#?}");
    }

    #[test]
    fn the_public_address_is_the_vpss_and_nobody_elses() {
        let mut observed = cases::vps();
        observed.links[0].addresses = vec!["10.0.0.5/24".parse().unwrap()];
        said(&cases::remote(), &observed, "public_address", "10.0.0.5");
        let mut observed = cases::router();
        observed.links[0]
            .addresses
            .push("203.0.113.2/32".parse().unwrap());
        said(
            &cases::local_client(),
            &observed,
            "public_address",
            "lan of this router",
        );
        observed.foreign_routes = vec![ForeignRoute {
            table: TableId::MAIN.0,
            destination: "203.0.113.2/32".parse().unwrap(),
            device: Some("wan0".into()),
        }];
        said(
            &cases::local_client(),
            &observed,
            "public_address",
            "table main",
        );
    }

    #[test]
    fn links_without_a_way_out() {
        let mut config = cases::local_client();
        config.links = ["wan0", "wan1", "wan2", "lan"].map(cases::link).to_vec();
        let mut observed = cases::router();
        observed.links[1].up = false;
        observed.links[2].gateways.clear();
        said(&config, &observed, "link[1].device", "wan0 is down");
        said(
            &config,
            &observed,
            "link",
            "wan1 has no address with a way out",
        );
        said(&config, &observed, "link[3].device", "no device wan2");
        said(&config, &observed, "link[4].device", "client's device");
        config.links.clear();
        observed.links.truncate(1);
        said(&config, &observed, "link", "no device has a default route");
        observed.links.clear();
        said(&config, &observed, "client.device", "no device lan");
    }

    #[test]
    fn one_address_on_two_links() {
        let mut observed = cases::router();
        observed.links[2].addresses = observed.links[1].addresses.clone();
        said(
            &cases::local_client(),
            &observed,
            "link",
            "wan0, wan1 all hold 198.51.100.7",
        );
    }

    #[test]
    fn strict_filters_that_are_left_alone() {
        let config = Config {
            manage_routing: false,
            ..cases::local_client()
        };
        said(
            &config,
            &cases::router(),
            "manage_routing",
            "net.ipv4.conf.wan1.rp_filter=2",
        );
    }
}
