//! Puts the packets of a flow back in order, and waits no longer than it must (PROTOCOL.md 5).
//!
//! A packet says which paths may still hold an earlier one of its bucket. When each of them has
//! brought something sent later, the earlier one is lost, because a path is FIFO: that is proof,
//! no timer. A hasty packet is delivered then; a timer, as long as the paths' measured delays ask for,
//! bounds the rest. A patient one waits on, for the repair: until it comes, the sender says that it
//! will not, or the deadline.

mod bucket;
mod holes;
mod skew;
mod steady;

use std::collections::VecDeque;
use std::time::Duration;

use super::Instant;
use super::wire::frame::{Bucket, Order, Sequence};
use super::wire::{MAX_PATHS, PathId, Stamp};
use crate::packet::Packet;
use bucket::{BucketQueue, Content, Load, Waiting};
use skew::Skew;
pub(super) use steady::{LONG_RTT, Steady};

/// What a packet may wait for a repair where round trips are short (PROTOCOL.md 5).
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// What it may wait at most: two repairs over a satellite's 600 ms and its queue. 180 Mbit/s for half as
/// long fill the places there are.
const MOST_PATIENCE: Duration = Duration::from_secs(2);
/// A loss is noticed after one round trip, the repair comes half of one later, and of the repair itself
/// the same is true: two and a half, and `MARGIN` for late timers.
const PATIENCE_HALF_ROUNDS: u32 = 5;
/// Beyond the worst delay that a path showed lately, for what it has not shown yet: slow start puts
/// 20 ms of queue on an idle link within one round trip. It is waited out only where there is no
/// proof, that is when a path falls silent.
const MARGIN: Duration = Duration::from_millis(40);
/// Places that wait, in all buckets: as many packets of 1,400 bytes are 11 MB, 180 Mbit/s for half a
/// second.
const MOST_PLACES: usize = 8192;
/// Bytes of the buffers of packets that wait: a peer with a large MTU may not hold more of our memory.
const MOST_BYTES: usize = 16 << 20;

/// A look at what waits costs a step a place. When more places than this wait, the next look comes
/// later, as by [`PLACES_A_MICROSECOND`]: a peer that sends small packets in the worst order would else
/// have each of its datagrams cost thousands of steps.
const FREE_PLACES: usize = 512;
/// So 4 million steps a second, 2 % of a core at 5 ns each. All places wait 2 ms for their look, of the
/// 250 ms that they wait at most.
const PLACES_A_MICROSECOND: usize = 4;

/// How long a packet waits for repairs, `rtt` being the round trip of the slowest path in use.
pub(super) fn patience(rtt: Duration) -> Duration {
    (rtt * PATIENCE_HALF_ROUNDS / 2 + MARGIN).clamp(LEAST_PATIENCE, MOST_PATIENCE)
}

/// Why a packet was not delivered: it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate;

/// The reorder buffer of a tunnel.
#[derive(Debug)]
pub struct Resequencer {
    buckets: Vec<BucketQueue>,
    paths: [Skew; MAX_PATHS],
    /// The buckets in which packets wait.
    waiting_buckets: Vec<u8>,
    load: Load,
    overdue: u64,
    /// Nothing has to be released before.
    soonest: Option<Instant>,
    /// Nothing is looked for before.
    look_at: Instant,
    /// No packet waits longer.
    patience: Duration,
    #[cfg(test)]
    steps: usize,
}

impl Default for Resequencer {
    fn default() -> Self {
        Self {
            buckets: (0..=u8::MAX).map(|_| BucketQueue::default()).collect(),
            paths: Default::default(),
            waiting_buckets: Vec::new(),
            load: Load::default(),
            overdue: 0,
            soonest: None,
            look_at: Instant::default(),
            patience: LEAST_PATIENCE,
            #[cfg(test)]
            steps: 0,
        }
    }
}

impl Resequencer {
    /// From now on no packet waits longer than this.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Packets that wait for an earlier one.
    pub fn waiting(&self) -> usize {
        self.load.packets
    }

    /// How often a wait for a repair ended at its deadline.
    pub fn overdue(&self) -> u64 {
        self.overdue
    }

    /// Notes that a datagram sent at `sent` (peer's clock) came by a path. Packets in it are
    /// inserted after this, then `release` is called.
    pub fn on_arrival(&mut self, now: Instant, path: PathId, sent: Stamp) {
        self.paths[path.index()].on_arrival(now, sent);
    }

    /// When something that was sent at `sent` by a path is due at the latest, by the delays that the path
    /// showed while it carried little.
    pub(super) fn due_when_quiet(
        &self,
        now: Instant,
        path: PathId,
        sent: Stamp,
    ) -> Option<Instant> {
        self.paths[path.index()].due_when_quiet(now, sent)
    }

    /// The peer's clock or ours has jumped: what the paths showed of their delays is void.
    pub fn forget_clock(&mut self) {
        self.paths.iter_mut().for_each(Skew::forget_delays);
    }

    /// Takes a packet that came in order, or keeps it. What can be delivered goes to `out`. A `bare`
    /// one has no tag: anybody may have made it.
    pub fn insert(
        &mut self,
        now: Instant,
        order: Order,
        sent: Stamp,
        packet: Packet,
        bare: bool,
        out: &mut VecDeque<Packet>,
    ) -> Result<(), (Duplicate, Packet)> {
        let Some(packet) =
            self.buckets[usize::from(order.bucket.0)].pass(order.sequence, packet, out)
        else {
            return Ok(());
        };
        let (deadline, content) = if order.wait {
            let deadline = patient_deadline(&self.paths, now, sent, self.patience);
            (deadline, Content::Patient(packet))
        } else {
            let deadline = hasty_deadline(&self.paths, now, order.mask, sent, self.patience);
            (deadline, Content::Hasty(packet))
        };
        let waiting = Waiting {
            mask: order.mask,
            sent,
            deadline,
            content,
        };
        self.look_by(deadline);
        self.change(order.bucket, |bucket| {
            bucket.insert(order.sequence, waiting, order.settled, bare, out)
        })?;
        while self.load.places > MOST_PLACES || self.load.bytes > MOST_BYTES {
            // The wait is dropped, never the packet.
            let before = self.load;
            self.change(order.bucket, |bucket| bucket.skip(out));
            if self.load == before {
                break;
            }
        }
        Ok(())
    }

    /// The sender has given a packet up.
    pub fn give_up(
        &mut self,
        now: Instant,
        bucket: Bucket,
        sequence: Sequence,
        out: &mut VecDeque<Packet>,
    ) {
        // Not to remember it costs a wait; to remember all that a peer may say, all our memory.
        let held = (self.load.places < MOST_PLACES).then(|| now + self.patience);
        self.look_by(now + self.patience);
        self.change(bucket, |bucket| bucket.give_up(held, sequence, out));
    }

    /// Changes a bucket, and accounts for what it holds then.
    fn change<T>(&mut self, id: Bucket, change: impl FnOnce(&mut BucketQueue) -> T) -> T {
        let bucket = &mut self.buckets[usize::from(id.0)];
        let before = bucket.load();
        let result = change(bucket);
        let after = bucket.load();
        if before.places == 0 && after.places > 0 && !self.waiting_buckets.contains(&id.0) {
            self.waiting_buckets.push(id.0);
        }
        self.load.replace(before, after);
        result
    }

    /// Delivers what need not wait any longer.
    pub fn release(&mut self, now: Instant, out: &mut VecDeque<Packet>) {
        if self.waiting_buckets.is_empty() {
            self.soonest = None;
            return;
        }
        if now < self.look_at {
            // What came now may prove something then.
            self.look_by(self.look_at);
            return;
        }
        let more = self.load.places.saturating_sub(FREE_PLACES) / PLACES_A_MICROSECOND;
        self.look_at = now + Duration::from_micros(more as u64);
        #[cfg(test)]
        {
            self.steps += self.load.places;
        }
        let mut soonest = None;
        let paths = &self.paths;
        let buckets = &mut self.buckets;
        let load = &mut self.load;
        let overdue = &mut self.overdue;
        let held = now + self.patience;
        let passed = |packet: &Waiting| {
            PathId::all()
                .filter(|path| packet.mask & path.bit() != 0)
                .all(|path| paths[path.index()].has_passed(packet.sent))
        };
        self.waiting_buckets.retain(|id| {
            let bucket = &mut buckets[usize::from(*id)];
            let before = bucket.load();
            bucket.release_hasty(now, held, passed, out);
            *overdue += bucket.release_overdue(now, out);
            let after = bucket.load();
            load.replace(before, after);
            soonest = soonest.into_iter().chain(bucket.next_deadline()).min();
            after.places > 0
        });
        self.soonest = soonest;
    }

    /// When `release` has something to do even if nothing comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.soonest.map(|soonest| soonest.max(self.look_at))
    }

    fn look_by(&mut self, deadline: Instant) {
        self.soonest = self.soonest.into_iter().chain([deadline]).min();
    }
}

/// When a packet stops waiting for repairs: it counts from its own sending, on the path that brings
/// things soonest.
fn patient_deadline(
    paths: &[Skew; MAX_PATHS],
    now: Instant,
    sent: Stamp,
    patience: Duration,
) -> Instant {
    let soonest = paths.iter().filter_map(|path| path.soonest(now, sent));
    let soonest = soonest.min();
    soonest.map_or(now, |soonest| soonest.min(now)) + patience
}

fn hasty_deadline(
    paths: &[Skew; MAX_PATHS],
    now: Instant,
    mask: u8,
    sent: Stamp,
    patience: Duration,
) -> Instant {
    let longest = now + patience;
    let expected = |path: PathId| {
        paths[path.index()]
            .expected_by(sent)
            .map_or(longest, |by| by + MARGIN)
    };
    let latest = PathId::all()
        .filter(|path| mask & path.bit() != 0)
        .map(expected)
        .max();
    latest.map_or(now, |latest| latest.clamp(now, longest))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
