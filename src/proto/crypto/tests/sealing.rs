//! Datagrams of a session.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::proto::wire::{HEADER_LEN, PacketNumber, PathId, TAG_LEN};

fn settings() -> impl Iterator<Item = Setting> {
    [
        (Security::Encrypt, false),
        (Security::Encrypt, true),
        (Security::Authenticate, false),
        (Security::None, false),
    ]
    .into_iter()
    .map(|(security, aes)| Setting {
        security,
        aes,
        ..PLAIN
    })
}

fn path(id: u8) -> PathId {
    PathId::new(id).unwrap()
}

#[test]
fn only_the_mode_authenticate_leaves_the_body_in_clear() {
    for setting in settings() {
        let (a, b) = sessions(setting.clone());
        let plain: Vec<u8> = (0..100).collect();
        let mut buffer = b"before".to_vec();
        buffer.extend(&plain);
        a.seal(path(2), PacketNumber(5), &mut buffer, 6);
        assert_eq!(buffer.len(), 6 + plain.len() + TAG_LEN);
        let (before, datagram) = buffer.split_at_mut(6);
        assert_eq!(before, b"before");
        assert_eq!(datagram[..HEADER_LEN], plain[..HEADER_LEN]);
        let in_clear = datagram[HEADER_LEN..100] == plain[HEADER_LEN..];
        assert_eq!(in_clear, setting.security == Security::Authenticate);
        let body = b.open(path(2), PacketNumber(5), datagram).unwrap();
        assert_eq!(body, &plain[HEADER_LEN..]);
    }
}

#[test]
fn a_datagram_with_any_byte_damaged_is_refused() {
    for setting in settings() {
        let (a, b) = sessions(setting);
        let mut datagram: Vec<u8> = (0..60).collect();
        a.seal(path(0), PacketNumber(1), &mut datagram, 0);
        for (at, mut damaged) in damaged(&datagram) {
            let opened = b.open(path(0), PacketNumber(1), &mut damaged);
            assert_eq!(opened, Err(Forged), "{at}");
        }
        for len in 0..datagram.len() {
            let mut cut = datagram[..len].to_vec();
            assert_eq!(
                b.open(path(0), PacketNumber(1), &mut cut),
                Err(Forged),
                "{len}"
            );
        }
        let mut longer = datagram.clone();
        longer.push(0);
        assert_eq!(b.open(path(0), PacketNumber(1), &mut longer), Err(Forged));
        assert!(b.open(path(0), PacketNumber(1), &mut datagram).is_ok());
    }
}

#[test]
fn path_number_direction_and_session_matter() {
    for setting in settings() {
        let (a, b) = sessions(setting.clone());
        let mut datagram = vec![7; 30];
        a.seal(path(1), PacketNumber(1 << 32), &mut datagram, 0);
        let refused = |session: &Session, id, number| {
            session.open(path(id), PacketNumber(number), &mut datagram.clone()) == Err(Forged)
        };
        assert!(refused(&b, 0, 1 << 32));
        assert!(refused(&b, 1, 0));
        assert!(refused(&b, 1, (1 << 32) + 1));
        assert!(refused(&a, 1, 1 << 32), "sent back to its sender");
        assert!(!refused(&b, 1, 1 << 32));
        let (mut local, mut remote) = pair(setting);
        local.start();
        let initiation = local.start().message(None, T0);
        let (_, other) = remote.accept(&initiation, T0);
        assert!(refused(&other.session, 1, 1 << 32));
    }
}

#[test]
fn an_empty_body_is_sealed_and_half_a_header_is_cut_off() {
    for setting in settings() {
        let (a, b) = sessions(setting);
        let mut datagram = vec![1; HEADER_LEN];
        a.seal(path(0), PacketNumber(0), &mut datagram, 0);
        assert_eq!(datagram.len(), HEADER_LEN + TAG_LEN);
        assert_eq!(
            b.open(path(0), PacketNumber(0), &mut datagram),
            Ok(&mut [][..])
        );
        for start in [3, 9, 10, 11] {
            let mut short = vec![1; 10];
            a.seal(path(0), PacketNumber(1), &mut short, start);
            assert_eq!(short.len(), start.min(10));
        }
    }
}

#[test]
fn sealing_does_not_move_a_buffer_that_has_room() {
    let (a, _) = sessions(PLAIN);
    let mut buffer = Vec::with_capacity(100 + TAG_LEN);
    buffer.resize(100, 0);
    let before = buffer.as_ptr();
    a.seal(path(0), PacketNumber(0), &mut buffer, 0);
    assert_eq!(buffer.as_ptr(), before);
}

#[test]
fn a_session_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Session>();
}

static SESSIONS: LazyLock<Vec<(Session, Session)>> =
    LazyLock::new(|| settings().map(sessions).collect());

proptest! {
    #[test]
    fn nothing_panics_and_nothing_random_opens(
        mut random in prop::collection::vec(any::<u8>(), 0..100),
        id in 0_u8..8,
        number in any::<u64>(),
    ) {
        for (a, b) in SESSIONS.iter() {
            prop_assert_eq!(b.open(path(id), PacketNumber(number), &mut random), Err(Forged));
            let mut datagram = random.clone();
            a.seal(path(id), PacketNumber(number), &mut datagram, 0);
            if random.len() < HEADER_LEN {
                prop_assert!(datagram.is_empty());
            } else {
                let body = b.open(path(id), PacketNumber(number), &mut datagram);
                prop_assert_eq!(body, Ok(&mut random.clone()[HEADER_LEN..]));
            }
        }
    }
}
