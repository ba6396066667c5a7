//! The rules that keep the connections to some ports of this host from being tracked.

use std::net::IpAddr;

use super::clauses::{PREROUTING, TCP, UDP, filter, port, to};
use super::model::{End, Hook, Part, Place, Rule, Table, Way};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Keep, PortProtocol};

/// NF_IP_PRI_RAW.
const RAW: i32 = -300;

/// Before connection tracking.
const UNTRACKED_IN: Place = filter("raw_prerouting", Hook::Prerouting, RAW);
/// The same for what this host sends.
const UNTRACKED_OUT: Place = filter("raw_output", Hook::Output, RAW);

/// Both ways alike: what another device than the tunnel's and the loopback brings, and what goes back
/// there. What leaves by the tunnel may be the answer to a translated connection, which has to be known.
pub(super) fn add(
    table: &mut Table,
    (device, address): (&IfName, IpAddr),
    ports: &[Keep],
    (mark, mask): (u32, u32),
) {
    let outside = |way, end| {
        [device, &IfName::loopback()]
            .map(|device| Part::Device {
                way,
                is: false,
                device: device.clone(),
            })
            .into_iter()
            .chain([Part::Address {
                end,
                is: true,
                prefix: Prefix::host(address),
            }])
    };
    for keep in ports {
        for (place, way, end) in [
            (UNTRACKED_IN, Way::In, End::Destination),
            (UNTRACKED_OUT, Way::Out, End::Source),
        ] {
            let mut rule: Rule = outside(way, end).collect();
            rule.extend([port(keep, end), Part::Untrack]);
            table.rule(place, rule);
        }
        // Tracking would call an error about what it does not know invalid.
        for (place, end) in [
            (UNTRACKED_IN, Part::Untrack),
            (PREROUTING, Part::MarkPacket { mark, mask }),
        ] {
            let mut error = vec![to(address)];
            error.extend(cites(address, keep));
            error.push(end);
            table.rule(place, error);
        }
    }
}

/// Bytes of the packet that an ICMP error is about: its head stands behind the error's own 8 bytes
/// (RFC 792, RFC 4443 section 3).
pub(super) fn cited(offset: u32, length: u32, first: u128, last: u128) -> Part {
    const OWN: u32 = 8;
    Part::Bytes {
        offset: OWN + offset,
        length,
        first,
        last,
    }
}

/// An ICMP error about a packet from one of these ports. One that had options or extensions is not
/// recognised.
fn cites(address: IpAddr, keep: &Keep) -> Vec<Part> {
    let family = Family::of(address);
    let same = |offset, length, value| cited(offset, length, value, value);
    let protocol = match keep.protocol {
        PortProtocol::Tcp => TCP,
        PortProtocol::Udp => UDP,
    };
    // Destination unreachable; for IPv6 all errors.
    let (first, last) = match family {
        Family::V4 => (3, 3),
        Family::V6 => (1, 4),
    };
    let mut parts = vec![Part::Icmp {
        family,
        first,
        last,
    }];
    // RFC 791 section 3.1, RFC 8200 section 3: protocol, source, and where the ports begin.
    let ports = match address {
        IpAddr::V4(address) => {
            parts.push(same(0, 1, 0x45));
            parts.push(same(9, 1, protocol.into()));
            parts.push(same(12, 4, address.to_bits().into()));
            20
        }
        IpAddr::V6(address) => {
            parts.push(same(6, 1, protocol.into()));
            parts.push(same(8, 16, address.to_bits()));
            40
        }
    };
    parts.push(cited(ports, 2, keep.first.into(), keep.last.into()));
    parts
}
