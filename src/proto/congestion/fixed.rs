//! No control at all: the rate that the user typed. Right for a line whose rate is known and
//! constant, or behind a policer.

use std::time::Duration;

use super::{AckEvent, CeEvent, Controller, LossEvent};
use crate::config::units::Bitrate;

/// The longest round trip that a fixed rate still fills, seconds: beyond it acknowledgements are
/// missing rather than late.
const WINDOW_SECONDS: u64 = 2;

/// Sends at one rate.
#[derive(Debug)]
pub struct Fixed {
    rate: Bitrate,
}

impl Fixed {
    /// A controller that sends at `rate`.
    pub fn new(rate: Bitrate) -> Self {
        Self { rate }
    }
}

impl Controller for Fixed {
    fn on_ack(&mut self, _: &AckEvent) {}

    fn on_loss(&mut self, _: &LossEvent) {}

    fn on_ce(&mut self, _: &CeEvent) {}

    fn heeds_marks(&self) -> bool {
        false
    }

    fn on_restart(&mut self) {}

    fn fills_queues(&self) -> bool {
        false
    }

    fn window(&self) -> u64 {
        self.rate.bytes_per_second() * WINDOW_SECONDS
    }

    fn pacing_rate(&self, _: Option<Duration>) -> Option<u64> {
        Some(self.rate.bytes_per_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Instant;

    #[test]
    fn stays_fixed_whatever_is_marked_or_lost() {
        let mut fixed = Fixed::new(Bitrate::from_bits_per_second(8_000_000));
        let now = Instant::from_micros(1);
        for _ in 0..100 {
            fixed.on_ce(&CeEvent {
                now,
                marked: 10,
                of: 10,
                newest_sent: now,
            });
            fixed.on_loss(&LossEvent {
                now,
                bytes: 14_400,
                newest_sent: now,
            });
        }
        assert!(!fixed.heeds_marks());
        assert_eq!(fixed.pacing_rate(None), Some(1_000_000));
        assert_eq!(fixed.window(), 2_000_000);
    }
}
