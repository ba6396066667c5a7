//! Puts the packets of a flow back in order, and waits no longer than it must (PROTOCOL.md 5).
//!
//! A packet says which paths may still hold an earlier one of its bucket. When each of them has
//! brought something sent later, the earlier one is lost, because a path is FIFO: that is proof,
//! no timer. A timer, as long as the paths' measured delays ask for, bounds the rest.

mod bucket;
mod skew;

use std::collections::VecDeque;
use std::time::Duration;

use super::Instant;
use super::wire::frame::Order;
use super::wire::{MAX_PATHS, PathId, Stamp};
use crate::packet::Packet;
use bucket::{BucketQueue, Waiting};
use skew::Skew;

/// No packet waits longer (PROTOCOL.md 5).
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Beyond the worst delay that a path showed lately, for what it has not shown yet.
const MARGIN: Duration = Duration::from_millis(5);
/// Packets that wait, in all buckets: 8,192 of 1,400 bytes are 11 MB, 180 Mbit/s for half a second.
const MOST_WAITING: usize = 8192;

/// Why a packet was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate;

/// The reorder buffer of a tunnel.
#[derive(Debug)]
pub struct Resequencer {
    buckets: Vec<BucketQueue>,
    paths: [Skew; MAX_PATHS],
    /// The buckets in which packets wait.
    waiting_buckets: Vec<u8>,
    waiting: usize,
}

impl Default for Resequencer {
    fn default() -> Self {
        Self {
            buckets: (0..=u8::MAX).map(|_| BucketQueue::default()).collect(),
            paths: Default::default(),
            waiting_buckets: Vec::new(),
            waiting: 0,
        }
    }
}

impl Resequencer {
    /// Packets that wait for an earlier one.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Notes that a datagram sent at `sent` (peer's clock) came by a path. Packets in it are
    /// inserted after this, then `release` is called.
    pub fn on_arrival(&mut self, now: Instant, path: PathId, sent: Stamp) {
        self.paths[path.index()].on_arrival(now, sent);
    }

    /// Takes a packet that came in order, or keeps it. What can be delivered goes to `out`.
    pub fn insert(
        &mut self,
        now: Instant,
        order: Order,
        sent: Stamp,
        packet: Packet,
        out: &mut VecDeque<Packet>,
    ) -> Result<(), (Duplicate, Packet)> {
        let bucket = &mut self.buckets[usize::from(order.bucket.0)];
        let before = bucket.len();
        let deadline = deadline(&self.paths, now, order.mask, sent);
        let waiting = Waiting {
            sequence: order.sequence,
            mask: order.mask,
            sent,
            deadline,
            packet,
        };
        bucket.insert(waiting, out)?;
        match (before, bucket.len()) {
            (0, 0) => return Ok(()),
            (0, _) => self.waiting_buckets.push(order.bucket.0),
            _ => {}
        }
        self.waiting = self.waiting - before + bucket.len();
        if self.waiting > MOST_WAITING {
            // The wait is dropped, never the packet.
            self.waiting -= bucket.skip(out);
        }
        Ok(())
    }

    /// Delivers what need not wait any longer.
    pub fn release(&mut self, now: Instant, out: &mut VecDeque<Packet>) {
        let paths = &self.paths;
        let buckets = &mut self.buckets;
        let waiting = &mut self.waiting;
        self.waiting_buckets.retain(|id| {
            let bucket = &mut buckets[usize::from(*id)];
            let passed = |packet: &Waiting| {
                PathId::all()
                    .filter(|path| packet.mask & path.bit() != 0)
                    .all(|path| paths[path.index()].has_passed(packet.sent))
            };
            // What proves that nothing before the last one comes any more proves it for all.
            let all = bucket.back().is_some_and(passed);
            while let Some(head) = bucket.head() {
                if !all && !passed(head) && now < head.deadline {
                    break;
                }
                *waiting -= bucket.skip(out);
            }
            bucket.len() > 0
        });
    }

    /// When `release` has something to do even if nothing comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        let heads = self
            .waiting_buckets
            .iter()
            .filter_map(|id| self.buckets[usize::from(*id)].head());
        heads.map(|head| head.deadline).min()
    }
}

fn deadline(paths: &[Skew; MAX_PATHS], now: Instant, mask: u8, sent: Stamp) -> Instant {
    let longest = now + LONGEST_WAIT;
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
