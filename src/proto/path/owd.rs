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
    /// No sample that counts in it was longer than this.
    longest: Duration,
}

/// A sample counts for an eighth, as one of the round trip does (RFC 9002 section 5.3) ...
const LEAST_WEIGHT: i64 = 125;
/// ... and for all when the one before it is this old: probes come five times a second at best.
const MEMORY: Duration = Duration::from_millis(100);
/// A one-way delay lies between zero and the round trip, so two of them differ by no more than the longer
/// round trip. What differs by so much more is no delay: one of the clocks stood still, as in a virtual
/// machine that was paused. Clocks that drift apart by 100 ppm need half an hour for it.
const JUMP: Duration = Duration::from_millis(200);

impl Owd {
    /// Takes a sample, measured with this round trip. False: it cannot be, one of the clocks has
    /// jumped.
    pub fn update(&mut self, now: Instant, sample: OneWayDelay, round_trip: Duration) -> bool {
        if let Some(smoothed) = self.smoothed {
            let apart = sample.since(smoothed).max(smoothed.since(sample));
            if apart > self.longest.max(round_trip) + JUMP {
                return false;
            }
        }
        // What is long is forgotten as slowly as it is smoothed away.
        self.longest = round_trip.max(self.longest * 7 / 8);
        let age = now.since(self.sampled).min(MEMORY);
        let weight = (age.as_micros() as i64 * 1000 / MEMORY.as_micros() as i64).max(LEAST_WEIGHT);
        let smoothed = self.smoothed.map_or(sample, |smoothed| {
            let change = sample.as_micros() - smoothed.as_micros();
            OneWayDelay::from_micros(smoothed.as_micros() + change * weight / 1000)
        });
        self.smoothed = Some(smoothed);
        self.sampled = now;
        true
    }

    /// The smoothed delay, once there is a sample.
    pub fn smoothed(&self) -> Option<OneWayDelay> {
        self.smoothed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_no_longer_than_the_round_trip_unless_a_clock_jumped() {
        let mut owd = Owd::default();
        let mut now = Instant::from_micros(1_000_000);
        let mut take = |delay_ms: i64, round_trip_ms: u64| {
            now += Duration::from_millis(1);
            let sample = OneWayDelay::from_micros(delay_ms * 1000 - 77_000_000);
            owd.update(now, sample, Duration::from_millis(round_trip_ms))
        };
        assert!(take(20, 40));
        // A queue of three seconds fills, and is gone at once.
        assert!(take(3000, 3020));
        assert!((0..50).all(|_| take(20, 40)));
        assert!(!take(-1000, 40) && !take(1020, 40));
        assert!(take(150, 40), "a busy portal's timers are late");
    }
}
