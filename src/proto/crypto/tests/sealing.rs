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
        let mut datagram = plain.clone();
        seal(&a, path(2), PacketNumber(5), &mut datagram);
        assert_eq!(datagram.len(), plain.len() + TAG_LEN);
        assert_eq!(datagram[..HEADER_LEN], plain[..HEADER_LEN]);
        let in_clear = datagram[HEADER_LEN..100] == plain[HEADER_LEN..];
        assert_eq!(in_clear, setting.security == Security::Authenticate);
        let body = open(&b, path(2), PacketNumber(5), &mut datagram).unwrap();
        assert_eq!(body, &plain[HEADER_LEN..]);
    }
}

#[test]
fn a_datagram_with_any_byte_damaged_is_refused() {
    for setting in settings() {
        let (a, b) = sessions(setting);
        let mut datagram: Vec<u8> = (0..60).collect();
        seal(&a, path(0), PacketNumber(1), &mut datagram);
        for (at, mut damaged) in damaged(&datagram) {
            let opened = open(&b, path(0), PacketNumber(1), &mut damaged);
            assert_eq!(opened, None, "{at}");
        }
        for len in 0..datagram.len() {
            let mut cut = datagram[..len].to_vec();
            assert_eq!(open(&b, path(0), PacketNumber(1), &mut cut), None, "{len}");
        }
        let mut longer = datagram.clone();
        longer.push(0);
        assert_eq!(open(&b, path(0), PacketNumber(1), &mut longer), None);
        assert!(open(&b, path(0), PacketNumber(1), &mut datagram).is_some());
    }
}

#[test]
fn path_number_direction_and_session_matter() {
    for setting in settings() {
        let (a, b) = sessions(setting.clone());
        let mut datagram = vec![7; 30];
        seal(&a, path(1), PacketNumber(1 << 32), &mut datagram);
        let refused = |session: &Session, id, number| {
            open(
                session,
                path(id),
                PacketNumber(number),
                &mut datagram.clone(),
            )
            .is_none()
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
fn an_empty_body_is_sealed_and_half_a_header_is_wiped() {
    for setting in settings() {
        let (a, b) = sessions(setting);
        let mut datagram = vec![1; HEADER_LEN];
        seal(&a, path(0), PacketNumber(0), &mut datagram);
        assert_eq!(datagram.len(), HEADER_LEN + TAG_LEN);
        assert_eq!(
            open(&b, path(0), PacketNumber(0), &mut datagram),
            Some(&[][..])
        );
        for len in 0..HEADER_LEN + TAG_LEN {
            let mut short = vec![1; len];
            a.seal(path(0), PacketNumber(1), len, &mut short);
            assert_eq!(short, vec![0; len]);
        }
    }
}

/// More than are sealed and opened side by side, the last one shorter, and some of them damaged.
#[test]
fn a_batch_is_its_datagrams_one_by_one() {
    for setting in settings() {
        let (a, b) = sessions(setting);
        let plain: Vec<u8> = (0..21 * 60 + 40).map(|n| n as u8).collect();
        let mut batch = plain.clone();
        a.seal(path(3), PacketNumber(1000), 60, &mut batch);
        for (n, datagram) in (1000..).zip(batch.chunks(60)) {
            let mut alone = plain[(n - 1000) * 60..][..datagram.len()].to_vec();
            a.seal(path(3), PacketNumber(n as u64), 60, &mut alone);
            assert_eq!(alone, datagram);
        }
        let bad = [0, 9, 20, 21];
        bad.iter().for_each(|n| batch[n * 60 + 30] ^= 1);
        let mut sealed: Vec<Sealed<'_>> = batch
            .chunks_mut(60)
            .zip(1000..)
            .map(|(datagram, number)| Sealed {
                path: path(3),
                number: PacketNumber(number),
                datagram,
                genuine: false,
            })
            .collect();
        b.open(&mut sealed);
        for (n, (sealed, plain)) in sealed.iter().zip(plain.chunks(60)).enumerate() {
            assert_eq!(sealed.genuine, !bad.contains(&n), "{n}");
            let body = HEADER_LEN..plain.len() - TAG_LEN;
            assert!(!sealed.genuine || sealed.datagram[body.clone()] == plain[body]);
        }
    }
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
            prop_assert_eq!(open(b, path(id), PacketNumber(number), &mut random), None);
            let mut datagram = random.clone();
            seal(a, path(id), PacketNumber(number), &mut datagram);
            if random.len() < HEADER_LEN {
                prop_assert!(datagram.iter().all(|byte| *byte == 0));
            } else {
                let body = open(b, path(id), PacketNumber(number), &mut datagram);
                prop_assert_eq!(body, Some(&random.clone()[HEADER_LEN..]));
            }
        }
    }
}
