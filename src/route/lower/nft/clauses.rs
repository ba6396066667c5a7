//! What each clause adds to the table.
//!
//! Connection tracking is at -200, so at mangle's -150 a packet's connection is known; routing
//! comes after prerouting.

use std::net::IpAddr;

use super::border;
use super::model::{
    Element, End, Hook, Item, Key, Kind, Part, Place, Rule, Set, Table, Target, Way, state,
};
use super::untracked;
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Forward, Keep, PortProtocol, Taken};
use crate::route::resource::FilterClause;

/// NF_IP_PRI_MANGLE.
const MANGLE: i32 = -150;

pub(super) const fn filter(name: &'static str, hook: Hook, priority: i32) -> Place {
    Place {
        hook,
        priority,
        kind: Kind::Filter,
        name,
    }
}

const fn nat(name: &'static str, hook: Hook, priority: i32) -> Place {
    Place {
        hook,
        priority,
        kind: Kind::Nat,
        name,
    }
}

/// Gives the mark back to what belongs to a connection of the host's, before it is routed.
pub(super) const PREROUTING: Place = filter("prerouting", Hook::Prerouting, MANGLE);
/// What this host takes.
pub(super) const INPUT: Place = filter("input", Hook::Input, MANGLE);
/// What it passes on.
pub(super) const FORWARD: Place = filter("forward", Hook::Forward, MANGLE);
/// What it sends.
pub(super) const OUTPUT: Place = filter("output", Hook::Output, MANGLE);
/// Before everybody's NF_IP_PRI_NAT_DST: what one chain decides the others leave alone.
const DESTINATION_NAT: Place = nat("dstnat", Hook::Prerouting, -102);
/// After ours, and still before everybody's.
pub(super) const CLOSED_DESTINATION_NAT: Place = nat("dstnat_closed", Hook::Prerouting, -101);
/// What this host sends itself.
const OWN_DESTINATION_NAT: Place = nat("dstnat_own", Hook::Output, -100);
/// Before everybody's NF_IP_PRI_NAT_SRC.
const FIRST_SOURCE_NAT: Place = nat("srcnat_first", Hook::Postrouting, 99);
/// NF_IP_PRI_NAT_SRC.
const SOURCE_NAT: Place = nat("srcnat", Hook::Postrouting, 100);

/// IPPROTO_TCP.
pub(super) const TCP: u8 = 6;
/// IPPROTO_UDP.
pub(super) const UDP: u8 = 17;

/// Adds the rules and sets of a clause.
pub(super) fn add(table: &mut Table, clause: &FilterClause) {
    match clause {
        FilterClause::GuardOwn {
            device,
            address,
            ports,
            mark,
            mask,
        } => guard_own(table, (device, *address), ports, (*mark, *mask)),
        FilterClause::ClientAnswers {
            device,
            address,
            ports,
            mark,
            own,
            mask,
        } => client_answers(table, (device, *address), ports, [*mark, *own, *mask]),
        FilterClause::Untracked {
            device,
            address,
            ports,
            mark,
            mask,
        } => untracked::add(table, (device, *address), ports, (*mark, *mask)),
        FilterClause::PublicSource { device, address } => public_source(table, device, *address),
        FilterClause::PortalSource { device, own, peer } => table.rule(
            SOURCE_NAT,
            [leaves_by(device), to(*peer), Part::SourceNat(*own)],
        ),
        FilterClause::Services {
            lans,
            address,
            peer,
        } => services(table, lans, *address, *peer),
        FilterClause::KeptServices {
            device,
            address,
            own,
            peer,
            ports,
        } => kept_services(table, (device, *address), (*own, *peer), ports),
        FilterClause::HoldClient {
            device,
            address,
            mark,
            mask,
        } => hold_client(table, device, *address, (*mark, *mask)),
        FilterClause::MarkOwn {
            address,
            mark,
            mask,
        } => mark_own(table, *address, *mark, *mask),
        FilterClause::MarkKept {
            address,
            ports,
            mark,
            mask,
        } => mark_kept(table, *address, ports, (*mark, *mask)),
        FilterClause::Reclaim {
            address,
            client,
            mark,
            mask,
        } => reclaim(table, *address, *client, (*mark, *mask)),
        FilterClause::Border(border) => border::add(table, border),
        FilterClause::SourceNat { device, address } => table.rule(
            SOURCE_NAT,
            [
                leaves_by(device),
                from(*address, false),
                Part::SourceNat(*address),
            ],
        ),
        FilterClause::Forwards {
            device,
            lans,
            address,
            forwards,
            mark,
            mask,
        } => {
            hand_on(table, device, lans, (*address, forwards));
            hairpin(table, lans, *address, (*mark, *mask));
        }
        FilterClause::KeepInside {
            client,
            device,
            address,
        } => keep_inside(table, client, device, *address),
    }
}

fn public_source(table: &mut Table, device: &IfName, address: IpAddr) {
    let rule = [
        comes_by(device),
        leaves_by_another_than(device),
        from(address, true),
        Part::SourceNat(address),
    ];
    table.rule(FIRST_SOURCE_NAT, rule);
}

fn kept_services(
    table: &mut Table,
    (device, address): (&IfName, IpAddr),
    (own, peer): (IpAddr, IpAddr),
    ports: &[Keep],
) {
    for keep in ports {
        let rule = [
            comes_by(device),
            from(peer, true),
            to(own),
            port(keep, End::Destination),
            Part::DestinationNat(address),
        ];
        table.rule(DESTINATION_NAT, rule);
    }
}

fn mark_kept(table: &mut Table, address: IpAddr, ports: &[Keep], (mark, mask): (u32, u32)) {
    for keep in ports {
        let new = Part::ConnectionState(state::NEW);
        let save = Part::MarkConnection { mark, mask };
        let rule = [to(address), port(keep, End::Destination), new, save];
        table.rule(INPUT, rule);
    }
}

fn keep_inside(table: &mut Table, client: &IfName, device: &IfName, address: IpAddr) {
    let rule = [
        comes_by(client),
        from(address, true),
        leaves_by_another_than(device),
        // Its neighbours.
        leaves_by_another_than(client),
        Part::Drop,
    ];
    table.rule(FORWARD, rule);
}

/// A connection that this host opened gets the mark. What comes back on it carries the mark before it
/// is routed.
///
/// Established connections too: where somebody else's firewall tracked connections before us, the
/// host's older ones are new no more. Not related packets: the ICMP errors that this host sends about
/// the client's connections. And not the host's answers: while the daemon is dead it gets what is the
/// client's, and that is the client's again afterwards.
///
/// Neighbour discovery is not tracked and is the host's always: solicitations and advertisements
/// go to the public address itself when the host asked with it as source (RFC 4861 7.2.2).
fn mark_own(table: &mut Table, address: IpAddr, mark: u32, mask: u32) {
    let save = Part::MarkConnection { mark, mask };
    let set = Part::MarkPacket { mark, mask };
    let states = Part::ConnectionState(state::ESTABLISHED | state::NEW);
    // Not what is the client's: both may speak from the same port to the same other end.
    let nobodys = Part::ConnectionMark { mark: 0, mask };
    let opened = [from(address, true), states, Part::FromOpener, nobodys, save];
    table.rule(OUTPUT, opened);
    // Whatever the packet's destination: where another rule translated the source of what this host
    // sent, that is undone after this.
    let marked = Part::ConnectionMark { mark, mask };
    let family = Part::Family(Family::of(address));
    table.rule(PREROUTING, [family, marked, set.clone()]);
    if address.is_ipv6() {
        // Router solicitation to redirect: RFC 4861 section 4. The hop limit shows that no router
        // forwarded it.
        let discovery = Part::Icmp {
            family: Family::V6,
            first: 133,
            last: 137,
        };
        let rule = [to(address), Part::HopLimit(255), discovery, set];
        table.rule(PREROUTING, rule);
    }
}

fn guard_own(
    table: &mut Table,
    (device, address): (&IfName, IpAddr),
    ports: &[Keep],
    (mark, mask): (u32, u32),
) {
    let spoken = || vec![comes_by(device), from(address, true)];
    for keep in ports {
        let mut rule = spoken();
        rule.extend([port(keep, End::Source), Part::Drop]);
        table.rule(FORWARD, rule);
    }
    let mut rule = spoken();
    rule.extend([Part::ConnectionMark { mark, mask }, Part::Drop]);
    table.rule(FORWARD, rule);
}

/// What comes from such a port is marked already before it is routed: the kernel asks for the way
/// back too (`src_valid_mark`), and would take the packet for a forgery of its own address.
fn client_answers(
    table: &mut Table,
    (device, address): (&IfName, IpAddr),
    ports: &[Keep],
    [mark, own, mask]: [u32; 3],
) {
    for keep in ports {
        table.rule(
            FORWARD,
            [
                comes_by(device),
                from(address, true),
                port(keep, End::Source),
                Part::ConnectionState(state::NEW),
                Part::ConnectionMark { mark: 0, mask },
                Part::MarkConnection { mark, mask },
            ],
        );
        let mark_packet = Part::MarkPacket { mark, mask };
        table.rule(
            PREROUTING,
            [
                comes_by(device),
                from(address, true),
                port(keep, End::Source),
                mark_packet.clone(),
            ],
        );
        let mut answer = vec![to(address), port(keep, End::Destination)];
        if keep.protocol == PortProtocol::Tcp {
            answer.push(Part::Syn { is: false });
            let begun = [
                to(address),
                port(keep, End::Destination),
                Part::Syn { is: true },
                Part::MarkConnection { mark: own, mask },
            ];
            table.rule(INPUT, begun);
        }
        answer.extend([Part::ConnectionMark { mark, mask }, mark_packet]);
        table.rule(PREROUTING, answer);
    }
}

/// What this host sends itself on a connection that went into the tunnel is its own after all: its
/// tracking was lost (`conntrack -F`), and the first packet after that came from the other end.
fn reclaim(table: &mut Table, address: IpAddr, client: u32, (mark, mask): (u32, u32)) {
    let not_icmp = Part::Protocol {
        is: false,
        number: icmp(Family::of(address)),
    };
    let rule = [
        from(address, true),
        not_icmp,
        Part::ConnectionState(state::ESTABLISHED | state::NEW),
        // What the client has spoken on for a while stays its own, whichever program takes that port here.
        Part::Unassured,
        Part::ConnectionMark { mark: client, mask },
        Part::MarkConnection { mark, mask },
    ];
    table.rule(OUTPUT, rule);
}

/// A connection that is forwarded to or from the tunnel is the client's, unless it is the host's
/// already: both may use the same ports. While the daemon is dead the packets of TCP find table
/// local; they are dropped, and both ends send them again until there is a tunnel once more.
///
/// TCP alone: nothing else is ended by one answer, and the host is to answer pings by then.
fn hold_client(table: &mut Table, device: &IfName, address: IpAddr, (mark, mask): (u32, u32)) {
    let tcp = Part::Protocol {
        is: true,
        number: TCP,
    };
    for ends in [
        [leaves_by(device), to(address)],
        [comes_by(device), from(address, true)],
    ] {
        let mut rule = Rule::from(ends);
        rule.extend([
            Part::ConnectionMark { mark: 0, mask },
            Part::MarkConnection { mark, mask },
        ]);
        table.rule(FORWARD, rule);
    }
    let marked = Part::ConnectionMark { mark, mask };
    table.rule(INPUT, [to(address), tcp, marked, Part::Drop]);
}

/// The forwards as two maps for each protocol: one for ports that keep their number, in ranges, and
/// one for others, port by port. Then the rest.
fn hand_on(
    table: &mut Table,
    device: &IfName,
    lans: &[IfName],
    (address, forwards): (IpAddr, &[Forward]),
) {
    let family = Family::of(address);
    for (protocol, name) in [(PortProtocol::Tcp, "tcp"), (PortProtocol::Udp, "udp")] {
        for with_port in [false, true] {
            let elements: Vec<_> = forwards
                .iter()
                .filter_map(|forward| Some((forward.ports(protocol)?, forward.to)))
                .filter(|((first, _, to_first), _)| (first != to_first) == with_port)
                .flat_map(|(ports, to)| elements(ports, to))
                .collect();
            if elements.is_empty() {
                continue;
            }
            let (digit, ending, target) = match (family, with_port) {
                (Family::V4, false) => (4, "", Target::Address(family)),
                (Family::V4, true) => (4, "_port", Target::Place(family)),
                (Family::V6, false) => (6, "", Target::Address(family)),
                (Family::V6, true) => (6, "_port", Target::Place(family)),
            };
            let map = format!("forward_{name}{digit}{ending}");
            let by = Part::DestinationNatBy {
                protocol,
                family,
                map: map.clone(),
                with_port,
            };
            table.sets.push(Set {
                name: map,
                key: Key::Port,
                target: Some(target),
                elements,
            });
            for device in std::iter::once(device).chain(lans) {
                table.rule(DESTINATION_NAT, [comes_by(device), to(address), by.clone()]);
            }
            table.rule(OWN_DESTINATION_NAT, [by_loopback(), to(address), by]);
        }
    }
    for rest in forwards.iter().filter(|it| it.taken == Taken::Rest) {
        // The router answers pings itself.
        let not_icmp = Part::Protocol {
            is: false,
            number: icmp(family),
        };
        let nat = Part::DestinationNat(rest.to);
        for device in std::iter::once(device).chain(lans) {
            let rule = [comes_by(device), to(address), not_icmp.clone(), nat.clone()];
            table.rule(DESTINATION_NAT, rule);
        }
        table.rule(
            OWN_DESTINATION_NAT,
            [by_loopback(), to(address), not_icmp, nat],
        );
    }
}

/// What a LAN sends to the public address and comes back to the same LAN: the machine there would
/// answer its neighbour directly, who knows nothing of it, so it answers this host.
fn hairpin(table: &mut Table, lans: &[IfName], address: IpAddr, (mark, mask): (u32, u32)) {
    for lan in lans {
        table.rule(
            FORWARD,
            [
                comes_by(lan),
                leaves_by(lan),
                Part::WasTo(address),
                Part::MarkConnection { mark, mask },
            ],
        );
        table.rule(
            SOURCE_NAT,
            [
                leaves_by(lan),
                Part::ConnectionMark { mark, mask },
                Part::WasTo(address),
                Part::Masquerade,
            ],
        );
    }
}

/// To the other portal, by its address on the tunnel: this host has the public address itself, and
/// would never send there.
fn services(table: &mut Table, lans: &[IfName], address: IpAddr, peer: IpAddr) {
    for number in [TCP, UDP] {
        let rest = [
            to(address),
            Part::Protocol { is: true, number },
            Part::DestinationNat(peer),
        ];
        for lan in lans {
            let mut rule = vec![comes_by(lan)];
            rule.extend(rest.clone());
            table.rule(DESTINATION_NAT, rule);
        }
        let mut rule = vec![by_loopback()];
        rule.extend(rest);
        table.rule(OWN_DESTINATION_NAT, rule);
    }
}

/// A range that keeps its numbers is one element; ports that change theirs are one each.
fn elements((first, last, to_first): (u16, u16, u16), to: IpAddr) -> Vec<Element> {
    let element = |first, last, port| Element {
        item: Item::Ports(first, last),
        target: Some((to, port)),
    };
    if first == to_first {
        return vec![element(first, last, first)];
    }
    (first..=last)
        .map(|port| element(port, port, to_first.saturating_add(port - first)))
        .collect()
}

/// IPPROTO_ICMP, IPPROTO_ICMPV6.
pub(super) fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 58,
    }
}

pub(super) fn comes_by(device: &IfName) -> Part {
    Part::Device {
        way: Way::In,
        is: true,
        device: device.clone(),
    }
}

pub(super) fn leaves_by(device: &IfName) -> Part {
    Part::Device {
        way: Way::Out,
        is: true,
        device: device.clone(),
    }
}

pub(super) fn leaves_by_another_than(device: &IfName) -> Part {
    Part::Device {
        way: Way::Out,
        is: false,
        device: device.clone(),
    }
}

/// To an address of this host itself, and so not by a link: the flows' own packets may go to the
/// very same address.
fn by_loopback() -> Part {
    leaves_by(&IfName::loopback())
}

pub(super) fn port(keep: &Keep, end: End) -> Part {
    Part::Port {
        protocol: keep.protocol,
        end,
        first: keep.first,
        last: keep.last,
    }
}

pub(super) fn to(address: IpAddr) -> Part {
    Part::Address {
        end: End::Destination,
        is: true,
        prefix: Prefix::host(address),
    }
}

pub(super) fn from(address: IpAddr, is: bool) -> Part {
    Part::Address {
        end: End::Source,
        is,
        prefix: Prefix::host(address),
    }
}

/// An echo request: RFC 792, RFC 4443.
pub(super) fn icmp_echo(family: Family) -> Part {
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    Part::Icmp {
        family,
        first: kind,
        last: kind,
    }
}
