//! How far a path lets datagrams overtake each other.
//!
//! A FIFO path proves a loss by its first gap, and a repair that starts three datagrams later starts
//! too late (PROTOCOL.md 7: 38 instead of 82 %). A path that is not FIFO shows it: what was held for
//! lost is acknowledged. Then the threshold rises to RFC 9002's, and falls again when it behaves.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::Instant;

/// The first gap is a loss.
const LEAST: u64 = 1;
/// A datagram is lost when this many sent after it arrived, at most (RFC 9002 section 6.1.1).
const MOST: u64 = 3;
/// After so long without a false alarm one less is enough again.
const DECAY: Duration = Duration::from_secs(10);
/// Losses remembered: 256 are 2 % of what flies in 300 ms at 500 Mbit/s. What was forgotten is only
/// not known to have been a false alarm.
const MOST_REMEMBERED: usize = 256;

/// The threshold of one path, and what it condemned lately.
#[derive(Debug)]
pub(super) struct Reordering {
    threshold: u64,
    /// Numbers held for lost, ascending.
    condemned: VecDeque<u64>,
    /// False alarms that `adapt` has not heard of.
    alarms: u64,
    changed: Instant,
}

impl Default for Reordering {
    fn default() -> Self {
        Self {
            threshold: LEAST,
            condemned: VecDeque::new(),
            alarms: 0,
            changed: Instant::default(),
        }
    }
}

impl Reordering {
    /// So many datagrams must have overtaken one that is lost.
    pub(super) fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Raises the threshold for the false alarms since the last call, or lowers it with time.
    pub(super) fn adapt(&mut self, now: Instant) {
        if self.alarms > 0 {
            self.alarms = 0;
            self.threshold = MOST.min(self.threshold + 1);
            self.changed = now;
        } else if self.threshold > LEAST && now.since(self.changed) >= DECAY {
            self.threshold -= 1;
            self.changed = now;
        }
    }

    /// Notes that a number is held for lost.
    pub(super) fn condemn(&mut self, number: u64) {
        if self.condemned.len() == MOST_REMEMBERED {
            self.condemned.pop_front();
        }
        let at = self.condemned.partition_point(|other| *other < number);
        self.condemned.insert(at, number);
    }

    /// The least number remembered.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.condemned.front().copied()
    }

    /// An acknowledgement covers `low..=high`. Returns how many of them were false alarms.
    pub(super) fn acquit(&mut self, low: u64, high: u64) -> u64 {
        let first = self.condemned.partition_point(|number| *number < low);
        let end = self.condemned.partition_point(|number| *number <= high);
        if first >= end {
            return 0;
        }
        self.condemned.drain(first..end);
        let alarms = (end - first) as u64;
        self.alarms += alarms;
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn rises_at_false_alarms_and_falls_with_time() {
        let mut reordering = Reordering::default();
        assert_eq!(reordering.threshold(), 1);
        for second in 1..6 {
            reordering.condemn(second);
            assert_eq!(reordering.acquit(0, 100), 1);
            reordering.adapt(at(second));
            assert_eq!(reordering.threshold(), MOST.min(1 + second));
        }
        reordering.adapt(at(14));
        assert_eq!(reordering.threshold(), 3);
        reordering.adapt(at(15));
        reordering.adapt(at(16));
        assert_eq!(reordering.threshold(), 2);
        reordering.adapt(at(25));
        reordering.adapt(at(60));
        assert_eq!(reordering.threshold(), 1);
    }

    #[test]
    fn remembers_the_newest_and_acquits_once() {
        let mut reordering = Reordering::default();
        (0..1000).for_each(|number| reordering.condemn(number));
        assert_eq!(reordering.oldest(), Some(744));
        assert_eq!(reordering.acquit(0, 743), 0);
        assert_eq!(reordering.acquit(740, 745), 2);
        assert_eq!(reordering.acquit(740, 746), 1);
        reordering.condemn(745);
        assert_eq!(reordering.oldest(), Some(745));
    }
}
