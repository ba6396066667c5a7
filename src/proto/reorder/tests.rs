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
    /// Packets say that they wait for repairs.
    wait: bool,
    /// They have no tag.
    bare: bool,
}

impl Run {
    fn new() -> Self {
        Self {
            buffer: Resequencer::default(),
            out: VecDeque::new(),
            wait: false,
            bare: false,
        }
    }

    /// One whose bucket awaits this sequence.
    fn awaiting(next: u32) -> Self {
        let mut run = Self::new();
        // Half the numbers are ahead, half behind: a third at a time is always ahead.
        for last in [next / 3, next / 3 * 2, next - 1] {
            run.take(0, order(last, true, true), last);
        }
        run.out.clear();
        run
    }

    /// Packet `n` sent at `sent_ms` by `id` comes at `now`.
    fn arrive(&mut self, now: u64, id: u8, sent_ms: u64, n: u32, mask: u8) -> bool {
        self.buffer.on_arrival(at(now), path(id), sent(sent_ms));
        let order = Order {
            bucket: Bucket(7),
            sequence: Sequence::new(n),
            mask,
            wait: self.wait,
            settled: false,
        };
        let packet = Packet::from(&n.to_be_bytes()[..]);
        let kept = self
            .buffer
            .insert(
                at(now),
                order,
                sent(sent_ms),
                packet,
                self.bare,
                &mut self.out,
            )
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
    for n in 1..=MOST_PLACES as u32 + 1 {
        run.arrive(10, 0, 0, n, 0b100);
    }
    assert_eq!(run.delivered().len(), MOST_PLACES + 1);
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

fn order(n: u32, wait: bool, settled: bool) -> Order {
    Order {
        bucket: Bucket(7),
        sequence: Sequence::new(n),
        mask: 0,
        wait,
        settled,
    }
}

impl Run {
    fn take(&mut self, now: u64, order: Order, n: u32) -> bool {
        let packet = Packet::from(&n.to_be_bytes()[..]);
        let kept = self
            .buffer
            .insert(at(now), order, sent(now), packet, self.bare, &mut self.out)
            .is_ok();
        self.buffer.release(at(now), &mut self.out);
        kept
    }

    fn patient(&mut self, now: u64, n: u32) -> bool {
        self.take(now, order(n, true, false), n)
    }

    fn hasty(&mut self, now: u64, n: u32) -> bool {
        self.take(now, order(n, false, false), n)
    }

    fn give_up(&mut self, now: u64, n: u32) {
        let (bucket, sequence) = (Bucket(7), Sequence::new(n));
        self.buffer
            .give_up(at(now), bucket, sequence, &mut self.out);
    }
}

#[test]
fn the_patient_wait_for_the_repair() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.patient(2, 2);
    run.patient(60, 3);
    assert_eq!(run.delivered(), [0]);
    run.patient(61, 1);
    assert_eq!(run.delivered(), [1, 2, 3]);
    assert!(!run.patient(62, 1) && !run.patient(62, 3));
    assert_eq!(run.buffer.load, Load::default());
}

#[test]
fn the_patient_wait_no_longer_than_a_quarter_second() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.patient(2, 3);
    run.patient(200, 2);
    assert_eq!(run.buffer.next_deadline(), Some(at(252)));
    run.buffer.release(at(252), &mut run.out);
    assert_eq!(run.delivered(), [0, 2, 3]);
    assert!(run.patient(253, 1) && !run.patient(254, 1));
}

#[test]
fn the_given_up_are_not_waited_for() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.patient(2, 2);
    run.patient(2, 4);
    run.give_up(3, 3);
    assert_eq!(run.delivered(), [0]);
    run.give_up(3, 1);
    assert_eq!(run.delivered(), [2, 4]);
    // Given up too soon, and still new.
    assert!(run.patient(5, 3) && run.patient(5, 1) && !run.patient(5, 2));
    run.give_up(6, 5);
    assert!(run.patient(7, 6));
    assert_eq!(run.delivered(), [3, 1, 6]);
}

#[test]
fn a_packet_given_up_takes_its_place_when_it_comes_in_time() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.patient(2, 4);
    run.give_up(3, 3);
    assert!(run.patient(4, 3) && !run.patient(4, 3));
    run.patient(5, 1);
    run.patient(5, 2);
    assert_eq!(run.delivered(), [0, 1, 2, 3, 4]);
    assert_eq!(run.buffer.load, Load::default());
}

#[test]
fn word_of_the_far_future_or_past_changes_nothing() {
    let mut run = Run::new();
    for n in 0..10 {
        run.patient(1, n);
    }
    run.patient(1, 11);
    for n in [0, 9, 11, 12, 500, 40_000, 0x80_0000, 0xff_ffff] {
        run.give_up(2, n);
    }
    assert_eq!(run.buffer.load.places, 1);
    run.patient(3, 10);
    run.patient(3, 12);
    assert_eq!(run.delivered(), (0..13).collect::<Vec<_>>());
}

#[test]
fn a_bucket_does_not_stay_shut() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.take(2, order(0x10_0000, true, true), 0x10_0000);
    run.delivered();
    // As if the sender had restarted: taken for old ones first, but not for ever.
    let taken = (1..400).filter(|n| run.patient(3, *n)).count();
    assert_eq!(taken, 200);
    assert_eq!(run.delivered().len(), 200);
}

#[test]
fn a_call_does_not_wait_for_a_download_in_its_bucket_nor_hurry_it() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.hasty(3, 2); // 1 is lost
    run.patient(4, 3);
    run.hasty(5, 4);
    assert_eq!(run.delivered(), [0, 2, 4]);
    assert!(!run.hasty(6, 2));
    run.patient(50, 1);
    assert_eq!(run.delivered(), [1, 3]);
    assert_eq!(run.buffer.load, Load::default());
    run.patient(51, 5);
    assert_eq!(run.delivered(), [5]);
}

#[test]
fn what_is_settled_is_waited_for_no_more() {
    let mut run = Run::new();
    run.patient(1, 0);
    run.patient(2, 2);
    run.take(3, order(1000, true, true), 1000);
    assert_eq!(run.delivered(), [0, 2, 1000]);
    assert!(run.patient(4, 999) && !run.patient(5, 999));
    // Where sequences may be forged, a receiver that is out of step begins where the sender is.
    let mut late = Run::new();
    late.bare = true;
    for n in [0x12_3456, 0xff_ff00, 0x80_0001] {
        late.take(1, order(n, true, true), n);
        late.patient(1, n + 1);
        assert_eq!(late.delivered(), [n, n + 1]);
    }
}

#[test]
fn what_a_link_held_for_seconds_is_no_news() {
    let mut run = Run::awaiting(50_000);
    run.patient(1, 50_001);
    // Authentic, and delivered by a repair long ago.
    assert!(!run.patient(2, 5) && !run.patient(2, 6));
    assert_eq!((run.delivered(), run.buffer.waiting()), (vec![], 1));
    run.patient(3, 50_000);
    assert_eq!(run.delivered(), [50_000, 50_001]);
}

#[test]
fn words_of_giving_up_are_bounded() {
    let mut run = Run::new();
    run.patient(1, 8_000_000);
    for n in 1..=100_000 {
        run.give_up(2, n);
        assert!(run.buffer.load.places <= MOST_PLACES);
    }
    // What is awaited now needs no room.
    run.give_up(3, 0);
    assert_eq!(run.buffer.load.places, 1);
    run.give_up(3, MOST_PLACES as u32);
    assert!(run.patient(4, MOST_PLACES as u32 + 1));
    assert_eq!(run.delivered(), [MOST_PLACES as u32 + 1]);
    run.buffer.release(at(251), &mut run.out);
    assert_eq!(run.delivered(), [8_000_000]);
    assert_eq!(run.buffer.load, Load::default());
}

/// Field row A7: the peer chooses the order, here the worst one, and what each packet says.
#[test]
fn the_worst_order_costs_a_bounded_number_of_steps() {
    let mut run = Run::new();
    // Ten seconds of 10,000 frames a second, each in a datagram of its own: small packets from the
    // last one to the first, hasty and patient ones in turn, and words of giving up between them.
    let mut most = 0;
    for n in 0..100_000_u32 {
        let micros = u64::from(n) * 100;
        let now = Instant::from_micros(1_000_000 + micros);
        let place = (n / 2500 + 1) * 100_000 - n * 2;
        let order = Order {
            mask: 0b100,
            ..order(place, n % 2 == 0, false)
        };
        let packet = Packet::from(&[0x45; 20][..]);
        let sent = Stamp::of(now);
        let taken = run
            .buffer
            .insert(now, order, sent, packet, false, &mut run.out);
        assert!(taken.is_ok(), "{n}");
        let (bucket, sequence) = (Bucket(7), Sequence::new(place - 1));
        run.buffer.give_up(now, bucket, sequence, &mut run.out);
        run.buffer.release(now, &mut run.out);
        most = most.max(run.buffer.load.places);
        // The owner asks after each datagram.
        let _ = run.buffer.next_deadline();
    }
    assert!(most > MOST_PLACES / 2, "{most}");
    // 500 a datagram are free, and 40 million in ten seconds.
    assert!(run.buffer.steps < 92_000_000, "{}", run.buffer.steps);
    let waits = run.buffer.waiting();
    let end = Instant::from_micros(12_000_000);
    run.buffer.release(end, &mut run.out);
    assert_eq!(run.out.len(), 100_000, "{waits} waited");
    assert_eq!(run.buffer.load, Load::default());
}

#[test]
fn a_path_that_fell_silent_does_not_shorten_the_wait() {
    let mut run = Run::new();
    run.wait = true;
    // Path 1 takes 10 ms, path 0 90 ms; then path 1 dies, and a repair takes two round trips of 90.
    run.arrive(10, 1, 0, 0, 0);
    run.arrive(100, 0, 10, 2, 0);
    assert_eq!(run.buffer.next_deadline(), Some(at(10 + 10 + 250)));
    run.arrive(101, 0, 11, 1, 0);
    // The clocks drift apart by 200 ms in hours.
    for drift in 0..200 {
        let now = 5000 + 60_000 * drift;
        let n = 3 + 2 * drift as u32;
        run.arrive(now, 0, now - 90 - drift, n + 1, 0);
        assert_eq!(run.buffer.next_deadline(), Some(at(now + 250)));
        run.arrive(now + 1, 0, now - 89 - drift, n, 0);
    }
    assert_eq!(run.delivered().len(), 403);
    assert_eq!(run.buffer.overdue(), 0);
}

#[test]
fn packets_wait_across_the_wrap() {
    let first = 0xff_fff0;
    let mut run = Run::awaiting(first);
    (first + 1..first + 40).for_each(|n| _ = run.patient(1, n));
    assert_eq!((run.delivered(), run.buffer.waiting()), (vec![], 39));
    run.patient(2, first);
    assert_eq!(run.delivered(), (first..first + 40).collect::<Vec<_>>());
    // What was given up before the wrap is still known behind it, once.
    let mut run = Run::awaiting(first);
    (first + 3..first + 40).for_each(|n| _ = run.patient(1, n));
    run.give_up(2, first + 1);
    run.give_up(2, first);
    run.buffer.release(at(251), &mut run.out);
    assert_eq!(run.delivered(), (first + 3..first + 40).collect::<Vec<_>>());
    for n in first..first + 3 {
        assert!(run.patient(252, n) && !run.patient(253, n));
    }
    assert_eq!(run.delivered(), [first, first + 1, first + 2]);
}

#[test]
fn the_wait_is_bounded_in_bytes() {
    let mut run = Run::new();
    for n in 1..=4000 {
        let packet = Packet::from(&[0x45; 9000][..]);
        let _ = run.buffer.insert(
            at(1),
            order(n, true, false),
            sent(1),
            packet,
            false,
            &mut run.out,
        );
        assert!(run.buffer.load.bytes <= MOST_BYTES);
    }
    assert!(run.out.len() > 2000, "{}", run.out.len());
    assert_eq!(run.out.len() + run.buffer.waiting(), 4000);
}

proptest! {
    /// Any mixture of packets, copies and words of giving up: nothing is delivered twice, nothing
    /// is kept but what is accounted for, and after the deadline nothing is kept.
    #[test]
    fn once_and_accounted_for(
        steps in proptest::collection::vec((0u32..60, 0u8..9, 0u64..30), 1..200),
        before_wrap in 0u32..60,
    ) {
        let start = 0x100_0000 - before_wrap;
        let mut run = Run::awaiting(start);
        let mut now = 0;
        let mut came = crate::sorted::Set::new();
        let mut delivered = Vec::new();
        for (n, kind, pause) in steps {
            now += pause;
            let n = start + n;
            run.buffer.release(at(now), &mut run.out);
            match kind {
                0 => run.give_up(now, n),
                1 => _ = run.hasty(now, n),
                _ => _ = run.patient(now, n),
            }
            if kind > 0 {
                came.insert(n);
            }
            delivered.extend(run.delivered());
            let places: usize = run.buffer.buckets.iter().map(|b| b.load().places).sum();
            prop_assert_eq!(places, run.buffer.load.places);
            if places > 0 {
                prop_assert!(run.buffer.next_deadline().is_some_and(|d| d > at(now) && d <= at(now + 250)));
            }
        }
        run.buffer.release(at(now + 250), &mut run.out);
        delivered.extend(run.delivered());
        prop_assert_eq!(run.buffer.load, Load::default());
        delivered.sort_unstable();
        prop_assert_eq!(delivered, came.into_iter().collect::<Vec<_>>());
    }
}
