//! A host that stood still, as a virtual machine that was paused: its clock is behind from then on.

use std::time::Duration;

use super::pair::{Link, MS, Pair, numbers};
use crate::config::Security;

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
        for seconds in [1, 3, 10, 30, 60, 66, 68, 75, 100, 133, 135, 170, 210, 600] {
            let links = vec![Link::new(0, 20, 7), Link::new(1, 10, 20)];
            let mut pair = Pair::with(links, security, security);
            pair.run(300 * MS);
            exchange(&mut pair, 0, 100);
            pair.run(100 * MS);
            let all = (0..100).collect::<Vec<_>>();
            assert_eq!(numbers(&pair.at_remote, 5), all);
            assert_eq!(numbers(&pair.at_local, 6), all);

            pair.pause_local(Duration::from_secs(seconds));
            // The paths are found dead, or the keys too old; two seconds for all of that.
            exchange(&mut pair, 1000, 1000);
            exchange(&mut pair, 2000, 500);
            pair.run(500 * MS);
            let expected = (2000..2500).collect::<Vec<_>>();
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
    let run = |pair: &mut Pair, first: u32| {
        // 20 of 30 Mbit/s, for two seconds each.
        for number in first..first + 5000 {
            pair.send_up(5, number, 1000);
            pair.send_down(6, number, 1000);
            pair.run(MS * 2 / 5);
        }
    };
    run(&mut pair, 0);
    pair.pause_local(Duration::from_secs(20));
    run(&mut pair, 10_000);
    let before = [pair.at_remote.len(), pair.at_local.len()];
    run(&mut pair, 20_000);
    let got = [
        pair.at_remote.len() - before[0],
        pair.at_local.len() - before[1],
    ];
    assert!(got.iter().all(|got| *got > 4800), "{got:?} of 5000");
}
