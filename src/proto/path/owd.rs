//! How long a path's datagrams take to the peer, queue included: the scheduler's figure. A round trip
//! would not do: the way back may be slow where the way there is not.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::OneWayDelay;

/// The smoothed one-way delay of a path. The clocks of the portals have no common start, so only the
/// difference between two paths means something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owd {
    smoothed: Option<OneWayDelay>,
    sampled: Instant,
}

/// A sample counts for an eighth, as one of the round trip does (RFC 9002 section 5.3) ...
const LEAST_WEIGHT: i64 = 125;
/// ... and for all when the one before it is this old: probes come five times a second at best.
const MEMORY: Duration = Duration::from_millis(100);

impl Owd {
    /// Takes a sample.
    pub fn update(&mut self, now: Instant, sample: OneWayDelay) {
        let age = now.since(self.sampled).min(MEMORY);
        let weight = (age.as_micros() as i64 * 1000 / MEMORY.as_micros() as i64).max(LEAST_WEIGHT);
        let smoothed = self.smoothed.map_or(sample, |smoothed| {
            let change = sample.as_micros() - smoothed.as_micros();
            OneWayDelay::from_micros(smoothed.as_micros() + change * weight / 1000)
        });
        self.smoothed = Some(smoothed);
        self.sampled = now;
    }

    /// The smoothed delay, once there is a sample.
    pub fn smoothed(&self) -> Option<OneWayDelay> {
        self.smoothed
    }
}
