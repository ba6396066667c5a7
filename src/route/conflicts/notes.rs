//! What works as it is meant to, and may still surprise.

use super::border::networks;
use super::{is_freebsd, warn};
use crate::config::units::{Family, Prefix, TableId};
use crate::config::{Config, Deliver, Role, Warning, WithoutTunnel};
use crate::route::border::uplinks;
use crate::route::link;
use crate::route::links::Observed;

/// What stays outside of the tunnel by the way the public address is handed over, and the addresses by
/// which the VPS is reached from home.
pub fn notes(config: &Config, observed: &Observed) -> Vec<Warning> {
    let mut notes = Vec::new();
    let public = words(config.public.iter());
    let inside = words(config.public.iter().map(|public| {
        let family = Family::of(public);
        match config.role {
            Role::Local(_) => link::tunnel_peer(config, family),
            Role::Remote(_) => link::tunnel_own(config, family),
        }
    }));
    match &config.role {
        Role::Remote(role) if !role.keep.is_empty() => {
            let kept = words(role.keep.iter());
            let text = format!(
                "with deliver = \"client\" at home, {kept} of this host is reached from there at {inside}, not at {public}, which is the client's there"
            );
            warn(&mut notes, "keep", text);
        }
        Role::Local(role) => match role.deliver {
            Deliver::Nat { .. } => {
                if role.without_tunnel == WithoutTunnel::Direct {
                    warn(
                        &mut notes,
                        "without_tunnel",
                        "while the tunnel is down, the LAN leaves by the default route, in clear",
                    );
                }
                own(&mut notes, config, observed);
            }
            Deliver::Client { .. } | Deliver::Nothing => {
                let text = format!(
                    "what the VPS keeps, like its ssh, is reached from here at {inside}, not at {public}, which belongs to this side"
                );
                warn(&mut notes, "public_address", text);
                outside(&mut notes, config, observed, &public);
                led_out(&mut notes, config, observed, &role.deliver);
            }
        },
        Role::Remote(_) => {}
    }
    notes
}

/// What this host sends itself.
fn own(notes: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    if config.manage_routing && config.public.v4.is_some() {
        let text = if is_freebsd(observed) {
            "of what this host sends itself only questions to name servers (ports 53 and 853, by IPv4) use the tunnel; all else leaves by a link, in clear, unless no link has a default route"
        } else {
            "of what this host sends itself only IPv4 uses the tunnel, and only from programs that choose no source address; IPv6 and the others leave by a link, in clear"
        };
        warn(notes, "deliver", text);
    }
}

/// The networks beside the client.
fn outside(notes: &mut Vec<Warning>, config: &Config, observed: &Observed, public: &str) {
    // With "none" the administrator routes, and knows what.
    if link::delivery_devices(config).is_empty() {
        return;
    }
    let found = networks(config, observed, link::delivery_devices(config));
    if found.is_empty() {
        return;
    }
    let devices = found.iter().map(|(device, _)| format!("\"{device}\""));
    let devices: Vec<_> = devices.collect();
    let places = found.iter();
    let places = places.map(|(device, networks)| format!("{networks} behind {device}"));
    let places = places.collect::<Vec<_>>().join(", ");
    warn(
        notes,
        "client",
        format!(
            "only {public} uses the tunnel; outside of it: {places}; to change that: deliver = \"nat\", lan = {{ devices = [{}] }}",
            devices.join(", ")
        ),
    );
}

/// With "none" a route of the administrator leads to the client, and one for just its address that a link's DHCP
/// server gave looks the same.
fn led_out(notes: &mut Vec<Warning>, config: &Config, observed: &Observed, deliver: &Deliver) {
    let uplinks = uplinks(config, observed);
    let routes = observed.foreign_routes.iter();
    for route in routes.filter(|_| *deliver == Deliver::Nothing) {
        let (to, device) = (route.destination, route.device.as_deref());
        let is_public = config.public.iter().any(|it| to == Prefix::host(it));
        let link = uplinks.iter().find(|it| device == Some(it.as_str()));
        if let Some(link) = link.filter(|_| is_public && route.table == TableId::MAIN.0) {
            let text = format!(
                "a route of table main leads to {} by the link {link}: what comes for it by the tunnel leaves there, in clear; if a DHCP server gave that route, give the one to the client a lower metric",
                to.address()
            );
            warn(notes, "deliver", text);
        }
    }
}

fn words<T: ToString>(all: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = all.map(|it| it.to_string()).collect();
    all.join(" and ")
}
