//! A packet's whole way: from the TUN's bytes through both tunnels, with all that keeps a path going.

use criterion::{Criterion, Throughput};
use netcombiner::config::Security;

use crate::packets::BATCH;
use crate::pair::{Pair, Setting};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tunnel");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, security, aes) in [
        ("AES-256-GCM", Security::Encrypt, true),
        ("ChaCha20-Poly1305", Security::Encrypt, false),
        ("BLAKE2s", Security::Authenticate, false),
        ("none", Security::None, false),
    ] {
        for links in [1, 2] {
            let setting = Setting {
                security,
                aes,
                links,
                batch: BATCH,
            };
            // Made when it is asked for: what is filtered out costs nothing.
            let mut made = None;
            group.bench_function(format!("{name}, {links} paths"), |bencher| {
                let pair = made.get_or_insert_with(|| Pair::new(setting));
                let mut rounds = 0;
                pair.take_delivered();
                bencher.iter(|| {
                    pair.round();
                    rounds += 1;
                });
                // What is measured is whole packets: some of the last round may still be on their way.
                let sent = rounds * BATCH;
                let delivered = pair.take_delivered();
                assert!(
                    delivered.abs_diff(sent) <= 2 * BATCH,
                    "{delivered} of {sent}"
                );
                let carried = pair.sent();
                let least = carried.iter().sum::<u64>() / 4;
                assert!(carried.iter().all(|sent| *sent > least), "{carried:?}");
            });
        }
    }
}
