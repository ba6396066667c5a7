//! The order of paths, and the path that a packet gets by it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use netcombiner::proto::Instant;
use netcombiner::proto::congestion::OneWayDelay;
use netcombiner::proto::event::PathState;
use netcombiner::proto::queue::Head;
use netcombiner::proto::scheduler::{Candidate, Loses, Order, Spread};
use netcombiner::proto::wire::PathId;
use netcombiner::proto::wire::frame::Bucket;

use crate::packets::LENGTH;

/// Paths that are up, the fastest last.
fn candidates(count: u8) -> Vec<Candidate> {
    let candidate = |id| Candidate {
        path: PathId::new(id).expect("one of eight"),
        state: PathState::Up,
        metric: 0,
        owd: Some(OneWayDelay::from_micros(20_000 - i64::from(id) * 1000)),
        bandwidth: 12_500_000,
        rtt: Duration::from_millis(40),
        least_rtt: Duration::from_millis(40),
        loses: Loses::Nothing,
        rests: false,
    };
    (0..count).map(candidate).collect()
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let now = Instant::from_micros(5_000_000);
    let head = Head {
        length: LENGTH,
        since: now - Duration::from_millis(2),
        sparse: false,
        bucket: Bucket(1),
    };
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(1));
    for count in [1, 2, 8] {
        let candidates = candidates(count);
        let mut spread = Spread::default();
        group.bench_function(format!("{count} paths"), |bencher| {
            bencher.iter(|| {
                let candidates = black_box(&candidates).iter().copied();
                let order = Order::of(candidates, PathId::new(0));
                let first = order.first();
                // The first has no room: the packet spills over.
                let path = order
                    .iter()
                    .find(|id| Some(*id) != first && now >= spread.spills_at(black_box(&head)));
                spread.on_spill(now, head.since);
                path
            });
        });
    }
}
