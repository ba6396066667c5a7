//! What the data path costs, part by part and as a whole: `cargo bench`, or `cargo bench -- tunnel`.

mod ack;
mod crypto;
mod offload;
mod packets;
mod pair;
mod parity;
mod queue;
mod reorder;
mod scheduler;
mod tunnel;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// All of it takes a minute or so: enough samples to see a change of a twentieth.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .nresamples(10_000)
}

criterion_group! {
    name = all;
    config = quick();
    targets = crypto::bench, offload::bench, scheduler::bench, reorder::bench, ack::bench,
        queue::bench, parity::bench, tunnel::bench
}
criterion_main!(all);
