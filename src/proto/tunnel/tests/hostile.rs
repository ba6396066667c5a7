//! What strangers and the network may do to datagrams: nothing is delivered, nothing breaks.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::ecn::{DROPS, ERASES, MARKS_ALL, MARKS_SOME};
use super::pair::{Link, MS, Pair, To, inner, numbers};
use super::repair::segment;
use crate::config::Security;
use crate::packet::ecn::Codepoint;
use crate::proto::batch::Batch;
use crate::proto::crypto::{BootId, Hello, Identity, Initiator};
use crate::proto::event::PathState;
use crate::proto::recovery::Ranges;
use crate::proto::stats::Discard;
use crate::proto::wire::frame::{self, AckHead, Bucket, EcnCounts, Sequence};
use crate::proto::wire::{Header, Kind, PacketNumber, PathId, Stamp, TAG_LEN};

fn stranger() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 66], 6666))
}

fn running() -> Pair {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(200 * MS);
    for n in 0..20 {
        pair.send_up(5, n, 200);
        pair.run(5 * MS);
    }
    pair.run(50 * MS);
    pair
}

fn discards(pair: &mut Pair, cause: Discard) -> u64 {
    let stats = pair.remote.stats(pair.now);
    stats
        .discards
        .iter()
        .find(|(c, _)| *c == cause)
        .map_or(0, |(_, count)| *count)
}

#[test]
fn every_datagram_replayed_delivers_nothing() {
    let mut pair = running();
    let delivered = pair.at_remote.len();
    let tap: Vec<_> = pair
        .tap
        .iter()
        .filter(|(to, _)| *to == To::Remote)
        .cloned()
        .collect();
    for (_, datagram) in &tap {
        pair.inject(To::Remote, stranger(), datagram);
    }
    pair.run(300 * MS);
    assert_eq!(pair.at_remote.len(), delivered);
    assert!(
        discards(&mut pair, Discard::Replayed) >= 20,
        "{:?}",
        pair.remote.stats(pair.now)
    );
    pair.send_up(5, 99, 100);
    pair.run(50 * MS);
    assert_eq!(numbers(&pair.at_remote, 5).last(), Some(&99));
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let mut pair = running();
    let delivered = pair.at_remote.len();
    // Cut the links, so that what is sent now is new to the remote portal.
    pair.links.iter_mut().for_each(|link| link.up = false);
    let before = pair.tap.len();
    pair.send_up(5, 77, 100);
    let (_, good) = pair.tap[before..]
        .iter()
        .find(|(to, _)| *to == To::Remote)
        .unwrap()
        .clone();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        pair.inject(To::Remote, pair.links[0].address, &bad);
    }
    for length in 0..good.len() {
        pair.inject(To::Remote, pair.links[0].address, &good[..length]);
    }
    assert_eq!(pair.at_remote.len(), delivered);
    pair.inject(To::Remote, pair.links[0].address, &good);
    assert_eq!(numbers(&pair.at_remote, 5).last(), Some(&77));
}

#[test]
fn a_spoofed_source_gets_no_more_than_was_sent_from_it() {
    let mut pair = running();
    pair.links.iter_mut().for_each(|link| link.up = false);
    let before = pair.tap.len();
    // A genuine datagram is caught and sent on from the victim's address.
    pair.send_up(5, 77, 200);
    let (_, caught) = pair.tap[before..]
        .iter()
        .find(|(to, _)| *to == To::Remote)
        .unwrap()
        .clone();
    pair.inject(To::Remote, stranger(), &caught);
    for n in 0..200 {
        pair.send_down(5, n, 1000);
    }
    pair.run(2000 * MS);
    // Asked for a proof, and nothing more.
    assert!(
        pair.astray > 0 && pair.astray <= caught.len() as u64,
        "{}",
        pair.astray
    );
}

/// An initiation made by somebody who knows both keys: the worst case.
fn initiation(pair: &mut Pair) -> Vec<u8> {
    let hello = Hello {
        boot: BootId::generate(&mut pair.random),
        counter: 1,
        security: Security::Encrypt,
        aes: false,
        parity: true,
    };
    let config = &pair.local.config;
    let identity = Identity::new(config.private.clone(), config.peer, None);
    Initiator::start(&identity, hello, &mut pair.random).message(None, pair.now)
}

#[test]
fn only_what_is_sealed_and_new_is_authentic() {
    let mut pair = running();
    pair.links.iter_mut().for_each(|link| link.up = false);
    let before = pair.tap.len();
    pair.send_up(5, 77, 200);
    let (_, caught) = pair.tap[before..]
        .iter()
        .find(|(to, _)| *to == To::Remote)
        .unwrap()
        .clone();
    let mut forged = caught.clone();
    *forged.last_mut().unwrap() ^= 1;
    let initiation = initiation(&mut pair);
    let mut come = |bytes: &[u8]| {
        let (now, length) = (pair.now, bytes.len());
        pair.remote.handle_datagrams(
            now,
            super::pair::LISTEN,
            stranger(),
            &mut bytes.to_vec(),
            length,
            Codepoint::NotCapable,
        )
    };
    assert!(!come(&forged));
    assert!(!come(&initiation));
    assert!(come(&caught));
    assert!(!come(&caught));
    // The initiation's answer goes by the address it was sent to, the question for a proof by that of
    // what is authentic.
    let mut batch = Batch::default();
    let mut answers = Vec::new();
    while pair.remote.poll_transmit(pair.now, &mut batch) {
        let Some((transmit, bytes)) = batch.seal() else {
            break;
        };
        if transmit.destination == stranger() {
            answers.push((Kind::from_byte(bytes[0]), transmit.answers));
        }
    }
    let expected = [(Some(Kind::Response), true), (Some(Kind::Sealed), false)];
    assert_eq!(answers, expected);
}

#[test]
fn a_flood_of_initiations_is_answered_with_less_and_then_with_cookies() {
    let mut pair = running();
    let mut sent = 0;
    for n in 0..500u16 {
        let initiation = initiation(&mut pair);
        sent += initiation.len() as u64;
        let from = SocketAddr::from(([198, 51, (n % 200) as u8, 1], n + 1));
        pair.inject(To::Remote, from, &initiation);
    }
    assert!(pair.astray <= sent, "{} for {sent}", pair.astray);
    assert!(discards(&mut pair, Discard::HandshakeFlood) > 400);
    pair.send_up(5, 99, 100);
    pair.run(50 * MS);
    assert_eq!(numbers(&pair.at_remote, 5).last(), Some(&99));
}

/// The remote portal has just started, and a satellite is its only link. Meanwhile an attacker replays what he
/// recorded of the local portal's earlier runs.
#[test]
fn recorded_initiations_do_not_displace_a_handshake_under_way() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 400)]);
    pair.run(5000 * MS);
    assert_eq!(pair.states(), [PathState::Up]);
    pair.restart_remote();
    for n in 0..1000u16 {
        let recorded = initiation(&mut pair);
        let from = SocketAddr::from(([198, (n >> 8) as u8, n as u8, 1], 99));
        pair.inject(To::Remote, from, &recorded);
        pair.run(20 * MS);
    }
    pair.send_up(5, 99, 100);
    pair.run(500 * MS);
    assert_eq!(numbers(&pair.at_remote, 5).last(), Some(&99));
}

/// A datagram of the local portal on path 0 with this body behind the send time.
pub(super) fn forge(pair: &mut Pair, kind: Kind, ahead: u64, body: &[u8]) -> Vec<u8> {
    let path = pair.local.paths[0].as_deref().unwrap();
    let number = PacketNumber(path.sent.next_number().0 + ahead);
    let session = &pair.local.keys.current().unwrap().session;
    let index = session.tx_index(path.id);
    let mut datagram = Header {
        kind,
        index,
        number: number.truncated(),
    }
    .encode()
    .to_vec();
    datagram.extend_from_slice(&Stamp::of(pair.now).encode());
    datagram.extend_from_slice(body);
    if kind == Kind::Sealed {
        datagram.extend([0; TAG_LEN]);
        session.seal(path.id, number, datagram.len(), &mut datagram);
    }
    datagram
}

#[test]
fn where_data_has_no_tag_it_still_changes_nothing_but_data() {
    let links = vec![Link::new(0, 20, 7), Link::new(1, 10, 20)];
    let mut pair = Pair::with(links, Security::None, Security::None);
    pair.run(200 * MS);
    let place = pair.links[0].address;
    let mut bodies = vec![Vec::new(); 5];
    frame::put_close(&mut bodies[0]);
    frame::put_challenge(&mut bodies[1], [1; 8]);
    frame::put_status(&mut bodies[2], PathId::new(0).unwrap(), 9, 1);
    frame::put_ping(&mut bodies[3]);
    let sequence = Sequence::new(0x7f_0000);
    let order = frame::Order {
        bucket: Bucket(1),
        sequence,
        mask: 0,
        wait: true,
        settled: false,
    };
    frame::put_data(&mut bodies[4], Some(order), inner(9, 1, 100).bytes(), true);
    for from in [place, stranger()] {
        for (n, body) in bodies.iter().enumerate() {
            for ahead in [0, 100, 4000, 60_000, 1 << 20] {
                let datagram = forge(&mut pair, Kind::Bare, ahead + n as u64, body);
                pair.inject(To::Remote, from, &datagram);
            }
        }
    }
    pair.run(100 * MS);
    assert_eq!(pair.astray, 0);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    for n in 0..3000 {
        pair.send_up(5, n, 1000);
        pair.run(MS);
    }
    pair.run(300 * MS);
    // Lost are numbers that were forged before they were used, and a little to slow start.
    let got = numbers(&pair.at_remote, 5).len();
    assert!(got > 2940, "{got}");
}

#[test]
fn only_under_a_seal_is_a_packet_given_up() {
    let links = vec![Link::new(0, 20, 7)];
    let mut pair = Pair::with(links, Security::None, Security::None);
    pair.run(200 * MS);
    // The first packet of a flow is lost, the second one waits for its repair.
    pair.links[0].up = false;
    pair.local.handle_packet(pair.now, segment(9, 0, 1000));
    pair.run(MS);
    pair.links[0].up = true;
    pair.local.handle_packet(pair.now, segment(9, 1, 1000));
    pair.run(10 * MS);
    let waiting = |pair: &mut Pair| pair.remote.stats(pair.now).reorder_packets;
    assert_eq!((waiting(&mut pair), pair.at_remote.len()), (1, 0));
    let mut body = Vec::new();
    (0..=u8::MAX).for_each(|n| frame::put_forward(&mut body, Bucket(n), Sequence::new(0)));
    let from = pair.links[0].address;
    let bare = forge(&mut pair, Kind::Bare, 0, &body);
    let forged = discards(&mut pair, Discard::Forged);
    pair.inject(To::Remote, from, &bare);
    assert_eq!(discards(&mut pair, Discard::Forged), forged + 1);
    assert_eq!((waiting(&mut pair), pair.at_remote.len()), (1, 0));
    let sealed = forge(&mut pair, Kind::Sealed, 1, &body);
    pair.inject(To::Remote, from, &sealed);
    assert_eq!(waiting(&mut pair), 0);
    assert_eq!(numbers(&pair.at_remote, 9), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..8) {
        let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
        pair.run(100 * MS);
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind << 4;
        }
        pair.inject(To::Remote, stranger(), &bytes);
        pair.inject(To::Local, stranger(), &bytes);
        // The same behind a seal that fits: not even the peer can break us.
        let sealed = forge(&mut pair, Kind::Sealed, 0, &bytes);
        let from = pair.links[0].address;
        pair.inject(To::Remote, from, &sealed);
        pair.run(300 * MS);
    }

    /// Whatever the peer says of marks, nothing breaks, and no more counts as marked than was sent.
    #[test]
    fn marks_that_cannot_be_do_no_harm(
        lies in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u32>(), 0u64..40), 1..20),
    ) {
        let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
        pair.run(100 * MS);
        for (n, (ect0, ce, bytes, back)) in lies.into_iter().enumerate() {
            for number in 0..5 {
                pair.send_down(5, 5 * n as u32 + number, 500);
            }
            pair.run(2 * MS);
            let path = pair.remote.paths[0].as_deref().unwrap();
            let mut ranges = Ranges::default();
            ranges.insert(PacketNumber(path.sent.next_number().0.saturating_sub(back)));
            let head = AckHead {
                path: path.id,
                received_at: Stamp::of(pair.now),
                bytes,
                ecn: EcnCounts { ect0, ce },
            };
            let mut body = Vec::new();
            frame::put_ack(&mut body, head, &ranges, 100);
            let sealed = forge(&mut pair, Kind::Sealed, 0, &body);
            let from = pair.links[0].address;
            pair.inject(To::Remote, from, &sealed);
            let path = &pair.remote.stats(pair.now).paths[0];
            prop_assert!(path.marked <= path.datagrams_sent);
        }
        pair.run(300 * MS);
    }

    /// Loss, cuts, new addresses, other MTUs, restarts and time in any order: packets are delivered at
    /// most once, and in the end the tunnel works again.
    #[test]
    fn whatever_happens_it_recovers(operations in proptest::collection::vec((0u8..11, any::<u8>()), 1..60)) {
        let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
        pair.run(200 * MS);
        let mut next = 0;
        for (operation, value) in operations {
            let id = usize::from(value) % 2;
            match operation {
                0..=2 => for _ in 0..value % 20 {
                    pair.send_up(5, next, 100 + 5 * usize::from(value));
                    next += 1;
                },
                3 => pair.run(u32::from(value) * MS),
                4 => pair.links[id].up ^= true,
                5 => pair.links[id].loss = u64::from(value % 20),
                6 => pair.links[id].address.set_port(30_000 + u16::from(value)),
                7 => pair.restart_remote(),
                8 => pair.links[id].mtu = 600 + 4 * usize::from(value),
                9 => pair.links[id].ecn = [MARKS_SOME, MARKS_ALL, DROPS, ERASES][usize::from(value / 2) % 4],
                _ => pair.run(3 * MS),
            }
        }
        for link in &mut pair.links {
            (link.up, link.loss) = (true, 0);
        }
        pair.run(4000 * MS);
        // What a silent link carries no more, data finds out.
        for n in 0..10 {
            pair.send_up(7, n, 1280);
            pair.send_down(7, n, 1280);
            pair.run(50 * MS);
        }
        pair.run(500 * MS);
        pair.send_up(5, u32::MAX, 1280);
        pair.send_down(6, 1, 1280);
        pair.run(500 * MS);
        let got = numbers(&pair.at_remote, 5);
        prop_assert_eq!(got.last(), Some(&u32::MAX));
        prop_assert_eq!(numbers(&pair.at_local, 6), [1]);
        let mut once = got.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), got.len());
    }
}
