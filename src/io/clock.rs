//! The only clock: everything else takes time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::proto::Instant;

/// Where the clock starts: not at zero, so that "so long before now" never meets the start.
const START: Duration = Duration::from_secs(3600);

/// The clock of the tunnel: keys grow old while the host sleeps, so it goes on then. FreeBSD has none
/// that does; there a sleep is noticed by [`Leaps`].
#[cfg(target_os = "linux")]
const TUNNEL: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const TUNNEL: ClockId = ClockId::Monotonic;

/// The monotonic clock of the system, counted from when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: read(TUNNEL),
        }
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        let micros = (read(TUNNEL).saturating_sub(self.start) + START).as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// The time of the control thread, by which its pauses are counted. In tests it can stand still.
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
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
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // Neither is ever negative after 1970, nor a billion nanoseconds.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The clocks are compared no more often than this.
const COMPARE_EVERY: Duration = Duration::from_millis(100);
/// The host slept for more than this; less is no suspension to memory or disk.
const LEAST_SLEEP: Duration = Duration::from_secs(1);
/// The wall clock was set forward by more than this: what is restored from a snapshot is set right so.
/// Corrections by NTP are below half a second, except when it first knows the time.
const LEAST_STEP: Duration = Duration::from_secs(5);

/// Notices that the host stood still: it slept, or it is a virtual machine that was set back to a
/// snapshot.
#[derive(Debug)]
pub struct Leaps {
    clocks: Clocks,
}

/// What the clocks said at one moment.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    /// Goes on while the host sleeps (not on FreeBSD).
    tunnel: Duration,
    /// Stands still then.
    awake: Duration,
    /// Since 1970.
    wall: Duration,
}

impl Clocks {
    fn read() -> Self {
        Self {
            tunnel: read(TUNNEL),
            awake: read(ClockId::Monotonic),
            wall: read(ClockId::Realtime),
        }
    }

    /// How long the host stood still between these two readings, if it did.
    fn leap(before: &Self, after: &Self) -> Option<Duration> {
        let passed = |clock: fn(&Self) -> Duration| clock(after).saturating_sub(clock(before));
        let (tunnel, awake, wall) = (
            passed(|it| it.tunnel),
            passed(|it| it.awake),
            passed(|it| it.wall),
        );
        let slept = tunnel.saturating_sub(awake);
        let stepped = wall.saturating_sub(tunnel);
        if slept > LEAST_SLEEP {
            Some(slept)
        } else {
            (stepped > LEAST_STEP).then_some(stepped)
        }
    }
}

impl Leaps {
    /// From now on.
    pub fn start() -> Self {
        Self {
            clocks: Clocks::read(),
        }
    }

    /// How long the host stood still since the last call, if it did.
    pub fn look(&mut self) -> Option<Duration> {
        if read(TUNNEL).saturating_sub(self.clocks.tunnel) < COMPARE_EVERY {
            return None;
        }
        let before = std::mem::replace(&mut self.clocks, Clocks::read());
        Clocks::leap(&before, &self.clocks)
    }
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

    /// Field row A6: keys are dropped when the host slept or was set back.
    #[test]
    fn a_sleep_and_a_step_forward_are_leaps_and_ntp_is_none() {
        let clocks = |tunnel, awake, wall| Clocks {
            tunnel: Duration::from_millis(tunnel),
            awake: Duration::from_millis(awake),
            wall: Duration::from_millis(wall),
        };
        let leap = |after| Clocks::leap(&clocks(10_000, 9_000, 1_000_000), &after);
        assert_eq!(leap(clocks(10_100, 9_100, 1_000_100)), None);
        assert_eq!(leap(clocks(10_100, 9_100, 1_000_600)), None, "NTP");
        assert_eq!(leap(clocks(10_100, 9_100, 900_000)), None, "set back");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(leap(clocks(85_000, 9_000, 1_075_000)), seconds(75));
        assert_eq!(leap(clocks(10_000, 9_000, 1_075_000)), seconds(75));
        let mut leaps = Leaps::start();
        std::thread::sleep(Duration::from_millis(110));
        assert_eq!(leaps.look(), None);
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
