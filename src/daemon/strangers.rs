//! Who may connect: TCP connections that nobody has proven to be the peer's are few, short-lived,
//! and shared out among those who ask.

use std::net::{IpAddr, Ipv6Addr};

use crate::proto::Instant;
use crate::proto::event::SocketId;

/// Strangers at once: four times the paths a tunnel has.
const MAX_STRANGERS: usize = 32;
/// Strangers at once of one source: a peer whose links share one address (one NAT) has half of
/// eight links in the air together; the others come a moment later.
const MAX_OF_ONE: usize = 4;
/// One customer has at least a whole /64 of IPv6 (RFC 6177).
const SOURCE_BITS: u32 = 64;

/// A connection that carries no path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger {
    pub(super) id: SocketId,
    pub(super) address: IpAddr,
    /// When it was accepted.
    pub(super) since: Instant,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is room.
    Welcome,
    /// There is room when this one goes.
    InsteadOf(SocketId),
    /// Its source has enough.
    Refused,
}

/// Decides about a new connection. Where all places are taken, the oldest one of the source with
/// the most of them goes: so a flood from a few sources drives out itself.
pub(super) fn admit(strangers: &[Stranger], newcomer: IpAddr) -> Verdict {
    let of = |address| {
        strangers
            .iter()
            .filter(|it| source(it.address) == source(address))
            .count()
    };
    if of(newcomer) >= MAX_OF_ONE {
        return Verdict::Refused;
    }
    if strangers.len() < MAX_STRANGERS {
        return Verdict::Welcome;
    }
    strangers
        .iter()
        .min_by_key(|it| (usize::MAX - of(it.address), it.since))
        .map_or(Verdict::Welcome, |victim| Verdict::InsteadOf(victim.id))
}

/// What counts as one source.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - SOURCE_BITS);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stranger(number: u32, address: impl Into<IpAddr>) -> Stranger {
        Stranger {
            id: SocketId(number),
            address: address.into(),
            since: Instant::from_micros(0) + Duration::from_secs(number.into()),
        }
    }

    #[test]
    fn one_source_has_four_places_and_a_prefix_is_one_source() {
        let mut here: Vec<Stranger> = (0..4).map(|n| stranger(n, [192, 0, 2, 1])).collect();
        assert_eq!(admit(&here, [192, 0, 2, 1].into()), Verdict::Refused);
        assert_eq!(admit(&here, [192, 0, 2, 2].into()), Verdict::Welcome);
        for host in 1..=4 {
            here.push(stranger(host.into(), [0x2001, 0xdb8, 0, 1, 0, 0, 0, host]));
        }
        let neighbour = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert_eq!(admit(&here, neighbour), Verdict::Refused);
        let other = IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]);
        assert_eq!(admit(&here, other), Verdict::Welcome);
    }

    /// The review's attack: all places are taken by a few who never stop, and an honest one comes.
    #[test]
    fn a_flood_drives_out_itself_and_never_the_honest_one() {
        let mut here = vec![stranger(0, [198, 51, 100, 7])];
        for number in 1..32 {
            here.push(stranger(number, [192, 0, 2, (number / 4) as u8]));
        }
        // The honest one is the oldest of all, and stays.
        let newcomer = [203, 0, 113, 9].into();
        let Verdict::InsteadOf(victim) = admit(&here, newcomer) else {
            panic!("nobody goes");
        };
        assert_eq!(victim, SocketId(4));
        // Where everybody has one place, the oldest goes.
        let each: Vec<Stranger> = (0..32).map(|n| stranger(n, [192, 0, 2, n as u8])).collect();
        assert_eq!(admit(&each, newcomer), Verdict::InsteadOf(SocketId(0)));
    }
}
