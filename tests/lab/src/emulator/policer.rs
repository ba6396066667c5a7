//! A policer: a token bucket that drops.

use std::time::Duration;

/// A contract: so many bits per second, and so many bytes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policer {
    /// Bits per second, counted on whole frames.
    pub rate: u64,
    /// The depth of the bucket, bytes; it begins full.
    pub burst: u64,
}

/// The bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PolicerState {
    /// Used of it, in bit nanoseconds (bits x 10^9), and when that was.
    used: u128,
    at: Duration,
}

const BIT_NANOS: u128 = 1_000_000_000;

impl PolicerState {
    /// Whether a packet of `size` bytes passes; then it is taken from the bucket.
    pub(super) fn passes(&mut self, policer: Policer, now: Duration, size: usize) -> bool {
        let filled = now.saturating_sub(self.at).as_nanos() * u128::from(policer.rate);
        self.used = self.used.saturating_sub(filled);
        self.at = now;
        let used = self.used + size as u128 * 8 * BIT_NANOS;
        let passes = used <= u128::from(policer.burst) * 8 * BIT_NANOS;
        if passes {
            self.used = used;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_its_burst_and_then_its_rate_pass() {
        let policer = Policer {
            rate: 8_000_000,
            burst: 10_000,
        };
        let mut bucket = PolicerState::default();
        let mut passed = |from: u32, to: u32| {
            let at = |ms| Duration::from_millis(1) * ms;
            (from..to)
                .filter(|ms| bucket.passes(policer, at(*ms), 1000))
                .count()
                + (from..to)
                    .filter(|_| bucket.passes(policer, at(to - 1), 1000))
                    .count()
        };
        // 100 ms at a megabyte per second: a hundred packets, and ten more from the full bucket.
        assert_eq!(passed(0, 100), 109);
        assert_eq!(passed(100, 200), 100);
    }
}
