//! What may pass between the tunnel and those who sit outside of it: the neighbours of a link at home, and
//! those of the VPS.

use std::net::IpAddr;

use super::border::{LANS, UPLINKS, by_set, in_set, named, not_to};
use super::clauses::{
    FORWARD, OUTPUT, PREROUTING, comes_by, from, icmp, leaves_by, leaves_by_another_than, port, to,
};
use super::model::{End, Part, Rule, Set, Table, Way, state};
use super::untracked::cited;
use crate::config::units::{Family, Prefix};
use crate::route::border::{Border, Delivery, Ends, Side};

/// Adds the rules. They stand before those that accept.
pub(super) fn add(table: &mut Table, border: &Border) {
    match &border.side {
        Side::Remote => border
            .ends
            .iter()
            .for_each(|ends| neighbours_of_the_vps(table, border, ends)),
        Side::Local(delivery) => {
            insiders_come_by_no_link(table, border);
            if let Some(strangers) = strangers(delivery) {
                // A neighbour on a link would speak as the public address.
                let by_link = by_set(Way::In, true, UPLINKS);
                table.rule(FORWARD, [by_link, leaves_by(&border.device), Part::Drop]);
                for family in border.ends.iter().map(|ends| Family::of(ends.local)) {
                    let into = [strangers.clone(), leaves_by(&border.device)];
                    let rule = into
                        .into_iter()
                        .chain([unless_allowed(border, End::Source, family), Part::Drop]);
                    table.rule(FORWARD, rule.collect::<Rule>());
                }
            }
            for ends in &border.ends {
                let by_link = by_set(Way::Out, true, UPLINKS);
                table.rule(OUTPUT, [from(ends.local, true), by_link, Part::Drop]);
                match delivery {
                    Delivery::Nat(..) => second_channels(table, border, ends),
                    Delivery::Client(..) | Delivery::Anybody => errors(table, border, ends),
                }
            }
        }
    }
}

/// By a link nobody begins anything as a machine at home, or as this router. Own multicast and broadcasts come
/// back by the link that they left by. An older connection of the flows may have begun at the other end.
fn insiders_come_by_no_link(table: &mut Table, border: &Border) {
    let by_link = || by_set(Way::In, true, UPLINKS);
    let insiders = &border.insiders;
    for (target, ports) in &insiders.flows {
        let flow = [from(*target, true), port(ports, End::Source)];
        let rule = std::iter::once(by_link()).chain(flow);
        table.rule(PREROUTING, rule.chain([Part::Accept]).collect::<Rule>());
    }
    table.rule(PREROUTING, [by_link(), Part::FromAnswerer, Part::Accept]);
    if insiders.ipsec {
        table.rule(PREROUTING, [by_link(), Part::Decrypted, Part::Accept]);
    }
    for (family, many, length) in [
        (Family::V4, IpAddr::from([224, 0, 0, 0]), 3),
        (Family::V6, IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    ] {
        let set = Set::networks(&named("insiders", family), family, &insiders.sources);
        let Some(prefix) = Prefix::new(many, length).filter(|_| !set.elements.is_empty()) else {
            continue;
        };
        table.sets.push(set);
        let many = Part::Address {
            end: End::Destination,
            is: false,
            prefix,
        };
        let inside = in_set(End::Source, true, family, "insiders");
        table.rule(PREROUTING, [by_link(), many, inside, Part::Drop]);
    }
}

/// Who is on the VPS's network begins nothing with the private networks that `allow` names at home, nor
/// with the router: a route by the VPS would be all it takes.
fn neighbours_of_the_vps(table: &mut Table, border: &Border, ends: &Ends) {
    let family = Family::of(ends.local);
    let mut rule = vec![
        by_set(Way::In, true, UPLINKS),
        leaves_by(&border.device),
        in_set(End::Destination, true, family, "private"),
        Part::ConnectionState(state::NEW | state::INVALID | state::UNTRACKED),
    ];
    // In a cloud that is a private address, too.
    rule.extend(ends.public.map(not_to));
    // Who is in `allow`, and not where the routes lead into the tunnel: nobody comes from there by this side.
    let set = Set::networks(&named("beyond", family), family, &border.beyond);
    let allowed = has_allowed(border, family);
    let mut sources = vec![allowed.then(|| in_set(End::Source, false, family, "allow"))];
    if !set.elements.is_empty() {
        table.sets.push(set);
        sources.push(Some(in_set(End::Source, true, family, "beyond")));
    }
    for source in sources {
        let rule = rule.iter().cloned().chain(source);
        table.rule(FORWARD, rule.chain([Part::Drop]).collect::<Rule>());
    }
}

/// The router's address inside the tunnel is for the other portal, and for `allow`. On the VPS nothing
/// from there goes elsewhere either.
pub(super) fn router_is_known(table: &mut Table, border: &Border, ends: &Ends) {
    let family = Family::of(ends.local);
    let (end, mut rule) = match border.side {
        Side::Local(_) => (End::Source, vec![to(ends.local), from(ends.remote, false)]),
        Side::Remote => (
            End::Destination,
            vec![from(ends.local, true), not_to(ends.remote)],
        ),
    };
    rule.insert(0, comes_by(&border.device));
    if border.side == Side::Remote {
        rule.extend(ends.public.map(not_to));
    }
    if has_allowed(border, family) {
        rule.push(in_set(end, false, family, "allow"));
    }
    rule.push(Part::Drop);
    table.rule(PREROUTING, rule);
}

/// An error about a packet for the public address would leave by a link, with that link's address: a
/// traceroute to the public address would show whose home it is.
fn errors(table: &mut Table, border: &Border, ends: &Ends) {
    let Some(public) = ends.public else {
        return;
    };
    for place in [FORWARD, OUTPUT] {
        let mut rule = vec![by_set(Way::Out, true, UPLINKS)];
        rule.extend(drop_errors_about(public));
        table.rule(place, rule);
    }
    if matches!(border.side, Side::Local(Delivery::Client(..))) {
        // The client's device may lead to the Internet as well.
        let mut rule = vec![
            leaves_by_another_than(&border.device),
            in_set(End::Destination, false, Family::of(public), "near"),
        ];
        rule.extend(drop_errors_about(public));
        table.rule(OUTPUT, rule);
    }
}

/// Drops the ICMP errors about packets to an address. Among ICMP's types are some that are no errors, and
/// they carry no such address there.
fn drop_errors_about(public: IpAddr) -> Rule {
    let (types, offset, length, bits) = match public {
        // Where the destination is: RFC 791 section 3.1, RFC 8200 section 3.
        IpAddr::V4(address) => ((3, 12), 16, 4, address.to_bits().into()),
        IpAddr::V6(address) => ((1, 4), 24, 16, address.to_bits()),
    };
    let kind = Part::Icmp {
        family: Family::of(public),
        first: types.0,
        last: types.1,
    };
    vec![kind, cited(offset, length, bits, bits), Part::Drop]
}

/// A connection that a helper of connection tracking (FTP, SIP) expects is a new one all the same when it
/// begins at the tunnel: what the LAN was made to say must not open a port.
fn second_channels(table: &mut Table, border: &Border, ends: &Ends) {
    let family = Family::of(ends.local);
    let mut rule = vec![
        comes_by(&border.device),
        Part::ConnectionState(state::RELATED),
        Part::FromOpener,
        Part::Protocol {
            is: false,
            number: icmp(family),
        },
    ];
    rule.push(unless_allowed(border, End::Destination, family));
    rule.push(Part::Drop);
    table.rule(FORWARD, rule);
}

/// Packets of a family, except for those that `allow` names.
fn unless_allowed(border: &Border, end: End, family: Family) -> Part {
    match has_allowed(border, family) {
        true => in_set(end, false, family, "allow"),
        false => Part::Family(family),
    }
}

/// What comes by a device that does not use the tunnel, another network of this router.
fn strangers(delivery: &Delivery) -> Option<Part> {
    match delivery {
        Delivery::Client(client, _) => Some(Part::Device {
            way: Way::In,
            is: false,
            device: client.clone(),
        }),
        Delivery::Nat(..) => Some(by_set(Way::In, false, LANS)),
        Delivery::Anybody => None,
    }
}

fn has_allowed(border: &Border, family: Family) -> bool {
    border.allow.iter().any(|it| it.family() == family)
}
