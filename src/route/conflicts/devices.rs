//! Links and the client's device, and the filters of the links.

use std::net::IpAddr;

use super::warn;
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Config, Role, Warning};
use crate::route::link;
use crate::route::links::{Observed, device_setting};
use crate::sorted::Map;

/// Links and the client's device: there, up, with a way out, and apart from each other.
pub(super) fn devices(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let is_nat = link::shares_address(config);
    for (index, configured) in config.links.iter().enumerate() {
        let device = &configured.device;
        let place = format!("link[{}].device", index + 1);
        match observed.link(device) {
            None => warn(warnings, &*place, absent(device, observed)),
            Some(link) if !link.up => warn(warnings, &*place, down(device)),
            Some(_) => {}
        }
        if link::delivery_devices(config).contains(device) {
            warn(
                warnings,
                place,
                match is_nat {
                    true => format!("{device} is a device of `lan` too"),
                    false => format!("{device} is the client's device too"),
                },
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
            "no device has a default route, so there is no link: connect one, or name it in a [[link]] with its gateway",
        );
    }
    let place = match is_nat {
        true => "lan",
        false => "client.device",
    };
    for device in link::delivery_devices(config) {
        match observed.link(device) {
            None => warn(warnings, place, absent(device, observed)),
            Some(link) if !link.up => warn(warnings, place, down(device)),
            Some(_) => {}
        }
    }
    let mut owners: Map<IpAddr, Vec<&str>> = Map::new();
    for used in &used {
        for prefix in used.link.addresses.iter().map(Prefix::address) {
            owners
                .get_or_insert_with(prefix, Vec::new)
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

fn down(device: &IfName) -> String {
    let line = if cfg!(target_os = "freebsd") {
        format!("ifconfig {device} up")
    } else {
        format!("ip link set {device} up")
    };
    format!("{device} is down: `{line}`, or look at its cable")
}

/// Names what there is instead.
fn absent(device: &IfName, observed: &Observed) -> String {
    const MOST: usize = 12;
    let links = observed.links.iter().take(MOST);
    let names: Vec<_> = links.map(|link| link.device.as_str()).collect();
    match names.is_empty() {
        true => format!("there is no device {device}, nor any other"),
        false => format!("there is no device {device}; there is {}", names.join(", ")),
    }
}

/// Strict reverse-path filters that we do not loosen.
pub(super) fn reverse_path(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
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
