//! A TCP connection: the kernel controls, and says by its budget what it takes.

use std::time::Duration;

use super::{AckEvent, CeEvent, Controller, LossEvent};

/// Lets everything go.
#[derive(Debug, Default)]
pub struct Kernel;

impl Controller for Kernel {
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
        u64::MAX
    }

    fn pacing_rate(&self, _: Option<Duration>) -> Option<u64> {
        None
    }
}
