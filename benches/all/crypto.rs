//! Sealing and opening datagrams.

use std::hint::black_box;

use arrayvec::ArrayVec;
use criterion::{BatchSize, Criterion, Throughput};
use netcombiner::config::Security;
use netcombiner::proto::Instant;
use netcombiner::proto::crypto::keys::PrivateKey;
use netcombiner::proto::crypto::{
    Answer, BootId, Hello, Identity, Initiator, Responder, Sealed, Session,
};
use netcombiner::proto::wire::{PacketNumber, PathId};

use crate::packets::{BATCH, LENGTH, Seeded};

/// Datagrams that the tunnel opens at once.
const GROUP: usize = 8;

/// The sessions of both ends.
fn sessions(security: Security, aes: bool) -> (Session, Session) {
    let mut entropy = Seeded(1);
    let now = Instant::from_micros(1_000_000);
    let keys = [(); 2].map(|()| PrivateKey::generate(&mut entropy));
    let publics = keys.each_ref().map(PrivateKey::public);
    let [ours, theirs] = keys;
    let [identity, peer] = [
        Identity::new(ours, publics[1], None),
        Identity::new(theirs, publics[0], None),
    ];
    let mut hello = |counter| Hello {
        boot: BootId::generate(&mut entropy),
        counter,
        security,
        aes,
        parity: true,
    };
    let hellos = [hello(1), hello(0)];
    let mut initiator = Initiator::start(&identity, hellos[0], &mut entropy);
    let message = initiator.message(None, now);
    let source = ([192, 0, 2, 1], 40_000).into();
    let answer = Responder::new(now, &mut entropy)
        .receive(&peer, &hellos[1], &message, source, now, &mut entropy)
        .expect("a right initiation");
    let Answer::Accepted {
        response,
        established,
    } = answer
    else {
        panic!("the first initiation is accepted");
    };
    let ours = initiator.finish(&response).expect("a right response");
    (ours.session, established.session)
}

fn seal(criterion: &mut Criterion, session: &Session, count: usize, length: usize) {
    let path = PathId::new(0).expect("a path");
    let mut batch = vec![0xa5; count * length];
    let mut next = 0;
    let mut group = criterion.benchmark_group(format!("seal/{}", session.cipher_name()));
    group.throughput(Throughput::Bytes(batch.len() as u64));
    group.bench_function(format!("{count}x{length}"), |bencher| {
        bencher.iter(|| {
            session.seal(path, PacketNumber(next), length, black_box(&mut batch));
            next += count as u64;
        });
    });
}

fn open(criterion: &mut Criterion, ends: &(Session, Session), count: usize, length: usize) {
    let path = PathId::new(0).expect("a path");
    let mut batch = vec![0xa5; count * length];
    ends.0.seal(path, PacketNumber(0), length, &mut batch);
    let mut group = criterion.benchmark_group(format!("open/{}", ends.1.cipher_name()));
    group.throughput(Throughput::Bytes(batch.len() as u64));
    // A batch as it comes from the socket is in the cache; opening it makes another one of it.
    let size = if count > 1 {
        BatchSize::PerIteration
    } else {
        BatchSize::SmallInput
    };
    group.bench_function(format!("{count}x{length}"), |bencher| {
        bencher.iter_batched_ref(
            || batch.clone(),
            |batch| {
                // As many at once as the tunnel opens.
                for (group, first) in batch.chunks_mut(GROUP * length).zip((0..).step_by(GROUP)) {
                    let numbers = (first..).map(PacketNumber);
                    let datagrams = group.chunks_mut(length).zip(numbers);
                    let mut sealed: ArrayVec<_, GROUP> = datagrams
                        .map(|(datagram, number)| Sealed {
                            path,
                            number,
                            datagram,
                            genuine: false,
                        })
                        .collect();
                    ends.1.open(&mut sealed);
                    assert!(sealed.iter().all(|sealed| sealed.genuine));
                }
            },
            size,
        );
    });
}

pub(crate) fn bench(criterion: &mut Criterion) {
    for (security, aes) in [
        (Security::Encrypt, true),
        (Security::Encrypt, false),
        (Security::Authenticate, false),
    ] {
        let ends = sessions(security, aes);
        for (count, length) in [(BATCH, LENGTH), (1, 64)] {
            seal(criterion, &ends.0, count, length);
            open(criterion, &ends, count, length);
        }
    }
}
