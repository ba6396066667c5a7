//! Keeps the queue that a path builds in its link short, whatever its controller: a loss-based
//! window holds all of the link's buffer, so a greedy scheduler never gets to the next path, and the
//! inner flow sees the first link's losses instead of the second link (the finding behind ACPF,
//! arXiv 2106.16003, which shrinks the window while the round trip is long, too).

use std::time::Duration;

use crate::proto::Instant;

/// The queue that a path may build: enough to keep a link busy over the gaps between batches and
/// acknowledgements (5 ms each), short beside any round trip of a home's link.
const QUEUE: Duration = Duration::from_millis(10);
/// The least round trip is believed for so long (BBR's MinRTTFilterLen, draft-ietf-ccwg-bbr 2.13).
const BELIEVED: Duration = Duration::from_secs(10);
/// Then the path is drained for two round trips and this, to see it anew.
const DRAIN: Duration = Duration::from_millis(20);

/// The least round trip of late, and what of a window may be used in view of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueLimit {
    least: Option<Duration>,
    seen: Instant,
    /// Being drained until then, and the least round trip since it began.
    drain: Option<(Instant, Duration)>,
}

impl QueueLimit {
    /// Takes a round trip.
    pub(super) fn on_rtt(&mut self, now: Instant, sample: Duration) {
        if let Some((until, least)) = self.drain {
            let least = least.min(sample);
            self.drain = Some((until, least));
            if now >= until {
                (self.least, self.seen, self.drain) = (Some(least), now, None);
            }
        }
        if self.least.is_none_or(|least| sample <= least) {
            (self.least, self.seen, self.drain) = (Some(sample), now, None);
        } else if self.drain.is_none() && now.since(self.seen) >= BELIEVED {
            self.drain = Some((now + 2 * sample + DRAIN, sample));
        }
    }

    /// How much of `window` bytes may be in flight. A full window is the link's rate times the round
    /// trip, so the part of it that belongs to the least round trip, and a little queue, is left.
    pub(super) fn apply(&self, window: u64, srtt: Option<Duration>) -> u64 {
        let (Some(least), Some(srtt)) = (self.least, srtt) else {
            return window;
        };
        let wanted = if self.drain.is_some() {
            least / 2
        } else {
            least + QUEUE
        };
        if srtt <= wanted {
            return window;
        }
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        window.saturating_mul(micros(wanted)) / micros(srtt).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn a_long_round_trip_leaves_a_part_of_the_window() {
        let mut limit = QueueLimit::default();
        assert_eq!(limit.apply(1000, None), 1000);
        limit.on_rtt(at(0), 20 * MS);
        assert_eq!(limit.apply(1000, Some(25 * MS)), 1000);
        assert_eq!(limit.apply(1000, Some(60 * MS)), 500);
    }

    #[test]
    fn a_longer_way_is_believed_after_a_while() {
        let mut limit = QueueLimit::default();
        for ms in (0..1000).step_by(10) {
            limit.on_rtt(at(ms), 20 * MS);
        }
        for ms in (1000..10_990).step_by(10) {
            limit.on_rtt(at(ms), 60 * MS);
            assert_eq!(limit.apply(1200, Some(60 * MS)), 600);
        }
        // Drained now, so that its own queue is not taken for the way.
        for ms in (10_990..11_100).step_by(10) {
            limit.on_rtt(at(ms), 60 * MS);
            assert_eq!(limit.apply(1200, Some(60 * MS)), 200);
        }
        for ms in (11_100..11_200).step_by(10) {
            limit.on_rtt(at(ms), 55 * MS);
        }
        assert_eq!(limit.apply(1200, Some(60 * MS)), 1200);
    }
}
