//! Replays, floods and cookies.

use std::ops::Range;
use std::time::Duration;

use super::*;
use crate::proto::crypto::cookie::COOKIE_LIFETIME;
use crate::proto::crypto::message;
use crate::proto::wire::{Kind, ReceiverIndex};

/// An initiation that only its first MAC makes look like one: cheap for its sender.
fn junk(number: u64) -> Vec<u8> {
    let mut noise = [0; message::INITIATION_NOISE];
    TestEntropy::new(number).fill(&mut noise);
    let mac1_key = portal(9, 2, PLAIN).identity.peer_mac1;
    message::assemble(
        Kind::Initiation,
        ReceiverIndex::new([9; 3]),
        &noise,
        &mac1_key,
    )
}

/// Uses up what is let through without a proof of the address.
pub(super) fn flood(remote: &mut Portal, now: Instant) {
    let mut asked = 0;
    let message = junk(now.as_micros());
    for i in 0..200_u8 {
        match remote.receive(&message, &format!("203.0.{i}.1:99"), now) {
            Ok(Answer::ProveAddress { .. }) => asked += 1,
            Err(HandshakeError::Forged) => {}
            other => panic!("{other:?}"),
        }
    }
    // 20 are let through in total.
    assert_eq!(asked, 180);
}

#[test]
fn a_replayed_initiation_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let first = local.start().message(None, T0);
    let second = local.start().message(None, T0);
    let (response, _) = remote.accept(&first, T0);
    // A copy by another path, soon: the same response and no second session.
    match remote.receive(&first, "198.51.100.7:1", T0 + Duration::from_secs(1)) {
        Ok(Answer::Repeated { response: again }) => assert_eq!(again, response),
        other => panic!("{other:?}"),
    }
    let late = T0 + Duration::from_secs(5);
    assert_eq!(
        remote.receive(&first, HOME, late).unwrap_err(),
        HandshakeError::Replayed
    );
    remote.accept(&second, late);
    for message in [&first, &second] {
        let later = late + Duration::from_secs(60);
        assert_eq!(
            remote.receive(message, HOME, later).unwrap_err(),
            HandshakeError::Replayed
        );
    }
}

#[test]
fn initiations_of_an_ended_run_are_refused() {
    let (mut old, mut remote) = pair(PLAIN);
    let message = old.start().message(None, T0);
    let (_, established) = remote.accept(&message, T0);
    remote.responder.confirm(&established.peer_hello);

    let mut restarted = portal(1, 2, PLAIN);
    restarted.hello.boot = BootId::from_bytes([0xab; 8]);
    let message = restarted.start().message(None, T0);
    let (_, established) = remote.accept(&message, T0);
    // Not proven to be alive yet: it might be a replay, so the old run is still welcome.
    remote.accept(&old.start().message(None, T0), T0);
    remote.responder.confirm(&established.peer_hello);
    let message = old.start().message(None, T0);
    assert_eq!(
        remote.receive(&message, HOME, T0).unwrap_err(),
        HandshakeError::Replayed
    );
    remote.accept(&restarted.start().message(None, T0), T0);
}

#[test]
fn under_load_a_cookie_lets_the_peer_through() {
    let (mut local, mut remote) = pair(PLAIN);
    flood(&mut remote, T0);
    let mut initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), HOME, T0));
    let cookie = initiator.cookie(&reply, T0).unwrap();
    let message = initiator.message(Some(&cookie), T0);
    assert_eq!(message.len(), INITIATION_LEN);

    // It is good for this address and this port only.
    for elsewhere in ["192.0.2.1:4726", "192.0.2.2:4725", "[2001:db8::1]:4725"] {
        cookie_reply(remote.receive(&message, elsewhere, T0));
    }
    let (response, _) = accepted(remote.receive(&message, "[::ffff:192.0.2.1]:4725", T0));
    initiator.finish(&response).unwrap();

    // And for later initiations, as long as it is fresh.
    let soon = T0 + COOKIE_LIFETIME - Duration::from_micros(1);
    flood(&mut remote, soon);
    let message = local.start().message(Some(&cookie), soon);
    accepted(remote.receive(&message, HOME, soon));
    let late = T0 + COOKIE_LIFETIME;
    assert!(!cookie.is_fresh(late));
    let initiator = local.start();
    assert_eq!(
        initiator.message(Some(&cookie), late),
        initiator.message(None, late)
    );
}

#[test]
fn a_cookie_outlives_the_change_of_the_secret() {
    let (mut local, mut remote) = pair(PLAIN);
    let before = T0 + COOKIE_LIFETIME - Duration::from_secs(1);
    flood(&mut remote, before);
    let initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, before), HOME, before));
    let cookie = initiator.cookie(&reply, before).unwrap();
    let after = before + Duration::from_secs(100);
    flood(&mut remote, after);
    let initiation = local.start().message(Some(&cookie), after);
    accepted(remote.receive(&initiation, HOME, after));
}

#[test]
fn a_cookie_that_is_damaged_or_old_lets_nobody_through() {
    let (mut local, mut remote) = pair(PLAIN);
    flood(&mut remote, T0);
    let initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), HOME, T0));
    let cookie = initiator.cookie(&reply, T0).unwrap();
    let message = initiator.message(Some(&cookie), T0);
    let mac2 = message.len() - 16;
    for (_, damaged) in damaged(&message).filter(|(at, _)| *at >= mac2) {
        cookie_reply(remote.receive(&damaged, HOME, T0));
    }
    // The responder forgets after two lives of its secret, even one who keeps his cookie.
    let late = T0 + 2 * COOKIE_LIFETIME;
    flood(&mut remote, late);
    cookie_reply(remote.receive(&message, HOME, late));
}

#[test]
fn a_cookie_reply_with_any_byte_damaged_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    flood(&mut remote, T0);
    let initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), HOME, T0));
    for (at, message) in damaged(&reply) {
        let expected = match at {
            0 => HandshakeError::Malformed,
            1..4 => HandshakeError::NotForThis,
            _ => HandshakeError::Forged,
        };
        assert_eq!(
            initiator.cookie(&message, T0).unwrap_err(),
            expected,
            "{at}"
        );
    }
    // Another initiation that happens to have the same index: the cookie is bound to its first MAC.
    let other = local.start();
    let mut renamed = reply.clone();
    renamed[1..4].copy_from_slice(&other.index().bytes());
    assert_eq!(
        other.cookie(&renamed, T0).unwrap_err(),
        HandshakeError::Forged
    );
    initiator.cookie(&reply, T0).unwrap();
}

#[test]
fn a_proven_source_is_limited_too() {
    let (_, mut remote) = pair(PLAIN);
    flood(&mut remote, T0);
    let mut attacker = portal(9, 2, PLAIN);
    let from = "198.51.100.1:5";
    let initiator = attacker.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), from, T0));
    let cookie = initiator.cookie(&reply, T0).unwrap();
    let mut send = |now| {
        let mut message = junk(1);
        let parts = message::initiation(&message).unwrap();
        let mac2 = cookie.mac2(parts.covered, parts.mac1);
        let end = message.len() - mac2.len();
        message[end..].copy_from_slice(&mac2);
        remote.receive(&message, from, now).unwrap_err()
    };
    let burst: Vec<_> = (0..50).map(|_| send(T0)).collect();
    let read = |errors: &[HandshakeError]| {
        let count = |wanted| errors.iter().filter(|error| **error == wanted).count();
        (
            count(HandshakeError::Forged),
            count(HandshakeError::Flooded),
        )
    };
    assert_eq!(read(&burst), (8, 42));
    let later = T0 + Duration::from_secs(1);
    let second: Vec<_> = (0..50).map(|_| send(later)).collect();
    assert_eq!(read(&second), (4, 46));
}

#[test]
fn one_source_does_not_use_up_the_tokens_of_all() {
    let (mut local, mut remote) = pair(PLAIN);
    for i in 0..100 {
        let answer = remote.receive(&junk(i), "198.51.100.1:5", T0);
        assert_eq!(i < 8, answer.is_err(), "{i}: {answer:?}");
    }
    remote.accept(&local.start().message(None, T0), T0);
}

#[test]
fn after_a_flood_no_cookie_is_asked_for() {
    let (mut local, mut remote) = pair(PLAIN);
    flood(&mut remote, T0);
    cookie_reply(remote.receive(&local.start().message(None, T0), HOME, T0));
    let later = T0 + Duration::from_millis(250);
    remote.accept(&local.start().message(None, later), later);
}

/// An initiation that is junk but proves its sender's address.
fn proven_junk(attacker: &mut Portal, remote: &mut Portal, from: &str, now: Instant) -> Vec<u8> {
    let initiator = attacker.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, now), from, now));
    let cookie = initiator.cookie(&reply, now).unwrap();
    let mut message = junk(now.as_micros() + 1);
    let parts = message::initiation(&message).unwrap();
    let mac2 = cookie.mac2(parts.covered, parts.mac1);
    let end = message.len() - mac2.len();
    message[end..].copy_from_slice(&mac2);
    message
}

/// Field row A7: a thousand proven addresses cost no more than a small router's core can do, and the peer
/// still gets through from where it was seen before.
#[test]
fn proven_sources_are_limited_together_and_the_peer_gets_through() {
    let (mut local, mut remote) = pair(PLAIN);
    remote.responder.note_source(HOME.parse().unwrap());
    let mut attacker = portal(9, 2, PLAIN);
    flood(&mut remote, T0);
    let sources: Vec<String> = (0..250).map(|n| format!("198.18.{n}.1:5")).collect();
    let junk: Vec<Vec<u8>> = sources
        .iter()
        .map(|from| proven_junk(&mut attacker, &mut remote, from, T0))
        .collect();
    let initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), HOME, T0));
    let cookie = initiator.cookie(&reply, T0).unwrap();
    let (mut read, mut met) = (0, 0);
    for tenth in 0..100 {
        let now = T0 + Duration::from_millis(100) * tenth;
        for (message, from) in junk.iter().zip(&sources) {
            match remote.receive(message, from, now) {
                Err(HandshakeError::Forged) => read += 1,
                Err(HandshakeError::Flooded) => {}
                other => panic!("{other:?}"),
            }
        }
        if tenth % 10 == 9 {
            let message = local.start().message(Some(&cookie), now);
            met += u32::from(matches!(
                remote.receive(&message, HOME, now),
                Ok(Answer::Accepted { .. })
            ));
        }
    }
    assert!((100..=125).contains(&read), "{read} in 10 s");
    assert_eq!(met, 10);
}

/// Recorded initiations of earlier runs of the peer.
fn recordings(numbers: Range<u64>) -> Vec<Vec<u8>> {
    let recorded = numbers.map(|number| {
        let mut run = portal(1, 2, PLAIN);
        run.hello.boot = BootId::from_bytes((number + 1000).to_be_bytes());
        run.entropy = TestEntropy::new(number + 7000);
        run.start().message(None, T0)
    });
    recorded.collect()
}

/// Replays recordings from many networks, four a second, and proves the addresses when asked to.
fn replay(remote: &mut Portal, numbers: Range<u64>) {
    let mut now = T0;
    let mut reader = portal(9, 2, PLAIN);
    for (number, mut message) in numbers.clone().zip(recordings(numbers)) {
        now += Duration::from_millis(250);
        let source = format!("198.18.{number}.1:99");
        if let Ok(Answer::ProveAddress { .. }) = remote.receive(&message, &source, now) {
            // A cookie is good for any initiation from its address.
            let cookie = cookie_of(&mut reader, remote, &source, now);
            let parts = message::initiation(&message).unwrap();
            let mac2 = cookie.mac2(parts.covered, parts.mac1);
            let end = message.len() - mac2.len();
            message[end..].copy_from_slice(&mac2);
            let _ = remote.receive(&message, &source, now);
        }
    }
}

/// The cookie that proves this source, once so many runs wait that one is asked for.
fn cookie_of(reader: &mut Portal, remote: &mut Portal, from: &str, now: Instant) -> Cookie {
    let initiator = reader.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, now), from, now));
    initiator.cookie(&reply, now).unwrap()
}

/// A run of the peer that was answered keeps its place until its first datagram comes.
#[test]
fn recordings_of_old_runs_do_not_displace_the_peer() {
    for is_alive in [false, true] {
        let (mut local, mut remote) = pair(PLAIN);
        if is_alive {
            // It changes its keys from a network that was never seen, without a proof.
            let (_, first) = remote.accept(&local.start().message(None, T0), T0);
            remote.responder.confirm(&first.peer_hello);
        } else {
            // It restarted at a known address. Four recordings were answered before, so it has to prove it.
            remote.responder.note_source(HOME.parse().unwrap());
            replay(&mut remote, 0..4);
        }
        let now = T0 + Duration::from_secs(1);
        let mut initiator = local.start();
        let mut message = initiator.message(None, now);
        if !is_alive {
            let cookie = initiator.cookie(&cookie_reply(remote.receive(&message, HOME, now)), now);
            message = initiator.message(Some(&cookie.unwrap()), now);
        }
        let (response, _) = remote.accept(&message, now);
        replay(&mut remote, 10..26);
        assert!(remote.responder.waits_for(local.hello.boot), "{is_alive}");
        let soon = now + Duration::from_secs(4);
        match remote.receive(&message, HOME, soon) {
            Ok(Answer::Repeated { response: again }) => assert_eq!(again, response),
            other => panic!("{other:?}"),
        }
        initiator.finish(&response).unwrap();
    }
}

/// Without a proof of their address, recordings fill half of the places at most.
#[test]
fn recordings_from_made_up_addresses_are_asked_for_a_proof() {
    let (mut local, mut remote) = pair(PLAIN);
    let (mut read, mut asked) = (0, 0);
    for (number, message) in recordings(0..30).iter().enumerate() {
        let now = T0 + Duration::from_millis(250 * number as u64);
        match remote.receive(message, &format!("198.18.{number}.1:9"), now) {
            Ok(Answer::Accepted { .. }) => read += 1,
            Ok(Answer::ProveAddress { .. }) => asked += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((read, asked), (4, 26));
    // Ten seconds later they are forgotten.
    let later = T0 + Duration::from_secs(11);
    remote.accept(&local.start().message(None, later), later);
}
