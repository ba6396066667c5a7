//! What may cross the tunnel, by the addresses in a packet's header.
//!
//! Each portal asks this of what its kernel gives it and of what comes out of the tunnel. So neither
//! a bad peer nor a forgotten route reaches more than the configuration names: see
//! `docs/crossing.md`.

use std::net::IpAddr;

use super::ip::is_packet;
use crate::config::units::{Family, Prefix};
use crate::config::{PublicAddresses, TunnelAddresses};

/// IPv6 extension headers (RFC 8200 section 4, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// So many extension headers are looked through for a routing header. A packet with more is refused: RFC 8200
/// section 4.1 names no more that a packet has.
const MOST_EXTENSIONS: usize = 8;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// From the remote portal to the local one.
    Home,
    /// From the local portal to the remote one.
    Internet,
}

/// An address of either family as a number; IPv4 in the low 32 bits.
type Bits = u128;

/// What may cross. Two or three compares decide for an ordinary packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    v4: Ends,
    v6: Ends,
    /// More networks, at either end.
    allow: Vec<Network>,
}

/// The addresses of one family that everybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    public: Option<Bits>,
    local: Option<Bits>,
    remote: Option<Bits>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    family: Family,
    first: Bits,
    mask: Bits,
}

impl Crossing {
    /// What these addresses and the networks of `allow` let through.
    pub fn new(public: &PublicAddresses, tunnel: &TunnelAddresses, allow: &[Prefix]) -> Self {
        let allow: Vec<Network> = allow.iter().map(network).collect();
        // Where IPv6 is not carried the tunnel has no address of it.
        let v6 = public.v6.is_some() || allow.iter().any(|network| network.family == Family::V6);
        Self {
            v4: Ends {
                public: public.v4.map(|address| address.to_bits().into()),
                local: Some(bits(tunnel.local.into())),
                remote: Some(bits(tunnel.remote.into())),
            },
            v6: Ends {
                public: public.v6.map(|address| address.to_bits()),
                local: v6.then(|| tunnel.local_v6.to_bits()),
                remote: v6.then(|| tunnel.remote_v6.to_bits()),
            },
            allow,
        }
    }

    /// True when the packet may cross.
    pub fn admits(&self, towards: Towards, packet: &[u8]) -> bool {
        if !is_packet(packet) || concerns_its_way(packet) || is_redirect(packet) {
            return false;
        }
        let Some((family, source, destination)) = addresses(packet) else {
            return false;
        };
        let ends = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let crosses = match towards {
            Towards::Home => {
                self.leads_home(family, ends, source, destination) && !ends.is_home(source)
            }
            Towards::Internet if Some(source) == ends.public => {
                self.lies_outside(family, ends, destination)
            }
            Towards::Internet if Some(source) == ends.local => {
                // The router asks for what the remote portal's host keeps of the public address.
                Some(destination) == ends.public || self.knows_router(family, ends, destination)
            }
            Towards::Internet => {
                self.allows(family, source) && self.lies_outside(family, ends, destination)
            }
        };
        crosses && !never(family, source) && !never(family, destination)
    }

    /// True when the remote portal may send from and to these addresses.
    fn leads_home(&self, family: Family, ends: &Ends, source: Bits, destination: Bits) -> bool {
        if Some(destination) == ends.local {
            return self.knows_router(family, ends, source);
        }
        Some(destination) == ends.public || self.allows(family, destination)
    }

    /// True when the local portal may send to this address for the client, or for a network that is allowed.
    fn lies_outside(&self, family: Family, ends: &Ends, destination: Bits) -> bool {
        if ends.is_home(destination) {
            return false;
        }
        !private(family, destination)
            || Some(destination) == ends.remote
            || self.allows(family, destination)
    }

    /// True for those who talk with the router by its address inside the tunnel. Answers to anybody else
    /// would follow the router's default route, in clear.
    fn knows_router(&self, family: Family, ends: &Ends, address: Bits) -> bool {
        Some(address) == ends.remote || Some(address) != ends.local && self.allows(family, address)
    }

    fn allows(&self, family: Family, address: Bits) -> bool {
        self.allow
            .iter()
            .any(|network| network.family == family && address & network.mask == network.first)
    }
}

impl Ends {
    fn is_home(&self, address: Bits) -> bool {
        Some(address) == self.public || Some(address) == self.local
    }
}

fn bits(address: IpAddr) -> Bits {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn network(prefix: &Prefix) -> Network {
    let most = match prefix.family() {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let host_bits = most - u32::from(prefix.length());
    let mask = Bits::MAX.checked_shl(host_bits).unwrap_or(0);
    Network {
        family: prefix.family(),
        first: bits(prefix.address()) & mask,
        mask,
    }
}

/// Family, source and destination of an IP packet.
fn addresses(packet: &[u8]) -> Option<(Family, Bits, Bits)> {
    if packet.first()? >> 4 == 4 {
        let header: &[u8; 20] = packet.first_chunk()?;
        let at = |i: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[i + byte])).into();
        return Some((Family::V4, at(12), at(16)));
    }
    let (source, rest) = packet.get(8..)?.split_first_chunk()?;
    let destination = rest.first_chunk()?;
    Some((
        Family::V6,
        Bits::from_be_bytes(*source),
        Bits::from_be_bytes(*destination),
    ))
}

/// True for a packet that says something about its way. It may name the hosts to pass (RFC 791, options 131 and
/// 137; RFC 8200 section 4.4): then its destination is not where it ends. Or it asks the routers for their
/// addresses (options 7 and 68), and those at home are private.
fn concerns_its_way(packet: &[u8]) -> bool {
    let Some(header) = packet.first().filter(|first| **first >> 4 == 4) else {
        return has_routing_header(packet);
    };
    let mut options = packet
        .get(20..usize::from(header & 0x0f) * 4)
        .unwrap_or_default();
    loop {
        options = match options {
            [7 | 68 | 131 | 137, ..] => return true,
            [1, rest @ ..] => rest,
            [kind, length, ..] if *kind != 0 && *length >= 2 => {
                options.get(usize::from(*length)..).unwrap_or_default()
            }
            _ => return false,
        };
    }
}

/// True for an IPv6 packet with a routing header of any type, and for one that hides whether it has one.
/// Encrypted ones, and later fragments, show no more headers; what was cut is put together by the host that
/// it goes to, and no router looks into it.
fn has_routing_header(packet: &[u8]) -> bool {
    let Some(next) = packet.get(6) else {
        return true;
    };
    let (mut next, mut at) = (*next, 40);
    for _ in 0..MOST_EXTENSIONS {
        let (following, length) = match (next, packet.get(at..)) {
            (ROUTING, _) => return true,
            (HOP_BY_HOP | DESTINATION_OPTIONS, Some([following, length, ..])) => {
                (*following, (usize::from(*length) + 1) * 8)
            }
            (FRAGMENT, Some([following, _, high, low, ..])) => {
                if u16::from_be_bytes([*high, *low]) >> 3 != 0 {
                    return false;
                }
                (*following, 8)
            }
            (AUTHENTICATION, Some([following, length, ..])) => {
                (*following, (usize::from(*length) + 2) * 4)
            }
            (HOP_BY_HOP | DESTINATION_OPTIONS | FRAGMENT | AUTHENTICATION, _) => return true,
            _ => return false,
        };
        next = following;
        at += length;
    }
    true
}

/// True for an ICMP redirect (RFC 792): one is for the hosts of a link, and no router is between them.
/// Those of IPv6 come from a link-local address.
fn is_redirect(packet: &[u8]) -> bool {
    const ICMP: u8 = 1;
    const REDIRECT: u8 = 5;
    match packet {
        // Only the first fragment begins with the type.
        [first, _, _, _, _, _, high, low, _, protocol, ..]
            if first >> 4 == 4 && *protocol == ICMP && high & 0x1f == 0 && *low == 0 =>
        {
            packet.get(usize::from(first & 0x0f) * 4) == Some(&REDIRECT)
        }
        _ => false,
    }
}

/// Addresses that mean something on one link only, or no single host at all: they are neither a
/// source nor a destination here (RFC 6890, RFC 4291).
///
/// IPv4: 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 and everything from 224.0.0.0 on. IPv6: ::/16 (with
/// :: itself, ::1 and the mapped IPv4 addresses), fe80::/10, fec0::/10 and ff00::/8.
fn never(family: Family, address: Bits) -> bool {
    match family {
        Family::V4 => {
            let first = address >> 24;
            first == 0 || first == 127 || first >= 224 || address >> 16 == 0xa9fe
        }
        Family::V6 => {
            let first = address >> 112;
            first == 0 || first >> 7 == 0xfe80 >> 7 || first >> 8 == 0xff
        }
    }
}

/// Addresses of somebody's private network: RFC 1918, RFC 6598 and RFC 4193.
fn private(family: Family, address: Bits) -> bool {
    match family {
        Family::V4 => {
            address >> 24 == 10
                || address >> 20 == 0xac1
                || address >> 16 == 0xc0a8
                || address >> 22 == 0x6440 >> 6
        }
        Family::V6 => address >> 121 == 0xfc >> 1,
    }
}

#[cfg(test)]
#[path = "crossing_tests.rs"]
mod tests;
