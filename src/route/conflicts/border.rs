//! What stays outside of the tunnel, and what is open through it.

use std::net::IpAddr;

use super::warn;
use crate::config::units::Prefix;
use crate::config::{Config, Deliver, NativeV6, Role, Warning};
use crate::route::link;
use crate::route::links::{Observed, ObservedLink};

pub(super) fn border(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let Role::Local(local) = &config.role else {
        return;
    };
    let nat = matches!(local.deliver, Deliver::Nat { .. });
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
    let lan = link::delivery_device(config).and_then(|device| observed.link(device));
    let leaves = |link: &&ObservedLink| link.gateways.iter().any(IpAddr::is_ipv6);
    let goes_around = lan.is_some_and(|lan| lan.addresses.iter().any(is_global_v6))
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

/// Private networks that do not use the tunnel.
fn outside(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let is_lan = |link: &&ObservedLink| {
        let links = || config.links.iter().map(|link| &link.device);
        link.up
            && !link.has_default()
            && !link.point_to_point
            && Some(&link.device) != link::delivery_device(config)
            && !links().any(|device| *device == link.device)
    };
    for link in observed.links.iter().filter(is_lan) {
        let private: Vec<_> = link
            .addresses
            .iter()
            .filter(|prefix| matches!(prefix.address(), IpAddr::V4(v4) if v4.is_private()))
            .filter(|prefix| !prefix.is_host())
            .map(|prefix| prefix.network().to_string())
            .collect();
        if !private.is_empty() {
            warn(
                warnings,
                "lan",
                format!(
                    "{} behind {} does not use the tunnel",
                    private.join(", "),
                    link.device
                ),
            );
        }
    }
}

/// 2000::/3 (RFC 4291).
fn is_global_v6(prefix: &Prefix) -> bool {
    matches!(prefix.address(), IpAddr::V6(v6) if v6.segments()[0] >> 13 == 1)
}
