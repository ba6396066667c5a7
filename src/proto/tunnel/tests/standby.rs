//! A standby link (`metric = 1`): it costs next to nothing, and is there when it is needed.

use std::time::Duration;

use super::pair::{Link, MS, Pair, numbers};
use crate::config::{Security, Transport};
use crate::proto::event::PathState;

/// Bytes that a standby link may carry in a second, both directions together, headers included: 260 MB
/// a month.
const MOST: u64 = 100;

fn links() -> Vec<Link> {
    let standby = Link {
        metric: 1,
        ..Link::new(1, 10, 40)
    };
    vec![Link::new(0, 20, 7), standby]
}

/// Runs for so long, with a packet each way every `pause`, if any; gives back what the standby link
/// carried, bytes a second.
fn cost(pair: &mut Pair, seconds: u32, pause: Option<Duration>) -> u64 {
    pair.run(5000 * MS);
    let before = pair.links[1].cost;
    let end = pair.now + Duration::from_secs(seconds.into());
    let mut number = 0;
    while pair.now < end {
        let Some(pause) = pause else {
            pair.run(end.since(pair.now));
            break;
        };
        number += 1;
        pair.send_up(5, number, 1000);
        pair.send_down(6, number, 1000);
        pair.run(pause);
        pair.tap.clear();
    }
    (pair.links[1].cost - before) / u64::from(seconds)
}

/// Field row C8c: keep-alives, probes of all kinds, their answers, key changes and status.
#[test]
fn a_standby_link_costs_next_to_nothing() {
    for (security, transport) in [
        (Security::Encrypt, Transport::Udp),
        (Security::None, Transport::Udp),
        (Security::Encrypt, Transport::Tcp),
    ] {
        let mut pair = Pair::over(transport, links(), security, security);
        let idle = cost(&mut pair, 3600, None);
        assert!(
            idle <= MOST,
            "idle: {idle} bytes/s, {security:?} {transport:?}"
        );
        assert!(idle > 0, "it is asked now and then");
        let busy = cost(&mut pair, 180, Some(20 * MS));
        assert!(
            busy <= MOST,
            "busy: {busy} bytes/s, {security:?} {transport:?}"
        );
        assert_eq!(pair.states(), [PathState::Up; 2]);
    }
}

/// Field row C8c: a smaller MTU is searched for once, not each ten minutes; and a link that is dead, or
/// never answered, is not asked more than one that lives.
#[test]
fn nor_does_one_that_is_narrow_or_dead() {
    let mut narrow = links();
    narrow[1].mtu = 1400;
    let mut pair = Pair::new(narrow);
    let idle = cost(&mut pair, 3600, None);
    assert!(idle <= MOST, "narrow: {idle} bytes/s");

    let mut pair = Pair::new(links());
    pair.run(1000 * MS);
    pair.links[1].up = false;
    // It is asked after 25 s, and found dead a second later.
    pair.run(30_000 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Dead]);
    let dead = cost(&mut pair, 180, Some(20 * MS));
    assert!(dead <= MOST, "dead: {dead} bytes/s");
    pair.links[1].up = true;
    pair.run(11_000 * MS);
    assert_eq!(pair.states(), [PathState::Up; 2]);

    let mut silent = links();
    silent[1].up = false;
    let mut pair = Pair::new(silent);
    pair.run(10_000 * MS);
    let idle = cost(&mut pair, 600, None);
    assert!(idle <= MOST, "silent: {idle} bytes/s");
}

/// Field row C8c: it takes over as fast as a link that is asked five times a second.
#[test]
fn it_takes_over_at_once() {
    let mut pair = Pair::new(links());
    // Nobody asked the standby link for 20 seconds.
    pair.run(46_000 * MS);
    let mut number = 0;
    let mut exchange = |pair: &mut Pair, count: u32| {
        for _ in 0..count {
            number += 1;
            pair.send_up(5, number, 500);
            pair.send_down(6, number, 500);
            pair.run(5 * MS);
        }
        number
    };
    exchange(&mut pair, 200);
    pair.links[0].up = false;
    let before = [pair.at_remote.len(), pair.at_local.len()];
    let cut = exchange(&mut pair, 0);
    // 60 ms of silence make a suspect; the standby link is 40 ms long.
    exchange(&mut pair, 40);
    let after = [pair.at_remote.len(), pair.at_local.len()];
    assert!(after[0] > before[0] + 10 && after[1] > before[1] + 10);
    // What flew on the dead link is repaired; nothing is missing.
    let last = exchange(&mut pair, 400);
    pair.run(500 * MS);
    for (packets, flow) in [(&pair.at_remote, 5), (&pair.at_local, 6)] {
        let got = numbers(packets, flow);
        let later = got.iter().filter(|number| **number > cut).count() as u32;
        assert_eq!(later, last - cut);
    }
    // And when the first one is back, the standby link rests again.
    pair.links[0].up = true;
    pair.run(5000 * MS);
    assert_eq!(pair.states(), [PathState::Up; 2]);
    let idle = cost(&mut pair, 600, None);
    assert!(idle <= MOST, "{idle} bytes/s");
}
