//! The rate over the last second, for `show`.

use std::time::Duration;

use crate::proto::Instant;

/// How long a rate is measured.
const PERIOD: Duration = Duration::from_secs(1);

/// Counts bytes over whole periods.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    start: Instant,
    bytes: u64,
    /// Bits per second over the last whole period.
    rate: u64,
}

impl Meter {
    /// Counts bytes.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.roll(now);
        self.bytes += bytes as u64;
    }

    /// Bits per second over the last whole period.
    pub fn rate(&mut self, now: Instant) -> u64 {
        self.roll(now);
        self.rate
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.since(self.start);
        if elapsed < PERIOD {
            return;
        }
        // Nothing came for a whole period: what was counted is old.
        self.rate = if elapsed < 2 * PERIOD {
            self.bytes * 8_000_000 / elapsed.as_micros() as u64
        } else {
            0
        };
        self.start = now;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures() {
        let mut meter = Meter::default();
        for ms in 10_000..11_500 {
            meter.add(Instant::from_micros(ms * 1000), 125);
        }
        assert!((990_000..1_010_000).contains(&meter.rate(Instant::from_micros(11_500_000))));
        assert_eq!(meter.rate(Instant::from_micros(20_000_000)), 0);
    }
}
