//! One order domain of the reorder buffer.

use std::collections::VecDeque;

use super::Duplicate;
use super::holes::Holes;
use crate::packet::Packet;
use crate::proto::Instant;
use crate::proto::wire::Stamp;
use crate::proto::wire::frame::Sequence;

/// So far behind, a packet is not late: where anybody may have made those before it (security `none`),
/// a forged sequence put sender and receiver out of step; else it was delivered long ago. 32,768
/// packets are 360 ms at 1 Gbit/s, longer than any wait.
const RESYNC: i32 = 1 << 15;
/// So many of them in a row, with nothing newer between, and the sender did begin anew: a bucket must
/// not stay shut, whatever put the two out of step.
const MOST_ASTRAY: u8 = 200;
/// Holes are looked through for old ones when the sequence has gone on so far.
const TIDY: u32 = 1 << 14;

/// Places for which a bucket keeps memory while nothing waits: 50 Mbit/s for 30 ms. In all buckets
/// they are 1.6 MB.
const SPARE_PLACES: usize = 128;

/// A packet that waits for an earlier one, or its place when it is gone already.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) sequence: Sequence,
    /// The paths that may hold an earlier one.
    pub(super) mask: u8,
    /// When it was sent, by the peer's clock.
    pub(super) sent: Stamp,
    /// It waits no longer.
    pub(super) deadline: Instant,
    pub(super) content: Content,
}

/// What stands at a place ahead of the awaited one.
#[derive(Debug)]
pub(super) enum Content {
    /// A packet that waits until its paths have passed.
    Hasty(Packet),
    /// A packet that waits for repairs.
    Patient(Packet),
    /// It was delivered before its turn.
    Delivered,
    /// It was given up by the sender.
    GivenUp,
}

impl Waiting {
    fn packet(&self) -> Option<&Packet> {
        match &self.content {
            Content::Hasty(packet) | Content::Patient(packet) => Some(packet),
            Content::Delivered | Content::GivenUp => None,
        }
    }

    fn is_hasty(&self) -> bool {
        matches!(self.content, Content::Hasty(_))
    }
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Places, with or without packet.
    pub(super) places: usize,
    /// Packets.
    pub(super) packets: usize,
    /// Bytes of their buffers.
    pub(super) bytes: usize,
}

impl Load {
    /// In a sum, what a bucket held before makes room for what it holds now.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        self.places = self.places - before.places + after.places;
        self.packets = self.packets - before.packets + after.packets;
        self.bytes = self.bytes - before.bytes + after.bytes;
    }
}

/// The packets of one bucket. Nothing is allocated while they come in order.
#[derive(Debug, Default)]
pub(super) struct BucketQueue {
    /// The sequence awaited.
    next: Sequence,
    /// What was passed over.
    holes: Holes,
    /// Ascending, all ahead of `next`. The deadlines of all but the hasty ones ascend too.
    waiting: VecDeque<Waiting>,
    packets: usize,
    bytes: usize,
    hasty: usize,
    /// Packets in a row that were far behind.
    astray: u8,
    /// Where old holes were looked for last.
    tidied: Sequence,
}

impl BucketQueue {
    pub(super) fn load(&self) -> Load {
        Load {
            places: self.waiting.len(),
            packets: self.packets,
            bytes: self.bytes,
        }
    }

    /// Gives back what a long wait took. Called when nothing waits.
    pub(super) fn shrink(&mut self) {
        if self.waiting.capacity() > SPARE_PLACES {
            self.waiting.shrink_to(SPARE_PLACES);
        }
    }

    /// When the bucket has to be looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let steady = self.waiting.iter().find(|w| !w.is_hasty());
        let hasty = self.waiting.iter().filter(|w| w.is_hasty());
        let soonest = hasty.take(self.hasty).map(|w| w.deadline).min();
        [steady.map(|w| w.deadline), soonest]
            .into_iter()
            .flatten()
            .min()
    }

    /// Delivers the packet when it is the next one and nothing waits, as nearly always; else gives it
    /// back, for [`BucketQueue::insert`].
    pub(super) fn pass(
        &mut self,
        sequence: Sequence,
        packet: Packet,
        out: &mut VecDeque<Packet>,
    ) -> Option<Packet> {
        if sequence != self.next || !self.waiting.is_empty() {
            return Some(packet);
        }
        self.advance();
        out.push_back(packet);
        None
    }

    /// Delivers the packet when it is the next one or late; else keeps it. A `bare` one has no tag.
    pub(super) fn insert(
        &mut self,
        mut new: Waiting,
        settled: bool,
        bare: bool,
        out: &mut VecDeque<Packet>,
    ) -> Result<(), (Duplicate, Packet)> {
        let sequence = new.sequence;
        let ahead = sequence.ahead_of(self.next);
        self.astray = if ahead < -RESYNC {
            self.astray.saturating_add(1)
        } else {
            0
        };
        if bare && self.astray > 0 || self.astray == MOST_ASTRAY {
            // Not late, but out of step: begin anew here.
            while !self.waiting.is_empty() {
                self.skip(out);
            }
            self.holes.clear();
            self.astray = 0;
            self.next = sequence;
        } else if ahead < 0 {
            // Late: TCP still uses it, once.
            let (Content::Hasty(packet) | Content::Patient(packet)) = new.content else {
                return Ok(());
            };
            // A link that comes back may bring what it held for seconds: of that time no hole is known.
            if ahead < -RESYNC || !self.holes.fill(sequence) {
                return Err((Duplicate, packet));
            }
            out.push_back(packet);
            return Ok(());
        } else if settled {
            self.skip_to(sequence, out);
        }
        let at = self.place_of(sequence);
        let replaced = match self.waiting.get(at).filter(|old| old.sequence == sequence) {
            Some(old) if matches!(old.content, Content::GivenUp) => true,
            Some(_) => {
                let (Content::Hasty(packet) | Content::Patient(packet)) = new.content else {
                    return Ok(());
                };
                return Err((Duplicate, packet));
            }
            None => false,
        };
        self.add(&new);
        if !new.is_hasty() {
            let mut behind = self.waiting.range(at..).filter(|w| !w.is_hasty());
            let next = behind.next().map_or(new.deadline, |steady| steady.deadline);
            new.deadline = new.deadline.min(next);
            self.hurry(at, new.deadline);
        }
        if replaced {
            // Given up too soon.
            self.waiting[at] = new;
        } else {
            self.waiting.insert(at, new);
        }
        self.deliver_run(out);
        Ok(())
    }

    /// The sender says that a packet does not come any more. Until `held` the bucket remembers that;
    /// `None`: there is no room for it, and only what is awaited now is passed over.
    pub(super) fn give_up(
        &mut self,
        held: Option<Instant>,
        sequence: Sequence,
        out: &mut VecDeque<Packet>,
    ) {
        if sequence == self.next {
            self.holes.add(sequence, sequence.next());
            self.advance();
            self.deliver_run(out);
            return;
        }
        // Only where something waits for it: a word about the far future is nonsense.
        let at = self.place_of(sequence);
        let (Some(held), Some(after)) = (held, self.waiting.get(at)) else {
            return;
        };
        if sequence.ahead_of(self.next) > 0 && after.sequence != sequence {
            let mut behind = self.waiting.range(at..).filter(|w| !w.is_hasty());
            let given_up = Waiting {
                sequence,
                mask: 0,
                sent: after.sent,
                deadline: behind
                    .next()
                    .map_or(held, |steady| steady.deadline.min(held)),
                content: Content::GivenUp,
            };
            self.waiting.insert(at, given_up);
        }
    }

    /// Delivers the hasty ones for which nothing more can come, before their turn if patient ones
    /// wait: `passed` says that a packet's paths can bring nothing earlier. Until `held` the bucket
    /// remembers them.
    pub(super) fn release_hasty(
        &mut self,
        now: Instant,
        held: Instant,
        passed: impl Fn(&Waiting) -> bool,
        out: &mut VecDeque<Packet>,
    ) {
        if self.hasty == 0 {
            return;
        }
        // What proves that nothing before the last one comes any more proves it for all. (A repair asks
        // for no path, and proves less: what waits before it comes before its turn then, having waited
        // for as long as a repair takes.)
        let free = |w: &Waiting| w.is_hasty() && (now >= w.deadline || passed(w));
        let Some(mut last) = self.waiting.iter().rposition(free) else {
            return;
        };
        // And what follows it without a gap waits for nothing else.
        while let Some(next) = self.waiting.get(last + 1)
            && next.sequence == self.waiting[last].sequence.next()
        {
            last += 1;
        }
        for waiting in self.waiting.range_mut(..=last).filter(|w| w.is_hasty()) {
            let content = std::mem::replace(&mut waiting.content, Content::Delivered);
            waiting.deadline = held;
            if let Content::Hasty(packet) = content {
                self.hasty -= 1;
                self.packets -= 1;
                self.bytes -= packet.footprint();
                out.push_back(packet);
            }
        }
        let mut soonest = held;
        for steady in self.waiting.iter_mut().rev().filter(|w| !w.is_hasty()) {
            soonest = soonest.min(steady.deadline);
            steady.deadline = soonest;
        }
    }

    /// Gives up what is waited for longest, as long as somebody's deadline is over. Returns how often
    /// that was a packet's.
    pub(super) fn release_overdue(&mut self, now: Instant, out: &mut VecDeque<Packet>) -> u64 {
        let mut count = 0;
        while let Some(due) = self.waiting.iter().find(|w| !w.is_hasty())
            && due.deadline <= now
        {
            count += u64::from(due.packet().is_some());
            let sequence = due.sequence;
            self.skip_to(sequence, out);
            self.deliver_run(out);
        }
        count
    }

    /// Gives up what the first one waits for; delivers it and what follows it.
    pub(super) fn skip(&mut self, out: &mut VecDeque<Packet>) {
        if let Some(head) = self.waiting.front() {
            let sequence = head.sequence;
            self.pass_over(sequence);
            self.deliver_run(out);
        }
    }

    /// Gives up everything before a sequence; delivers what is there of it.
    fn skip_to(&mut self, sequence: Sequence, out: &mut VecDeque<Packet>) {
        while let Some(head) = self.waiting.front()
            && head.sequence.ahead_of(sequence) < 0
        {
            self.skip(out);
        }
        if sequence.ahead_of(self.next) > 0 {
            self.pass_over(sequence);
        }
    }

    fn pass_over(&mut self, sequence: Sequence) {
        self.holes.add(self.next, sequence);
        self.next = sequence;
        self.tidy();
    }

    fn deliver_run(&mut self, out: &mut VecDeque<Packet>) {
        while self
            .waiting
            .front()
            .is_some_and(|head| head.sequence == self.next)
            && let Some(head) = self.waiting.pop_front()
        {
            match head.content {
                Content::Hasty(packet) => {
                    self.hasty -= 1;
                    self.deliver(packet, out);
                }
                Content::Patient(packet) => self.deliver(packet, out),
                Content::Delivered => {}
                Content::GivenUp => self.holes.add(self.next, self.next.next()),
            }
            self.advance();
        }
    }

    fn deliver(&mut self, packet: Packet, out: &mut VecDeque<Packet>) {
        self.packets -= 1;
        self.bytes -= packet.footprint();
        out.push_back(packet);
    }

    fn add(&mut self, new: &Waiting) {
        self.hasty += usize::from(new.is_hasty());
        if let Some(packet) = new.packet() {
            self.packets += 1;
            self.bytes += packet.footprint();
        }
    }

    /// Where a sequence stands or would stand: mostly at the end.
    fn place_of(&self, sequence: Sequence) -> usize {
        match self.waiting.back() {
            Some(last) if last.sequence.ahead_of(sequence) >= 0 => self
                .waiting
                .partition_point(|old| old.sequence.ahead_of(sequence) < 0),
            Some(_) | None => self.waiting.len(),
        }
    }

    /// What stands before `at` waits no longer than what stands there.
    fn hurry(&mut self, at: usize, deadline: Instant) {
        for before in self.waiting.range_mut(..at).rev().filter(|w| !w.is_hasty()) {
            if before.deadline <= deadline {
                break;
            }
            before.deadline = deadline;
        }
    }

    fn advance(&mut self) {
        self.next = self.next.next();
        self.tidy();
    }

    fn tidy(&mut self) {
        let passed = self.next.ahead_of(self.tidied) as u32;
        if passed >= TIDY {
            self.tidied = self.next;
            self.holes.forget_before(self.next.back(RESYNC as u32));
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.waiting.capacity()
    }

    #[cfg(test)]
    pub(super) fn steady_deadlines(&self) -> Vec<Instant> {
        let steady = self.waiting.iter().filter(|w| !w.is_hasty());
        steady.map(|w| w.deadline).collect()
    }
}
