//! A set of numbers as sorted ranges that do not touch.

/// A set of numbers, held as half-open ranges.
#[derive(Debug, Clone, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `from..to`, and calls `new` with every part of it that was not in the set.
    pub fn insert(&mut self, from: u64, to: u64, mut new: impl FnMut(u64, u64)) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < from);
        let last = self.0.partition_point(|range| range.0 <= to);
        let mut at = from;
        for range in &self.0[first..last] {
            if at < range.0 {
                new(at, range.0);
            }
            at = at.max(range.1);
        }
        if at < to {
            new(at, to);
        }
        if first == last {
            self.0.insert(first, (from, to));
            return;
        }
        let joined = (from.min(self.0[first].0), to.max(self.0[last - 1].1));
        self.0[first] = joined;
        self.0.drain(first + 1..last);
    }

    /// Forgets all below `end`.
    pub fn forget_below(&mut self, end: u64) {
        let gone = self.0.partition_point(|range| range.1 <= end);
        self.0.drain(..gone);
        if let Some(range) = self.0.first_mut() {
            range.0 = range.0.max(end);
        }
    }

    /// The range that holds `number`.
    pub fn around(&self, number: u64) -> Option<(u64, u64)> {
        let at = self.0.partition_point(|range| range.1 <= number);
        self.0.get(at).copied().filter(|range| range.0 <= number)
    }

    /// The lowest range.
    pub fn first(&self) -> Option<(u64, u64)> {
        self.0.first().copied()
    }

    /// One more than the highest number.
    pub fn end(&self) -> Option<u64> {
        self.0.last().map(|range| range.1)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(set: &mut Ranges, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut new = Vec::new();
        set.insert(from, to, |a, b| new.push((a, b)));
        new
    }

    #[test]
    fn tells_what_is_new_and_joins_what_touches() {
        let mut set = Ranges::default();
        assert_eq!(insert(&mut set, 10, 20), [(10, 20)]);
        assert_eq!(insert(&mut set, 30, 40), [(30, 40)]);
        assert_eq!(insert(&mut set, 12, 18), []);
        assert_eq!(insert(&mut set, 5, 50), [(5, 10), (20, 30), (40, 50)]);
        assert_eq!(set.0, [(5, 50)]);
        assert_eq!(insert(&mut set, 50, 51), [(50, 51)]);
        assert_eq!(insert(&mut set, 60, 61), [(60, 61)]);
        assert_eq!(set.0, [(5, 51), (60, 61)]);
        assert_eq!((set.around(50), set.around(51)), (Some((5, 51)), None));
        set.forget_below(20);
        assert_eq!((set.first(), set.end()), (Some((20, 51)), Some(61)));
    }
}
