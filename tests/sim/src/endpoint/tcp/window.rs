//! The receive window, as Linux grows it by itself.

use std::time::Duration;

/// What a connection starts with (Linux: half of the default of tcp_rmem).
const INITIAL: u64 = 65_536;
/// The most: what the default limits of Linux and a usual overhead leave.
const MOST: u64 = 6 << 20;
/// Segments added to twice the delivered bytes (Linux: tcp_rcv_space_adjust).
const EXTRA: u64 = 16;

/// The window's growth.
#[derive(Debug)]
pub struct ReceiveWindow {
    /// What the buffer allows, bytes.
    space: u64,
    /// What is offered of it: grows by two segments for each one that comes.
    offered: u64,
    /// Delivered in the present round trip, and in the one before, bytes.
    copied: u64,
    before: u64,
    round_start: Duration,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self {
            space: INITIAL,
            offered: INITIAL,
            copied: 0,
            before: INITIAL / 4,
            round_start: Duration::ZERO,
        }
    }
}

impl ReceiveWindow {
    /// Bytes went to the application, which reads at once.
    pub fn on_delivered(&mut self, now: Duration, bytes: u64, size: u32, rtt: Duration) {
        self.copied += bytes;
        self.on_held(size);
        if now.saturating_sub(self.round_start) < rtt || rtt.is_zero() {
            return;
        }
        if self.copied > self.before {
            let mut wanted = 2 * self.copied + EXTRA * u64::from(size);
            // As much again by the growth since the last round trip: slow start doubles.
            let growth = wanted * (self.copied - self.before) / self.before;
            wanted += 2 * growth;
            self.space = self.space.max(wanted.min(MOST));
            self.before = self.copied;
        }
        self.copied = 0;
        self.round_start = now;
    }

    /// A segment came, in order or not.
    pub fn on_held(&mut self, size: u32) {
        self.offered = (self.offered + 2 * u64::from(size)).min(self.space);
    }

    /// Bytes behind the next expected one that the sender may use. What is held out of order lies in
    /// the same window.
    pub fn room(&self, size: u32) -> u32 {
        self.offered.max(u64::from(size)) as u32
    }
}
