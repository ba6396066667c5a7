//! The round trip of a path (RFC 9002 section 5).

use std::time::Duration;

/// Assumed before the first sample (RFC 9002 section 6.2.2 says 333 ms; links at home are faster,
/// and a wrong guess costs one probe).
const INITIAL_RTT: Duration = Duration::from_millis(200);
/// The clock's granularity: `poll` wakes us up to a millisecond late (RFC 9002 section 6.1.2).
const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round trip, its variation, and the least one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    min: Duration,
    latest: Duration,
}

impl Rtt {
    /// Takes a sample, the peer's delay in acknowledging taken off where that is plausible.
    pub fn update(&mut self, sample: Duration, ack_delay: Duration) {
        let Some(smoothed) = self.smoothed else {
            *self = Self {
                smoothed: Some(sample),
                variation: sample / 2,
                min: sample,
                latest: sample,
            };
            return;
        };
        self.min = self.min.min(sample);
        let adjusted = if sample >= self.min + ack_delay {
            sample - ack_delay
        } else {
            sample
        };
        self.latest = adjusted;
        self.variation = (3 * self.variation + smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = Some((7 * smoothed + adjusted) / 8);
    }

    /// The smoothed round trip, once there is a sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least round trip, once there is a sample.
    pub fn min(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.min)
    }

    /// The mean deviation.
    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// A datagram that was overtaken is lost after this time (RFC 9002 section 6.1.2).
    pub fn loss_threshold(&self) -> Duration {
        let longest = self.smoothed.unwrap_or(INITIAL_RTT).max(self.latest);
        (longest * 9 / 8).max(GRANULARITY)
    }

    /// Silence for this long asks for a probe (RFC 9002 section 6.2.1), `ack_delay` being the
    /// longest that the peer waits.
    pub fn probe_timeout(&self, ack_delay: Duration) -> Duration {
        match self.smoothed {
            Some(smoothed) => smoothed + (4 * self.variation).max(GRANULARITY) + ack_delay,
            None => 2 * INITIAL_RTT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn smooths() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.smoothed(), None);
        rtt.update(40 * MS, 5 * MS);
        assert_eq!((rtt.smoothed(), rtt.variation()), (Some(40 * MS), 20 * MS));
        rtt.update(48 * MS, Duration::ZERO);
        assert_eq!((rtt.smoothed(), rtt.variation()), (Some(41 * MS), 17 * MS));
        rtt.update(50 * MS, 9 * MS);
        assert_eq!(rtt.smoothed(), Some(41 * MS));
        assert_eq!(rtt.min(), Some(40 * MS));
        assert_eq!(
            rtt.probe_timeout(5 * MS),
            41 * MS + 4 * rtt.variation() + 5 * MS
        );
    }
}
