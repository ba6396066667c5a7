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
/// So many of them in a row, with nothing newer between, mean that the sender restarted: a bucket must
/// not stay shut, whatever put the two out of step.
const MOST_ASTRAY: u8 = 200;
/// Holes are looked through for old ones when the sequence has gone on so far.
const TIDY: u64 = 1 << 14;
/// Entries for which a bucket keeps memory, however few wait: 3 kB, so that a short wait allocates nothing.
const ROOM_KEPT: usize = 64;
/// Sequences are counted modulo 2^24.
const WRAP: u32 = 0xff_ffff;

/// A packet that waits for an earlier one, or its place when it is gone already.
#[derive(Debug)]
pub(super) struct Waiting {
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

/// A sequence that does not wrap: `next` and what is ahead of it, counted on.
type Position = u64;

/// The packets of one bucket. Nothing is allocated while they come in order.
///
/// Taking one in moves the entries before it or those behind, whichever are fewer: in the worst order 4,096 of
/// them, 200 kB.
#[derive(Debug, Default)]
pub(super) struct BucketQueue {
    /// The sequence awaited.
    next: Position,
    /// What was passed over.
    holes: Holes,
    /// All ahead of `next`, by position. One that waits for repairs waits no longer than any such one behind it.
    waiting: VecDeque<(Position, Waiting)>,
    packets: usize,
    bytes: usize,
    hasty: usize,
    /// Packets in a row that were far behind.
    astray: u8,
    /// Where old holes were looked for last.
    tidied: Position,
}

/// The sequence at a position.
fn sequence(position: Position) -> Sequence {
    Sequence::new(position as u32)
}

impl BucketQueue {
    pub(super) fn load(&self) -> Load {
        Load {
            places: self.waiting.len(),
            packets: self.packets,
            bytes: self.bytes,
        }
    }

    /// When the bucket has to be looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|(_, it)| it.deadline).min()
    }

    /// Delivers the packet when it is the next one and nothing waits, as nearly always; else gives it
    /// back, for [`BucketQueue::insert`].
    pub(super) fn pass(
        &mut self,
        place: Sequence,
        packet: Packet,
        out: &mut VecDeque<Packet>,
    ) -> Option<Packet> {
        if place != sequence(self.next) || !self.waiting.is_empty() {
            return Some(packet);
        }
        self.advance();
        out.push_back(packet);
        None
    }

    /// Delivers the packet when it is the next one or late; else keeps it. A `bare` one has no tag.
    pub(super) fn insert(
        &mut self,
        place: Sequence,
        new: Waiting,
        settled: bool,
        bare: bool,
        out: &mut VecDeque<Packet>,
    ) -> Result<(), (Duplicate, Packet)> {
        let ahead = place.ahead_of(sequence(self.next));
        self.astray = if ahead < -RESYNC {
            self.astray.saturating_add(1)
        } else {
            0
        };
        // What lies behind counts as a whole wrap ahead: positions only grow.
        let position = self.next + u64::from(ahead as u32 & WRAP);
        if bare && self.astray > 0 || self.astray == MOST_ASTRAY {
            // Not late, but out of step: start again from here.
            while !self.waiting.is_empty() {
                self.skip(out);
            }
            self.holes.clear();
            self.astray = 0;
            self.next = self.next.max(position);
        } else if ahead < 0 {
            // Late: TCP still uses it, once.
            let (Content::Hasty(packet) | Content::Patient(packet)) = new.content else {
                return Ok(());
            };
            // A link that comes back may bring what it held for seconds: of that time no hole is known.
            if ahead < -RESYNC || !self.holes.fill(place) {
                return Err((Duplicate, packet));
            }
            out.push_back(packet);
            return Ok(());
        } else if settled {
            self.skip_to(position, out);
        }
        match self.find(position) {
            // One that was given up too soon takes its place.
            Ok(old) if matches!(self.waiting[old].1.content, Content::GivenUp) => {
                self.add(&new);
                self.waiting[old].1 = new;
            }
            Ok(_) => {
                let (Content::Hasty(packet) | Content::Patient(packet)) = new.content else {
                    return Ok(());
                };
                return Err((Duplicate, packet));
            }
            Err(at) => {
                self.add(&new);
                self.waiting.insert(at, (position, new));
            }
        }
        self.deliver_run(out);
        Ok(())
    }

    /// The sender says that a packet does not come any more. Until `held` the bucket remembers that;
    /// `None`: there is no room for it, and only what is awaited now is passed over.
    pub(super) fn give_up(
        &mut self,
        held: Option<Instant>,
        place: Sequence,
        out: &mut VecDeque<Packet>,
    ) {
        let ahead = place.ahead_of(sequence(self.next));
        if ahead == 0 {
            self.holes.add(place, place.next());
            self.advance();
            self.deliver_run(out);
            return;
        }
        let (Some(held), Ok(ahead)) = (held, u64::try_from(ahead)) else {
            return;
        };
        // Only where something waits for it: a word about the far future is nonsense.
        let position = self.next + ahead;
        if let Err(at) = self.find(position)
            && let Some((_, after)) = self.waiting.get(at)
        {
            let given_up = Waiting {
                mask: 0,
                sent: after.sent,
                deadline: held,
                content: Content::GivenUp,
            };
            self.waiting.insert(at, (position, given_up));
        }
    }

    /// Where a position is, or where it belongs.
    fn find(&self, position: Position) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&position, |(at, _)| *at)
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
        // What proves that nothing before the last one comes any more proves it for all. (A repair asks
        // for no path, and proves less: what waits before it comes before its turn then, having waited
        // for as long as a repair takes.)
        let newest_first = self.waiting.iter().enumerate().rev();
        let hasty = newest_first.filter(|(_, (_, it))| it.is_hasty());
        let mut hasty = hasty.take(self.hasty);
        let Some((last, &(position, _))) =
            hasty.find(|(_, (_, it))| now >= it.deadline || passed(it))
        else {
            return;
        };
        // And what follows it without a gap waits for nothing else.
        let behind = self.waiting.range(last..).zip(position..);
        let run = behind.take_while(|((position, _), expected)| position == expected);
        let end = last + run.count();
        for (_, waiting) in self.waiting.range_mut(..end) {
            if !waiting.is_hasty() {
                continue;
            }
            let content = std::mem::replace(&mut waiting.content, Content::Delivered);
            waiting.deadline = held;
            if let Content::Hasty(packet) = content {
                self.hasty -= 1;
                self.packets -= 1;
                self.bytes -= packet.footprint();
                out.push_back(packet);
            }
        }
    }

    /// Gives up what is waited for longest, as long as somebody's deadline is over. Returns how often
    /// that was a packet's.
    pub(super) fn release_overdue(&mut self, now: Instant, out: &mut VecDeque<Packet>) -> u64 {
        let mut newest_first = self.waiting.iter().rev();
        let Some(&(last, _)) = newest_first.find(|(_, it)| !it.is_hasty() && it.deadline <= now)
        else {
            return 0;
        };
        let mut count = 0;
        while let Some(&(position, ref due)) = self.waiting.iter().find(|(_, it)| !it.is_hasty())
            && position <= last
        {
            count += u64::from(due.packet().is_some());
            self.skip_to(position, out);
            self.deliver_run(out);
        }
        count
    }

    /// Gives up what the first one waits for; delivers it and what follows it.
    pub(super) fn skip(&mut self, out: &mut VecDeque<Packet>) {
        if let Some(&(first, _)) = self.waiting.front() {
            self.pass_over(first);
            self.deliver_run(out);
        }
    }

    /// Gives up everything before a position; delivers what is there of it.
    fn skip_to(&mut self, position: Position, out: &mut VecDeque<Packet>) {
        while let Some(&(first, _)) = self.waiting.front()
            && first < position
        {
            self.skip(out);
        }
        if position > self.next {
            self.pass_over(position);
        }
    }

    fn pass_over(&mut self, position: Position) {
        self.holes.add(sequence(self.next), sequence(position));
        self.next = position;
        self.tidy();
    }

    fn deliver_run(&mut self, out: &mut VecDeque<Packet>) {
        while let Some(&(first, _)) = self.waiting.front()
            && first == self.next
            && let Some((_, head)) = self.waiting.pop_front()
        {
            match head.content {
                Content::Hasty(packet) => {
                    self.hasty -= 1;
                    self.deliver(packet, out);
                }
                Content::Patient(packet) => self.deliver(packet, out),
                Content::Delivered => {}
                Content::GivenUp => {
                    let place = sequence(self.next);
                    self.holes.add(place, place.next());
                }
            }
            self.advance();
        }
        // There are many buckets, and each may have held many once.
        let room = self.waiting.len() * 2 + ROOM_KEPT;
        if self.waiting.capacity() > room * 2 {
            self.waiting.shrink_to(room);
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

    fn advance(&mut self) {
        self.next += 1;
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.next - self.tidied >= TIDY {
            self.tidied = self.next;
            let oldest = sequence(self.next).back(RESYNC as u32);
            self.holes.forget_before(oldest);
        }
    }
}
