//! Load: both links are used, order is kept, losses are few.

use std::time::Duration;

use super::hostile::forge;
use super::pair::{Link, MS, Pair, To, inner, numbers};
use super::repair::segment;
use crate::config::units::Mtu;
use crate::packet::Packet;
use crate::proto::wire::Kind;
use crate::proto::wire::frame::{self, Bucket, Sequence};

/// Offers `mbit` of 1,300-byte packets of one flow from the remote side for `seconds`.
fn offer(pair: &mut Pair, mbit: u64, seconds: u64) -> u32 {
    let per_ms = mbit as f64 * 125.0 / 1300.0;
    let mut sent = 0;
    for ms in 1..=seconds * 1000 {
        while f64::from(sent) < per_ms * ms as f64 {
            pair.send_down(9, sent, 1300);
            sent += 1;
        }
        pair.run(MS);
    }
    pair.run(Duration::from_secs(1));
    sent
}

#[test]
fn one_flow_gets_more_than_the_better_link() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(200 * MS);
    offer(&mut pair, 40, 10);
    let got = numbers(&pair.at_local, 9);
    let mbit = got.len() as f64 * 1300.0 * 8.0 / 10e6;
    assert!(mbit > 24.0, "{mbit} of 30 Mbit/s");
    // Slow start may once put more queue on a link than it ever showed before.
    let late = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(
        late * 1000 <= got.len(),
        "{late} of {} out of order",
        got.len()
    );
}

#[test]
fn below_capacity_nothing_is_lost_nor_reordered() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(200 * MS);
    let sent = offer(&mut pair, 15, 10);
    let got = numbers(&pair.at_local, 9);
    assert!(got.is_sorted());
    // Slow start may overshoot a link once.
    assert!(
        u64::from(sent) - (got.len() as u64) < 100,
        "{} of {sent}",
        got.len()
    );
}

/// What a path sent before it fell silent is neither added to what the others send now nor taken from it.
#[test]
fn a_silent_path_takes_nothing_from_what_the_others_yield() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(200 * MS);
    offer(&mut pair, 40, 3);
    let mut low = 0;
    for ms in 0..2000 {
        pair.links[1].up = ms < 500;
        (0..4).for_each(|n| pair.send_down(9, 100_000 + 4 * ms + n, 1300));
        pair.run(MS);
        low += u32::from(ms >= 400 && pair.remote.yields.is_low());
    }
    assert_eq!(low, 0);
}

/// A fast link, and a wider one with a delay of `delay_ms`; probes have tried both.
fn near_and_far(delay_ms: u64) -> Pair {
    let mut pair = Pair::new(vec![Link::new(0, 20, 15), Link::new(1, 40, delay_ms)]);
    pair.run(Duration::from_secs(3));
    pair
}

/// Bytes that the remote portal sent by the far path.
fn sent_far(pair: &mut Pair) -> u64 {
    pair.remote.stats(pair.now).paths[1].bytes_sent
}

/// Field row E: packets of the near path wait for the first ones of a far path, which come after 350 ms.
#[test]
fn the_first_packets_of_a_far_path_are_waited_for() {
    let mut pair = near_and_far(350);
    offer(&mut pair, 30, 4);
    assert!(sent_far(&mut pair) > 1_000_000);
    assert!(numbers(&pair.at_local, 9).is_sorted());
}

/// Field row E: a flow that has become too slow for the far path goes back to the near one.
#[test]
fn a_slow_flow_leaves_the_far_path() {
    let mut pair = near_and_far(300);
    offer(&mut pair, 40, 4);
    let mut before = 0;
    // 5 Mbit/s, in bursts that take the near path 10 ms. Three round trips of the far path are enough to see it.
    for n in 0..1500 {
        pair.send_down(9, 100_000 + n, 1300);
        if n % 20 == 19 {
            pair.run(40 * MS);
        }
        if n == 900 {
            before = sent_far(&mut pair);
        }
    }
    let far = sent_far(&mut pair) - before;
    assert!(far < 50_000, "{far}");
}

/// Field row E: over a long way TCP packets take as long as the slowest probe did, others do not wait.
#[test]
fn tcp_has_an_even_delay_over_a_long_way() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 180)]);
    pair.run(Duration::from_secs(3));
    pair.links[0].delay -= 15 * MS;
    pair.run(200 * MS);
    pair.remote.handle_packet(pair.now, segment(3, 1, 100));
    pair.remote.handle_packet(pair.now, inner(4, 2, 100));
    pair.run(170 * MS);
    assert!(numbers(&pair.at_local, 3).is_empty());
    assert_eq!(numbers(&pair.at_local, 4), [2]);
    pair.run(15 * MS);
    assert_eq!(numbers(&pair.at_local, 3), [1]);
}

/// Field row E: packets behind one that was given up do not overtake those that are held for an even delay.
#[test]
fn giving_up_a_packet_lets_none_overtake() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 180)]);
    pair.run(Duration::from_secs(3));
    pair.links[0].delay -= 60 * MS;
    for n in 0..3 {
        pair.links[0].up = n != 1;
        pair.local.handle_packet(pair.now, segment(3, n, 100));
        pair.run(MS);
    }
    pair.run(125 * MS);
    assert_eq!(pair.remote.stats(pair.now).reorder_packets, 1);
    assert!(pair.at_remote.is_empty());
    let mut given_up = Vec::new();
    (0..=u8::MAX).for_each(|n| frame::put_forward(&mut given_up, Bucket(n), Sequence::new(1)));
    let datagram = forge(&mut pair, Kind::Sealed, 1, &given_up);
    let from = pair.links[0].address;
    pair.inject(To::Remote, from, &datagram);
    assert_eq!(pair.remote.stats(pair.now).reorder_packets, 0);
    pair.run(100 * MS);
    assert_eq!(numbers(&pair.at_remote, 3), [0, 2]);
}

#[test]
fn order_holds_under_loss_too() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.links[1].loss = 100;
    pair.run(200 * MS);
    offer(&mut pair, 20, 10);
    let got = numbers(&pair.at_local, 9);
    assert!(got.is_sorted());
}

#[test]
fn a_run_repeats_to_the_byte() {
    let tap = || {
        let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
        pair.links[0].loss = 50;
        pair.run(200 * MS);
        offer(&mut pair, 20, 1);
        pair.tap
    };
    assert!(tap() == tap());
}

#[test]
fn small_packets_share_datagrams() {
    let mut pair = Pair::new(vec![Link::new(0, 10, 7)]);
    pair.run(200 * MS);
    let before = pair.tap.len();
    for n in 0..300 {
        pair.send_down(3, n, 60);
    }
    pair.run(500 * MS);
    assert_eq!(numbers(&pair.at_local, 3), (0..300).collect::<Vec<_>>());
    assert!(pair.tap.len() - before < 150, "{}", pair.tap.len() - before);
}

/// A SYN leaves the tunnel with a segment size that fits into it, in both directions; also where that
/// is less than the least MTU of a TUN.
#[test]
fn segments_are_held_to_the_tunnel() {
    for (link, mtu) in [(1500, Mtu::TUNNEL_DEFAULT.bytes()), (1280, 1280 - 28 - 33)] {
        let mut pair = Pair::new(vec![Link::new(0, 10, 7)]);
        pair.links[0].mtu = link;
        pair.run(Duration::from_secs(3));
        let mut syn = vec![0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0];
        syn.extend([198, 51, 100, 1, 203, 0, 113, 2]);
        syn.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0]);
        syn.extend([0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
        pair.local.handle_packet(pair.now, Packet::from(&syn[..]));
        pair.remote.handle_packet(pair.now, Packet::from(&syn[..]));
        pair.run(200 * MS);
        for came in [&pair.at_remote, &pair.at_local] {
            assert_eq!(came.len(), 1);
            assert_eq!(came[0].bytes()[42..], (mtu - 40).to_be_bytes());
        }
    }
}
