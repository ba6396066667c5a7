//! Paths that mark, and paths that are wrong about marks.

use std::net::SocketAddr;

use super::pair::{Link, MS, Pair, numbers};
use crate::config::Security;
use crate::packet::ecn::Codepoint;
use crate::proto::event::{EcnFault, EcnState};

type Network = fn(Codepoint, u64) -> Option<Codepoint>;

/// One in eight of what can be marked is.
pub(super) const MARKS_SOME: Network = |codepoint, count| {
    let marks = codepoint == Codepoint::Capable && count.is_multiple_of(8);
    Some(if marks {
        Codepoint::Experienced
    } else {
        codepoint
    })
};
/// All of it is.
pub(super) const MARKS_ALL: Network = |codepoint, _| {
    let marks = codepoint == Codepoint::Capable;
    Some(if marks {
        Codepoint::Experienced
    } else {
        codepoint
    })
};
/// It is lost.
pub(super) const DROPS: Network =
    |codepoint, _| (codepoint == Codepoint::NotCapable).then_some(codepoint);
/// It comes as if it could not be marked.
pub(super) const ERASES: Network = |_, _| Some(Codepoint::NotCapable);
/// What cannot be marked comes marked.
const MAKES_UP: Network = |_, _| Some(Codepoint::Experienced);

fn over(network: Network) -> Pair {
    over_security(network, Security::Encrypt)
}

fn over_security(network: Network, security: Security) -> Pair {
    let mut links = vec![Link::new(0, 20, 7)];
    links[0].ecn = network;
    let mut pair = Pair::with(links, security, security);
    pair.run(200 * MS);
    pair
}

/// So many packets up, one each 2 ms: 4 Mbit/s.
fn flow(pair: &mut Pair, from: u32, count: u32) {
    for number in from..from + count {
        pair.send_up(5, number, 1000);
        pair.run(2 * MS);
    }
    pair.run(300 * MS);
}

fn ecn(pair: &mut Pair) -> (EcnState, u64) {
    let path = &pair.local.stats(pair.now).paths[0];
    (path.ecn, path.marked)
}

#[test]
fn marks_are_told_to_the_sender_in_every_mode() {
    for security in [Security::Encrypt, Security::Authenticate, Security::None] {
        let mut pair = over_security(MARKS_SOME, security);
        flow(&mut pair, 0, 400);
        let (state, marked) = ecn(&mut pair);
        assert_eq!(state, EcnState::Capable, "{security:?}");
        // Acknowledgements take turns with data, and carry no mark: 50, more or less.
        assert!((20..=120).contains(&marked), "{security:?}: {marked}");
        assert_eq!(numbers(&pair.at_remote, 5).len(), 400);
    }
}

#[test]
fn a_replayed_mark_counts_once() {
    let mut pair = over(MARKS_ALL);
    flow(&mut pair, 0, 5);
    let before = ecn(&mut pair).1;
    assert_eq!(before, 5);
    let counts = |pair: &Pair| {
        let path = pair.remote.paths[0].as_deref().unwrap();
        path.arrivals.ack(path.id).0.ecn
    };
    let counted = counts(&pair);
    let from = pair.links[0].address;
    for (_, mut datagram) in std::mem::take(&mut pair.tap) {
        let length = datagram.len();
        let marked = Codepoint::Experienced;
        let now = pair.now;
        pair.remote.handle_datagrams(
            now,
            super::pair::LISTEN,
            from,
            &mut datagram,
            length,
            marked,
        );
    }
    assert_eq!(counts(&pair), counted);
}

#[test]
fn the_only_path_is_used_though_it_drops_what_can_be_marked() {
    let mut pair = over(DROPS);
    flow(&mut pair, 0, 300);
    assert_eq!(ecn(&mut pair).0, EcnState::Failed(EcnFault::Dropped));
    let got = numbers(&pair.at_remote, 5);
    // What the test lost was sent again.
    assert!(got.len() >= 298, "{}", got.len());
}

#[test]
fn each_fault_is_named_and_harms_no_flow() {
    for (network, fault) in [
        (ERASES, EcnFault::Erased),
        (MARKS_ALL, EcnFault::Everything),
        (MAKES_UP, EcnFault::Impossible),
    ] {
        let mut pair = over(network);
        flow(&mut pair, 0, 400);
        assert_eq!(ecn(&mut pair).0, EcnState::Failed(fault));
        assert_eq!(numbers(&pair.at_remote, 5).len(), 400, "{fault:?}");
    }
}

#[test]
fn a_new_place_and_a_new_peer_are_tested_again() {
    let mut pair = over(ERASES);
    flow(&mut pair, 0, 100);
    let failed = EcnState::Failed(EcnFault::Erased);
    assert_eq!(ecn(&mut pair).0, failed);
    pair.links[0].ecn = MARKS_SOME;
    flow(&mut pair, 100, 100);
    assert_eq!(ecn(&mut pair).0, failed, "not before its time");
    pair.restart_remote();
    flow(&mut pair, 200, 1000);
    assert_eq!(ecn(&mut pair).0, EcnState::Capable);
    // The remote portal follows a new address of ours, and tests the way there.
    let remote = |pair: &mut Pair| pair.remote.stats(pair.now).paths[0].ecn;
    pair.links[0].ecn = ERASES;
    for number in 0..50 {
        pair.send_down(6, number, 1000);
        pair.run(5 * MS);
    }
    assert_eq!(remote(&mut pair), failed);
    pair.links[0].ecn = MARKS_SOME;
    pair.links[0].address = SocketAddr::from(([192, 0, 2, 99], 1234));
    flow(&mut pair, 1200, 100);
    for number in 50..150 {
        pair.send_down(6, number, 1000);
        pair.run(5 * MS);
    }
    assert_eq!(remote(&mut pair), EcnState::Capable);
}

#[test]
fn only_data_can_be_marked() {
    let mut pair = over(MARKS_ALL);
    pair.run(2000 * MS);
    let path = pair.remote.paths[0].as_deref().unwrap();
    let counts = path.arrivals.ack(path.id).0.ecn;
    assert_eq!(
        (counts.ect0, counts.ce),
        (0, 0),
        "handshake, proofs, probes"
    );
    flow(&mut pair, 0, 3);
    assert_eq!(ecn(&mut pair).1, 3);
}
