//! What links lose, the tunnel makes good: in order, once, and soon.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::pair::{Link, MS, Pair, To, inner, numbers};
use crate::config::Security;
use crate::packet::Packet;
use crate::proto::event::PathState;
use crate::proto::repair::Why;
use crate::proto::wire::{Header, PathId};

/// A TCP segment with a number in it.
pub(super) fn segment(flow: u16, number: u32, len: usize) -> Packet {
    let mut packet = inner(flow, number, len);
    packet.buffer()[9] = 6;
    // A header of 20 bytes, ACK.
    packet.buffer()[32..34].copy_from_slice(&[0x50, 0x10]);
    packet
}

/// Offers `mbit` of 1,300-byte segments of one flow from the remote side for so long, on top of
/// `sent`. Returns how many were sent in all and the longest time in which nothing was delivered.
fn offer(pair: &mut Pair, sent: &mut u32, mbit: u64, ms: u64) -> Duration {
    let per_ms = mbit as f64 * 125.0 / 1300.0;
    let first = *sent;
    let mut longest = Duration::ZERO;
    let mut last = pair.now;
    for ms in 1..=ms {
        while f64::from(*sent - first) < per_ms * ms as f64 {
            let packet = segment(9, *sent, 1300);
            pair.remote.handle_packet(pair.now, packet);
            *sent += 1;
        }
        let before = pair.at_local.len();
        pair.run(MS);
        if pair.at_local.len() > before {
            longest = longest.max(pair.now.since(last));
            last = pair.now;
        }
    }
    longest.max(pair.now.since(last))
}

/// Slow start is over, every path is in use.
fn warm(links: Vec<Link>, security: Security) -> (Pair, u32) {
    let mut pair = Pair::with(links, security, security);
    pair.run(200 * MS);
    let mut sent = 0;
    offer(&mut pair, &mut sent, 25, 2000);
    pair.run(Duration::from_secs(1));
    (pair, sent)
}

fn two() -> Vec<Link> {
    vec![Link::new(0, 20, 7), Link::new(1, 20, 20)]
}

/// What the queue of the remote portal dropped: that is its business.
fn drops(pair: &mut Pair) -> u64 {
    let discards = pair.remote.stats(pair.now).discards;
    discards.iter().map(|(_, count)| count).sum()
}

/// Everything from `first` to `end` came, in order, once, except what the queue dropped.
fn whole(pair: &mut Pair, first: u32, end: u32, dropped: u64) {
    let got = numbers(&pair.at_local, 9);
    let got: Vec<_> = got.into_iter().filter(|n| *n >= first).collect();
    assert!(got.is_sorted_by(|a, b| a < b));
    assert_eq!(got.len() as u64 + dropped, u64::from(end - first));
}

#[test]
fn random_losses_are_made_good() {
    for security in [Security::Encrypt, Security::None] {
        let (mut pair, first) = warm(two(), security);
        let dropped = drops(&mut pair);
        pair.links[0].loss = 50;
        pair.links[1].loss = 50;
        let mut sent = first;
        offer(&mut pair, &mut sent, 5, 4000);
        pair.run(Duration::from_secs(1));
        let dropped = drops(&mut pair) - dropped;
        whole(&mut pair, first, sent, dropped);
        let now = pair.now;
        let stats = pair.remote.stats(now);
        assert!(stats.repairs > 20, "{}", stats.repairs);
        assert!(stats.given_up <= 1);
        assert_eq!(pair.remote.repairs.bytes(), 0);
        assert_eq!(pair.local.stats(now).reorder_packets, 0);
    }
}

#[test]
fn a_lone_path_repairs_itself() {
    let (mut pair, first) = warm(vec![Link::new(0, 20, 7)], Security::Encrypt);
    let dropped = drops(&mut pair);
    pair.links[0].loss = 50;
    let mut sent = first;
    offer(&mut pair, &mut sent, 5, 3000);
    pair.run(Duration::from_secs(1));
    let dropped = drops(&mut pair) - dropped;
    whole(&mut pair, first, sent, dropped);
}

#[test]
fn a_cut_path_costs_a_moment_and_no_packet() {
    for cut in [0, 1] {
        let (mut pair, first) = warm(two(), Security::Encrypt);
        let dropped = drops(&mut pair);
        let mut sent = first;
        offer(&mut pair, &mut sent, 12, 1000);
        pair.links[cut].up = false;
        let gap = offer(&mut pair, &mut sent, 12, 2000);
        assert!(gap < 200 * MS, "{cut}: {gap:?}");
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.states()[cut], PathState::Dead);
        let dropped = drops(&mut pair) - dropped;
        whole(&mut pair, first, sent, dropped);
    }
}

#[test]
fn the_last_packets_are_made_good_without_later_ones() {
    let (mut pair, mut sent) = warm(two(), Security::Encrypt);
    let dropped = drops(&mut pair);
    offer(&mut pair, &mut sent, 1, 1000);
    let first = sent;
    // Each of these is alone; whatever link it takes loses it.
    for lost in [0, 1] {
        pair.run(500 * MS);
        let before = pair.at_local.len();
        pair.links[lost].up = false;
        pair.remote.handle_packet(pair.now, segment(9, sent, 1300));
        sent += 1;
        pair.run(10 * MS);
        pair.links[lost].up = true;
        pair.run(60 * MS);
        assert_eq!(pair.at_local.len(), before + 1, "{lost}");
    }
    let dropped = drops(&mut pair) - dropped;
    whole(&mut pair, first, sent, dropped);
}

#[test]
fn a_path_that_swallowed_a_burst_gets_no_repair() {
    // The other one is slow: the repairs wait for it.
    let links = vec![Link::new(0, 20, 7), Link::new(1, 4, 20)];
    let (mut pair, first) = warm(links, Security::Encrypt);
    pair.run(500 * MS);
    pair.links[0].up = false;
    let (cut, start) = (pair.now, pair.tap.len());
    for n in first..first + 30 {
        pair.remote.handle_packet(pair.now, segment(9, n, 1300));
    }
    pair.run(25 * MS);
    let session = &pair.remote.keys.current().unwrap().session;
    let index = session.tx_index(PathId::new(0).unwrap());
    let on_cut = |(to, datagram): &(To, Vec<u8>)| {
        *to == To::Local
            && datagram.len() > 1300
            && Header::parse(datagram).is_some_and(|header| header.index == index)
    };
    let swallowed = pair.tap[start..].iter().filter(|d| on_cut(d)).count();
    assert!(swallowed > 10, "{swallowed}");
    let before = pair.tap.len();
    while numbers(&pair.at_local, 9).last() != Some(&(first + 29)) {
        pair.run(MS);
        assert!(pair.now < cut + 200 * MS, "{}", pair.at_local.len());
    }
    assert_eq!(pair.tap[before..].iter().filter(|d| on_cut(d)).count(), 0);
    whole(&mut pair, first, first + 30, 0);
}

#[test]
fn the_peer_is_told_what_was_given_up() {
    let (mut pair, first) = warm(vec![Link::new(0, 20, 7)], Security::Encrypt);
    pair.run(500 * MS);
    // The first one is lost, and the second one waits for it.
    pair.links[0].up = false;
    pair.remote.handle_packet(pair.now, segment(9, first, 1300));
    pair.run(MS);
    pair.links[0].up = true;
    let second = segment(9, first + 1, 1300);
    pair.remote.handle_packet(pair.now, second);
    pair.run(9 * MS);
    assert_eq!(pair.local.stats(pair.now).reorder_packets, 1);
    // Every try was lost as well.
    let tunnel = &mut pair.remote;
    let path = tunnel.paths[0].as_deref().unwrap();
    let (id, kept) = (path.id, path.sent.under_way(0).min().unwrap());
    for tries in 0..4 {
        tunnel.repairs.on_lost(pair.now, kept, id, &mut tunnel.pool);
        if tries < 3 {
            tunnel.repairs.on_sent_again(Why::Lost, id);
        }
    }
    assert_eq!(tunnel.repairs.count().given_up, 1);
    pair.run(15 * MS);
    assert_eq!(numbers(&pair.at_local, 9).last(), Some(&(first + 1)));
    pair.run(500 * MS);
    let got = numbers(&pair.at_local, 9);
    assert!(!got.contains(&first));
    assert_eq!(pair.local.stats(pair.now).overdue, 0);
}

/// Field row E: deadlines of 250 to 300 ms were shorter than such a round trip, so nothing came back.
#[test]
fn over_a_satellite_what_is_lost_comes_back_in_time() {
    let (mut pair, first) = warm(vec![Link::new(0, 20, 300)], Security::Encrypt);
    pair.run(Duration::from_secs(2));
    pair.links[0].loss = 20;
    let mut worst = Duration::ZERO;
    let mut sent = Vec::new();
    let mut seen = pair.at_local.len();
    for ms in 0..9000 {
        // So few that no queue forms, however little the controller allows.
        if ms % 20 == 0 && ms < 6000 {
            let n = first + sent.len() as u32;
            pair.remote.handle_packet(pair.now, segment(9, n, 1300));
            sent.push(pair.now);
        }
        pair.run(MS);
        for n in numbers(&pair.at_local[seen..], 9) {
            worst = worst.max(pair.now.since(sent[(n - first) as usize]));
        }
        seen = pair.at_local.len();
    }
    let mut got = numbers(&pair.at_local, 9);
    got.retain(|n| *n >= first);
    assert!(got.is_sorted(), "out of order");
    assert!(got.len() >= 299, "{}", got.len());
    assert!(worst < 2000 * MS, "{worst:?}");
}

#[test]
fn hopeless_losses_are_given_up_in_time() {
    let (mut pair, first) = warm(two(), Security::Encrypt);
    let dropped = drops(&mut pair);
    pair.links[0].loss = 5;
    pair.links[1].loss = 5;
    let mut sent = first;
    let gap = offer(&mut pair, &mut sent, 1, 10_000);
    pair.run(Duration::from_secs(2));
    let now = pair.now;
    let got: Vec<_> = numbers(&pair.at_local, 9)
        .into_iter()
        .filter(|n| *n >= first)
        .collect();
    let once: BTreeSet<_> = got.iter().copied().collect();
    assert_eq!(once.len(), got.len(), "delivered twice");
    let arrived = got.len() as u64 + drops(&mut pair) - dropped;
    assert!(
        arrived * 100 >= 99 * u64::from(sent - first),
        "{arrived} of {}",
        sent - first
    );
    assert!(gap < 350 * MS, "{gap:?}");
    assert_eq!(
        (
            pair.remote.repairs.bytes(),
            pair.local.stats(now).reorder_packets
        ),
        (0, 0)
    );
}

#[test]
fn a_call_is_repaired_but_never_waits() {
    let (mut pair, _) = warm(two(), Security::Encrypt);
    pair.run(500 * MS);
    pair.links[0].loss = 20;
    let before = pair.remote.stats(pair.now).repairs;
    let mut late = 0;
    for n in 0..500 {
        let sent = pair.now;
        pair.send_down(5, n, 200);
        // The quicker link takes 7 ms.
        pair.run(10 * MS);
        late += u64::from(!numbers(&pair.at_local, 5).contains(&n));
        pair.run((sent + 20 * MS).since(pair.now));
    }
    pair.run(500 * MS);
    // Only what was lost is late: nothing waits for it.
    let lost = pair.remote.stats(pair.now).repairs - before;
    assert!(lost > 10 && late <= lost, "{late} late, {lost} repaired");
    let got = numbers(&pair.at_local, 5);
    let once: BTreeSet<_> = got.iter().copied().collect();
    assert_eq!((once.len(), got.len()), (500, 500));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Any pattern of losses and cuts: nothing comes twice, what is out of order was waited for in
    /// vain, and no memory is kept.
    #[test]
    fn any_losses(
        changes in proptest::collection::vec((0usize..2, 0u64..3, any::<bool>(), 1u64..400), 1..12),
        seed in any::<u64>(),
    ) {
        let (mut pair, first) = warm(two(), Security::Encrypt);
        pair.random.0 = seed;
        let mut sent = first;
        for (link, loss, up, ms) in changes {
            pair.links[link].loss = [0, 50, 4][loss as usize];
            pair.links[link].up = up;
            offer(&mut pair, &mut sent, 4, ms);
        }
        for link in &mut pair.links {
            (link.up, link.loss) = (true, 0);
        }
        pair.run(Duration::from_secs(2));
        let now = pair.now;
        let got = numbers(&pair.at_local, 9);
        let once: BTreeSet<_> = got.iter().copied().collect();
        prop_assert_eq!(once.len(), got.len());
        let late = got.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
        let given_up = pair.remote.stats(now).given_up + pair.local.stats(now).overdue;
        prop_assert!(late <= given_up, "{} late, {} given up", late, given_up);
        prop_assert_eq!(pair.remote.repairs.bytes(), 0);
        prop_assert_eq!(pair.local.stats(now).reorder_packets, 0);
        let before = pair.at_local.len();
        offer(&mut pair, &mut sent, 1, 100);
        pair.run(100 * MS);
        prop_assert!(pair.at_local.len() > before);
    }
}

#[test]
fn what_is_sent_twice_does_not_notice_a_cut() {
    for cut in [0, 1] {
        let (mut pair, _) = warm(two(), Security::Encrypt);
        let voice = |n: u32| {
            let mut packet = inner(5, n, 200);
            packet.buffer()[1] = 46 << 2;
            packet
        };
        let mut late = Vec::new();
        for n in 0..150 {
            if n == 50 {
                pair.links[cut].up = false;
            }
            pair.remote.handle_packet(pair.now, voice(n));
            // The slower link's delay, and a little.
            pair.run(25 * MS);
            if numbers(&pair.at_local, 5).len() as u32 <= n {
                late.push(n);
            }
        }
        assert!(late.is_empty(), "link {cut}: {late:?}");
        pair.run(500 * MS);
        assert_eq!(numbers(&pair.at_local, 5), (0..150).collect::<Vec<_>>());
        let now = pair.now;
        let stats = pair.remote.stats(now);
        assert!(stats.twice >= 50, "{}", stats.twice);
        assert!(pair.local.stats(now).copies >= 50);
        assert_eq!(pair.remote.repairs.bytes(), 0);
    }
}

#[test]
fn all_twice_beside_a_download_stays_in_order() {
    let (mut pair, first) = warm(two(), Security::Encrypt);
    let dropped = drops(&mut pair);
    pair.remote.redundant = crate::packet::Classes::new(vec![crate::config::Class::All]);
    let mut sent = first;
    pair.links[0].loss = 50;
    offer(&mut pair, &mut sent, 8, 2000);
    pair.run(Duration::from_secs(1));
    let dropped = drops(&mut pair) - dropped;
    whole(&mut pair, first, sent, dropped);
    let now = pair.now;
    assert!(pair.remote.stats(now).twice > 1000);
    assert_eq!(pair.remote.repairs.bytes(), 0);
}
