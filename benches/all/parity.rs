//! Parities: what they cost a datagram at the sender, and at the receiver that misses some.

use criterion::{BatchSize, Criterion, Throughput};
use netcombiner::proto::Instant;
use netcombiner::proto::parity::{Cover, Parity, Store};
use netcombiner::proto::wire::PacketNumber;

/// Datagrams of a group, and bytes of their frames: full ones.
const GROUP: u8 = 64;
const LENGTH: usize = 1400;
const NOW: Instant = Instant::from_micros(1_000_000);

/// A group of a path that loses so much, closed: its parities.
fn cover(cover: &mut Cover, loss: f32, frames: &[u8]) -> Vec<Vec<u8>> {
    cover.set(loss, true);
    for number in 0..GROUP {
        cover.add(NOW, u64::from(number), frames);
    }
    cover.close().2.to_vec()
}

/// A receiver that the first datagrams of the group did not reach.
fn store(missing: usize, frames: &[u8]) -> Store {
    let mut store = Store::default();
    for number in missing as u64..u64::from(GROUP) {
        store.note(PacketNumber(number), frames);
    }
    store
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let frames = vec![0x45; LENGTH];
    let mut group = criterion.benchmark_group("parity");
    group.throughput(Throughput::Elements(u64::from(GROUP)));
    // Losses for which a group has so many parities (`Cover::wanted`).
    for (loss, count) in [(0.0005, 1), (0.005, 3), (0.03, 8)] {
        let mut sender = Cover::default();
        let sums = cover(&mut sender, loss, &frames);
        assert_eq!(sums.len(), count);
        group.bench_function(format!("{count} made"), |bencher| {
            bencher.iter(|| cover(&mut sender, loss, &frames));
        });
        let give = |mut store: Store| {
            for (index, sum) in (0..).zip(&sums) {
                let back = GROUP + index;
                let parity = Parity {
                    back,
                    span: GROUP,
                    index,
                    sum,
                };
                let number = PacketNumber(u64::from(back));
                assert!(store.on_parity(number, &parity).is_ok());
            }
            assert_eq!(store.back().count(), count);
            store
        };
        group.bench_function(format!("{count} of 64 brought back"), |bencher| {
            bencher.iter_batched(|| store(count, &frames), give, BatchSize::LargeInput);
        });
    }
    group.finish();
}
