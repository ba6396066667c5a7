//! Bytes over time, in bins.

use std::time::Duration;

/// The width of a bin.
pub const BIN: Duration = Duration::from_millis(100);
/// Bins in the window over which a rate is said to be reached.
const WINDOW: usize = 10;

/// Bytes in each bin, from the start of the run.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<u64>);

fn bin(at: Duration) -> usize {
    (at.as_micros() / BIN.as_micros()) as usize
}

impl Series {
    /// Adds bytes.
    pub fn add(&mut self, at: Duration, bytes: u64) {
        let bin = bin(at);
        if self.0.len() <= bin {
            self.0.resize(bin + 1, 0);
        }
        self.0[bin] += bytes;
    }

    /// All bytes between two times, both rounded down to a bin.
    pub fn bytes(&self, from: Duration, to: Duration) -> u64 {
        let to = bin(to).min(self.0.len());
        self.0.get(bin(from)..to).unwrap_or_default().iter().sum()
    }

    /// Mbit/s between two times.
    pub fn mbps(&self, from: Duration, to: Duration) -> f64 {
        let seconds = to.saturating_sub(from).as_secs_f64();
        if seconds <= 0.0 {
            return 0.0;
        }
        self.bytes(from, to) as f64 * 8e-6 / seconds
    }

    /// How long after `from` the first second ends that lies before `to` and in which `mbps` was
    /// reached.
    pub fn time_to(&self, mbps: f64, from: Duration, to: Duration) -> Option<Duration> {
        let wanted = mbps * 1e6 / 8.0 * (BIN * WINDOW as u32).as_secs_f64();
        let (first, last) = (bin(from), bin(to).min(self.0.len()));
        let bins = self.0.get(first..last)?;
        let at = bins
            .windows(WINDOW)
            .position(|window| window.iter().sum::<u64>() as f64 >= wanted)?;
        Some(BIN * (at + WINDOW) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_reached() {
        let mut series = Series::default();
        for i in 0..100u32 {
            series.add(BIN * i, if i < 30 { 1000 } else { 12_500 });
        }
        let s = Duration::from_secs;
        assert_eq!(series.mbps(s(3), s(10)), 1.0);
        assert_eq!(series.time_to(0.999, s(0), s(10)), Some(s(4)));
        assert_eq!(series.time_to(0.999, s(5), s(10)), Some(s(1)));
        assert_eq!(series.time_to(1.1, s(0), s(10)), None);
        assert_eq!(series.time_to(1.0, s(0), s(3)), None);
    }
}
