//! Who may connect: TCP connections that nobody has proven to be the peer's are few, short-lived,
//! and shared out among those who ask. Those from networks where the peer was heard from lately have
//! places of their own.

use std::net::IpAddr;
use std::time::Duration;

use crate::proto::Instant;
use crate::proto::crowd::{host, most_crowded};
use crate::proto::event::SocketId;
use crate::proto::wire::MAX_PATHS;

/// Strangers at once: four times the paths a tunnel has.
const MAX_STRANGERS: usize = 32;
/// Beside them, strangers from networks where the peer was heard from lately: one for each of its paths.
const MAX_KNOWN: usize = MAX_PATHS;
/// Strangers at once of one source: a peer whose links share one address (one NAT) has half of
/// eight links in the air together; the others come a moment later.
const MAX_OF_ONE: usize = 4;
/// After this long without a proven path, a stranger makes room for the next one of its source: two round
/// trips of a handshake over a satellite. Otherwise a neighbour behind the peer's NAT could keep it out.
const SLOW: Duration = Duration::from_secs(2);

/// A connection that carries no path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger {
    pub(super) id: SocketId,
    pub(super) address: IpAddr,
    /// When it was accepted.
    pub(super) since: Instant,
    /// It came from a network where the peer had been heard from.
    pub(super) known: bool,
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

/// Decides about a new connection, which is `known` if the peer was heard from its network. Where all
/// places are taken, the oldest one of the most crowded network goes, so a flood drives out itself.
pub(super) fn admit(
    strangers: &[Stranger],
    newcomer: IpAddr,
    known: bool,
    now: Instant,
) -> Verdict {
    let mut rivals: Vec<&Stranger> = strangers.iter().filter(|it| it.known == known).collect();
    rivals.sort_unstable_by_key(|it| it.since);
    let same = || {
        rivals
            .iter()
            .filter(|it| host(it.address) == host(newcomer))
    };
    if same().count() >= MAX_OF_ONE {
        return match same().next() {
            Some(oldest) if now.since(oldest.since) >= SLOW => Verdict::InsteadOf(oldest.id),
            _ => Verdict::Refused,
        };
    }
    if rivals.len() < if known { MAX_KNOWN } else { MAX_STRANGERS } {
        return Verdict::Welcome;
    }
    let addresses: Vec<IpAddr> = rivals.iter().map(|it| it.address).collect();
    match most_crowded(&addresses).and_then(|place| rivals.get(place)) {
        Some(victim) => Verdict::InsteadOf(victim.id),
        None => Verdict::Welcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All came at most a moment ago.
    const NOW: Instant = Instant::from_micros(1_000);

    fn stranger(number: u32, address: impl Into<IpAddr>) -> Stranger {
        Stranger {
            id: SocketId(number),
            address: address.into(),
            since: Instant::from_micros(number.into()),
            known: false,
        }
    }

    #[test]
    fn one_source_has_four_places_and_a_prefix_is_one_source() {
        let mut here: Vec<Stranger> = (0..4).map(|n| stranger(n, [192, 0, 2, 1])).collect();
        let admits = |here: &[Stranger], address: IpAddr| admit(here, address, false, NOW);
        assert_eq!(admits(&here, [192, 0, 2, 1].into()), Verdict::Refused);
        assert_eq!(admits(&here, [192, 0, 2, 2].into()), Verdict::Welcome);
        for host in 1..=4 {
            here.push(stranger(host.into(), [0x2001, 0xdb8, 0, 1, 0, 0, 0, host]));
        }
        let neighbour = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert_eq!(admits(&here, neighbour), Verdict::Refused);
        let other = IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]);
        assert_eq!(admits(&here, other), Verdict::Welcome);
    }

    /// Somebody behind the peer's NAT holds all places of their address, and says nothing.
    #[test]
    fn a_silent_one_makes_room_for_its_own_source() {
        let here: Vec<Stranger> = (0..4).map(|n| stranger(n, [192, 0, 2, 1])).collect();
        let source = [192, 0, 2, 1].into();
        let later = Instant::from_micros(0) + SLOW;
        assert_eq!(admit(&here, source, false, NOW), Verdict::Refused);
        assert_eq!(
            admit(&here, source, false, later),
            Verdict::InsteadOf(SocketId(0))
        );
    }

    /// A few sources take all places and never stop, and an honest one comes.
    #[test]
    fn a_flood_drives_out_itself_and_never_the_honest_one() {
        let mut here = vec![stranger(0, [198, 51, 100, 7])];
        for number in 1..32 {
            here.push(stranger(number, [192, 0, 2, (number / 4) as u8]));
        }
        // The honest one is the oldest of all, and stays.
        let newcomer = [203, 0, 113, 9].into();
        let verdict = admit(&here, newcomer, false, NOW);
        assert_eq!(verdict, Verdict::InsteadOf(SocketId(4)));
        // Where everybody has one place, the oldest goes.
        let each: Vec<Stranger> = (0..32).map(|n| stranger(n, [192, 0, 2, n as u8])).collect();
        let verdict = admit(&each, newcomer, false, NOW);
        assert_eq!(verdict, Verdict::InsteadOf(SocketId(0)));
    }

    /// 32 networks of one /59 take turns.
    #[test]
    fn a_sender_with_many_networks_turns_over_its_own() {
        let honest = IpAddr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, 1]);
        let mut here = vec![stranger(0, honest)];
        for number in 1..200u32 {
            let address = IpAddr::from([0x2001, 0xdb8, 5, number as u16 % 32, 0, 0, 0, 1]);
            match admit(&here, address, false, NOW) {
                Verdict::Welcome => {}
                Verdict::InsteadOf(victim) => here.retain(|it| it.id != victim),
                Verdict::Refused => continue,
            }
            here.push(stranger(number, address));
            assert!(here.len() <= MAX_STRANGERS);
        }
        assert_eq!(here[0].address, honest);
    }

    /// Strangers from all over the Internet turn over each other, and nobody whose network is known.
    #[test]
    fn the_peers_networks_have_places_of_their_own() {
        let home = Stranger {
            known: true,
            ..stranger(0, [198, 51, 100, 7])
        };
        let mut here = vec![home];
        here.extend((1..=32).map(|n| stranger(n, [n as u8, 0, 2, 1])));
        let verdict = admit(&here, [203, 0, 113, 9].into(), false, NOW);
        assert_eq!(verdict, Verdict::InsteadOf(SocketId(1)));
        let verdict = admit(&here, [198, 51, 100, 8].into(), true, NOW);
        assert_eq!(verdict, Verdict::Welcome);
        // And these are few as well.
        here.retain(|it| it.known);
        for number in 1..100u32 {
            let address = IpAddr::from([198, 51, 100, number as u8]);
            match admit(&here, address, true, NOW) {
                Verdict::Welcome => {}
                Verdict::InsteadOf(victim) => here.retain(|it| it.id != victim),
                Verdict::Refused => continue,
            }
            here.push(Stranger {
                known: true,
                ..stranger(number, address)
            });
        }
        assert_eq!(here.len(), MAX_KNOWN);
    }
}
