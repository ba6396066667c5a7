//! Reno (RFC 5681), as the kernel counts it: in segments.

use super::control::{Ack, Controller, Window};

/// Reno.
#[derive(Debug, Default)]
pub struct Reno;

impl Controller for Reno {
    fn on_ack(&mut self, ack: &Ack, window: &mut Window) {
        if !ack.window_limited {
            return;
        }
        let mut acked = ack.delivered;
        if window.in_slow_start() {
            acked = window.slow_start(acked);
        }
        if acked > 0 {
            window.additive(window.cwnd, acked);
        }
    }

    fn threshold(&mut self, window: &Window) -> u32 {
        (window.cwnd / 2).max(2)
    }
}
