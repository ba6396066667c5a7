//! The rules of the tunnel's border.
//!
//! What comes out of the tunnel is looked at as it comes, before any translation. What goes in is
//! checked, and counted, by the tunnel alone: it is there whenever its device is.

use std::net::IpAddr;

use super::clauses::{
    CLOSED_DESTINATION_NAT, FORWARD, INPUT, OUTPUT, PREROUTING, comes_by, from, icmp_echo,
    leaves_by, leaves_by_another_than, port, to,
};
use super::model::{End, Part, Rule, Set, Table, Way, state};
use crate::config::WithoutTunnel;
use crate::config::units::{Family, IfName, Prefix};
use crate::route::beside::private;
use crate::route::border::{Border, Delivery, Ends, Side};

/// The set of devices that lead to the Internet.
const UPLINKS: &str = "uplinks";
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
        let local = matches!(border.side, Side::Local { .. });
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
        }
    }
    if !border.ends.iter().any(|ends| ends.local.is_ipv6()) {
        let v6 = [comes_by(device), Part::Family(Family::V6), Part::Drop];
        table.rule(PREROUTING, v6);
    }
    let sets = [(UPLINKS, &border.uplinks), (DEVICES, &border.devices)];
    for (name, devices) in sets {
        table.sets.push(Set::devices(name, devices));
    }
    match &border.side {
        Side::Remote => {
            for family in allowed(border) {
                let allowed = [comes_by(device), allowed_target(family), Part::Accept];
                table.rule(FORWARD, allowed);
            }
            let elsewhere = by_set(Way::Out, false, UPLINKS);
            table.rule(FORWARD, [comes_by(device), elsewhere, Part::Drop]);
        }
        Side::Local { keep, delivery } => {
            for rule in [
                vec![known(), Part::FromAnswerer, Part::Accept],
                vec![icmp_echo(Family::V4), Part::Accept],
                vec![icmp_echo(Family::V6), Part::Accept],
            ]
            .into_iter()
            .chain(
                keep.iter()
                    .map(|keep| vec![port(keep, End::Destination), Part::Accept]),
            )
            .chain([vec![Part::Drop]])
            {
                let mut whole = vec![comes_by(device)];
                whole.extend(rule);
                table.rule(INPUT, whole);
            }
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
    ];
    if allows {
        rule.push(in_set(End::Destination, false, family, "allow"));
    }
    rule.push(Part::Drop);
    table.rule(PREROUTING, rule);
}

/// Where the local portal passes on what came.
fn deliver(table: &mut Table, border: &Border, delivery: &Delivery) {
    let device = &border.device;
    match delivery {
        Delivery::Client(client, networks) => {
            for ends in &border.ends {
                let family = Family::of(ends.local);
                if let Some(public) = ends.public {
                    let rule = [
                        comes_by(device),
                        to(public),
                        leaves_by_another_than(client),
                        Part::Drop,
                    ];
                    table.rule(FORWARD, rule);
                }
                near(table, border, (client, networks), family, ends);
            }
        }
        Delivery::Nat(_, without_tunnel) => {
            if *without_tunnel == WithoutTunnel::Block {
                // Answers on what came by the tunnel go back by it, wherever their destination lives.
                for public in border.ends.iter().filter_map(|ends| ends.public) {
                    let out = by_set(Way::Out, true, UPLINKS);
                    table.rule(FORWARD, [out.clone(), Part::WasTo(public), Part::Drop]);
                    table.rule(OUTPUT, [out, from(public, true), Part::Drop]);
                }
            }
            for family in allowed(border) {
                let allowed = [comes_by(device), allowed_target(family), Part::Accept];
                table.rule(FORWARD, allowed);
            }
            // What came by the tunnel is for the LAN, also where a route of a link's DHCP server
            // leads one of its machines' packets elsewhere.
            let out = by_set(Way::Out, true, UPLINKS);
            table.rule(FORWARD, [comes_by(device), out, Part::Drop]);
            let handed_on = Part::DestinationWasTranslated;
            table.rule(FORWARD, [comes_by(device), handed_on, Part::Accept]);
            let unasked = Part::ConnectionState(state::INVALID | state::NEW | state::UNTRACKED);
            table.rule(FORWARD, [comes_by(device), unasked, Part::Drop]);
        }
        Delivery::Anybody => {}
    }
}

/// What comes from the client's device has an address of it, or does not leave by a link: the tunnel
/// does not take somebody else's, and a link must not either.
fn near(
    table: &mut Table,
    border: &Border,
    (client, networks): (&IfName, &[Prefix]),
    family: Family,
    ends: &Ends,
) {
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
    if let Side::Local {
        delivery: Delivery::Nat(lans, without_tunnel),
        ..
    } = &border.side
    {
        for lan in lans {
            // A port that is handed on, asked for from the LAN itself, and from another one.
            table.rule(FORWARD, [comes_by(lan), leaves_by(lan), Part::Accept]);
            let publics = border.ends.iter().filter_map(|ends| ends.public);
            for public in publics.filter(|_| lans.len() > 1) {
                table.rule(FORWARD, [comes_by(lan), Part::WasTo(public), Part::Accept]);
            }
            if *without_tunnel == WithoutTunnel::Direct {
                let out = by_set(Way::Out, true, UPLINKS);
                table.rule(FORWARD, [comes_by(lan), out, Part::Accept]);
                table.rule(FORWARD, [leaves_by(lan), known(), Part::Accept]);
            }
        }
    }
    for family in &border.closed {
        let mut rule: Rule = vec![
            by_set(Way::In, true, DEVICES),
            by_set(Way::Out, true, DEVICES),
            Part::Family(*family),
        ];
        let of_family = |ends: &&Ends| Family::of(ends.local) == *family;
        let public = border.ends.iter().find(of_family).and_then(|it| it.public);
        if let Some(client) = public {
            rule.extend([from(client, false), not_to(client)]);
        }
        rule.push(Part::Drop);
        table.rule(FORWARD, rule);
    }
}

fn allowed(border: &Border) -> impl Iterator<Item = Family> + use<'_> {
    let families = border.ends.iter().map(|ends| Family::of(ends.local));
    families.filter(|family| border.allow.iter().any(|it| it.family() == *family))
}

fn allowed_target(family: Family) -> Part {
    in_set(End::Destination, true, family, "allow")
}

fn known() -> Part {
    Part::ConnectionState(state::ESTABLISHED | state::RELATED)
}

fn not_to(address: IpAddr) -> Part {
    Part::Address {
        end: End::Destination,
        is: false,
        prefix: Prefix::host(address),
    }
}

fn in_set(end: End, is: bool, family: Family, name: &str) -> Part {
    Part::AddressIn {
        end,
        is,
        family,
        set: named(name, family),
    }
}

fn by_set(way: Way, is: bool, set: &str) -> Part {
    Part::DeviceIn {
        way,
        is,
        set: set.to_owned(),
    }
}

fn named(name: &str, family: Family) -> String {
    let digit = match family {
        Family::V4 => '4',
        Family::V6 => '6',
    };
    format!("{name}{digit}")
}
