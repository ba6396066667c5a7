//! The queue: packets in and out again.

use criterion::{Criterion, Throughput};
use netcombiner::packet::{FlowHash, Packet};
use netcombiner::proto::Instant;
use netcombiner::proto::queue::Queue;
use std::time::Duration;

use crate::packets::segments;

/// Packets that are put in before they are taken out.
const PACKETS: usize = 100;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for flows in [1, 100] {
        let mut queue = Queue::default();
        let mut now = Instant::from_micros(5_000_000);
        let mut packets: Vec<Packet> = (0..PACKETS).flat_map(|_| segments(1)).collect();
        group.bench_function(format!("{flows} flows"), |bencher| {
            bencher.iter(|| {
                now += Duration::from_micros(100);
                for (packet, flow) in packets.drain(..).zip(0..) {
                    let flow = FlowHash(flow % flows);
                    queue.push(now, flow, packet, |_, _| panic!("there is room"));
                }
                now += Duration::from_micros(100);
                while queue.head(now, |_, _| panic!("none waits")).is_some()
                    && let Some((_, packet)) = queue.take()
                {
                    packets.push(packet);
                }
                assert_eq!(packets.len(), PACKETS);
            });
        });
    }
}
