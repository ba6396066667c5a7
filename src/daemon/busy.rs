//! How busy a thread is, and whether the TUN is worth a thread of its own.

use std::time::Duration;

use crate::proto::Instant;

/// How long is looked at before it is judged: a hundred rounds of a busy loop.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// One thread that uses more than this of a core is at its end, and has the core for itself: where the
/// cores are all in use it gets less, and a second thread costs 15 % of the throughput (measured on two
/// cores with both portals and both ends of the flow).
const CROWDED: f32 = 0.9;
/// Two that do not use so much together are one: well below, so that the second does not come and go.
const ROOMY: f32 = 0.6;
/// A change lasts for so long at least.
const DWELL: Duration = Duration::from_secs(1);

/// How much of a core a thread uses. Not the time in which it does not wait: a thread that others push
/// aside is slow for want of cores, and a second one would only ask for more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    since: Instant,
    /// The thread's processor time then.
    used: Duration,
}

impl Busy {
    pub(super) fn new(now: Instant, used: Duration) -> Self {
        Self { since: now, used }
    }

    /// When a window has ended, the share of a core that was used in it, of 1. `used` tells the
    /// thread's processor time.
    pub(super) fn look(&mut self, now: Instant, used: impl FnOnce() -> Duration) -> Option<f32> {
        let window = now.since(self.since);
        if window < WINDOW {
            return None;
        }
        let before = std::mem::replace(self, Self::new(now, used()));
        let worked = self.used.saturating_sub(before.used);
        Some(worked.as_secs_f32() / window.as_secs_f32())
    }
}

/// Where the TUN is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// By the packet thread.
    Together,
    /// By a thread of its own.
    Apart,
}

/// Decides where the TUN is served. A second thread costs two wake-ups a batch, so a lone packet
/// takes longer: it is for those who have no other way to go faster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    place: Place,
    since: Instant,
}

impl Sharing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            place: Place::Together,
            since: now,
        }
    }

    /// How much of a core the packet thread used, and the TUN's where it has one. Gives the new place when that
    /// changes.
    pub(super) fn judge(&mut self, now: Instant, packets: f32, tun: f32) -> Option<Place> {
        if now.since(self.since) < DWELL {
            return None;
        }
        let place = match self.place {
            Place::Together if packets > CROWDED => Place::Apart,
            Place::Apart if packets + tun < ROOMY => Place::Together,
            Place::Together | Place::Apart => return None,
        };
        (self.place, self.since) = (place, now);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn the_share_is_that_of_the_last_window() {
        let ms = Duration::from_millis;
        let mut busy = Busy::new(at(0), ms(500));
        assert_eq!(busy.look(at(99), || ms(590)), None);
        assert_eq!(busy.look(at(100), || ms(550)), Some(0.5));
        assert_eq!(busy.look(at(300), || ms(550)), Some(0.0));
        assert_eq!(busy.look(at(500), || ms(750)), Some(1.0));
    }

    #[test]
    fn the_tun_goes_apart_under_load_and_comes_back_in_peace() {
        let mut sharing = Sharing::new(at(0));
        assert_eq!(sharing.judge(at(500), 1.0, 0.0), None);
        assert_eq!(sharing.judge(at(1000), 0.85, 0.0), None);
        assert_eq!(sharing.judge(at(1100), 0.95, 0.0), Some(Place::Apart));
        assert_eq!(sharing.judge(at(1200), 0.1, 0.1), None);
        // The same work, in two halves.
        assert_eq!(sharing.judge(at(2200), 0.4, 0.4), None);
        assert_eq!(sharing.judge(at(2300), 0.2, 0.2), Some(Place::Together));
        assert_eq!(sharing.judge(at(2400), 1.0, 0.0), None);
    }
}
