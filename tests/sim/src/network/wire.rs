//! A plain wire: a delay, no rate, no loss.

use std::collections::VecDeque;
use std::time::Duration;

use crate::packet::Inner;

/// One direction between a host and its portal.
#[derive(Debug, Default)]
pub struct Wire {
    delay: Duration,
    flying: VecDeque<(Duration, Inner)>,
}

impl Wire {
    /// A wire of this delay.
    pub const fn new(delay: Duration) -> Self {
        Self {
            delay,
            flying: VecDeque::new(),
        }
    }

    /// Puts a packet in.
    pub fn put(&mut self, now: Duration, inner: Inner) {
        self.flying.push_back((now + self.delay, inner));
    }

    /// When the next packet comes out.
    pub fn next(&self) -> Option<Duration> {
        self.flying.front().map(|(at, _)| *at)
    }

    /// The next packet that came out by now.
    pub fn poll(&mut self, now: Duration) -> Option<Inner> {
        self.next().filter(|at| *at <= now)?;
        self.flying.pop_front().map(|(_, inner)| inner)
    }
}
