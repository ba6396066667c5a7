//! Packets that are kept until they are known to have arrived, and sent again when they have not
//! (PROTOCOL.md 7): on another path, within a deadline, a few times.
//!
//! A packet's own buffer is kept, so nothing is copied. What is given up is said to the peer, which
//! then waits no longer.

use std::collections::VecDeque;
use std::time::Duration;

use super::Instant;
use super::recovery::KeptId;
use super::wire::frame::{Bucket, Sequence};
use super::wire::{MAX_PATHS, PathId};
use crate::packet::{Packet, Pool};

/// Nothing is sent again later than this after the time that the peer waits for it: on the way it takes
/// as long as the packets that the peer counts from, or a little more (PROTOCOL.md 7).
const BEYOND_PATIENCE: Duration = Duration::from_millis(50);
/// Times that a packet is sent again: at 20 % loss 1.6 in 1,000 need more.
const MOST_TRIES: u8 = 3;
/// Memory for what is kept, bytes of buffers: 300 ms at 220 Mbit/s. Beyond it the oldest ones are not
/// repaired.
const MOST_BYTES: usize = 8 << 20;
/// Packets of which anything is known: 300 ms at 600 Mbit/s.
const MOST_KEPT: usize = 16_384;
/// Packets given up that are still to be reported to the peer. It waits for one that is not reported.
const MOST_FORWARDS: usize = 256;
/// A second copy that found no room on its path for so long is not sent: the first has arrived, or
/// will be repaired.
const TWICE_WITHIN: Duration = Duration::from_millis(20);
/// Second copies that wait for room: 20 ms at 500 Mbit/s.
const MOST_TWICE: usize = 1024;

/// A packet on its way.
#[derive(Debug)]
struct Kept {
    /// Empty: there was no room to keep it.
    packet: Packet,
    place: Place,
    /// When it was first sent.
    since: Instant,
    /// How often it was sent again.
    tries: u8,
    /// The paths on which it flies.
    flying: u8,
    /// On one of them it flies twice.
    doubled: bool,
    /// The paths that lost it.
    lost_by: u8,
    /// Since when it waits to be sent again.
    queued: Option<Instant>,
}

/// A packet's place, the same for all its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its order domain.
    pub bucket: Bucket,
    /// Its place there.
    pub sequence: Sequence,
    /// The receiver holds it while an earlier one is being repaired.
    pub wait: bool,
    /// Every earlier one was acknowledged or given up when it was first sent.
    pub settled: bool,
}

/// Why a packet is to be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its class is sent on two paths at once.
    Twice,
    /// It was lost.
    Lost,
}

/// Counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets sent again.
    pub sent: u64,
    /// Packets sent on two paths at once.
    pub twice: u64,
    /// Packets given up.
    pub given_up: u64,
}

/// The packets that one tunnel may have to send again.
#[derive(Debug)]
pub struct Repairs {
    /// The number of `kept[0]`.
    first: u64,
    /// In the order in which they were first sent; `None`: settled.
    kept: VecDeque<Option<Kept>>,
    /// Everything before has no buffer any more.
    stripped: u64,
    /// Bytes of all buffers.
    bytes: usize,
    /// What waits to be sent again, oldest first.
    queue: VecDeque<KeptId>,
    /// What is to go on a second path at once, and since when.
    twice: VecDeque<(KeptId, Instant)>,
    /// What the peer is to be told.
    forwards: VecDeque<(Bucket, Sequence)>,
    /// How many of a bucket are not settled.
    unsettled: Vec<u32>,
    /// The number of the first datagram on each path that was not yet taken for lost without proof.
    doubted: [u64; MAX_PATHS],
    count: Count,
}

impl Default for Repairs {
    fn default() -> Self {
        Self {
            first: 0,
            kept: VecDeque::new(),
            stripped: 0,
            bytes: 0,
            queue: VecDeque::new(),
            twice: VecDeque::new(),
            forwards: VecDeque::new(),
            unsettled: vec![0; 256],
            doubted: [0; MAX_PATHS],
            count: Count::default(),
        }
    }
}

impl Repairs {
    /// Counters.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Bytes of buffers kept.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when every packet of the bucket that was sent so far has arrived or was given up.
    pub fn is_settled(&self, bucket: Bucket) -> bool {
        self.unsettled(bucket) == 0
    }

    /// Packets of the bucket of which nothing is known yet.
    pub fn unsettled(&self, bucket: Bucket) -> u32 {
        self.unsettled[usize::from(bucket.0)]
    }

    /// Keeps a packet that leaves now on a path.
    pub fn keep(
        &mut self,
        now: Instant,
        place: Place,
        path: PathId,
        packet: Packet,
        pool: &mut Pool,
    ) -> KeptId {
        let id = KeptId(self.first + self.kept.len() as u64);
        self.bytes += packet.footprint();
        self.unsettled[usize::from(place.bucket.0)] += 1;
        self.kept.push_back(Some(Kept {
            packet,
            place,
            since: now,
            tries: 0,
            flying: path.bit(),
            doubled: false,
            lost_by: 0,
            queued: None,
        }));
        if self.kept.len() > MOST_KEPT {
            self.forget_oldest(pool);
        }
        self.stripped = self.stripped.max(self.first);
        while self.bytes > MOST_BYTES && self.stripped <= id.0 {
            self.strip(KeptId(self.stripped), pool);
            self.stripped += 1;
        }
        id
    }

    /// A packet arrived by one of its ways.
    pub fn on_arrived(&mut self, id: KeptId, pool: &mut Pool) {
        self.settle(id, pool);
    }

    /// A path lost a packet, or is suspected to: it is sent again, unless it still flies on another.
    pub fn on_lost(&mut self, now: Instant, id: KeptId, path: PathId, pool: &mut Pool) {
        let Some(kept) = self.slot(id) else { return };
        if kept.flying & path.bit() == 0 {
            return;
        }
        if std::mem::take(&mut kept.doubled) {
            // The other copy still flies.
            return;
        }
        kept.flying &= !path.bit();
        kept.lost_by |= path.bit();
        if kept.flying != 0 || kept.queued.is_some() {
            return;
        }
        if kept.packet.is_empty() || kept.tries >= MOST_TRIES {
            self.give_up(id, pool);
            return;
        }
        kept.queued = Some(now);
        let at = self.queue.partition_point(|other| *other < id);
        self.queue.insert(at, id);
    }

    /// Gives up what is too old: the peer waits for `patience`.
    pub fn expire(&mut self, now: Instant, patience: Duration, pool: &mut Pool) {
        let deadline = patience + BEYOND_PATIENCE;
        while let Some(front) = self.kept.front() {
            match front {
                None => self.trim(),
                Some(kept) if kept.since + deadline > now => break,
                Some(_) => self.forget_oldest(pool),
            }
        }
    }

    fn forget_oldest(&mut self, pool: &mut Pool) {
        let id = KeptId(self.first);
        if self.kept(id).is_some_and(|kept| kept.flying == 0) {
            self.give_up(id, pool);
        } else {
            // It may still come; nobody waits for it much longer.
            self.settle(id, pool);
        }
    }

    /// A packet that was just kept is to go on a second path at once.
    pub fn send_twice(&mut self, now: Instant, id: KeptId) {
        if self.twice.len() == MOST_TWICE {
            self.twice.pop_front();
        }
        self.twice.push_back((id, now));
    }

    /// The oldest packet to go on a second path: the paths on which it flies, and its length.
    pub fn oldest_twice(&mut self, now: Instant) -> Option<(u8, usize)> {
        while let Some((id, since)) = self.twice.front() {
            match self.kept(*id) {
                Some(kept)
                    if *since + TWICE_WITHIN > now
                        && kept.queued.is_none()
                        && !kept.packet.is_empty() =>
                {
                    return Some((kept.flying, kept.packet.len()));
                }
                _ => self.twice.pop_front(),
            };
        }
        None
    }

    /// The paths on which the first packet flies that waits for a second one, and its length.
    pub fn peek_twice(&self) -> Option<(u8, usize)> {
        let (id, _) = self.twice.front()?;
        self.kept(*id).map(|kept| (kept.flying, kept.packet.len()))
    }

    /// A packet's length, bytes; zero: it is settled.
    pub fn length(&self, id: KeptId) -> usize {
        self.kept(id).map_or(0, |kept| kept.packet.len())
    }

    /// The oldest packet to be sent once more: which, its place, its bytes.
    pub fn head(&mut self, why: Why) -> Option<(KeptId, Place, &[u8])> {
        let id = match why {
            Why::Twice => self.twice.front()?.0,
            Why::Lost => {
                while let Some(id) = self.queue.front()
                    && self.kept(*id).is_none_or(|kept| kept.queued.is_none())
                {
                    self.queue.pop_front();
                }
                *self.queue.front()?
            }
        };
        let kept = self.kept(id)?;
        Some((id, kept.place, kept.packet.bytes()))
    }

    /// The oldest packet to be sent again: the paths that lost it, and since when it waits.
    pub fn oldest(&self) -> Option<(KeptId, u8, Instant)> {
        self.queue.iter().find_map(|id| {
            let kept = self.kept(*id)?;
            Some((*id, kept.lost_by, kept.queued?))
        })
    }

    /// The packet that `head` gave leaves on a path.
    pub fn on_sent_again(&mut self, why: Why, path: PathId) {
        let id = match why {
            Why::Twice => self.twice.pop_front().map(|(id, _)| id),
            Why::Lost => self.queue.pop_front(),
        };
        let Some(kept) = id.and_then(|id| self.slot(id)) else {
            return;
        };
        kept.doubled = kept.flying & path.bit() != 0;
        kept.flying |= path.bit();
        match why {
            Why::Twice => self.count.twice += 1,
            Why::Lost => {
                kept.queued = None;
                kept.tries += 1;
                self.count.sent += 1;
            }
        }
    }

    /// The number of the first datagram of a path whose packets were not yet sent again on mere
    /// suspicion.
    pub fn doubted(&self, path: PathId) -> u64 {
        self.doubted[path.index()]
    }

    /// The packets of all datagrams before this number were sent again on suspicion.
    pub fn set_doubted(&mut self, path: PathId, number: u64) {
        self.doubted[path.index()] = number;
    }

    /// A packet of whose end the peer is to be told.
    pub fn next_forward(&mut self) -> Option<(Bucket, Sequence)> {
        self.forwards.pop_front()
    }

    /// True when there is one.
    pub fn has_forwards(&self) -> bool {
        !self.forwards.is_empty()
    }

    /// The peer restarted: nothing that was sent matters any more.
    pub fn clear(&mut self, pool: &mut Pool) {
        let next = self.first + self.kept.len() as u64;
        let packets = self.kept.drain(..).flatten().map(|kept| kept.packet);
        packets.for_each(|packet| pool.give(packet));
        *self = Self {
            first: next,
            count: self.count,
            ..Self::default()
        };
    }

    fn kept(&self, id: KeptId) -> Option<&Kept> {
        let offset = id.0.checked_sub(self.first)?;
        self.kept.get(offset as usize)?.as_ref()
    }

    fn slot(&mut self, id: KeptId) -> Option<&mut Kept> {
        let offset = id.0.checked_sub(self.first)?;
        self.kept.get_mut(offset as usize)?.as_mut()
    }

    fn give_up(&mut self, id: KeptId, pool: &mut Pool) {
        if let Some(place) = self.slot(id).map(|kept| kept.place) {
            self.count.given_up += 1;
            if self.forwards.len() == MOST_FORWARDS {
                self.forwards.pop_front();
            }
            self.forwards.push_back((place.bucket, place.sequence));
        }
        self.settle(id, pool);
    }

    /// Frees the buffer; a packet that waited for a path is given up.
    fn strip(&mut self, id: KeptId, pool: &mut Pool) {
        let Some(kept) = self.slot(id) else { return };
        let packet = std::mem::take(&mut kept.packet);
        let queued = kept.queued.is_some();
        self.bytes -= packet.footprint();
        pool.give(packet);
        if queued {
            self.give_up(id, pool);
        }
    }

    fn settle(&mut self, id: KeptId, pool: &mut Pool) {
        let offset = id.0.checked_sub(self.first);
        let slot = offset.and_then(|offset| self.kept.get_mut(offset as usize));
        let Some(kept) = slot.and_then(Option::take) else {
            return;
        };
        self.bytes -= kept.packet.footprint();
        self.unsettled[usize::from(kept.place.bucket.0)] -= 1;
        pool.give(kept.packet);
        self.trim();
    }

    fn trim(&mut self) {
        while let Some(None) = self.kept.front() {
            self.kept.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
