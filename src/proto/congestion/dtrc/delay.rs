//! How long the path's own queue is, by the one-way delay.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::OneWayDelay;

/// The least delay is that of the last so many slots ...
const SLOTS: usize = 10;
/// ... of this length: a route that got longer is believed after ten seconds at the latest (as long
/// as BBR believes its least round trip, draft-ietf-ccwg-bbr section 2.13).
const SLOT: Duration = Duration::from_secs(1);
/// What stands is the least delay over no less than this: a few acknowledgements, 5 ms each.
const LEAST_WINDOW: Duration = Duration::from_millis(20);
/// The jitter is an average over about this, seconds, ...
const JITTER_MEMORY: f64 = 1.0;
/// ... of so many times the difference between a sample and the one before: where the delay varies
/// evenly by j to either side, that is j.
const JITTER_SCALE: f64 = 1.5;

/// However rare the samples are, no single one counts for more ...
const MOST_WEIGHT: f64 = 0.125;
/// ... nor does a link that stood still, seconds.
const MOST_CHANGE: f64 = 0.03;

/// The least of the last one to two windows.
#[derive(Debug, Clone, Copy, Default)]
struct Least {
    since: Instant,
    now: Option<OneWayDelay>,
    before: Option<OneWayDelay>,
}

impl Least {
    fn update(&mut self, now: Instant, window: Duration, sample: OneWayDelay) -> OneWayDelay {
        if now.since(self.since) >= window / 2 {
            self.before = self.now.take();
            self.since = now;
        }
        let least = self.now.map_or(sample, |least| least.min(sample));
        self.now = Some(least);
        self.before.map_or(least, |before| before.min(least))
    }
}

/// The delay of a path: what it is without our queue, and what it is now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delay {
    slots: [Option<OneWayDelay>; SLOTS],
    /// Which slot was written last.
    slot: u64,
    least: Least,
    standing: Option<OneWayDelay>,
    /// Mean difference between a sample and the one before, seconds.
    change: f64,
    last: Option<(Instant, OneWayDelay)>,
}

impl Delay {
    /// Takes a sample.
    pub(super) fn on_sample(&mut self, now: Instant, sample: OneWayDelay, srtt: Duration) {
        let slot = now.as_micros() / SLOT.as_micros() as u64;
        let stale = slot.saturating_sub(self.slot).min(SLOTS as u64);
        for old in 0..stale {
            self.slots[((slot - old) % SLOTS as u64) as usize] = None;
        }
        self.slot = self.slot.max(slot);
        let current = &mut self.slots[(slot % SLOTS as u64) as usize];
        *current = Some(current.map_or(sample, |least| least.min(sample)));

        let window = LEAST_WINDOW.max(srtt / 2).max(2 * self.jitter());
        self.standing = Some(self.least.update(now, window, sample));
        if let Some((at, last)) = self.last.replace((now, sample)) {
            let change = sample.since(last).max(last.since(sample)).as_secs_f64();
            let weight = (now.since(at).as_secs_f64() / JITTER_MEMORY).min(MOST_WEIGHT);
            self.change += weight * (change.min(MOST_CHANGE) - self.change);
        }
    }

    /// The queue that stands: none of the last samples saw less.
    pub(super) fn queue(&self) -> Duration {
        let base = self.slots.iter().flatten().min();
        match (self.standing, base) {
            (Some(standing), Some(base)) => standing.since(*base),
            _ => Duration::ZERO,
        }
    }

    /// By how much the delay varies to either side.
    pub(super) fn jitter(&self) -> Duration {
        Duration::from_secs_f64(JITTER_SCALE * self.change)
    }

    /// What stands is not our queue: the way got longer.
    pub(super) fn rebase(&mut self) {
        let standing = self.standing;
        self.slots = [None; SLOTS];
        self.slots[(self.slot % SLOTS as u64) as usize] = standing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRTT: Duration = Duration::from_millis(40);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn owd(ms: i64) -> OneWayDelay {
        OneWayDelay::from_micros(ms * 1000 - 5_000_000)
    }

    #[test]
    fn the_queue_is_what_no_sample_was_below() {
        let mut delay = Delay::default();
        for ms in 0..200 {
            delay.on_sample(at(ms), owd(10), SRTT);
        }
        assert_eq!(delay.queue(), Duration::ZERO);
        for ms in 200..300 {
            delay.on_sample(at(ms), owd(15 + (ms as i64 % 5)), SRTT);
        }
        assert_eq!(delay.queue(), Duration::from_millis(5));
        assert!(delay.jitter() > Duration::from_micros(200), "{delay:?}");
    }

    #[test]
    fn a_longer_way_is_believed_after_ten_seconds_or_when_told() {
        let mut delay = Delay::default();
        delay.on_sample(at(0), owd(10), SRTT);
        for ms in 1..9_900 {
            delay.on_sample(at(ms), owd(22), SRTT);
        }
        assert_eq!(delay.queue(), Duration::from_millis(12));
        let mut told = delay;
        told.rebase();
        assert_eq!(told.queue(), Duration::ZERO);
        for ms in 9_900..11_000 {
            delay.on_sample(at(ms), owd(22), SRTT);
        }
        assert_eq!(delay.queue(), Duration::ZERO);
    }

    #[test]
    fn silence_forgets() {
        let mut delay = Delay::default();
        delay.on_sample(at(0), owd(10), SRTT);
        delay.on_sample(at(60_000), owd(30), SRTT);
        delay.on_sample(at(60_030), owd(30), SRTT);
        assert_eq!(delay.queue(), Duration::ZERO);
    }
}
