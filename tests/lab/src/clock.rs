//! The lab's only reading of the clock.

use std::time::{Duration, Instant};

/// A tick of `/proc` (USER_HZ): the kernel's promise to programs on every architecture but Alpha.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The monotonic clock now.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab moves real frames in real time; every reading of the clock is here"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// A clock that counts from its own start: the time the pure link emulator is given.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Self(now())
    }

    /// Time since the start.
    pub fn read(&self) -> Duration {
        now().saturating_duration_since(self.0)
    }
}
