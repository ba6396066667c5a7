//! Order, loss, lateness and copies; against a plain model.

use proptest::prelude::*;

use super::*;
use crate::proto::wire::frame::{Bucket, Sequence};

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn sent(ms: u64) -> Stamp {
    Stamp::of(at(ms))
}

fn path(id: u8) -> PathId {
    PathId::new(id).unwrap()
}

struct Run {
    buffer: Resequencer,
    out: VecDeque<Packet>,
}

impl Run {
    fn new() -> Self {
        Self {
            buffer: Resequencer::default(),
            out: VecDeque::new(),
        }
    }

    /// Packet `n` sent at `sent_ms` by `id` comes at `now`.
    fn arrive(&mut self, now: u64, id: u8, sent_ms: u64, n: u32, mask: u8) -> bool {
        self.buffer.on_arrival(at(now), path(id), sent(sent_ms));
        let order = Order {
            bucket: Bucket(7),
            sequence: Sequence::new(n),
            mask,
        };
        let packet = Packet::from(&n.to_be_bytes()[..]);
        let kept = self
            .buffer
            .insert(at(now), order, sent(sent_ms), packet, &mut self.out)
            .is_ok();
        self.buffer.release(at(now), &mut self.out);
        kept
    }

    fn delivered(&mut self) -> Vec<u32> {
        self.out
            .drain(..)
            .map(|p| u32::from_be_bytes(p.bytes().try_into().unwrap()))
            .collect()
    }
}

#[test]
fn in_order_nothing_waits() {
    let mut run = Run::new();
    for n in 0..5 {
        run.arrive(u64::from(n), 0, u64::from(n), n, 0);
    }
    assert_eq!(run.delivered(), [0, 1, 2, 3, 4]);
    assert_eq!(run.buffer.waiting(), 0);
}

#[test]
fn waits_for_the_slow_path_and_no_longer() {
    let mut run = Run::new();
    run.arrive(20, 1, 0, 0, 0); // path 1 takes 20 ms
    run.arrive(21, 0, 11, 2, 0b10); // 1 is under way on path 1
    assert_eq!(run.delivered(), [0]);
    assert_eq!(run.buffer.next_deadline(), Some(at(11 + 20 + 40)));
    run.arrive(30, 1, 10, 1, 0b01);
    assert_eq!(run.delivered(), [1, 2]);
    assert_eq!(run.buffer.next_deadline(), None);
}

#[test]
fn proof_of_loss_releases_at_once() {
    let mut run = Run::new();
    run.arrive(20, 1, 0, 0, 0);
    run.arrive(21, 0, 11, 2, 0b10);
    // Path 1 brings something sent later: packet 1 is lost.
    run.arrive(32, 1, 12, 3, 0b01);
    assert_eq!(run.delivered(), [0, 2, 3]);
    // It was late after all: still good for TCP, but once.
    assert!(run.arrive(40, 1, 10, 1, 0));
    assert_eq!(run.delivered(), [1]);
    assert!(!run.arrive(41, 1, 10, 1, 0));
    assert!(!run.arrive(41, 1, 10, 2, 0));
}

#[test]
fn a_loss_on_its_own_path_is_seen_at_once() {
    let mut run = Run::new();
    run.arrive(1, 0, 0, 0, 0);
    run.arrive(2, 0, 1, 2, 0);
    assert_eq!(run.delivered(), [0, 2]);
}

#[test]
fn a_dead_path_delays_until_the_deadline_only() {
    let mut run = Run::new();
    run.arrive(20, 1, 0, 0, 0);
    run.arrive(22, 0, 12, 2, 0b10);
    let deadline = run.buffer.next_deadline().unwrap();
    run.buffer.release(deadline, &mut run.out);
    assert_eq!(run.delivered(), [0, 2]);
}

#[test]
fn an_unknown_path_is_waited_for_a_quarter_second() {
    let mut run = Run::new();
    run.arrive(10, 0, 0, 1, 0b100);
    assert_eq!(run.buffer.next_deadline(), Some(at(260)));
}

#[test]
fn the_wait_is_bounded_in_packets() {
    let mut run = Run::new();
    for n in 1..=MOST_WAITING as u32 + 1 {
        run.arrive(10, 0, 0, n, 0b100);
    }
    assert_eq!(run.delivered().len(), MOST_WAITING + 1);
    assert_eq!(run.buffer.waiting(), 0);
}

proptest! {
    /// Packets over three FIFO paths of different delay, some lost: what arrives is delivered once,
    /// and in order as long as nothing came later than its path's worst.
    #[test]
    fn order_over_fifo_paths(choices in proptest::collection::vec((0u8..3, 0u8..20), 1..300)) {
        let delays = [3, 17, 40];
        let mut last: [Option<u64>; 3] = [None; 3];
        let mut events = Vec::new();
        for (n, (id, luck)) in choices.iter().enumerate() {
            let now = n as u64 * 2;
            // What is not yet known to have arrived may still be under way.
            let mask = (0..3).filter(|i| i != id && last[usize::from(*i)].is_some_and(|t| t + 3 * delays[usize::from(*i)] > now))
                .fold(0, |mask, i| mask | 1 << i);
            last[usize::from(*id)] = Some(now);
            if *luck > 0 {
                events.push((now + delays[usize::from(*id)], *id, now, n as u32, mask));
            }
        }
        events.sort_by_key(|event| event.0);
        let mut run = Run::new();
        // Every path has shown its delay before.
        for id in 0..3u8 {
            run.buffer.on_arrival(at(1000 + delays[usize::from(id)]), path(id), sent(1000));
        }
        for (now, id, sent_ms, n, mask) in &events {
            while let Some(deadline) = run.buffer.next_deadline().filter(|d| *d <= at(2000 + now)) {
                run.buffer.release(deadline, &mut run.out);
            }
            run.arrive(2000 + now, *id, 2000 + sent_ms, *n, *mask);
        }
        while let Some(deadline) = run.buffer.next_deadline() {
            run.buffer.release(deadline, &mut run.out);
        }
        let delivered = run.delivered();
        prop_assert!(delivered.is_sorted(), "{delivered:?}");
        prop_assert_eq!(delivered.len(), events.len());
    }
}
