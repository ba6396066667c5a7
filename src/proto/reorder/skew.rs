//! How late a path's datagrams come, by the peer's send times and our clock: the clocks' offset
//! cancels, because only times of one sender are compared.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::wire::Stamp;

/// The worst of this long, and of the period before it, is kept.
const PERIOD: Duration = Duration::from_millis(500);

/// A path that brought nothing for so long says nothing of the delay any more: one that lives is asked
/// every second. Clocks that drift apart by 100 ppm are 0.3 ms off by then; after hours it were all
/// of the longest wait.
const STALE: Duration = Duration::from_secs(3);

/// A path carries little when it brings fewer datagrams than this in a period (40 a second): probes and pings.
const QUIET: u32 = 20;
/// What it showed then is believed for this time.
const QUIET_FOR: Duration = Duration::from_secs(10);

/// The arrivals of one path against the peer's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skew {
    latest: Option<Stamp>,
    period_start: Instant,
    /// The longest one-way delay of this period and of the last one, microseconds, with the
    /// clocks' unknown offset.
    worst: Option<i64>,
    worst_before: Option<i64>,
    /// The shortest ones.
    least: Option<i64>,
    least_before: Option<i64>,
    /// Datagrams that came in this period.
    count: u32,
    /// The longest one-way delay of a period with few of them, and when that was.
    quiet: Option<(Instant, i64)>,
}

impl Skew {
    /// A datagram sent at `sent` (peer's clock) came now.
    pub(super) fn on_arrival(&mut self, now: Instant, sent: Stamp) {
        self.latest = self.latest.max(Some(sent));
        let age = now.since(self.period_start);
        if age >= STALE {
            (self.worst, self.least) = (None, None);
        }
        if age >= PERIOD {
            if let Some(worst) = self.worst
                && self.count < QUIET
                && self
                    .quiet
                    .is_none_or(|(at, quiet)| worst > quiet || now.since(at) >= QUIET_FOR)
            {
                self.quiet = Some((now, worst));
            }
            self.count = 0;
            self.worst_before = self.worst.take();
            self.least_before = self.least.take();
            self.period_start = now;
        }
        self.count += 1;
        let delay = now.as_micros() as i64 - sent.as_micros() as i64;
        self.worst = self.worst.max(Some(delay));
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
    }

    /// Forgets the delays: the offset of the clocks is another one.
    pub(super) fn forget_delays(&mut self) {
        *self = Self {
            latest: self.latest,
            ..Self::default()
        };
    }

    /// True when the path, being FIFO, can bring nothing more that was sent at `sent` or before.
    pub(super) fn has_passed(&self, sent: Stamp) -> bool {
        // Not `>=`: a batch shares one send time.
        self.latest.is_some_and(|latest| latest > sent)
    }

    /// When something sent at `sent` should have come at the latest, by our clock.
    pub(super) fn expected_by(&self, sent: Stamp) -> Option<Instant> {
        after(sent, self.worst.max(self.worst_before)?)
    }

    /// The same, by the longest delay of the last ten seconds in which the path carried little: that includes
    /// jitter, but no queue of ours.
    pub(super) fn due_when_quiet(&self, now: Instant, sent: Stamp) -> Option<Instant> {
        let (_, delay) = self.quiet.filter(|(at, _)| now.since(*at) < QUIET_FOR)?;
        after(sent, delay)
    }

    /// When something sent at `sent` could come at the soonest, if the path brought anything lately.
    pub(super) fn soonest(&self, now: Instant, sent: Stamp) -> Option<Instant> {
        if now.since(self.period_start) >= STALE {
            return None;
        }
        let least = [self.least, self.least_before]
            .into_iter()
            .flatten()
            .min()?;
        after(sent, least)
    }
}

fn after(sent: Stamp, delay: i64) -> Option<Instant> {
    let micros = (sent.as_micros() as i64).checked_add(delay)?;
    u64::try_from(micros).ok().map(Instant::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_the_clocks_cancels() {
        let peer = |ms: u64| Stamp::of(Instant::from_micros(5_000_000 + ms * 1000));
        let mut skew = Skew::default();
        assert!(!skew.has_passed(peer(0)));
        assert_eq!(skew.expected_by(peer(0)), None);
        for ms in 0..100 {
            skew.on_arrival(Instant::from_micros((ms + 20 + ms % 7) * 1000), peer(ms));
        }
        assert!(skew.has_passed(peer(98)));
        assert!(!skew.has_passed(peer(99)));
        assert_eq!(
            skew.expected_by(peer(100)),
            Some(Instant::from_micros(126_000))
        );
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        assert_eq!(skew.soonest(at(130), peer(100)), Some(at(120)));
        // What was seen long ago means nothing any more, not even when the path is back.
        assert_eq!(skew.soonest(at(3200), peer(100)), None);
        skew.on_arrival(at(3300), peer(3250));
        assert_eq!(skew.soonest(at(3300), peer(3250)), Some(at(3300)));
        assert_eq!(skew.expected_by(peer(3250)), Some(at(3300)));
    }

    #[test]
    fn what_a_quiet_path_showed_is_believed_for_ten_seconds() {
        let peer = |ms: u64| Stamp::of(Instant::from_micros(5_000_000 + ms * 1000));
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut skew = Skew::default();
        let mut arrive = |ms: u64, delay: u64| skew.on_arrival(at(ms + delay), peer(ms));
        // Probes with jitter, then a flow with a queue.
        (0..10).for_each(|n| arrive(1000 + 200 * n, 20 + 7 * (n % 5)));
        (0..2000).for_each(|ms| arrive(3000 + ms, 90));
        assert_eq!(skew.due_when_quiet(at(5090), peer(5000)), Some(at(5048)));
        assert_eq!(skew.due_when_quiet(at(14_000), peer(13_900)), None);
    }
}
