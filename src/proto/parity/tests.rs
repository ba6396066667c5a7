//! Groups there and back, with every loss, and nonsense.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::Instant;
use crate::proto::wire::frame::Malformed;

const NOW: Instant = Instant::from_micros(1_000_000);
/// The number of a group's first datagram.
const FIRST: u64 = 1000;

/// The parities of a group: `None` is a datagram without data.
fn parities(group: &[Option<Vec<u8>>], loss: f32) -> (u8, Vec<Vec<u8>>) {
    let mut cover = Cover::default();
    cover.set(loss, true);
    for (number, frames) in (FIRST..).zip(group) {
        if let Some(frames) = frames {
            cover.add(NOW, number, frames);
        }
    }
    let (first, span, sums) = cover.close();
    assert_eq!(first, FIRST);
    (span, sums.to_vec())
}

/// A receiver of the group that gets what `arrives` says, by number.
fn receiver(group: &[Option<Vec<u8>>], arrives: impl Fn(usize) -> bool) -> Store {
    let mut store = Store::default();
    for (n, frames) in group.iter().enumerate().filter(|(n, _)| arrives(*n)) {
        let frames = frames.as_deref().unwrap_or_default();
        store.note(PacketNumber(FIRST + n as u64), frames);
    }
    store
}

/// One parity comes, right behind the group.
fn give(store: &mut Store, span: u8, index: u8, sum: &[u8]) -> Result<bool, Malformed> {
    let back = span + index;
    let parity = Parity {
        back,
        span,
        index,
        sum,
    };
    store.on_parity(PacketNumber(FIRST + u64::from(back)), &parity)
}

fn group(count: u8) -> Vec<Option<Vec<u8>>> {
    let frames = |n: u8| (n % 5 != 3).then(|| (0..10 + 3 * n).map(|at| at ^ n).collect());
    (0..count).map(frames).collect()
}

/// Computed by another program, so that any other portal computes the same.
#[test]
fn a_parity_byte_by_byte() {
    let group = [Some(b"abc".to_vec()), None, Some(b"vwxyz".to_vec())];
    let (span, sums) = parities(&group, 0.5);
    let expected = [
        [0x00, 0x64, 0xff, 0xc8, 0xea, 0xd1, 0xab],
        [0x00, 0x78, 0x62, 0x40, 0x86, 0x7a, 0xcf],
    ];
    assert_eq!((span, sums), (3, expected.map(Vec::from).into()));
}

/// Field row E: whatever is lost of a group comes back by as many parities, whichever these are.
#[test]
fn every_loss_comes_back_by_any_parities() {
    let group = group(6);
    let (span, sums) = parities(&group, 0.3);
    assert_eq!((span, sums.len()), (6, 5));
    for lost in 1u32..1 << 6 {
        let count = lost.count_ones();
        for came in (0u32..1 << 5).filter(|came| came.count_ones() == count) {
            let mut store = receiver(&group, |n| lost >> n & 1 == 0);
            let mut solved = false;
            for index in (0..5).filter(|index| came >> index & 1 == 1) {
                assert!(!solved);
                solved = give(&mut store, span, index, &sums[usize::from(index)]).unwrap();
            }
            assert!(solved);
            let back: Vec<_> = store.back().map(Result::unwrap).collect();
            let lost = (0..6).filter(|n| lost >> n & 1 == 1);
            let expected: Vec<_> = lost.map(|n| group[n].as_deref().unwrap_or(&[])).collect();
            assert_eq!(back, expected);
        }
    }
}

#[test]
fn too_long_frames_are_left_out() {
    let long = Some(vec![7; MOST_SYMBOL + 1]);
    let group = [Some(b"abc".to_vec()), long, Some(vec![9; MOST_SYMBOL])];
    let (span, sums) = parities(&group, 0.01);
    let mut store = receiver(&group, |n| n != 0);
    assert_eq!(give(&mut store, span, 0, &sums[0]), Ok(true));
    assert_eq!(store.back().next(), Some(Ok(&b"abc"[..])));
}

#[test]
fn a_group_ends_when_it_is_full_or_old() {
    let mut cover = Cover::default();
    cover.set(0.01, false);
    assert_eq!(cover.due(), None);
    for number in 0..64 {
        assert!(!cover.is_full());
        cover.add(NOW, number, b"x");
        if number < 63 {
            assert_eq!(cover.due(), Some(NOW + Duration::from_millis(16)));
        }
    }
    assert!(cover.is_full() && cover.due() < Some(NOW));
    // What does not belong to it changes nothing.
    cover.add(NOW, 64, b"longer");
    let (first, span, sums) = cover.close();
    assert_eq!((first, span), (0, 64));
    assert!(sums.iter().all(|sum| sum.len() == 3));
    assert_eq!((cover.is_full(), cover.due()), (false, None));
    cover.add(NOW, 100, b"x");
    cover.add(NOW, 259, b"x");
    assert!(cover.is_full());
    cover.close();
    cover.add(NOW, 300, b"x");
    cover.add(NOW, 460, b"x");
    assert_eq!(cover.close().1, 1);
}

#[test]
fn parities_are_as_many_as_the_loss_asks_for() {
    let count = |datagrams, loss, room| {
        let mut cover = Cover::default();
        cover.set(loss, room);
        (0..datagrams).for_each(|number| cover.add(NOW, number, b"x"));
        cover.close().2.len()
    };
    assert_eq!(
        [0.0, 0.001, 0.01].map(|loss| count(64, loss, false)),
        [0, 2, 4]
    );
    assert_eq!([0.05, 0.5].map(|loss| count(64, loss, false)), [8, 8]);
    // At most one for eight, unless there is room for more.
    assert_eq!((count(8, 0.1, false), count(8, 0.1, true)), (1, 5));
    assert_eq!((count(1, 0.1, false), count(1, 0.1, true)), (1, 1));
    assert_eq!(count(0, 0.1, true), 0);
}

#[test]
fn what_came_again_or_late_or_does_not_fit_changes_nothing() {
    let group = group(6);
    let (span, sums) = parities(&group, 0.05);
    let fresh = || receiver(&group, |n| n > 1);
    let mut store = fresh();
    assert_eq!(give(&mut store, span, 0, &sums[0]), Ok(false));
    assert_eq!(give(&mut store, span, 0, &sums[0]), Err(Malformed));
    assert_eq!(give(&mut store, span - 1, 1, &sums[1]), Err(Malformed));
    assert_eq!(give(&mut store, span, 1, &sums[1][1..]), Err(Malformed));
    // The same group from another first datagram on.
    let inside = Parity {
        back: span,
        span,
        index: 1,
        sum: &sums[1],
    };
    let number = PacketNumber(FIRST + u64::from(span) + 1);
    assert_eq!(store.on_parity(number, &inside), Err(Malformed));
    assert_eq!(give(&mut store, span, 1, &sums[1]), Ok(true));
    assert_eq!(give(&mut store, span, 2, &sums[2]), Ok(false));
    // One of a later group, and then one of this group.
    let later = Parity {
        back: span,
        ..inside
    };
    let number = PacketNumber(FIRST + 100);
    assert_eq!(store.on_parity(number, &later), Ok(false));
    assert_eq!(give(&mut store, span, 0, &sums[0]), Ok(false));
    // Shorter than what came of the group.
    let mut store = receiver(&group, |n| n != 1);
    assert_eq!(give(&mut store, span, 0, &sums[0][..9]), Err(Malformed));
    assert_eq!(store.back().count(), 0);
    // What comes back is no symbol.
    let mut store = receiver(&group, |n| n != 1);
    let mut sum = sums[0].clone();
    sum.iter_mut().for_each(|byte| *byte ^= 0x55);
    assert_eq!(give(&mut store, span, 0, &sum), Ok(true));
    assert_eq!(store.back().next(), Some(Err(Malformed)));
    // Nothing was lost.
    let mut store = receiver(&group, |_| true);
    assert_eq!(give(&mut store, span, 0, &sums[0]), Ok(false));
    assert_eq!(store.back().count(), 0);
}

#[test]
fn an_old_datagram_does_not_displace_a_newer_one() {
    let group = group(2);
    let (span, sums) = parities(&group, 0.05);
    let mut store = receiver(&group, |n| n == 1);
    store.note(PacketNumber(FIRST + 1 - 256), b"old");
    assert_eq!(give(&mut store, span, 0, &sums[0]), Ok(true));
    assert_eq!(store.back().next(), Some(Ok(group[0].as_deref().unwrap())));
    assert!(!store.is_idle(PacketNumber(FIRST + 1024)));
    assert!(store.is_idle(PacketNumber(FIRST + 1025)));
}

proptest! {
    /// Any group and any losses: it comes back when there are parities enough.
    #[test]
    fn any_group(
        group in proptest::collection::vec(
            proptest::option::of(proptest::collection::vec(any::<u8>(), 1..80)), 1..64),
        lost in proptest::collection::btree_set(0usize..64, 0..9),
    ) {
        let mut group = group;
        group[0].get_or_insert_default().push(1);
        let (span, sums) = parities(&group, 0.2);
        let lost: Vec<usize> = lost.into_iter().filter(|n| *n < usize::from(span)).collect();
        let mut store = receiver(&group, |n| !lost.contains(&n));
        let mut solved = false;
        for (index, sum) in (0..).zip(&sums) {
            solved |= give(&mut store, span, index, sum).unwrap();
        }
        prop_assert_eq!(solved, !lost.is_empty() && lost.len() <= sums.len());
        if solved {
            let back: Vec<_> = store.back().map(Result::unwrap).collect();
            let expected: Vec<_> =
                lost.iter().map(|n| group[*n].as_deref().unwrap_or(&[])).collect();
            prop_assert_eq!(back, expected);
        }
    }

    /// Whatever an authenticated peer sends: no panic.
    #[test]
    fn nonsense_never_panics(
        sent in proptest::collection::vec((
            prop_oneof![0u64..400, (u64::MAX >> 2) - 400..u64::MAX >> 2],
            any::<bool>(), 0u8..20, 0u8..20, 0u8..10,
            proptest::collection::vec(any::<u8>(), 0..12),
        ), 1..60),
    ) {
        let mut store = Store::default();
        for (number, is_data, back, span, index, bytes) in &sent {
            let number = PacketNumber(*number);
            if *is_data {
                store.note(number, bytes);
                let _ = store.is_idle(number);
                continue;
            }
            let parity = Parity { back: *back, span: *span, index: *index, sum: bytes };
            if store.on_parity(number, &parity) == Ok(true) {
                prop_assert!(store.back().count() <= MOST_PARITIES);
            }
        }
    }
}
