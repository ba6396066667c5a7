//! Many durations, and what they are like.

use std::time::Duration;

/// Durations in the order in which they came, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: Duration) {
        self.0
            .push(u32::try_from(sample.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nearest-rank quantiles of these shares (0 to 1), in one pass; zero when there is none.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Duration; N] {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        shares.map(|share| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            let sample = sorted.get(rank.saturating_sub(1)).copied();
            Duration::from_micros(u64::from(sample.unwrap_or_default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantiles([0.5]), [Duration::ZERO]);
        for ms in (1..=100).rev() {
            samples.add(Duration::from_millis(ms));
        }
        let [p0, p50, p99, p100] = samples.quantiles([0.0, 0.5, 0.99, 1.0]);
        assert_eq!(
            [p0, p50, p99, p100].map(|p| p.as_millis()),
            [1, 50, 99, 100]
        );
    }
}
