//! No control at all: the rate that the user typed. Right for a line whose rate is known and
//! constant, or behind a policer.

use std::time::Duration;

use super::{AckEvent, Controller, LossEvent};
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
