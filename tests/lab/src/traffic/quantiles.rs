//! Quantiles of a sample.

use std::time::Duration;

/// A sample in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quantiles(Vec<Duration>);

impl Quantiles {
    /// Of these.
    pub fn of(mut sample: Vec<Duration>) -> Self {
        sample.sort_unstable();
        Self(sample)
    }

    /// The smallest value that at least `share` (0 to 1) of the sample does not exceed (the
    /// nearest rank); zero when the sample is empty.
    pub fn at(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let ms = Duration::from_millis;
        let sample = Quantiles::of((1..=100).rev().map(ms).collect());
        assert_eq!(sample.at(0.5), ms(50));
        assert_eq!(sample.at(0.99), ms(99));
        assert_eq!((sample.at(0.0), sample.at(1.0)), (ms(1), ms(100)));
        assert_eq!(Quantiles::default().at(0.5), Duration::ZERO);
    }
}
