//! Paths and sessions come, go and come back.

use std::net::SocketAddr;
use std::time::Duration;

use super::pair::{Link, MS, Pair, To, numbers};
use crate::config::{Security, Transport};
use crate::proto::event::{Event, PathState, SocketId};

fn two_links() -> Vec<Link> {
    vec![Link::new(0, 20, 7), Link::new(1, 10, 20)]
}

/// Sends a packet of flow 5 each way every 10 ms for `count` times, and returns what was lost.
fn chat(pair: &mut Pair, first: u32, count: u32) -> (Vec<u32>, Vec<u32>) {
    for n in first..first + count {
        pair.send_up(5, n, 100);
        pair.send_down(5, n, 100);
        pair.run(10 * MS);
    }
    pair.run(400 * MS);
    let missing = |packets| {
        let got = numbers(packets, 5);
        (first..first + count)
            .filter(|n| !got.contains(n))
            .collect()
    };
    (missing(&pair.at_remote), missing(&pair.at_local))
}

#[test]
fn both_links_come_up_within_two_round_trips_and_a_half() {
    let mut pair = Pair::new(two_links());
    pair.run(110 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    assert!(pair.local_events.contains(&Event::Connected));
    assert!(pair.remote_events.contains(&Event::Connected));
    assert_eq!(chat(&mut pair, 0, 50), (vec![], vec![]));
    let rtt = pair.local.stats(pair.now).paths[1].rtt.unwrap();
    assert!((40 * MS..46 * MS).contains(&rtt), "{rtt:?}");
}

#[test]
fn a_dead_link_is_left_and_taken_again() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    chat(&mut pair, 0, 10);
    pair.links[0].up = false;
    let (up, down) = chat(&mut pair, 10, 100);
    // What was sent on the dead link before it was suspected: up to about 150 ms of it.
    assert!(up.len() <= 15 && down.len() <= 15, "{up:?} {down:?}");
    assert_eq!(pair.states(), [PathState::Dead, PathState::Up]);
    pair.links[0].up = true;
    pair.run(400 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    assert_eq!(chat(&mut pair, 200, 50), (vec![], vec![]));
}

#[test]
fn all_links_gone_then_one_back() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    for link in &mut pair.links {
        link.up = false;
    }
    pair.run(Duration::from_secs(200));
    assert!(pair.local_events.contains(&Event::Disconnected));
    pair.links[1].up = true;
    pair.run(Duration::from_millis(2500));
    assert!(
        pair.states().contains(&PathState::Up),
        "{:?}",
        pair.states()
    );
    assert_eq!(chat(&mut pair, 0, 20), (vec![], vec![]));
}

#[test]
fn keys_change_without_loss() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    let (up, down) = chat(&mut pair, 0, 30_000);
    assert_eq!((up, down), (vec![], vec![]));
    let rekeyed = |events: &[Event]| {
        events
            .iter()
            .filter(|event| **event == Event::Rekeyed)
            .count()
    };
    assert_eq!(rekeyed(&pair.local_events), 2);
    assert_eq!(rekeyed(&pair.remote_events), 2);
}

#[test]
fn a_restarted_remote_portal_is_found_again() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    chat(&mut pair, 0, 10);
    pair.restart_remote();
    let (up, down) = chat(&mut pair, 10, 100);
    assert!(
        up.len() <= 40 && down.len() <= 40,
        "{} {}",
        up.len(),
        down.len()
    );
    assert_eq!(chat(&mut pair, 200, 20), (vec![], vec![]));
}

#[test]
fn a_new_address_is_followed_without_a_word() {
    let mut pair = Pair::new(vec![Link::new(0, 20, 10)]);
    pair.run(200 * MS);
    chat(&mut pair, 0, 10);
    let moved = SocketAddr::from(([192, 0, 2, 99], 1234));
    pair.links[0].address = moved;
    let (up, down) = chat(&mut pair, 10, 100);
    assert!(up.is_empty(), "{up:?}");
    assert!(down.len() <= 15, "{down:?}");
    let roamed = |event: &Event| matches!(event, Event::Roamed { to, .. } if *to == moved);
    assert!(pair.remote_events.iter().any(roamed));
    assert_eq!(chat(&mut pair, 200, 20), (vec![], vec![]));
}

#[test]
fn a_link_comes_back_with_another_socket() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    pair.local.handle_socket_down(pair.now, SocketId(0));
    assert_eq!(pair.states(), [PathState::Down, PathState::Up]);
    assert!(chat(&mut pair, 0, 50).0.is_empty());
    pair.links[0].address = SocketAddr::from(([192, 0, 2, 77], 5));
    pair.open_link(0, 10);
    pair.run(100 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    assert_eq!(chat(&mut pair, 100, 50), (vec![], vec![]));
}

#[test]
fn every_security_mode_carries() {
    for security in [Security::Encrypt, Security::Authenticate, Security::None] {
        let mut pair = Pair::with(two_links(), security, security);
        pair.run(200 * MS);
        assert_eq!(chat(&mut pair, 0, 50), (vec![], vec![]), "{security:?}");
        let clear = pair
            .tap
            .iter()
            .any(|(_, d)| d.windows(20).any(|w| w.iter().all(|b| *b == 0xaa)));
        assert_eq!(clear, security != Security::Encrypt, "{security:?}");
    }
}

#[test]
fn different_modes_are_told_and_nothing_flows() {
    let mut pair = Pair::with(two_links(), Security::Encrypt, Security::None);
    pair.run(3000 * MS);
    assert!(pair.local_events.contains(&Event::SecurityMismatch {
        peer: Security::None
    }));
    assert!(pair.remote_events.contains(&Event::SecurityMismatch {
        peer: Security::Encrypt
    }));
    assert!(!pair.local_events.contains(&Event::Connected));
    pair.send_up(5, 0, 100);
    pair.run(100 * MS);
    assert!(pair.at_remote.is_empty());
}

#[test]
fn close_is_heard() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    pair.local.close(pair.now);
    pair.run(100 * MS);
    assert!(pair.remote_events.contains(&Event::Disconnected));
    assert!(pair.tap.iter().filter(|(to, _)| *to == To::Remote).count() < 40);
}

#[test]
fn tcp_carries_too_and_no_more_than_is_taken() {
    let links = two_links();
    let mut pair = Pair::over(Transport::Tcp, links, Security::Encrypt, Security::Encrypt);
    pair.run(300 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    assert_eq!(chat(&mut pair, 0, 50), (vec![], vec![]));
    for n in 0..500 {
        pair.send_down(7, n, 1200);
    }
    pair.run(1000 * MS);
    assert_eq!(numbers(&pair.at_local, 7), (0..500).collect::<Vec<_>>());
}

#[test]
fn both_may_dial_at_once_and_either_may_restart() {
    let mut pair = Pair::new(two_links());
    pair.dial_back();
    pair.run(500 * MS);
    assert_eq!(pair.states(), [PathState::Up; 3]);
    assert_eq!(chat(&mut pair, 0, 1000), (vec![], vec![]));
    pair.restart_remote();
    pair.dial_back();
    pair.run(1500 * MS);
    assert_eq!(pair.states(), [PathState::Up; 3]);
    assert_eq!(chat(&mut pair, 2000, 100), (vec![], vec![]));
}

#[test]
fn a_round_trip_of_more_than_a_second_comes_up() {
    let mut pair = Pair::new(vec![Link::new(0, 5, 600)]);
    pair.run(5000 * MS);
    assert_eq!(pair.states(), [PathState::Up]);
    pair.send_up(5, 1, 100);
    pair.run(1000 * MS);
    assert_eq!(numbers(&pair.at_remote, 5), [1]);
}

#[test]
fn a_link_that_was_dead_starts_as_fast_as_a_new_one() {
    let mut pair = Pair::new(vec![Link::new(0, 50, 20)]);
    pair.run(200 * MS);
    pair.links[0].up = false;
    pair.run(10_000 * MS);
    pair.links[0].up = true;
    pair.run(1000 * MS);
    for n in 0..400 {
        pair.send_up(5, n, 1300);
    }
    pair.run(400 * MS);
    let window = pair.local.stats(pair.now).paths[0].window;
    assert!(window >= 4 * 14_400, "{window}");
}

#[test]
fn order_is_kept_after_a_long_silence() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    pair.links.iter_mut().for_each(|link| link.up = false);
    pair.run(Duration::from_secs(100));
    pair.links.iter_mut().for_each(|link| link.up = true);
    pair.run(Duration::from_secs(3));
    for n in 0..1000 {
        pair.send_up(5, n, 1300);
        pair.run(MS / 2);
    }
    pair.run(400 * MS);
    let got = numbers(&pair.at_remote, 5);
    assert!(got.is_sorted());
}

#[test]
fn the_dead_are_asked_without_end_and_without_growth() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    pair.links[0].up = false;
    pair.run(Duration::from_secs(600));
    assert!(pair.local.stats(pair.now).paths[0].in_flight < 33 * 100);
}

/// Field row C9: a link that was removed is not asked for ever by the side that waits.
#[test]
fn the_waiting_side_stops_asking_where_a_link_was_and_hears_it_come_back() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    pair.local.handle_socket_down(pair.now, SocketId(0));
    pair.run(Duration::from_secs(45));
    let sent = |pair: &mut Pair| pair.remote.stats(pair.now).paths[0].datagrams_sent;
    let before = sent(&mut pair);
    pair.run(Duration::from_secs(120));
    assert_eq!(sent(&mut pair), before);
    // By another socket, and by the same after an outage of any length.
    pair.open_link(0, 10);
    pair.run(300 * MS);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    pair.links[0].up = false;
    pair.run(Duration::from_secs(90));
    pair.links[0].up = true;
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    let state = pair.remote.stats(pair.now).paths[0].state;
    assert_eq!(state, PathState::Up);
    assert_eq!(chat(&mut pair, 0, 50), (vec![], vec![]));
}

/// The memory table's row of datagrams under way: nothing is ever acknowledged, and no more is known.
#[test]
fn what_is_under_way_is_bounded() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    let path = pair.local.paths[0].as_deref_mut().unwrap();
    for _ in 0..2 * crate::proto::path::MOST_FLYING {
        path.on_sent(
            pair.now,
            crate::proto::recovery::Sent {
                at: pair.now,
                bytes: 100,
                eliciting: true,
                status: false,
                ect: false,
                passage: crate::proto::path::Passage::Whole,
                total: 0,
                limited: 0,
            },
        );
    }
    assert!(path.sent.in_flight() <= 100 * crate::proto::path::MOST_FLYING as u64);
}

/// Field row C8b: other terms cost the path nothing; it stays up, by the same socket.
#[test]
fn a_link_that_gets_other_terms_stays_up() {
    let mut pair = Pair::new(two_links());
    pair.run(200 * MS);
    let terms = crate::proto::event::PathTerms {
        metric: 1,
        rate_up: Some("5M".parse().unwrap()),
        rate_down: None,
        congestion: crate::config::Congestion::NewReno,
    };
    let link = crate::proto::event::LinkId(0);
    pair.local.handle_terms(pair.now, link, terms);
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    assert_eq!(chat(&mut pair, 0, 50), (vec![], vec![]));
    assert_eq!(pair.states(), [PathState::Up, PathState::Up]);
    // The peer heard of it: the other link is the only one of the lowest tier.
    assert_eq!(pair.remote.paths[0].as_ref().unwrap().metric, 1);
}
