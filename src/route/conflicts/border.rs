//! What stays outside of the tunnel, and what is open through it.

use std::net::IpAddr;

use super::warn;
use crate::config::units::{IfName, Prefix};
use crate::config::{Config, NativeV6, Role, Warning};
use crate::route::beside::is_private;
use crate::route::link;
use crate::route::links::{Observed, ObservedLink};

pub(super) fn border(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let Role::Local(local) = &config.role else {
        return;
    };
    let nat = link::shares_address(config);
    if nat && !local.keep.is_empty() {
        let ports: Vec<_> = local.keep.iter().map(ToString::to_string).collect();
        let public: Vec<_> = config.public.iter().map(|it| it.to_string()).collect();
        warn(
            warnings,
            "keep",
            format!(
                "the whole Internet reaches {} of this router at {}",
                ports.join(", "),
                public.join(" and ")
            ),
        );
    }
    let mut lans = link::delivery_devices(config)
        .iter()
        .filter_map(|device| observed.link(device));
    let leaves = |link: &&ObservedLink| link.gateways.iter().any(IpAddr::is_ipv6);
    let goes_around = lans.any(|lan| lan.addresses.iter().any(is_global_v6))
        && !config.carries_v6()
        && local.native_ipv6 == NativeV6::Allow;
    if let Some(link) = observed.links.iter().find(leaves).filter(|_| goes_around) {
        warn(
            warnings,
            "native_ipv6",
            format!(
                "IPv6 of the LAN goes around the tunnel, by {}: close that way with native_ipv6 = \"block\", or give public_address an IPv6 address too",
                link.device
            ),
        );
    }
    if nat {
        outside(warnings, config, observed);
    }
}

/// Private networks that do not use the tunnel, each with the line that changes it.
fn outside(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    for (device, networks) in networks(config, observed, &[]) {
        let with = link::delivery_devices(config).iter().chain([device]);
        let with: Vec<_> = with.map(|device| format!("\"{device}\"")).collect();
        warn(
            warnings,
            "lan",
            format!(
                "{networks} behind {device} does not use the tunnel; to change that: lan = {{ devices = [{}] }}",
                with.join(", ")
            ),
        );
    }
}

/// The private networks (RFC 1918, RFC 6598) of this router, by their devices: not those of links, and
/// of the devices that the public address is handed to only those of `also`.
pub(super) fn networks<'a>(
    config: &Config,
    observed: &'a Observed,
    also: &[IfName],
) -> Vec<(&'a IfName, String)> {
    let is_lan = |link: &&ObservedLink| {
        let device = &link.device;
        let is_link = config.links.iter().any(|link| link.device == *device);
        let is_delivery = link::delivery_devices(config).contains(device);
        !link.has_any_default() && !is_link && (!is_delivery || also.contains(device))
    };
    let lans = observed.links.iter().filter(is_lan).map(|link| {
        let networks = link.addresses.iter().filter(|it| !it.is_host());
        let networks = networks.filter(|it| is_private_v4(it.address()));
        let networks: Vec<_> = networks.map(|it| it.network().to_string()).collect();
        (&link.device, networks.join(", "))
    });
    lans.filter(|(_, networks)| !networks.is_empty()).collect()
}

fn is_private_v4(address: IpAddr) -> bool {
    let is_routed = matches!(address, IpAddr::V4(v4) if !v4.is_link_local());
    is_routed && is_private(&Prefix::host(address))
}

/// 2000::/3 (RFC 4291).
fn is_global_v6(prefix: &Prefix) -> bool {
    matches!(prefix.address(), IpAddr::V6(v6) if v6.segments()[0] >> 13 == 1)
}
