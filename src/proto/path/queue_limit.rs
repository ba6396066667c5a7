//! Keeps the queue that a path builds in its link short, whatever its controller: a loss-based
//! window holds all of the link's buffer, so a greedy scheduler never gets to the next path, and the
//! inner flow sees the first link's losses instead of the second link (the finding behind ACPF,
//! arXiv 2106.16003). What is in flight is held to the rate at which the peer receives, times the
//! least round trip and a little more.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::DATAGRAM;
use crate::proto::wire::Stamp;

/// The queue that a path may build: enough to keep a link busy over the gaps between batches and
/// acknowledgements (5 ms each), short beside any round trip of a home's link.
const QUEUE: Duration = Duration::from_millis(10);
/// The least round trip is believed for so long (BBR's MinRTTFilterLen, draft-ietf-ccwg-bbr 2.13).
const BELIEVED: Duration = Duration::from_secs(10);
/// Then the path is drained for two round trips and this, to see it again.
const DRAIN: Duration = Duration::from_millis(20);
/// A rate is measured over no less than this: some acknowledgements, 5 ms each.
const SAMPLE: Duration = Duration::from_millis(20);
/// The best rate of so long, and of as long before, is the link's.
const BEST_OF: Duration = Duration::from_millis(500);
/// While no queue is seen, so many times the rate may be tried: it doubles each round trip.
const PROBE: u64 = 2;
/// What may always be in flight, bytes: an initial window (RFC 6928), for a flow that begins.
const ALWAYS: u64 = 10 * DATAGRAM;

/// The least round trip and the best rate of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueLimit {
    least: Option<Duration>,
    seen: Instant,
    /// Being drained until then, and the least round trip since it began.
    drain: Option<(Instant, Duration)>,
    /// What the peer had received at a time of its clock.
    anchor: Option<(u32, Stamp)>,
    /// The best rates of this period and of the last one, bytes per second.
    best: u64,
    best_before: u64,
    period: Instant,
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

    /// The peer had received `bytes` (modulo 2^32) in all at `at` of its clock.
    pub(super) fn on_delivered(&mut self, now: Instant, bytes: u32, at: Stamp) {
        let Some((bytes_before, before)) = self.anchor else {
            self.anchor = Some((bytes, at));
            return;
        };
        let time = at.since(before);
        if time < SAMPLE {
            return;
        }
        self.anchor = Some((bytes, at));
        if now.since(self.period) >= BEST_OF {
            (self.best_before, self.best, self.period) = (self.best, 0, now);
        }
        let delivered = u64::from(bytes.wrapping_sub(bytes_before));
        self.best = self.best.max(delivered * 1_000_000 / micros(time));
    }

    /// How much of `window` bytes may be in flight.
    pub(super) fn apply(&self, window: u64, srtt: Option<Duration>) -> u64 {
        let (Some(least), Some(srtt)) = (self.least, srtt) else {
            return window;
        };
        let rate = self.best.max(self.best_before);
        let bytes_in = |time: Duration| rate.saturating_mul(micros(time)) / 1_000_000;
        let limit = if self.drain.is_some() {
            bytes_in(least / 2).max(DATAGRAM)
        } else if srtt > least + QUEUE {
            bytes_in(least + QUEUE).max(ALWAYS)
        } else {
            (PROBE * bytes_in(least + QUEUE)).max(ALWAYS)
        };
        window.min(limit)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LARGE: u64 = 1 << 30;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// A path that brings 2,500 bytes a millisecond (20 Mbit/s) with this round trip.
    fn deliver(limit: &mut QueueLimit, ms: std::ops::Range<u64>, rtt: u32) {
        for ms in ms.step_by(10) {
            limit.on_rtt(at(ms), rtt * MS);
            limit.on_delivered(at(ms), (ms * 2500) as u32, Stamp::of(at(ms)));
        }
    }

    #[test]
    fn a_queue_is_held_to_ten_milliseconds() {
        let mut limit = QueueLimit::default();
        assert_eq!(limit.apply(LARGE, None), LARGE);
        deliver(&mut limit, 0..1000, 20);
        assert_eq!(limit.apply(LARGE, Some(25 * MS)), 2 * 75_000);
        assert_eq!(limit.apply(LARGE, Some(31 * MS)), 75_000);
        assert_eq!(limit.apply(50_000, Some(31 * MS)), 50_000);
    }

    #[test]
    fn a_path_that_was_idle_begins_with_an_initial_window() {
        let mut limit = QueueLimit::default();
        limit.on_rtt(at(0), 20 * MS);
        assert_eq!(limit.apply(LARGE, Some(20 * MS)), ALWAYS);
    }

    #[test]
    fn a_longer_way_is_believed_after_a_while() {
        let mut limit = QueueLimit::default();
        deliver(&mut limit, 0..1000, 20);
        deliver(&mut limit, 1000..10_990, 60);
        assert_eq!(limit.apply(LARGE, Some(60 * MS)), 75_000);
        // Drained now, so that its own queue is not taken for the way.
        deliver(&mut limit, 10_990..11_100, 60);
        assert_eq!(limit.apply(LARGE, Some(60 * MS)), 25_000);
        deliver(&mut limit, 11_100..11_300, 55);
        assert_eq!(limit.apply(LARGE, Some(60 * MS)), 2 * 65 * 2500);
    }
}
