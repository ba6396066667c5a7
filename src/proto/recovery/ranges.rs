//! The packet numbers that arrived on a path, as ranges: what an ACK frame tells.

use crate::proto::wire::PacketNumber;
use crate::proto::wire::frame::MOST_RANGES;

/// Gaps further than this below the largest are told no more: each was told in 256 acknowledgements at
/// least, one in 32 datagrams, and 300 ms long even at 300 Mbit/s.
const OLDEST_GAP: u64 = 8192;

/// Ascending, disjoint, not touching ranges of packet numbers; bounded.
#[derive(Debug, Clone, Default)]
pub struct Ranges(Vec<(PacketNumber, PacketNumber)>);

impl Ranges {
    /// Notes that a packet came. Returns true when it is the new largest and does not follow the
    /// largest before it: a gap opened.
    pub fn insert(&mut self, number: PacketNumber) -> bool {
        let opens_gap = match self.0.last_mut() {
            Some((_, high)) if high.next() == number => {
                *high = number;
                return false;
            }
            Some((_, high)) if *high >= number => {
                self.insert_old(number);
                return false;
            }
            Some(_) => true,
            None => number != PacketNumber(0),
        };
        self.0.push((number, number));
        let kept = number.0.saturating_sub(OLDEST_GAP);
        let surplus = self.0.len().saturating_sub(MOST_RANGES + 1);
        let stale = self.0.iter().take_while(|(_, high)| high.0 < kept).count();
        self.0.drain(..surplus.max(stale));
        opens_gap
    }

    fn insert_old(&mut self, number: PacketNumber) {
        // The first range that ends at or behind the number, or just before it.
        let at = self.0.partition_point(|(_, high)| high.next() < number);
        let Some((low, high)) = self.0.get_mut(at) else {
            return;
        };
        if *low <= number && number <= *high {
            return;
        }
        if high.next() == number {
            *high = number;
            if let Some(&(next_low, next_high)) = self.0.get(at + 1)
                && next_low == number.next()
            {
                self.0[at].1 = next_high;
                self.0.remove(at + 1);
            }
        } else if number.next() == *low {
            *low = number;
        } else if self.0.len() <= MOST_RANGES {
            self.0.insert(at, (number, number));
        }
    }

    /// The ranges (first, last), newest first.
    pub fn iter_newest_first(&self) -> impl Iterator<Item = (PacketNumber, PacketNumber)> + '_ {
        self.0.iter().rev().copied()
    }

    /// The largest number that came.
    pub fn largest(&self) -> Option<PacketNumber> {
        self.0.last().map(|(_, high)| *high)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn like_a_set(numbers in proptest::collection::vec(0u64..120, 1..150)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for n in numbers {
                let before = set.last().copied();
                let gap = ranges.insert(PacketNumber(n));
                set.insert(n);
                prop_assert_eq!(gap, before.map_or(n != 0, |b| n > b + 1));
                prop_assert!(ranges.0.is_sorted_by(|a, b| a.1.0 + 1 < b.0.0), "{:?}", ranges);
                prop_assert!(ranges.0.len() <= MOST_RANGES + 1);
            }
            let told: BTreeSet<u64> = ranges.0.iter().flat_map(|(a, b)| a.0..=b.0).collect();
            prop_assert!(told.is_subset(&set));
            if set.len() <= MOST_RANGES {
                prop_assert_eq!(told, set);
            }
        }
    }
}
