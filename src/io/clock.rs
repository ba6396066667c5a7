//! The only clock: everything else takes time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::proto::Instant;

/// Where the clock starts: not at zero, so that "so long before now" never meets the start.
const START: Duration = Duration::from_secs(3600);

/// The monotonic clock of the system (CLOCK_MONOTONIC), counted from when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        let micros = (self.start.elapsed() + START).as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// Seconds since 1970 by the wall clock, for people only: it may jump.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn wall_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The processor time that the calling thread has used.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Neither is ever negative, nor a billion nanoseconds.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_never_back() {
        let clock = Clock::start();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        let passed = clock.now().since(before);
        assert!(passed >= Duration::from_millis(2), "{passed:?}");
        assert!(clock.now() > Instant::from_micros(0) + START);
    }

    #[test]
    fn a_thread_uses_time_when_it_works_and_none_when_it_sleeps() {
        let before = thread_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_time() - before < Duration::from_millis(40));
        let mut sum = 0_u64;
        while thread_time() - before < Duration::from_millis(45) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
