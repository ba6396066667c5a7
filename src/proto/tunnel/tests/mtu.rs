//! Links that carry less than others, from the start or from one moment to the next.

use std::time::Duration;

use super::pair::{Link, MS, Pair, inner, numbers};
use crate::config::units::Mtu;
use crate::config::{PublicAddresses, Security, TunnelAddresses};
use crate::packet::Crossing;
use crate::proto::event::{Event, PathState};
use crate::proto::stats::Discard;

/// Sends 1,400-byte packets of one flow down, as many as `mbit`, and returns the longest time in which
/// none came out.
fn longest_gap(pair: &mut Pair, mbit: u64, time: Duration) -> Duration {
    let per_ms = mbit as f64 * 125.0 / 1400.0;
    let (mut sent, mut had, mut last) = (0, pair.at_local.len(), pair.now);
    let mut gap = Duration::ZERO;
    for ms in 1..=time.as_millis() {
        while f64::from(sent) < per_ms * ms as f64 {
            pair.send_down(9, sent, 1400);
            sent += 1;
        }
        pair.run(MS);
        if pair.at_local.len() > had {
            (had, last) = (pair.at_local.len(), pair.now);
        }
        gap = gap.max(pair.now.since(last));
    }
    gap
}

fn mtus(pair: &mut Pair) -> Vec<Option<u16>> {
    let stats = pair.remote.stats(pair.now);
    stats.paths.iter().map(|path| path.mtu).collect()
}

fn told(events: &[Event]) -> Vec<u16> {
    let told = |event: &Event| {
        if let Event::Mtu(mtu) = event {
            Some(mtu.bytes())
        } else {
            None
        }
    };
    events.iter().filter_map(told).collect()
}

#[test]
fn a_common_path_is_probed_once() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
    pair.run(200 * MS);
    let probes = |pair: &Pair| {
        let long = pair.tap.iter().filter(|(_, it)| it.len() == 1433);
        long.count()
    };
    assert_eq!(probes(&pair), 2, "one each way");
    assert_eq!(mtus(&mut pair), [Some(1461)]);
    pair.run(Duration::from_secs(5));
    assert_eq!(probes(&pair), 2);
    assert!(told(&pair.remote_events).is_empty());
}

#[test]
fn a_narrow_link_is_found_and_the_tun_follows() {
    use Security::{Encrypt, None};
    for (link, tun, security) in [
        (1420, 1359, Encrypt),
        (1492, 1400, Encrypt),
        (1350, 1289, None),
        (1280, 1280, Encrypt),
        (1280, 1280, None),
    ] {
        let mut pair = Pair::with(vec![Link::new(0, 20, 7)], security, security);
        pair.links[0].mtu = link;
        // Data flows meanwhile, in fragments.
        pair.run(100 * MS);
        let gap = longest_gap(&mut pair, 10, Duration::from_secs(2));
        assert!(gap < 60 * MS, "{link}: {gap:?}");
        let news = told(&pair.remote_events);
        let found = news.last().copied().unwrap_or(1400);
        assert!(found <= tun && tun - found < 16, "{link}: {news:?}");
        assert!(news.len() <= 1);
        // Then nothing longer is put on the link whole.
        pair.longest_whole = 0;
        longest_gap(&mut pair, 10, Duration::from_secs(1));
        assert!(
            pair.longest_whole + 28 <= link,
            "{link}: {}",
            pair.longest_whole
        );
    }
}

#[test]
fn a_path_that_loses_its_mtu_in_mid_flow_is_no_black_hole() {
    for (links, most) in [(1, 200 * MS), (2, 200 * MS)] {
        let mut pair = Pair::new((0..links).map(|id| Link::new(id, 20, 10)).collect());
        pair.run(200 * MS);
        longest_gap(&mut pair, 10, Duration::from_secs(2));
        pair.links[0].mtu = 1280;
        let gap = longest_gap(&mut pair, 10, Duration::from_secs(5));
        assert!(gap < most, "{links} links: {gap:?}");
        assert_eq!(mtus(&mut pair)[0], Some(1280));
        assert_eq!(told(&pair.remote_events), [1280]);
        assert!(!pair.remote_events.iter().any(|event| matches!(
            event,
            Event::Path {
                state: PathState::Dead,
                ..
            }
        )));
    }
}

#[test]
fn a_full_link_that_loses_its_mtu_is_full_again_soon() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 10)]);
    pair.run(200 * MS);
    longest_gap(&mut pair, 30, Duration::from_secs(2));
    pair.links[0].mtu = 1280;
    let gap = longest_gap(&mut pair, 30, Duration::from_secs(2));
    assert!(gap < 400 * MS, "{gap:?}");
    let before = pair.at_local.len();
    longest_gap(&mut pair, 30, Duration::from_secs(2));
    let mbit = (pair.at_local.len() - before) as f64 * 1400.0 * 8.0 / 2e6;
    assert!(mbit > 16.0, "{mbit} of 20 Mbit/s");
}

#[test]
fn where_the_network_drops_fragments_the_other_link_carries_what_is_long() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 10), Link::new(1, 20, 12)]);
    pair.run(200 * MS);
    (pair.links[0].mtu, pair.links[0].cuts) = (1280, false);
    let gap = longest_gap(&mut pair, 10, Duration::from_secs(3));
    assert!(gap < 300 * MS, "{gap:?}");
    let before = pair.at_local.len();
    longest_gap(&mut pair, 10, Duration::from_secs(1));
    assert!(
        pair.at_local.len() - before > 880,
        "{}",
        pair.at_local.len() - before
    );
    // Also what is sent now and then.
    for n in 0..20 {
        pair.send_down(8, n, 1390);
        pair.run(50 * MS);
    }
    assert_eq!(numbers(&pair.at_local, 8), (0..20).collect::<Vec<_>>());
    // What is short goes by both.
    let of = |pair: &mut Pair| pair.remote.stats(pair.now).paths[0].datagrams_sent;
    let before = of(&mut pair);
    for n in 0..5000 {
        pair.send_down(7, n, 1000);
        if n % 5 == 0 {
            pair.run(MS);
        }
    }
    assert!(of(&mut pair) - before > 1000);
}

#[test]
fn what_the_own_device_refuses_is_cut_and_nothing_is_lost() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 10)]);
    pair.run(200 * MS);
    longest_gap(&mut pair, 5, Duration::from_secs(1));
    pair.run(200 * MS);
    let before = pair.at_local.len();
    (pair.links[0].mtu, pair.links[0].device) = (1280, 1280);
    let gap = longest_gap(&mut pair, 5, Duration::from_secs(2));
    pair.run(200 * MS);
    assert!(gap < 40 * MS, "{gap:?}");
    assert_eq!(pair.at_local.len() - before, 893);
    assert_eq!(told(&pair.remote_events), [1280]);
}

#[test]
fn a_packet_that_is_too_long_now_is_answered() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
    pair.links[0].mtu = 1358;
    pair.run(Duration::from_secs(3));
    assert_eq!(told(&pair.remote_events), [1297]);
    pair.at_local.clear();
    pair.at_remote.clear();
    // Without DF the network outside cuts it.
    pair.send_down(9, 0, 1400);
    pair.run(100 * MS);
    assert_eq!(numbers(&pair.at_local, 9), [0]);
    let mut packet = inner(9, 1, 1400);
    packet.buffer()[6] = 0x40;
    pair.remote.handle_packet(pair.now, packet);
    pair.run(100 * MS);
    assert_eq!(pair.at_local.len(), 1);
    let [answer] = &pair.at_remote[..] else {
        panic!("{:?}", pair.at_remote);
    };
    assert_eq!(answer.bytes()[20..22], [3, 4]);
    assert_eq!(answer.bytes()[26..28], 1297_u16.to_be_bytes());
    let stats = pair.remote.stats(pair.now);
    assert!(stats.discards.contains(&(Discard::TooBig, 1)));
    assert_eq!(stats.mtu, 1297);
}

/// Field row A1: a private source also gets the answer that its packet is too long, although nothing
/// from the tunnel may go to it.
#[test]
fn a_private_source_gets_its_answer_too() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
    pair.links[0].mtu = 1358;
    pair.run(Duration::from_secs(3));
    let public = PublicAddresses {
        v4: Some("203.0.113.2".parse().unwrap()),
        v6: None,
    };
    let plain = Crossing::new(&public, &TunnelAddresses::default(), &[]);
    pair.remote.set_crossing(plain);
    pair.at_remote.clear();
    let mut packet = inner(9, 1, 1400);
    packet.buffer()[6] = 0x40;
    packet.buffer()[12..20].copy_from_slice(&[10, 55, 0, 2, 203, 0, 113, 2]);
    pair.remote.handle_packet(pair.now, packet);
    pair.run(100 * MS);
    let [answer] = &pair.at_remote[..] else {
        panic!("{:?}", pair.at_remote);
    };
    assert_eq!(answer.bytes()[12..20], [203, 0, 113, 2, 10, 55, 0, 2]);
    assert_eq!(answer.bytes()[20..22], [3, 4]);
}

#[test]
fn where_nothing_longer_passes_the_sender_is_told_so_even_below_1280() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
    (pair.links[0].mtu, pair.links[0].cuts) = (1280, false);
    pair.run(Duration::from_secs(3));
    assert_eq!(told(&pair.remote_events), [1280]);
    pair.at_remote.clear();
    for (number, length) in [(1, 1219), (2, 1220)] {
        let mut packet = inner(9, number, length);
        packet.buffer()[6] = 0x40;
        pair.remote.handle_packet(pair.now, packet);
    }
    pair.run(100 * MS);
    assert_eq!(numbers(&pair.at_local, 9), [1]);
    let [answer] = &pair.at_remote[..] else {
        panic!("{:?}", pair.at_remote);
    };
    assert_eq!(answer.bytes()[26..28], 1219_u16.to_be_bytes());
}

#[test]
fn a_path_that_comes_and_goes_does_not_move_the_tun_each_time() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 20, 7)]);
    pair.links[1].mtu = 1358;
    pair.run(Duration::from_secs(3));
    for _ in 0..4 {
        pair.links[1].up = false;
        pair.run(Duration::from_secs(5));
        pair.links[1].up = true;
        pair.run(Duration::from_secs(3));
    }
    assert_eq!(told(&pair.remote_events), [1297]);
    // Not while there is none at all either.
    pair.links[1].up = false;
    pair.run(Duration::from_secs(5));
    pair.links[0].up = false;
    pair.run(Duration::from_secs(20));
    assert_eq!(told(&pair.remote_events), [1297]);
    pair.links[0].up = true;
    pair.run(Duration::from_secs(20));
    let most = Mtu::TUNNEL_DEFAULT.bytes();
    assert_eq!(told(&pair.remote_events), [1297, most]);
}
