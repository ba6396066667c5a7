//! A host that stood still, as a virtual machine that was paused: its clock is behind from then on.

use std::time::Duration;

use super::pair::{Link, MS, Pair, To, numbers};
use crate::config::Security;
use crate::proto::recovery::SentPackets;
use crate::proto::wire::{Header, PathId, ReceiverIndex};

/// So many packets each way, one each 2 ms: 4 Mbit/s.
fn exchange(pair: &mut Pair, first: u32, count: u32) {
    for number in first..first + count {
        pair.send_up(5, number, 1000);
        pair.send_down(6, number, 1000);
        pair.run(2 * MS);
    }
}

/// Field row C10: the stamps of datagrams wrap after 134 s, and after a pause of 67 s the nearest
/// reading is one wrap wrong.
#[test]
fn after_a_pause_of_any_length_everything_passes() {
    for security in [Security::None, Security::Authenticate, Security::Encrypt] {
        for seconds in [1, 3, 30, 66, 68, 75, 100, 133, 170, 600] {
            let links = vec![Link::new(0, 20, 7), Link::new(1, 10, 20)];
            let mut pair = Pair::with(links, security, security);
            pair.run(300 * MS);
            exchange(&mut pair, 0, 100);
            pair.run(100 * MS);
            let all = (0..100).collect::<Vec<_>>();
            assert_eq!(numbers(&pair.at_remote, 5), all);
            assert_eq!(numbers(&pair.at_local, 6), all);

            pair.pause_local(Duration::from_secs(seconds));
            // The paths are found dead, or the keys too old: 1.4 seconds for all of that.
            exchange(&mut pair, 1000, 700);
            exchange(&mut pair, 2000, 200);
            pair.run(500 * MS);
            let expected = (2000..2200).collect::<Vec<_>>();
            for (packets, flow) in [(&pair.at_remote, 5), (&pair.at_local, 6)] {
                let mut got = numbers(packets, flow);
                got.retain(|number| *number >= 2000);
                assert_eq!(got, expected, "{security:?}, {seconds} s, flow {flow}");
            }
        }
    }
}

/// Field row C10: what was measured with both clocks is forgotten, or the difference would be taken for
/// a queue of as many seconds.
#[test]
fn after_a_pause_the_whole_rate_is_used() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(300 * MS);
    // 20 of 30 Mbit/s.
    let run = |pair: &mut Pair, first: u32, count: u32| {
        for number in first..first + count {
            pair.send_up(5, number, 1000);
            pair.send_down(6, number, 1000);
            pair.run(MS * 2 / 5);
        }
    };
    run(&mut pair, 0, 2000);
    pair.pause_local(Duration::from_secs(20));
    run(&mut pair, 10_000, 3000);
    let before = [pair.at_remote.len(), pair.at_local.len()];
    run(&mut pair, 20_000, 2000);
    let got = [
        pair.at_remote.len() - before[0],
        pair.at_local.len() - before[1],
    ];
    assert!(got.iter().all(|got| *got > 1900), "{got:?} of 2000");
}

/// By which index the local portal's datagrams are known, on its first path: each session has its own.
fn index(pair: &Pair) -> Option<ReceiverIndex> {
    let session = &pair.local.keys.current()?.session;
    Some(session.tx_index(PathId::new(0)?))
}

/// Field row A6: when the daemon notices that its host slept, or was restored from a snapshot, nothing
/// leaves under the old keys any more.
#[test]
fn after_a_leap_there_are_new_keys_at_once() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]);
    pair.run(300 * MS);
    exchange(&mut pair, 0, 100);
    pair.run(100 * MS);
    let before = index(&pair);
    pair.local.start_over(pair.now);
    assert_eq!(index(&pair), None);
    pair.tap.clear();
    pair.run(200 * MS);
    exchange(&mut pair, 1000, 100);
    pair.run(100 * MS);
    let mut sent = pair.tap.iter().filter(|(to, _)| *to == To::Remote);
    assert!(sent.all(|(_, datagram)| Header::parse(datagram).map(|it| it.index) != before));
    let expected = (0..100).chain(1000..1100).collect::<Vec<_>>();
    assert_eq!(numbers(&pair.at_remote, 5), expected);
    assert_eq!(numbers(&pair.at_local, 6), expected);
}

/// Field row A6: a host that was set back, which no clock shows, sees the peer acknowledge numbers that it
/// does not know it has sent, and stops using them.
#[test]
fn a_host_that_was_set_back_repeats_hardly_a_number() {
    for security in [Security::Encrypt, Security::None] {
        let links = vec![Link::new(0, 20, 7), Link::new(1, 10, 20)];
        let mut pair = Pair::with(links, security, security);
        pair.run(300 * MS);
        exchange(&mut pair, 0, 100);
        pair.run(2000 * MS);
        let before = index(&pair);
        for path in pair.local.paths.iter_mut().flatten() {
            path.sent = SentPackets::default();
        }
        pair.tap.clear();
        exchange(&mut pair, 1000, 200);
        let repeated = pair.tap.iter().filter(|(to, datagram)| {
            *to == To::Remote && Header::parse(datagram).map(|it| it.index) == before
        });
        let repeated = repeated.count();
        assert!(repeated < 30, "{security:?}: {repeated}");
        assert_ne!(index(&pair), before);
        exchange(&mut pair, 2000, 200);
        pair.run(200 * MS);
        let expected = (2000..2200).collect::<Vec<_>>();
        for (packets, flow) in [(&pair.at_remote, 5), (&pair.at_local, 6)] {
            let mut got = numbers(packets, flow);
            got.retain(|number| *number >= 2000);
            assert_eq!(got, expected, "{security:?}, flow {flow}");
        }
    }
}
