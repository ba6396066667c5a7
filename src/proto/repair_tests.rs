//! What is kept, for how long, and what becomes of it.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn path(id: u8) -> PathId {
    PathId::new(id).unwrap()
}

struct Sender {
    repairs: Repairs,
    pool: Pool,
    next: u32,
}

impl Sender {
    fn new() -> Self {
        Self {
            repairs: Repairs::default(),
            pool: Pool::new(100),
            next: 0,
        }
    }

    fn send(&mut self, ms: u64, by: u8) -> KeptId {
        let mut packet = self.pool.take();
        packet.buffer().extend_from_slice(&self.next.to_be_bytes());
        let place = Place {
            bucket: Bucket(3),
            sequence: Sequence::new(self.next),
            wait: true,
            settled: false,
        };
        self.next += 1;
        self.repairs
            .keep(at(ms), place, path(by), packet, &mut self.pool)
    }

    fn lose(&mut self, ms: u64, id: KeptId, by: u8) {
        self.repairs.on_lost(at(ms), id, path(by), &mut self.pool);
    }

    /// Sends the oldest repair; returns its number.
    fn again(&mut self, by: u8) -> Option<u32> {
        self.once_more(Why::Lost, by)
    }

    fn once_more(&mut self, why: Why, by: u8) -> Option<u32> {
        let (_, _, packet) = self.repairs.head(why)?;
        let number = u32::from_be_bytes(packet.try_into().unwrap());
        self.repairs.on_sent_again(why, path(by));
        Some(number)
    }
}

#[test]
fn the_lost_go_again_oldest_first() {
    let mut sender = Sender::new();
    let ids: Vec<_> = (0..6).map(|n| sender.send(n, 0)).collect();
    for n in [4, 1, 3] {
        sender.lose(10, ids[n], 0);
    }
    // What arrived late needs no repair.
    sender.repairs.on_arrived(ids[3], &mut sender.pool);
    assert_eq!(sender.repairs.oldest().map(|o| o.1), Some(1));
    assert_eq!(
        [sender.again(1), sender.again(1), sender.again(1)],
        [Some(1), Some(4), None]
    );
    // It is under way on path 1 now: what path 0 says of it means nothing.
    sender.lose(11, ids[1], 0);
    assert_eq!(sender.again(1), None);
    sender.lose(12, ids[1], 1);
    assert_eq!(sender.repairs.oldest().map(|o| o.1), Some(3));
    assert_eq!(sender.again(0), Some(1));
    assert_eq!(
        sender.repairs.count(),
        Count {
            sent: 3,
            twice: 0,
            given_up: 0
        }
    );
}

#[test]
fn after_three_tries_it_is_given_up_and_told() {
    let mut sender = Sender::new();
    let id = sender.send(0, 0);
    assert!(!sender.repairs.is_settled(Bucket(3)));
    sender.lose(1, id, 0);
    for by in [1, 0, 1] {
        assert_eq!(sender.again(by), Some(0));
        sender.lose(1, id, by);
    }
    assert_eq!(sender.again(0), None);
    assert_eq!(
        sender.repairs.next_forward(),
        Some((Bucket(3), Sequence::new(0)))
    );
    assert!(!sender.repairs.has_forwards());
    assert!(sender.repairs.is_settled(Bucket(3)));
    assert_eq!(sender.repairs.bytes(), 0);
}

#[test]
fn after_its_deadline_it_is_given_up() {
    let mut sender = Sender::new();
    let flying = sender.send(0, 0);
    let waiting = sender.send(1, 0);
    sender.lose(10, waiting, 0);
    sender.repairs.expire(at(299), 250 * MS, &mut sender.pool);
    assert!(!sender.repairs.is_settled(Bucket(3)));
    sender.repairs.expire(at(301), 250 * MS, &mut sender.pool);
    assert!(sender.repairs.is_settled(Bucket(3)));
    // Only what is known to be lost is told.
    assert_eq!(
        sender.repairs.next_forward(),
        Some((Bucket(3), Sequence::new(1)))
    );
    assert_eq!(sender.repairs.next_forward(), None);
    sender.lose(302, flying, 0);
    assert_eq!(sender.again(1), None);
}

#[test]
fn memory_is_bounded_and_the_oldest_lose_their_copy() {
    let mut sender = Sender::new();
    sender.pool = Pool::new(9000);
    let ids: Vec<_> = (0..2000).map(|_| sender.send(0, 0)).collect();
    assert!(sender.repairs.bytes() <= MOST_BYTES);
    assert!(sender.repairs.bytes() > MOST_BYTES - 9000);
    sender.lose(1, ids[0], 0);
    assert_eq!(sender.again(1), None);
    assert_eq!(
        sender.repairs.next_forward(),
        Some((Bucket(3), Sequence::new(0)))
    );
    sender.lose(1, ids[1999], 0);
    assert_eq!(sender.again(1), Some(1999));
    // What is forgotten for want of room and waits for a path is told too.
    let mut lossy = Sender::new();
    let first = lossy.send(0, 0);
    lossy.lose(0, first, 0);
    (0..MOST_KEPT).for_each(|_| _ = lossy.send(0, 0));
    let told = lossy.repairs.next_forward();
    assert_eq!(told, Some((Bucket(3), Sequence::new(0))));
    let mut small = Sender::new();
    (0..2 * MOST_KEPT).for_each(|_| _ = small.send(0, 0));
    assert_eq!(small.repairs.kept.len(), MOST_KEPT);
    small.repairs.clear(&mut small.pool);
    assert_eq!((small.repairs.bytes(), small.repairs.kept.len()), (0, 0));
    assert!(small.repairs.is_settled(Bucket(3)));
    // What was in flight before means nothing to what is sent now.
    let old = KeptId(5);
    let new = small.send(1, 0);
    small.lose(2, old, 0);
    assert_eq!(small.again(1), None);
    small.lose(2, new, 0);
    assert!(small.again(1).is_some());
}

#[test]
fn what_is_sent_twice_is_lost_when_both_are() {
    let mut sender = Sender::new();
    let ids: Vec<_> = (0..4).map(|n| sender.send(n, 0)).collect();
    ids.iter()
        .for_each(|id| sender.repairs.send_twice(at(5), *id));
    // The first has arrived meanwhile.
    sender.repairs.on_arrived(ids[0], &mut sender.pool);
    assert_eq!(sender.repairs.oldest_twice(at(6)), Some((0b01, 4)));
    assert_eq!(sender.once_more(Why::Twice, 1), Some(1));
    sender.lose(7, ids[1], 0);
    assert_eq!(sender.again(0), None);
    sender.lose(8, ids[1], 1);
    assert_eq!(sender.again(0), Some(1));
    // The next one is lost before its second path had room: then it is repaired.
    sender.lose(8, ids[2], 0);
    assert_eq!(sender.repairs.oldest_twice(at(9)), Some((0b01, 4)));
    assert_eq!(sender.again(1), Some(2));
    // And the last one waited too long.
    assert_eq!(sender.repairs.oldest_twice(at(25)), None);
    assert_eq!(sender.repairs.head(Why::Twice), None);
    let count = Count {
        sent: 2,
        twice: 1,
        given_up: 0,
    };
    assert_eq!(sender.repairs.count(), count);
    (0..2 * MOST_TWICE).for_each(|_| sender.repairs.send_twice(at(30), ids[3]));
    assert_eq!(sender.repairs.twice.len(), MOST_TWICE);
}

proptest! {
    /// Whatever happens, in whatever order: what is counted is what is there, and in the end
    /// every buffer is back.
    #[test]
    fn every_buffer_comes_back(steps in proptest::collection::vec((0u8..8, 0u64..40, 0u8..3, 0u64..40), 1..300)) {
        let mut sender = Sender::new();
        let mut now = 0;
        for (what, which, by, pause) in steps {
            now += pause;
            let id = KeptId(which);
            match what {
                0 | 1 => _ = sender.send(now, by),
                2 => sender.repairs.on_arrived(id, &mut sender.pool),
                3 => sender.lose(now, id, by),
                4 => _ = sender.again(by),
                5 => sender.repairs.send_twice(at(now), id),
                6 if sender.repairs.oldest_twice(at(now)).is_some() => {
                    _ = sender.once_more(Why::Twice, by);
                }
                _ => sender.repairs.expire(at(now), 250 * MS, &mut sender.pool),
            }
            let kept = || sender.repairs.kept.iter().flatten();
            prop_assert_eq!(kept().map(|kept| kept.packet.footprint()).sum::<usize>(), sender.repairs.bytes());
            prop_assert_eq!(kept().count() as u32, sender.repairs.unsettled[3]);
            for kept in kept() {
                prop_assert!((kept.flying == 0) == kept.queued.is_some());
                prop_assert!(kept.tries <= MOST_TRIES);
            }
        }
        sender.repairs.expire(at(now) + 300 * MS, 250 * MS, &mut sender.pool);
        prop_assert_eq!(sender.repairs.bytes(), 0);
        prop_assert!(sender.repairs.is_settled(Bucket(3)));
        prop_assert!(sender.repairs.kept.is_empty() && sender.repairs.head(Why::Lost).is_none());
    }
}
