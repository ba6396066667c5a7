//! How long the path's own queue is, by the one-way delay.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::OneWayDelay;

/// The least delay is that of the last so many slots ...
const SLOTS: usize = 10;
/// ... of this length: a route that got longer is believed after ten seconds at the latest (as long
/// as BBR believes its least round trip, draft-ietf-ccwg-bbr section 2.13).
const SLOT: Duration = Duration::from_secs(1);
/// After a pause of this length nothing from before it is believed: clocks drift apart by up to 100 ppm, 6 ms
/// in this time.
const BELIEVED: Duration = Duration::from_secs(60);
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
/// The range of the delay of sparse packets counts as jitter up to this; more is a queue. The widest jitter
/// of the simulator's sweep, 40 ms to either side, has a range of 80 ms.
const MOST_RANGE: Duration = Duration::from_millis(120);

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

/// The least and the most delay of the last ten seconds in which there were samples.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    slots: [Option<(OneWayDelay, OneWayDelay)>; SLOTS],
    /// Which slot is written.
    slot: usize,
    /// How much time with samples it covers.
    covers: Duration,
    last: Option<Instant>,
}

impl Bounds {
    fn update(&mut self, now: Instant, sample: OneWayDelay) {
        let pause = self.last.map_or(Duration::ZERO, |last| now.since(last));
        self.last = Some(now);
        if pause >= BELIEVED {
            self.slots = [None; SLOTS];
        }
        self.covers += pause.min(SLOT);
        if self.covers >= SLOT {
            self.covers = Duration::ZERO;
            self.slot = (self.slot + 1) % SLOTS;
            self.slots[self.slot] = None;
        }
        let slot = &mut self.slots[self.slot];
        *slot = Some(slot.map_or((sample, sample), |(least, most)| {
            (least.min(sample), most.max(sample))
        }));
    }

    fn least(&self) -> Option<OneWayDelay> {
        self.slots.iter().flatten().map(|(least, _)| *least).min()
    }

    fn most(&self) -> Option<OneWayDelay> {
        self.slots.iter().flatten().map(|(_, most)| *most).max()
    }

    /// Time since the last sample.
    fn pause(&self, now: Instant) -> Duration {
        self.last.map_or(Duration::MAX, |last| now.since(last))
    }
}

/// The delay of a path: what it is without our queue, and what it is now.
///
/// A link whose jitter keeps the order delays each packet of a dense flow by nearly the most, because each
/// waits for the slowest one before it. A sparse packet meets any delay between the least and the most. So
/// the delay of a dense flow is compared with the least that dense flows saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delay {
    /// Of a dense flow.
    dense: Bounds,
    /// Of packets that meet no others: probes, and flows that send now and then.
    sparse: Bounds,
    least: Least,
    standing: Option<OneWayDelay>,
    /// Mean difference between a sample and the one before, seconds.
    change: f64,
    last: Option<(Instant, OneWayDelay)>,
}

impl Delay {
    /// Takes a sample, of a dense flow or not.
    pub(super) fn on_sample(
        &mut self,
        now: Instant,
        sample: OneWayDelay,
        srtt: Duration,
        dense: bool,
    ) {
        if dense {
            self.dense.update(now, sample);
        } else if self.dense.pause(now) >= SLOT {
            // Earlier a sparse packet would still meet what the dense flow left behind.
            self.sparse.update(now, sample);
            if self.dense.pause(now) >= BELIEVED {
                self.dense = Bounds::default();
            }
        }
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
        let base = self.dense.least().or_else(|| self.sparse.least());
        match (self.standing, base) {
            (Some(standing), Some(base)) => standing.since(base),
            _ => Duration::ZERO,
        }
    }

    /// By how much the delay varies to either side.
    pub(super) fn jitter(&self) -> Duration {
        Duration::from_secs_f64(JITTER_SCALE * self.change)
    }

    /// The range of the delay of sparse packets, which fill no queue.
    pub(super) fn range(&self) -> Duration {
        match (self.sparse.least(), self.sparse.most()) {
            (Some(least), Some(most)) => most.since(least).min(MOST_RANGE),
            _ => Duration::ZERO,
        }
    }

    /// What stands is not our queue: the way got longer.
    pub(super) fn rebase(&mut self) {
        self.dense.slots = [None; SLOTS];
        self.dense.slots[self.dense.slot] = self.standing.map(|standing| (standing, standing));
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
            delay.on_sample(at(ms), owd(10), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::ZERO);
        for ms in 200..300 {
            delay.on_sample(at(ms), owd(15 + (ms as i64 % 5)), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::from_millis(5));
        assert!(delay.jitter() > Duration::from_micros(200), "{delay:?}");
    }

    #[test]
    fn a_longer_way_is_believed_after_ten_seconds_or_when_told() {
        let mut delay = Delay::default();
        delay.on_sample(at(0), owd(10), SRTT, true);
        for ms in 1..9_900 {
            delay.on_sample(at(ms), owd(22), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::from_millis(12));
        let mut told = delay;
        told.rebase();
        assert_eq!(told.queue(), Duration::ZERO);
        for ms in 9_900..11_000 {
            delay.on_sample(at(ms), owd(22), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::ZERO);
    }

    /// Field row E: over a link with jitter of 80 ms sparse packets take between 10 and 90 ms, those of a
    /// dense flow nearly 90 ms all the time.
    #[test]
    fn what_a_dense_flow_waits_on_a_link_with_jitter_is_no_queue() {
        let mut delay = Delay::default();
        for n in 0..20 {
            delay.on_sample(at(200 * n), owd(10 + 37 * n as i64 % 80), SRTT, false);
        }
        assert!(delay.range() > Duration::from_millis(70), "{delay:?}");
        for ms in 4_000..10_000 {
            delay.on_sample(at(ms), owd(84 + ms as i64 % 7), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::ZERO);
        // A flow that pauses now and then does not lower what is expected of a dense one.
        delay.on_sample(at(10_010), owd(12), SRTT, false);
        for ms in 10_200..10_500 {
            delay.on_sample(at(ms), owd(90), SRTT, true);
        }
        assert_eq!(delay.queue(), Duration::from_millis(6));
    }

    #[test]
    fn silence_forgets() {
        let mut delay = Delay::default();
        delay.on_sample(at(0), owd(10), SRTT, true);
        delay.on_sample(at(60_000), owd(30), SRTT, true);
        delay.on_sample(at(60_030), owd(30), SRTT, true);
        assert_eq!(delay.queue(), Duration::ZERO);
    }
}
