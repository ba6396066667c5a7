//! How long a path's datagrams take to the peer, queue included: the scheduler's figure. A round trip
//! would not do: the way back may be slow where the way there is not.

use crate::proto::congestion::OneWayDelay;

/// The smoothed one-way delay of a path. The clocks of the portals have no common start, so only the
/// difference between two paths means something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owd {
    smoothed: Option<OneWayDelay>,
}

impl Owd {
    /// Takes a sample; smoothed as a round trip is (RFC 9002 section 5.3).
    pub fn update(&mut self, sample: OneWayDelay) {
        let smoothed = self.smoothed.map_or(sample, |smoothed| {
            OneWayDelay::from_micros((7 * smoothed.as_micros() + sample.as_micros()) / 8)
        });
        self.smoothed = Some(smoothed);
    }

    /// The smoothed delay, once there is a sample.
    pub fn smoothed(&self) -> Option<OneWayDelay> {
        self.smoothed
    }
}
