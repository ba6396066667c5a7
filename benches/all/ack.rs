//! Acknowledgements: what came is noted and told, and the sender accounts for it.

use criterion::{Criterion, Throughput};
use netcombiner::packet::ecn::Codepoint;
use netcombiner::proto::Instant;
use netcombiner::proto::path::{Arrivals, Passage};
use netcombiner::proto::recovery::{KeptId, Sent, SentPackets};
use netcombiner::proto::wire::frame::{self, Frame, Frames};
use netcombiner::proto::wire::{PacketNumber, PathId};
use std::time::Duration;

use crate::packets::{BATCH, LENGTH};

/// Room for an acknowledgement with every range.
const ROOM: usize = frame::ack_len(frame::MOST_RANGES);
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// The receiver of a path. One in so many of its datagrams is missing; zero: none.
#[derive(Default)]
struct Receiver {
    arrivals: Arrivals,
    missing: u64,
}

impl Receiver {
    fn on_batch(&mut self, now: Instant, first: u64, out: &mut Vec<u8>) {
        let path = PathId::new(0).expect("one of eight");
        for number in first..first + BATCH as u64 {
            if self.missing > 0 && number % self.missing == 0 {
                continue;
            }
            self.arrivals
                .on_datagram(now, PacketNumber(number), LENGTH, Codepoint::Capable);
            self.arrivals.on_eliciting(now, Some(ROUND_TRIP));
        }
        let (head, ranges) = self.arrivals.ack(path);
        out.clear();
        assert!(frame::put_ack(out, head, ranges, ROOM));
        self.arrivals.on_ack_sent();
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, missing) in [("", 0), (", one in 20 lost", 20)] {
        group.bench_function(format!("build{name}"), |bencher| {
            let mut receiver = Receiver {
                missing,
                ..Receiver::default()
            };
            let mut out = Vec::new();
            let mut first = 0;
            bencher.iter(|| {
                receiver.on_batch(Instant::from_micros(first), first, &mut out);
                first += BATCH as u64;
            });
        });
        group.bench_function(format!("build and account{name}"), |bencher| {
            let mut receiver = Receiver {
                missing,
                ..Receiver::default()
            };
            let mut sender = SentPackets::default();
            let mut out = Vec::new();
            bencher.iter(|| {
                let first = sender.next_number().0;
                let now = Instant::from_micros(first);
                for number in first..first + BATCH as u64 {
                    sender.carry(KeptId(number));
                    sender.push(Sent {
                        at: now,
                        bytes: LENGTH as u32,
                        eliciting: true,
                        status: false,
                        ect: true,
                        total: number * LENGTH as u64,
                        limited: 0,
                        passage: Passage::Whole,
                    });
                }
                receiver.on_batch(now, first, &mut out);
                let Some(Ok(Frame::Ack(ack))) = Frames::new(&out).next() else {
                    panic!("an acknowledgement");
                };
                let largest = PacketNumber::expand(ack.largest, sender.next_number());
                let acked = sender.on_ack(largest, ack.ranges(largest));
                let (lost, _) = sender.detect_lost(now, ROUND_TRIP, PacketNumber(0));
                assert!(acked.datagrams + lost.datagrams >= BATCH as u64 - 1);
                sender.fates().count()
            });
        });
    }
}
