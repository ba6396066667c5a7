//! Handshakes that succeed, and all that must not.

use proptest::prelude::*;

use super::flood::flood;
use super::*;
use crate::proto::crypto::{hello, message, noise};
use crate::proto::wire::{HEADER_LEN, Kind, PacketNumber, PathId};

#[test]
fn both_sides_agree_on_everything() {
    let psk = PresharedKey::from_bytes([5; 32]);
    for security in [Security::Encrypt, Security::Authenticate, Security::None] {
        for (psk, aes) in [(None, false), (Some(psk.clone()), true)] {
            let (a, b) = sessions(Setting { psk, security, aes });
            let expected = match (security, aes) {
                (Security::Authenticate, _) => "BLAKE2s",
                (Security::Encrypt | Security::None, true) => "AES-256-GCM",
                (Security::Encrypt | Security::None, false) => "ChaCha20-Poly1305",
            };
            for session in [&a, &b] {
                assert_eq!(session.cipher_name(), expected);
                assert_eq!(session.security(), security);
            }
            for path in PathId::all() {
                assert_eq!(b.rx_path(a.tx_index(path)), Some(path));
                assert_eq!(a.rx_path(b.tx_index(path)), Some(path));
                assert_ne!(a.tx_index(path), b.tx_index(path));
                for (from, to) in [(&a, &b), (&b, &a)] {
                    let mut datagram = vec![9; HEADER_LEN + 3];
                    seal(from, path, PacketNumber(7), &mut datagram);
                    assert_eq!(
                        open(to, path, PacketNumber(7), &mut datagram).unwrap(),
                        [9; 3]
                    );
                }
            }
        }
    }
}

#[test]
fn aes_needs_both() {
    for (ours, theirs) in [(true, false), (false, true)] {
        let mut local = portal(1, 2, Setting { aes: ours, ..PLAIN });
        let mut remote = portal(
            2,
            1,
            Setting {
                aes: theirs,
                ..PLAIN
            },
        );
        let mut initiator = local.start();
        let (response, established) = remote.accept(&initiator.message(None, T0), T0);
        let ours = initiator.finish(&response).unwrap();
        assert_eq!(ours.session.cipher_name(), "ChaCha20-Poly1305");
        assert_eq!(established.session.cipher_name(), "ChaCha20-Poly1305");
        assert_eq!(ours.peer_hello, remote.hello);
        assert_eq!(established.peer_hello, local.hello);
    }
}

#[test]
fn a_seeded_run_repeats_and_two_handshakes_do_not_share_a_key() {
    let run = || {
        let (mut local, mut remote) = pair(PLAIN);
        let mut initiator = local.start();
        let initiation = initiator.message(None, T0);
        let (response, theirs) = remote.accept(&initiation, T0);
        let ours = initiator.finish(&response).unwrap();
        let again = local.start().message(None, T0);
        let (response_again, theirs_again) = remote.accept(&again, T0);
        assert_ne!(initiation, again);
        assert_ne!(response, response_again);
        for path in PathId::all() {
            let index = theirs.session.tx_index(path);
            assert_ne!(index, theirs_again.session.tx_index(path));
        }
        let mut datagram = vec![0; 40];
        let path = PathId::all().next().unwrap();
        seal(&ours.session, path, PacketNumber(0), &mut datagram);
        (initiation, response, datagram)
    };
    assert_eq!(run(), run());
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let (mut local, mut remote) = pair(PLAIN);
    let initiation = local.start().message(None, T0);
    assert_eq!(initiation.len(), INITIATION_LEN);
    let (response, _) = remote.accept(&initiation, T0);
    assert_eq!(response.len(), RESPONSE_LEN);
    let later = T0 + std::time::Duration::from_secs(10);
    flood(&mut remote, later);
    let initiation = local.start().message(None, later);
    let reply = cookie_reply(remote.receive(&initiation, HOME, later));
    assert_eq!(reply.len(), COOKIE_REPLY_LEN);
}

#[test]
fn an_initiation_with_any_byte_damaged_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let initiation = local.start().message(None, T0);
    // The last 16 bytes are the cookie's MAC: without load nobody asks for it (see flood.rs).
    let looked_at = initiation.len() - 16;
    for (at, message) in damaged(&initiation).filter(|(at, _)| *at < looked_at) {
        let expected = if at == 0 {
            HandshakeError::Malformed
        } else {
            HandshakeError::WrongMac
        };
        assert_eq!(
            remote.receive(&message, HOME, T0).unwrap_err(),
            expected,
            "{at}"
        );
    }
    remote.accept(&initiation, T0);
}

#[test]
fn an_initiation_with_any_byte_of_noise_damaged_and_its_mac_mended_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let initiator = local.start();
    let initiation = initiator.message(None, T0);
    let noise = message::initiation(&initiation).unwrap().noise.to_vec();
    let mut now = T0;
    for (at, noise) in damaged(&noise).step_by(3) {
        now += std::time::Duration::from_secs(1);
        let mended = message::assemble(
            Kind::Initiation,
            initiator.index(),
            &noise,
            &local.identity.peer_mac1,
        );
        let refused = remote.receive(&mended, HOME, now).unwrap_err();
        // The highest bit of a public key is ignored by the curve (RFC 7748 section 5), but the
        // transcript has it.
        assert_eq!(refused, HandshakeError::Forged, "{at}");
    }
    remote.accept(&initiation, now);
}

#[test]
fn a_response_with_any_byte_damaged_is_refused_and_the_handshake_goes_on() {
    let (mut local, mut remote) = pair(PLAIN);
    let mut initiator = local.start();
    let index = initiator.index();
    let (response, theirs) = remote.accept(&initiator.message(None, T0), T0);
    for (at, message) in damaged(&response) {
        let expected = match at {
            0 => HandshakeError::Malformed,
            1..4 => HandshakeError::NotForThis,
            _ => HandshakeError::WrongMac,
        };
        assert_eq!(initiator.finish(&message).unwrap_err(), expected, "{at}");
    }
    // A forger knows both public keys, so his first MAC is right.
    let noise = message::response(&response).unwrap().noise.to_vec();
    for (at, noise) in damaged(&noise).step_by(3) {
        let mended = message::assemble(Kind::Response, index, &noise, &local.identity.our_mac1);
        let refused = initiator.finish(&mended).unwrap_err();
        assert_eq!(refused, HandshakeError::Forged, "{at}");
    }
    for len in [50, 66, 200] {
        let noise = vec![0xa5; len];
        let mended = message::assemble(Kind::Response, index, &noise, &local.identity.our_mac1);
        initiator.finish(&mended).unwrap_err();
    }
    let ours = initiator.finish(&response).unwrap().session;
    let path = PathId::new(3).unwrap();
    let mut datagram = vec![1; 20];
    seal(&ours, path, PacketNumber(0), &mut datagram);
    open(&theirs.session, path, PacketNumber(0), &mut datagram).unwrap();
    // It is over: the same response makes no second session with the same keys.
    initiator.finish(&response).unwrap_err();
}

#[test]
fn a_response_to_another_initiation_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let mut first = local.start();
    let mut second = local.start();
    let (to_first, _) = remote.accept(&first.message(None, T0), T0);
    let (to_second, _) = remote.accept(&second.message(None, T0), T0);
    assert_eq!(
        second.finish(&to_first).unwrap_err(),
        HandshakeError::NotForThis
    );
    first.finish(&to_first).unwrap();
    second.finish(&to_second).unwrap();
}

#[test]
fn another_preshared_key_makes_no_session() {
    let psk = |byte| Some(PresharedKey::from_bytes([byte; 32]));
    for (ours, theirs) in [(psk(1), psk(2)), (psk(1), None), (None, psk(2))] {
        let mut local = portal(1, 2, Setting { psk: ours, ..PLAIN });
        let mut remote = portal(
            2,
            1,
            Setting {
                psk: theirs,
                ..PLAIN
            },
        );
        let mut initiator = local.start();
        // The pre-shared key comes in with the response, so the responder notices nothing.
        let (response, _) = remote.accept(&initiator.message(None, T0), T0);
        assert_eq!(
            initiator.finish(&response).unwrap_err(),
            HandshakeError::Forged
        );
    }
    // None is the same as zeros, as with WireGuard.
    let mut local = portal(
        1,
        2,
        Setting {
            psk: psk(0),
            ..PLAIN
        },
    );
    let mut remote = portal(2, 1, PLAIN);
    let mut initiator = local.start();
    let (response, _) = remote.accept(&initiator.message(None, T0), T0);
    initiator.finish(&response).unwrap();
}

#[test]
fn a_stranger_is_refused() {
    let mut remote = portal(2, 1, PLAIN);
    let mut stranger = portal(3, 2, PLAIN);
    let message = stranger.start().message(None, T0);
    assert_eq!(
        remote.receive(&message, HOME, T0).unwrap_err(),
        HandshakeError::WrongPeer
    );
    // Meant for somebody else.
    let mut local = portal(1, 4, PLAIN);
    let message = local.start().message(None, T0);
    assert_eq!(
        remote.receive(&message, HOME, T0).unwrap_err(),
        HandshakeError::WrongMac
    );
    // A responder that has another key than its public one says, impersonating portal 2.
    let mut local = portal(1, 2, PLAIN);
    let mut initiator = local.start();
    let mut impostor = portal(5, 1, PLAIN);
    impostor.identity.our_mac1 = remote.identity.our_mac1;
    let message = initiator.message(None, T0);
    assert_eq!(
        impostor.receive(&message, HOME, T0).unwrap_err(),
        HandshakeError::Forged
    );
    let (response, _) = remote.accept(&message, T0);
    initiator.finish(&response).unwrap();
}

#[test]
fn another_version_is_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let mut noise = noise::build(&local.identity, b"netcombiner v2", &mut local.entropy, true);
    let mut buffer = [0; message::INITIATION_NOISE];
    let len = noise
        .write_message(&[0; message::INITIATION_PAYLOAD], &mut buffer)
        .unwrap();
    let index = local.start().index();
    let message = message::assemble(
        Kind::Initiation,
        index,
        &buffer[..len],
        &local.identity.peer_mac1,
    );
    assert_eq!(
        remote.receive(&message, HOME, T0).unwrap_err(),
        HandshakeError::Forged
    );
}

#[test]
fn a_longer_hello_of_a_later_version_is_read_and_a_broken_one_refused() {
    let (mut local, mut remote) = pair(PLAIN);
    let mut initiation = |payload: &[u8]| {
        let mut noise = noise::initiator(&local.identity, &mut local.entropy);
        let mut buffer = [0; 400];
        let len = noise.write_message(payload, &mut buffer).unwrap();
        message::assemble(
            Kind::Initiation,
            crate::proto::wire::ReceiverIndex::new([1; 3]),
            &buffer[..len],
            &local.identity.peer_mac1,
        )
    };
    let mut payload = local.hello.encode().to_vec();
    payload.extend([0xee; 200]);
    let long = initiation(&payload);
    payload[16] = 77;
    let broken = initiation(&payload);
    let bare = initiation(&payload[..hello::HELLO_LEN]);
    assert_eq!(
        remote.receive(&broken, HOME, T0).unwrap_err(),
        HandshakeError::Malformed
    );
    assert_eq!(
        remote.receive(&bare, HOME, T0).unwrap_err(),
        HandshakeError::Malformed
    );
    let (_, established) = remote.accept(&long, T0);
    assert_eq!(established.peer_hello, local.hello);
}

#[test]
fn another_security_mode_is_told_to_both_and_makes_no_session() {
    let mut local = portal(1, 2, PLAIN);
    let security = Security::Authenticate;
    let mut remote = portal(2, 1, Setting { security, ..PLAIN });
    let mut initiator = local.start();
    let message = initiator.message(None, T0);
    let Ok(Answer::SecurityMismatch { response, peer }) = remote.receive(&message, HOME, T0) else {
        panic!("a mismatch is expected");
    };
    assert_eq!(peer, Security::Encrypt);
    let error = initiator.finish(&response).unwrap_err();
    assert_eq!(
        error,
        HandshakeError::SecurityMismatch(Security::Authenticate)
    );
}

#[test]
fn secrets_are_not_shown() {
    let (mut local, remote) = pair(PLAIN);
    let initiator = local.start();
    let (a, _) = sessions(PLAIN);
    let shown = format!(
        "{initiator:?} {:?} {a:?} {:?}",
        local.identity, remote.responder
    );
    assert!(!shown.contains(key(1).reveal().as_str()));
    assert!(!shown.contains("[5, "), "{shown}");
    assert_eq!(
        format!("{a:?}"),
        r#"Session { security: Encrypt, cipher: "ChaCha20-Poly1305", .. }"#
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_panics_on_what_is_cut_lengthened_or_random(
        random in prop::collection::vec(any::<u8>(), 0..600),
        kind in prop::sample::select(vec![0x10_u8, 0x20, 0x30, 0x40]),
        cut in 0_usize..250,
    ) {
        let (mut local, mut remote) = pair(PLAIN);
        let mut initiator = local.start();
        let initiation = initiator.message(None, T0);
        let mut kinded = random.clone();
        if let Some(first) = kinded.first_mut() {
            *first = kind;
        }
        // With a right first MAC the whole way to the decryption is open.
        let index = initiator.index();
        let to_remote =
            message::assemble(Kind::Initiation, index, &random, &local.identity.peer_mac1);
        let to_local = message::assemble(Kind::Response, index, &random, &local.identity.our_mac1);
        let cut_initiation = &initiation[..cut.min(INITIATION_LEN - 1)];
        let mut long_initiation = initiation.clone();
        long_initiation.extend(&random[..random.len().min(20)]);
        for message in [&random[..], &kinded, &to_remote, cut_initiation] {
            prop_assert!(remote.receive(message, HOME, T0).is_err());
        }
        if long_initiation != initiation {
            prop_assert!(remote.receive(&long_initiation, HOME, T0).is_err());
        }
        let (response, _) = remote.accept(&initiation, T0);
        let cut_response = &response[..cut.min(RESPONSE_LEN - 1)];
        for message in [&random[..], &kinded, &to_local, cut_response, &initiation] {
            prop_assert!(initiator.finish(message).is_err());
            prop_assert!(initiator.cookie(message, T0).is_err());
        }
        prop_assert!(initiator.finish(&response).is_ok());
    }
}
