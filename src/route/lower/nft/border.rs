//! The rules of the tunnel's border.
//!
//! What comes out of the tunnel is looked at as it comes, before any translation. What goes in is
//! checked, and counted, by the tunnel alone: it is there whenever its device is.

use std::net::IpAddr;

use super::clauses::{
    CLOSED_DESTINATION_NAT, FORWARD, INPUT, OUTPUT, PREROUTING, comes_by, from, icmp, icmp_echo,
    leaves_by, leaves_by_another_than, port, to,
};
use super::model::{End, Part, Rule, Set, Table, Way, state};
use super::outside;
use crate::config::WithoutTunnel;
use crate::config::units::{Family, IfName, Prefix};
use crate::route::beside::private;
use crate::route::border::{Border, Delivery, Ends, Side};

/// The set of devices that lead to the Internet.
pub(super) const UPLINKS: &str = "uplinks";
/// The set of the LANs' devices.
pub(super) const LANS: &str = "lans";
/// The set of devices between which this host does not forward.
const DEVICES: &str = "routed";

/// Adds the rules and sets of a border.
pub(super) fn add(table: &mut Table, border: &Border) {
    let device = &border.device;
    for ends in &border.ends {
        let family = Family::of(ends.local);
        let allow: Vec<Prefix> = border
            .allow
            .iter()
            .filter(|network| network.family() == family)
            .copied()
            .collect();
        let local = matches!(border.side, Side::Local(_));
        if !allow.is_empty() {
            let set = Set::networks(&named("allow", family), family, &allow);
            table.sets.push(set);
        }
        let mut home = allow.clone();
        home.extend(
            ends.public
                .into_iter()
                .chain([ends.local])
                .map(Prefix::host),
        );
        table
            .sets
            .push(Set::networks(&named("home", family), family, &home));
        if local {
            home_comes(table, device, ends);
            neighbours_do_not_come(table, border, family);
        } else {
            internet_comes(table, device, ends, !allow.is_empty());
            nobody_publishes(table, border, ends);
        }
        outside::router_is_known(table, border, ends);
    }
    if !border.ends.iter().any(|ends| ends.local.is_ipv6()) {
        let v6 = [comes_by(device), Part::Family(Family::V6), Part::Drop];
        table.rule(PREROUTING, v6);
    }
    let sets = [(UPLINKS, &border.uplinks), (DEVICES, &border.devices)];
    for (name, devices) in sets {
        table.sets.push(Set::devices(name, devices));
    }
    host_is_closed(table, border);
    outside::add(table, border);
    match &border.side {
        Side::Remote => {
            for family in families(border) {
                table.rule(
                    FORWARD,
                    [comes_by(device), error(family), related(), Part::Accept],
                );
            }
            for family in allowed(border) {
                let allowed = [comes_by(device), allowed_target(family), Part::Accept];
                table.rule(FORWARD, allowed);
            }
            let elsewhere = by_set(Way::Out, false, UPLINKS);
            table.rule(FORWARD, [comes_by(device), elsewhere, Part::Drop]);
        }
        Side::Local(delivery) => {
            back_out(table, border, delivery);
            deliver(table, border, delivery);
        }
    }
    for lan in &border.no_v6 {
        let v6 = Part::Family(Family::V6);
        let out = by_set(Way::Out, true, UPLINKS);
        table.rule(FORWARD, [comes_by(lan), out, v6, Part::Drop]);
    }
    close(table, border);
}

/// What this host itself takes from the tunnel: answers, pings, and the ports that it keeps; the remote
/// portal at its other addresses what `allow` names, too.
fn host_is_closed(table: &mut Table, border: &Border) {
    let is_remote = border.side == Side::Remote;
    if let Side::Local(Delivery::Client(..)) = border.side {
        // Also where a link's lease has given it to this router.
        for public in border.ends.iter().filter_map(|ends| ends.public) {
            table.rule(INPUT, [comes_by(&border.device), to(public), Part::Drop]);
        }
    }
    let mut known = vec![Part::ConnectionState(state::ESTABLISHED)];
    // On the VPS a session that began by the tunnel goes on, too.
    if !is_remote {
        known.push(Part::FromAnswerer);
    }
    known.push(Part::Accept);
    let mut rules = vec![known];
    for family in [Family::V4, Family::V6] {
        // About what this host sent, as the first to speak or in answer.
        rules.push(vec![error(family), related(), Part::Accept]);
        rules.push(vec![icmp_echo(family), Part::Accept]);
    }
    for keep in &border.keep {
        rules.push(vec![port(keep, End::Destination), Part::Accept]);
    }
    for family in allowed(border).filter(|_| is_remote) {
        rules.push(vec![allowed_target(family), Part::Accept]);
    }
    rules.push(vec![Part::Counter, Part::Drop]);
    for rule in rules {
        let whole = std::iter::once(comes_by(&border.device)).chain(rule);
        table.rule(INPUT, whole.collect::<Rule>());
    }
}

/// What came by the tunnel does not leave by a link again, whatever `allow` says: the other portal would be
/// on the provider's network, or the Internet, by the home's own address. Also where a route of a link's
/// DHCP server leads packets for the LAN elsewhere.
fn back_out(table: &mut Table, border: &Border, delivery: &Delivery) {
    let out = [comes_by(&border.device), by_set(Way::Out, true, UPLINKS)];
    if *delivery != Delivery::Anybody {
        let [comes, leaves] = out;
        return table.rule(FORWARD, [comes, leaves, Part::Drop]);
    }
    // The public address may be routed anywhere.
    for ends in &border.ends {
        let mut rule = Rule::from(out.clone());
        rule.push(match ends.public {
            Some(public) => not_to(public),
            None => Part::Family(Family::of(ends.local)),
        });
        rule.push(Part::Drop);
        table.rule(FORWARD, rule);
    }
}

/// What comes to the local portal: for home, and from elsewhere.
fn home_comes(table: &mut Table, device: &IfName, ends: &Ends) {
    let family = Family::of(ends.local);
    let for_others = in_set(End::Destination, false, family, "home");
    table.rule(PREROUTING, [comes_by(device), for_others, Part::Drop]);
    for own in ends.public.into_iter().chain([ends.local]) {
        table.rule(PREROUTING, [comes_by(device), from(own, true), Part::Drop]);
        // Left as it is, so that no other program's rule (a container's published port) leads it on.
        let kept = [comes_by(device), to(own), Part::DestinationNat(own)];
        table.rule(CLOSED_DESTINATION_NAT, kept);
    }
}

/// Nobody on the other side speaks as a machine of a network that is at home.
fn neighbours_do_not_come(table: &mut Table, border: &Border, family: Family) {
    let near: Vec<Prefix> = border
        .near
        .iter()
        .filter(|network| network.family() == family)
        .copied()
        .collect();
    if near.is_empty() {
        return;
    }
    table
        .sets
        .push(Set::networks(&named("neighbours", family), family, &near));
    let rule = [
        comes_by(&border.device),
        in_set(End::Source, true, family, "neighbours"),
        Part::Drop,
    ];
    table.rule(PREROUTING, rule);
}

/// What comes to the remote portal: from home, and for the Internet or the portal itself.
fn internet_comes(table: &mut Table, device: &IfName, ends: &Ends, allows: bool) {
    let family = Family::of(ends.local);
    let of_others = in_set(End::Source, false, family, "home");
    table.rule(PREROUTING, [comes_by(device), of_others, Part::Drop]);
    table.rule(PREROUTING, [comes_by(device), to(ends.local), Part::Drop]);
    if let Some(public) = ends.public {
        let rule = [
            comes_by(device),
            to(public),
            from(ends.local, false),
            Part::Drop,
        ];
        table.rule(PREROUTING, rule);
    }
    // What nobody reaches by the tunnel unless it is allowed.
    let private = Set::networks(&named("private", family), family, &private(family));
    table.sets.push(private);
    let mut rule = vec![
        comes_by(device),
        in_set(End::Destination, true, family, "private"),
        not_to(ends.remote),
        // What our own tunnel says of packets that are too long for it.
        Part::ConnectionState(state::NEW | state::ESTABLISHED | state::INVALID | state::UNTRACKED),
    ];
    if allows {
        rule.push(in_set(End::Destination, false, family, "allow"));
    }
    rule.push(Part::Drop);
    table.rule(PREROUTING, rule);
}

/// What comes for the public address by an uplink is not led elsewhere by another program's rule (a
/// container's published port), which would take the port from the client; those that this host keeps are.
fn nobody_publishes(table: &mut Table, border: &Border, ends: &Ends) {
    let Some(public) = ends.public else { return };
    let comes = [by_set(Way::In, true, UPLINKS), to(public)];
    for keep in &border.keep {
        let kept = [port(keep, End::Destination), Part::Accept];
        let rule = comes.iter().cloned().chain(kept);
        table.rule(CLOSED_DESTINATION_NAT, rule.collect::<Rule>());
    }
    let [by_uplink, to_public] = comes;
    let rule = [by_uplink, to_public, Part::DestinationNat(public)];
    table.rule(CLOSED_DESTINATION_NAT, rule);
}

/// Where the local portal passes on what came.
fn deliver(table: &mut Table, border: &Border, delivery: &Delivery) {
    let device = &border.device;
    match delivery {
        Delivery::Client(client, networks) => {
            for ends in &border.ends {
                if let Some(public) = ends.public {
                    let rule = [
                        comes_by(device),
                        to(public),
                        leaves_by_another_than(client),
                        Part::Drop,
                    ];
                    table.rule(FORWARD, rule);
                    // Around the tunnel nothing comes to the client.
                    let around = by_set(Way::In, true, UPLINKS);
                    table.rule(FORWARD, [around, to(public), leaves_by(client), Part::Drop]);
                    public_stays(table, public);
                }
                client_has_its_own(table, border, (client, networks), ends);
            }
        }
        Delivery::Nat(lans, _) => {
            // Answers to what came by the tunnel go back by it, whatever route their destination has.
            for public in border.ends.iter().filter_map(|ends| ends.public) {
                let out = by_set(Way::Out, true, UPLINKS);
                table.rule(FORWARD, [out, Part::WasTo(public), Part::Drop]);
                public_stays(table, public);
            }
            for family in allowed(border) {
                let allowed = [comes_by(device), allowed_target(family), Part::Accept];
                table.rule(FORWARD, allowed);
            }
            // Also where a route says that a machine of a LAN is elsewhere.
            table.sets.push(Set::devices(LANS, lans));
            let elsewhere = by_set(Way::Out, false, LANS);
            table.rule(FORWARD, [comes_by(device), elsewhere, Part::Drop]);
            let handed_on = Part::DestinationWasTranslated;
            table.rule(FORWARD, [comes_by(device), handed_on, Part::Accept]);
            let unasked = Part::ConnectionState(state::INVALID | state::NEW | state::UNTRACKED);
            table.rule(FORWARD, [comes_by(device), unasked, Part::Drop]);
        }
        Delivery::Anybody => {}
    }
}

/// This router says nothing by a link as the public address, nor about its connections: the resets and errors
/// of its own firewall, before and after translation. Our own flows open their connections here.
fn public_stays(table: &mut Table, public: IpAddr) {
    for about in [
        vec![from(public, true)],
        vec![Part::FromAnswerer, Part::WasTo(public)],
        vec![Part::AnswersGoTo(public)],
    ] {
        let mut rule = vec![by_set(Way::Out, true, UPLINKS)];
        rule.extend(about);
        rule.push(Part::Drop);
        table.rule(OUTPUT, rule);
    }
    // Nor does anybody behind it.
    let out = by_set(Way::Out, true, UPLINKS);
    table.rule(FORWARD, [out, from(public, true), Part::Drop]);
}

/// What comes from the client's device has an address of it, or does not leave by a link: the tunnel
/// does not take somebody else's, and a link must not either.
fn client_has_its_own(
    table: &mut Table,
    border: &Border,
    (client, networks): (&IfName, &[Prefix]),
    ends: &Ends,
) {
    let family = Family::of(ends.local);
    let mut near = private(family);
    near.extend(networks.iter().chain(&border.allow));
    near.extend(ends.public.map(Prefix::host));
    table
        .sets
        .push(Set::networks(&named("near", family), family, &near));
    let rule = [
        comes_by(client),
        by_set(Way::Out, true, UPLINKS),
        in_set(End::Source, false, family, "near"),
        Part::Drop,
    ];
    table.rule(FORWARD, rule);
}

/// What this host did not forward before us it does not forward now.
fn close(table: &mut Table, border: &Border) {
    if border.closed.is_empty() {
        return;
    }
    let publics = || border.ends.iter().filter_map(|ends| ends.public);
    match &border.side {
        Side::Local(Delivery::Client(client, _)) => {
            // The client and its neighbours.
            for public in publics() {
                for end in [from(public, true), to(public)] {
                    let rule = [comes_by(client), leaves_by(client), end, Part::Accept];
                    table.rule(FORWARD, rule);
                }
            }
        }
        Side::Local(Delivery::Nat(lans, without_tunnel)) => {
            for lan in lans {
                // A port that is handed on, asked for from the LAN itself, and from another one.
                table.rule(FORWARD, [comes_by(lan), leaves_by(lan), Part::Accept]);
                for public in publics().filter(|_| lans.len() > 1) {
                    table.rule(FORWARD, [comes_by(lan), Part::WasTo(public), Part::Accept]);
                }
                if *without_tunnel == WithoutTunnel::Direct {
                    let out = by_set(Way::Out, true, UPLINKS);
                    table.rule(FORWARD, [comes_by(lan), out, Part::Accept]);
                    let known = Part::ConnectionState(state::ESTABLISHED | state::RELATED);
                    table.rule(FORWARD, [leaves_by(lan), known, Part::Accept]);
                }
            }
        }
        Side::Local(Delivery::Anybody) | Side::Remote => {}
    }
    for bridge in &border.bridges {
        let rule = [comes_by(bridge), leaves_by(bridge), Part::Accept];
        table.rule(FORWARD, rule);
    }
    for family in &border.closed {
        let rule = [
            by_set(Way::In, true, DEVICES),
            by_set(Way::Out, true, DEVICES),
            Part::Family(*family),
            Part::Drop,
        ];
        table.rule(FORWARD, rule);
    }
}

fn families(border: &Border) -> impl Iterator<Item = Family> + use<'_> {
    border.ends.iter().map(|ends| Family::of(ends.local))
}

fn allowed(border: &Border) -> impl Iterator<Item = Family> + use<'_> {
    families(border).filter(|family| border.allow.iter().any(|it| it.family() == *family))
}

fn allowed_target(family: Family) -> Part {
    in_set(End::Destination, true, family, "allow")
}

/// With [`error`]: about a connection that is known.
fn related() -> Part {
    Part::ConnectionState(state::RELATED)
}

/// Of ICMP or ICMPv6, which report errors.
fn error(family: Family) -> Part {
    Part::Protocol {
        is: true,
        number: icmp(family),
    }
}

pub(super) fn not_to(address: IpAddr) -> Part {
    Part::Address {
        end: End::Destination,
        is: false,
        prefix: Prefix::host(address),
    }
}

pub(super) fn in_set(end: End, is: bool, family: Family, name: &str) -> Part {
    Part::AddressIn {
        end,
        is,
        family,
        set: named(name, family),
    }
}

pub(super) fn by_set(way: Way, is: bool, set: &str) -> Part {
    Part::DeviceIn {
        way,
        is,
        set: set.to_owned(),
    }
}

pub(super) fn named(name: &str, family: Family) -> String {
    let digit = match family {
        Family::V4 => '4',
        Family::V6 => '6',
    };
    format!("{name}{digit}")
}
