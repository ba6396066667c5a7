//! What strangers and the network may do to datagrams: nothing is delivered, nothing breaks.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::pair::{Link, MS, Pair, To, numbers};
use crate::proto::stats::Discard;

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
    pair.send_up(5, 77, 32);
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
    assert!(
        pair.astray <= caught.len() as u64,
        "{} for {}",
        pair.astray,
        caught.len()
    );
}

#[test]
fn a_flood_of_initiations_is_answered_with_less() {
    let mut pair = running();
    let initiation = pair
        .tap
        .iter()
        .find(|(_, d)| d[0] == 0x10)
        .unwrap()
        .1
        .clone();
    let mut sent = 0;
    for n in 0..500u16 {
        sent += initiation.len() as u64;
        let from = SocketAddr::from(([198, 51, 100, (n % 250) as u8], n + 1));
        pair.inject(To::Remote, from, &initiation);
    }
    assert!(pair.astray <= sent, "{} for {sent}", pair.astray);
    pair.send_up(5, 99, 100);
    pair.run(50 * MS);
    assert_eq!(numbers(&pair.at_remote, 5).last(), Some(&99));
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
    }

    /// Loss, cuts, new addresses, restarts and time in any order: packets are delivered at most
    /// once, those of a flow in order, and in the end the tunnel works again.
    #[test]
    fn whatever_happens_it_recovers(operations in proptest::collection::vec((0u8..9, any::<u8>()), 1..60)) {
        let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
        pair.run(200 * MS);
        let mut next = 0;
        for (operation, value) in operations {
            let id = usize::from(value) % 2;
            match operation {
                0..=2 => for _ in 0..value % 20 {
                    pair.send_up(5, next, 100 + usize::from(value));
                    next += 1;
                },
                3 => pair.run(u32::from(value) * MS),
                4 => pair.links[id].up ^= true,
                5 => pair.links[id].loss = u64::from(value % 20),
                6 => pair.links[id].address.set_port(30_000 + u16::from(value)),
                7 => pair.restart_remote(),
                _ => pair.run(3 * MS),
            }
        }
        for link in &mut pair.links {
            (link.up, link.loss) = (true, 0);
        }
        pair.run(4000 * MS);
        pair.send_up(5, u32::MAX, 100);
        pair.send_down(6, 1, 100);
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
