//! The sender's scoreboard: what became of each segment in flight.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::rate::Snapshot;
use crate::endpoint::ranges::Ranges;

/// One segment that was sent and is not yet cumulatively acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flying {
    /// When it was last sent.
    pub sent: Duration,
    /// Selectively acknowledged.
    pub sacked: bool,
    /// Held for lost.
    pub lost: bool,
    /// Sent again, and that copy is not held for lost.
    pub resent: bool,
    /// Was ever sent again.
    pub ever_resent: bool,
    /// The delivery rate's memory.
    pub snapshot: Snapshot,
}

/// All segments in flight. Segments are counted from 0 and all of one size.
#[derive(Debug, Default)]
pub struct Board {
    /// The first segment not yet cumulatively acknowledged.
    pub una: u64,
    flying: VecDeque<Flying>,
    sacked: Ranges,
    /// Held for lost and not sent again.
    pub to_resend: BTreeSet<u64>,
    /// Every sending of a segment in order of time; entries go stale.
    by_time: VecDeque<(Duration, u64)>,
    /// How many are selectively acknowledged, held for lost, sent again.
    pub sacked_out: u32,
    lost_out: u32,
    /// Copies in flight.
    pub resent_out: u32,
}

impl Board {
    /// The next new segment.
    pub fn next(&self) -> u64 {
        self.una + self.flying.len() as u64
    }

    /// Segments out, whatever became of them.
    pub fn out(&self) -> u32 {
        self.flying.len() as u32
    }

    /// Segments thought to be in the network.
    pub fn in_flight(&self) -> u32 {
        (self.out() + self.resent_out).saturating_sub(self.sacked_out + self.lost_out)
    }

    /// Whether something is held for lost, sent again or not.
    pub const fn any_lost(&self) -> bool {
        self.lost_out > 0
    }

    /// One more than the highest segment that was selectively acknowledged.
    pub fn highest_sacked(&self) -> Option<u64> {
        self.sacked.end()
    }

    /// A segment in flight.
    pub fn get(&self, number: u64) -> Option<&Flying> {
        self.flying.get(number.checked_sub(self.una)? as usize)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Flying> {
        self.flying.get_mut(number.checked_sub(self.una)? as usize)
    }

    /// A new segment is sent.
    pub fn on_new(&mut self, now: Duration, snapshot: Snapshot) -> u64 {
        let number = self.next();
        self.flying.push_back(Flying {
            sent: now,
            snapshot,
            ..Flying::default()
        });
        self.by_time.push_back((now, number));
        number
    }

    /// A segment is sent again.
    pub fn on_resent(&mut self, now: Duration, number: u64, snapshot: Snapshot) {
        self.to_resend.remove(&number);
        let Some(flying) = self.get_mut(number) else {
            return;
        };
        flying.sent = now;
        flying.snapshot = snapshot;
        flying.ever_resent = true;
        let again = std::mem::replace(&mut flying.resent, true);
        self.resent_out += u32::from(!again);
        self.by_time.push_back((now, number));
    }

    /// Holds a segment for lost. Tells whether that is new.
    pub fn mark_lost(&mut self, number: u64) -> bool {
        let Some(flying) = self.get_mut(number) else {
            return false;
        };
        if flying.sacked || (flying.lost && !flying.resent) {
            return false;
        }
        let (first, copy) = (!flying.lost, flying.resent);
        flying.lost = true;
        flying.resent = false;
        self.lost_out += u32::from(first);
        self.resent_out -= u32::from(copy);
        self.to_resend.insert(number);
        true
    }

    /// Holds nothing for lost any more (a recovery that was for nothing).
    pub fn unmark_lost(&mut self) {
        for flying in &mut self.flying {
            flying.lost = false;
        }
        self.lost_out = 0;
        for number in std::mem::take(&mut self.to_resend) {
            // It may be held for lost again by its age.
            let Some(flying) = self.get(number) else {
                continue;
            };
            let entry = (flying.sent, number);
            let at = self.by_time.partition_point(|known| *known < entry);
            self.by_time.insert(at, entry);
        }
    }

    /// A selective acknowledgement of `from..to`: calls `new` for each segment that it is news of.
    pub fn sack(&mut self, from: u64, to: u64, mut new: impl FnMut(u64, &Flying)) {
        let (from, to) = (from.max(self.una), to.min(self.next()));
        let mut gaps = Vec::new();
        self.sacked.insert(from, to, |a, b| gaps.push((a, b)));
        for number in gaps.into_iter().flat_map(|(a, b)| a..b) {
            let Some(flying) = self.flying.get_mut((number - self.una) as usize) else {
                continue;
            };
            new(number, flying);
            self.lost_out -= u32::from(flying.lost);
            self.resent_out -= u32::from(flying.resent);
            self.sacked_out += 1;
            (flying.sacked, flying.lost, flying.resent) = (true, false, false);
            self.to_resend.remove(&number);
        }
    }

    /// A cumulative acknowledgement up to `to`: calls `gone` for each segment.
    pub fn acknowledge(&mut self, to: u64, mut gone: impl FnMut(u64, &Flying)) {
        while self.una < to
            && let Some(flying) = self.flying.pop_front()
        {
            gone(self.una, &flying);
            self.lost_out -= u32::from(flying.lost);
            self.resent_out -= u32::from(flying.resent);
            self.sacked_out -= u32::from(flying.sacked);
            self.to_resend.remove(&self.una);
            self.una += 1;
        }
        self.sacked.forget_below(self.una);
    }

    /// The segment that has been under way longest, neither arrived nor held for lost.
    pub fn oldest(&mut self) -> Option<(Duration, u64)> {
        while let Some((sent, number)) = self.by_time.front().copied() {
            let live = self.get(number).is_some_and(|flying| {
                flying.sent == sent && !flying.sacked && (!flying.lost || flying.resent)
            });
            if live {
                return Some((sent, number));
            }
            self.by_time.pop_front();
        }
        None
    }

    /// All segments that are not selectively acknowledged, and when they were last sent.
    pub fn missing(&self) -> Vec<(u64, Duration)> {
        (self.una..)
            .zip(&self.flying)
            .filter(|(_, flying)| !flying.sacked)
            .map(|(number, flying)| (number, flying.sent))
            .collect()
    }
}
