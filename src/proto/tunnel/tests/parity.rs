//! What a long and lossy path loses comes back at once.

use std::time::Duration;

use super::hostile::forge;
use super::pair::{Link, MS, Pair, numbers};
use super::repair::segment;
use crate::config::{Security, Transport};
use crate::proto::stats::Discard;
use crate::proto::wire::Kind;

/// A link of 40 Mbit/s and 330 ms, on which one in 200 is lost.
fn far() -> Link {
    Link {
        loss: 200,
        ..Link::new(0, 40, 165)
    }
}

/// Segments go down for so long, one in 2 ms, the first one with this number. Gives how many came later than
/// the way and a group take, and asserts that each came once, in order.
fn late(pair: &mut Pair, first: u32, lasts_ms: u32) -> usize {
    let (mut sent, mut late) = (Vec::new(), 0);
    let before = pair.at_local.len();
    let mut seen = before;
    for ms in 0..lasts_ms + 2000 {
        if ms % 2 == 0 && ms < lasts_ms {
            let packet = segment(9, first + sent.len() as u32, 1300);
            pair.remote.handle_packet(pair.now, packet);
            sent.push(pair.now);
        }
        pair.run(MS);
        for n in numbers(&pair.at_local[seen..], 9) {
            let sent = sent[(n - first) as usize];
            late += usize::from(pair.now.since(sent) > 230 * MS);
        }
        seen = pair.at_local.len();
    }
    let came = numbers(&pair.at_local[before..], 9);
    assert!(came.is_sorted_by(|a, b| a < b), "out of order");
    let share = 100 * came.len() / sent.len();
    assert!(share >= 99 || first == 0, "{share} %");
    late
}

/// Parities that the remote portal sent, and packets that came back by them.
fn counts(pair: &mut Pair) -> (u64, u64) {
    let (now, sent) = (pair.now, pair.remote.stats(pair.now).parities);
    (sent, pair.local.stats(now).recovered)
}

/// Field row E: over a long way that is alone, a loss blocks no flow for a round trip.
#[test]
fn over_a_long_lossy_way_nothing_waits_for_a_round_trip() {
    for security in [Security::Encrypt, Security::Authenticate, Security::None] {
        let mut pair = Pair::with(vec![far()], security, security);
        pair.run(Duration::from_secs(1));
        // Until the path's rate is known, packets wait in the queue.
        late(&mut pair, 0, 3000);
        let before = counts(&mut pair);
        let late = late(&mut pair, 1500, 6000);
        let after = counts(&mut pair);
        let (sent, recovered) = (after.0 - before.0, after.1 - before.1);
        assert!(sent > 200 && recovered > 5, "{sent} {recovered}");
        assert!(late < 60, "{security:?}: {late}");
        let discards = pair.local.stats(pair.now).discards;
        assert!(
            discards
                .iter()
                .all(|(cause, _)| *cause != Discard::Malformed)
        );
    }
}

/// An older version discards them as malformed, and sends none.
#[test]
fn only_a_peer_that_knows_parities_gets_them() {
    for (local_knows, remote_knows) in [(true, true), (true, false), (false, true)] {
        let mut pair = Pair::new(vec![far()]);
        pair.run(Duration::from_secs(1));
        pair.local.keys.hello.parity = local_knows;
        pair.restart_remote();
        pair.remote.keys.hello.parity = remote_knows;
        pair.run(Duration::from_secs(5));
        for n in 0..2000 {
            pair.remote.handle_packet(pair.now, segment(9, n, 1300));
            pair.local.handle_packet(pair.now, segment(8, n, 1300));
            pair.run(2 * MS);
        }
        pair.run(Duration::from_secs(1));
        assert!(numbers(&pair.at_local, 9).len() > 1900);
        assert!(numbers(&pair.at_remote, 8).len() > 1900);
        let now = pair.now;
        let sent = [
            pair.remote.stats(now).parities,
            pair.local.stats(now).parities,
        ];
        assert_eq!(sent.map(|sent| sent > 0), [local_knows, remote_knows]);
    }
}

/// Short ways, ways without losses and TCP connections need none; nothing is kept for them.
#[test]
fn other_paths_have_no_parities() {
    let lossless = Link::new(0, 40, 165);
    let near = Link {
        loss: 200,
        ..Link::new(0, 40, 60)
    };
    for (transport, link, most) in [
        (Transport::Udp, near, 0),
        (Transport::Tcp, far(), 0),
        // Until it is known that it loses nothing.
        (Transport::Udp, lossless, 300),
    ] {
        let security = Security::Encrypt;
        let mut pair = Pair::over(transport, vec![link], security, security);
        pair.run(Duration::from_secs(1));
        for n in 0..6000 {
            pair.remote.handle_packet(pair.now, segment(9, n, 1300));
            pair.run(MS);
        }
        let (sent, recovered) = counts(&mut pair);
        assert!(sent <= most && recovered == 0, "{sent}");
        assert!(pair.remote.paths[0].as_deref().unwrap().cover.is_none());
        assert!(pair.local.paths[0].as_deref().unwrap().store.is_none());
    }
}

/// An authenticated peer's nonsense is counted.
#[test]
fn parities_that_cannot_be_are_counted() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7)]);
    pair.run(200 * MS);
    let place = pair.links[0].address;
    let bodies = [
        &[9][..],
        &[9, 1, 1, 0],
        &[9, 0, 0, 0, 1, 2, 3],
        &[9, 1, 2, 0, 1, 2, 3],
        &[9, 1, 1, 8, 1, 2, 3],
        &[9, 255, 1, 0, 1, 2, 3],
        &[9, 200, 161, 0, 1, 2, 3],
        &[&[9, 1, 1, 0][..], &[0; 3000]].concat(),
    ];
    for (ahead, body) in (1..).zip(bodies) {
        let datagram = forge(&mut pair, Kind::Sealed, ahead, body);
        pair.inject(super::pair::To::Remote, place, &datagram);
        pair.run(MS);
    }
    let stats = pair.remote.stats(pair.now);
    assert_eq!(stats.discards, [(Discard::Malformed, 8)]);
}
