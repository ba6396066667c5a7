//! Super-packets cut into packets, and packets joined to super-packets.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use netcombiner::packet::Packet;
use netcombiner::packet::offload::{Joiner, Kinds, Segments};

use crate::packets::{BATCH, HEADERS, segments, super_packet};

/// Full segments in 64 KB.
const SEGMENTS: usize = 48;

pub(crate) fn bench(criterion: &mut Criterion) {
    split(criterion);
    coalesce(criterion);
}

fn split(criterion: &mut Criterion) {
    let (header, whole) = super_packet(SEGMENTS);
    let mut buffers = segments(SEGMENTS);
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function(format!("into {SEGMENTS}"), |bencher| {
        bencher.iter(|| {
            let mut segments = Segments::new(&header, black_box(&whole)).expect("a super-packet");
            for packet in &mut buffers {
                packet.buffer().clear();
                assert!(segments.write_next(packet.buffer()));
            }
        });
    });
}

fn coalesce(criterion: &mut Criterion) {
    let mut packets = segments(BATCH);
    let head = packets[0].bytes()[..HEADERS].to_vec();
    let bytes: usize = packets.iter().map(Packet::len).sum();
    let kinds = Kinds {
        tcp: true,
        udp: true,
    };
    let mut joiner = Joiner::new(kinds);
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("{BATCH} into 1"), |bencher| {
        bencher.iter(|| {
            for packet in packets.drain(..) {
                assert!(joiner.push(packet).is_ok());
            }
            let mut groups = 0;
            joiner.flush(
                |group| {
                    groups += 1;
                    group.parts().for_each(|part| {
                        black_box(part);
                    });
                },
                |packet| packets.push(packet),
            );
            assert_eq!(groups, 1);
            // Joining wrote the whole's headers over the first one's.
            packets[0].buffer()[..HEADERS].copy_from_slice(&head);
        });
    });
}
