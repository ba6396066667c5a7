//! What this host did not forward before us it does not forward now: pf has no chain for what is
//! forwarded, so what comes in for somebody else has a tag, and does not leave with it.

use super::anchor::{Rules, on_link, word};
use super::steps::delivers;
use crate::config::units::Family;
use crate::config::{Config, Role, WithoutTunnel};
use crate::route::forwarding::freebsd_switch;
use crate::route::link;
use crate::route::links::{BRIDGED, Observed, ObservedLink};

/// Adds the rules of a family. They stand after all that passes what is ours.
pub(super) fn close(rules: &mut Rules, config: &Config, observed: &Observed, family: Family) {
    let was_off = observed.number(freebsd_switch(family)) == Some(0);
    let is_ours = config.public.iter().any(|it| Family::of(it) == family);
    if !was_off || !is_ours || !delivers(config) || !observed.forwarders.is_empty() {
        return;
    }
    // Without the tunnel these leave by a link.
    let direct = matches!(
        &config.role,
        Role::Local(role) if role.without_tunnel == WithoutTunnel::Direct && observed.tunnel_down
    );
    let leaves =
        |link: &&ObservedLink| !direct || !link::delivery_devices(config).contains(&link.device);
    // What a bridge's ports get from each other is not forwarded.
    let devices: Vec<_> = observed
        .links
        .iter()
        .filter(|it| it.kind != BRIDGED)
        .collect();
    let (bridges, others): (Vec<_>, Vec<_>) = devices
        .iter()
        .copied()
        .filter(leaves)
        .partition(|it| it.kind == "bridge");
    rules.say("what this host did not forward before, it does not forward now");
    let tag = format!("{}-others", rules.tag);
    shut(rules, family, &others, &devices, &tag);
    // What a bridge passes on may come in and go out by the bridge itself.
    for bridge in bridges {
        let tag = format!("{}-by-{}", rules.tag, bridge.device);
        let elsewhere = devices.iter().filter(|it| it.device != bridge.device);
        let elsewhere: Vec<_> = elsewhere.copied().collect();
        shut(rules, family, &[bridge], &elsewhere, &tag);
    }
}

/// What comes by `from` for somebody else does not leave by `to`.
fn shut(
    rules: &mut Rules,
    family: Family,
    from: &[&ObservedLink],
    to: &[&ObservedLink],
    tag: &str,
) {
    if from.is_empty() || to.is_empty() {
        return;
    }
    let names = |links: &[&ObservedLink]| {
        let names: Vec<_> = links.iter().map(|link| link.device.as_str()).collect();
        format!("{{ {} }}", names.join(" "))
    };
    let (inet, from, to) = (word(family), names(from), names(to));
    rules.tag(format!(
        "in on {from} {inet} from any to ! (self) tag {tag}"
    ));
    if family == Family::V6 {
        // An answer may have the tag of its question.
        let on_link = on_link(family);
        rules.tag(format!(
            "in on {from} {inet} from any to {{ {on_link} }} tag {tag}-here"
        ));
    }
    rules.block(format!("out quick on {to} {inet} tagged {tag}"));
}
