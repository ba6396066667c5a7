//! What works as it is meant to, and not as everybody expects.

use super::border::networks;
use super::warn;
use crate::config::units::Family;
use crate::config::{Config, Deliver, Role, Warning};
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
            warn(
                &mut notes,
                "keep",
                format!(
                    "with deliver = \"client\" at home, {kept} of this host is reached from there at {inside}; {public} is the client itself"
                ),
            );
        }
        Role::Local(role) if !matches!(role.deliver, Deliver::Nat { .. }) => {
            warn(
                &mut notes,
                "public_address",
                format!(
                    "what the VPS keeps, like its ssh, is reached from here at {inside}; {public} is the client itself"
                ),
            );
            if let Deliver::Client { .. } = role.deliver {
                outside(&mut notes, config, observed, &public);
            }
        }
        Role::Local(_) | Role::Remote(_) => {}
    }
    notes
}

/// The networks beside the client.
fn outside(notes: &mut Vec<Warning>, config: &Config, observed: &Observed, public: &str) {
    let found = networks(config, observed, link::delivery_devices(config));
    if found.is_empty() {
        return;
    }
    let devices = found.iter().map(|(device, _)| format!("\"{device}\""));
    let devices: Vec<_> = devices.collect();
    let places = words(
        found
            .iter()
            .map(|(device, networks)| format!("{networks} behind {device}")),
    );
    warn(
        notes,
        "client",
        format!(
            "only {public} uses the tunnel; not {places}: for them, deliver = \"nat\" and lan = {{ devices = [{}] }}",
            devices.join(", ")
        ),
    );
}

fn words<T: ToString>(all: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = all.map(|it| it.to_string()).collect();
    all.join(" and ")
}
