//! One order domain of the reorder buffer.

use std::collections::VecDeque;

use super::Duplicate;
use crate::packet::Packet;
use crate::proto::Instant;
use crate::proto::wire::Stamp;
use crate::proto::wire::frame::Sequence;

/// So far behind, a packet is not late: sender and receiver are out of step, as after a forged
/// sequence in security `none`. 32,768 packets are 360 ms at 1 Gbit/s, longer than any wait.
const RESYNC: i32 = 1 << 15;

/// A packet that waits for an earlier one.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) sequence: Sequence,
    /// The paths that may hold an earlier one.
    pub(super) mask: u8,
    /// When it was sent, by the peer's clock.
    pub(super) sent: Stamp,
    /// It waits no longer.
    pub(super) deadline: Instant,
    pub(super) packet: Packet,
}

/// The packets of one bucket. Nothing is allocated while they come in order.
#[derive(Debug, Default)]
pub(super) struct BucketQueue {
    /// The sequence awaited.
    next: Sequence,
    /// Bit n: `next - 1 - n` was delivered. Tells late packets from copies.
    delivered: u128,
    /// Ascending, all ahead of `next`.
    waiting: VecDeque<Waiting>,
}

impl BucketQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn back(&self) -> Option<&Waiting> {
        self.waiting.back()
    }

    pub(super) fn head(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    /// Delivers the packet when it is the next one or late; else keeps it.
    pub(super) fn insert(
        &mut self,
        new: Waiting,
        out: &mut VecDeque<Packet>,
    ) -> Result<(), (Duplicate, Packet)> {
        let ahead = new.sequence.ahead_of(self.next);
        if ahead == 0 {
            self.advance();
            out.push_back(new.packet);
            self.deliver_run(out);
            return Ok(());
        }
        if ahead < -RESYNC {
            // Not late, but out of step: begin anew here.
            out.extend(self.waiting.drain(..).map(|waiting| waiting.packet));
            self.next = new.sequence.next();
            self.delivered = 1;
            out.push_back(new.packet);
            return Ok(());
        }
        if ahead < 0 {
            // Late: TCP still uses it. Beyond the history it is no copy either: the network's copies
            // do not get past the replay window, and our own are made within a round trip.
            let bit = u32::try_from(-1 - ahead)
                .ok()
                .and_then(|n| 1u128.checked_shl(n))
                .unwrap_or(0);
            if self.delivered & bit != 0 {
                return Err((Duplicate, new.packet));
            }
            self.delivered |= bit;
            out.push_back(new.packet);
            return Ok(());
        }
        let behind = self
            .waiting
            .iter()
            .rev()
            .take_while(|old| old.sequence.ahead_of(new.sequence) > 0);
        let at = self.waiting.len() - behind.count();
        if at > 0 && self.waiting[at - 1].sequence == new.sequence {
            return Err((Duplicate, new.packet));
        }
        self.waiting.insert(at, new);
        Ok(())
    }

    /// Gives up what the head waits for; delivers it and what follows it. Returns how many.
    pub(super) fn skip(&mut self, out: &mut VecDeque<Packet>) -> usize {
        let before = self.waiting.len();
        if let Some(head) = self.waiting.front() {
            let missing = head.sequence.ahead_of(self.next);
            self.delivered = self.delivered.checked_shl(missing as u32).unwrap_or(0);
            self.next = head.sequence;
        }
        self.deliver_run(out);
        before - self.waiting.len()
    }

    fn deliver_run(&mut self, out: &mut VecDeque<Packet>) {
        while self
            .waiting
            .front()
            .is_some_and(|head| head.sequence == self.next)
            && let Some(head) = self.waiting.pop_front()
        {
            self.advance();
            out.push_back(head.packet);
        }
    }

    fn advance(&mut self) {
        self.next = self.next.next();
        self.delivered = self.delivered << 1 | 1;
    }
}
