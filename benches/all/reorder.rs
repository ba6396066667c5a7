//! Packets put back in order.

use std::collections::VecDeque;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use netcombiner::packet::Packet;
use netcombiner::proto::Instant;
use netcombiner::proto::reorder::Resequencer;
use netcombiner::proto::wire::frame::{Bucket, Order, Sequence};
use netcombiner::proto::wire::{PathId, Stamp};

use crate::packets::{BATCH, segments};

/// A receiver, its clock and what it awaits.
struct Receiver {
    now: Instant,
    next: u32,
    reorder: Resequencer,
    spare: Vec<Packet>,
    delivered: VecDeque<Packet>,
}

impl Receiver {
    fn new() -> Self {
        Self {
            now: Instant::from_micros(5_000_000),
            next: 0,
            reorder: Resequencer::default(),
            spare: [(); 2].into_iter().flat_map(|()| segments(BATCH)).collect(),
            delivered: VecDeque::new(),
        }
    }

    /// A batch of a path comes, packets that are `step` apart in their flow.
    fn batch(&mut self, path: u8, first: u32, step: usize) {
        self.now += Duration::from_micros(100);
        let path = PathId::new(path).expect("one of eight");
        let sent = Stamp::of(self.now - Duration::from_millis(10));
        let numbers = (first..).step_by(step).take(BATCH);
        for number in numbers {
            let Some(packet) = self.spare.pop() else {
                break;
            };
            let order = Order {
                bucket: Bucket(1),
                sequence: Sequence::new(number),
                mask: if step > 1 { 3 & !path.bit() } else { 0 },
                wait: true,
                settled: false,
            };
            let out = &mut self.delivered;
            self.reorder.on_arrival(self.now, path, sent);
            let taken = self
                .reorder
                .insert(self.now, order, sent, packet, false, out);
            assert!(taken.is_ok());
        }
        self.reorder.release(self.now, &mut self.delivered);
    }

    /// Takes what was delivered: all that came.
    fn take(&mut self, count: usize) {
        assert_eq!((self.delivered.len(), self.reorder.waiting()), (count, 0));
        self.next = self.next.wrapping_add(count as u32);
        self.spare.extend(self.delivered.drain(..));
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reorder");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("in order", |bencher| {
        let mut receiver = Receiver::new();
        bencher.iter(|| {
            receiver.batch(0, receiver.next, 1);
            receiver.take(BATCH);
        });
    });
    // Every other packet goes by the slower path: all of a batch wait for those of the next.
    group.throughput(Throughput::Elements(2 * BATCH as u64));
    group.bench_function("two paths", |bencher| {
        let mut receiver = Receiver::new();
        bencher.iter(|| {
            receiver.batch(0, receiver.next + 1, 2);
            receiver.batch(1, receiver.next, 2);
            receiver.take(2 * BATCH);
        });
    });
}
