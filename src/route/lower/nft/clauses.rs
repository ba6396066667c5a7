//! What each clause adds to the table.
//!
//! Connection tracking is at -200, so at mangle's -150 a packet's connection is known; routing
//! comes after prerouting.

use std::net::IpAddr;

use super::model::{
    Element, End, Hook, Item, Key, Kind, Part, Place, Rule, Set, Table, Target, Way, state,
};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Forward, PortProtocol};
use crate::route::resource::FilterClause;

/// NF_IP_PRI_MANGLE.
const MANGLE: i32 = -150;

const fn filter(name: &'static str, hook: Hook, priority: i32) -> Place {
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
const PREROUTING: Place = filter("prerouting", Hook::Prerouting, MANGLE);
/// What this host takes.
const INPUT: Place = filter("input", Hook::Input, MANGLE);
/// What it passes on.
const FORWARD: Place = filter("forward", Hook::Forward, MANGLE);
/// What it sends.
const OUTPUT: Place = filter("output", Hook::Output, MANGLE);
/// NF_IP_PRI_NAT_DST.
const DESTINATION_NAT: Place = nat("dstnat", Hook::Prerouting, -100);
/// NF_IP_PRI_NAT_SRC.
const SOURCE_NAT: Place = nat("srcnat", Hook::Postrouting, 100);

/// IPPROTO_TCP.
const TCP: u8 = 6;

/// Adds the rules and sets of a clause.
pub(super) fn add(table: &mut Table, clause: &FilterClause) {
    match clause {
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
            address,
            forwards,
        } => hand_on(table, device, *address, forwards),
        FilterClause::KeepInside {
            client,
            device,
            address,
        } => table.rule(
            FORWARD,
            [
                comes_by(client),
                from(*address, true),
                Part::Device {
                    way: Way::Out,
                    is: false,
                    device: device.clone(),
                },
                Part::Drop,
            ],
        ),
    }
}

/// A connection that is the host's own gets the mark: what this host sends itself (output), or
/// ended here at a kept port (input), so that the ICMP errors about it (path MTU) are the host's
/// too. What comes back on it carries the mark before it is routed.
///
/// Output takes established connections too: where somebody else's firewall tracked connections
/// before us, the host's older ones are new no more. It does not take related packets: the ICMP
/// errors that this host sends about the client's connections.
///
/// Neighbour discovery is not tracked and is the host's always: solicitations and advertisements
/// go to the public address itself when the host asked with it as source (RFC 4861 7.2.2).
fn mark_own(table: &mut Table, address: IpAddr, mark: u32, mask: u32) {
    let save = Part::MarkConnection { mark, mask };
    let set = Part::MarkPacket { mark, mask };
    let states = Part::ConnectionState(state::ESTABLISHED | state::NEW);
    table.rule(OUTPUT, [from(address, true), states, save.clone()]);
    let new = Part::ConnectionState(state::NEW);
    table.rule(INPUT, [to(address), new, save]);
    let marked = Part::ConnectionMark { mark, mask };
    table.rule(PREROUTING, [to(address), marked, set.clone()]);
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

/// A TCP connection that is forwarded to or from the tunnel is the client's, unless it is the
/// host's already: both may use the same ports. While the daemon is dead its packets find table
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
            tcp.clone(),
            Part::ConnectionMark { mark: 0, mask },
            Part::MarkConnection { mark, mask },
        ]);
        table.rule(FORWARD, rule);
    }
    let marked = Part::ConnectionMark { mark, mask };
    table.rule(INPUT, [to(address), tcp, marked, Part::Drop]);
}

/// The forwards as two maps for each protocol: one for ports that stay the same, one for others.
fn hand_on(table: &mut Table, device: &IfName, address: IpAddr, forwards: &[Forward]) {
    let family = Family::of(address);
    let digit = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    for (protocol, name) in [(PortProtocol::Tcp, "tcp"), (PortProtocol::Udp, "udp")] {
        for with_port in [false, true] {
            let elements: Vec<_> = forwards
                .iter()
                .filter(|it| it.protocol == protocol && (it.port != it.to_port) == with_port)
                .map(|it| Element {
                    item: Item::Ports(it.port, it.port),
                    target: Some((it.to, it.to_port)),
                })
                .collect();
            if elements.is_empty() {
                continue;
            }
            let (ending, target) = if with_port {
                ("_port", Target::Place(family))
            } else {
                ("", Target::Address(family))
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
            table.rule(DESTINATION_NAT, [comes_by(device), to(address), by]);
        }
    }
}

fn comes_by(device: &IfName) -> Part {
    Part::Device {
        way: Way::In,
        is: true,
        device: device.clone(),
    }
}

fn leaves_by(device: &IfName) -> Part {
    Part::Device {
        way: Way::Out,
        is: true,
        device: device.clone(),
    }
}

fn to(address: IpAddr) -> Part {
    Part::Address {
        end: End::Destination,
        is: true,
        prefix: Prefix::host(address),
    }
}

fn from(address: IpAddr, is: bool) -> Part {
    Part::Address {
        end: End::Source,
        is,
        prefix: Prefix::host(address),
    }
}
