//! Paths that are much slower than the fastest one: when they are worth it, judged by what they brought.
//!
//! A flow whose packets come in order over two paths waits for the slower one. What it has under way must
//! fill that longer time, or it gets less than the fast path alone would give. So a flow goes by a far path
//! only when its packets wait for the near ones as long as the detour takes (compare ECF, CoNEXT 2017):
//! then nothing comes later for it, and no flow that ends soon ever does. Then the sum that is delivered
//! is compared with what it was before, and a far path that brought nothing rests, each time longer.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::wire::{MAX_PATHS, PathId};

/// A path that takes so much longer than the fastest is not far: such detours are shorter than what a
/// flow waits at times anyway (simulated: two paths 50 ms apart give their sum at once).
const NEAR: Duration = Duration::from_millis(50);
/// No packet waits longer for a near path: one whose detour is longer brings nothing. A satellite
/// that loses packets is 700 ms.
const LONGEST_DETOUR: Duration = Duration::from_millis(800);
/// What is delivered is measured over no less than this, and two round trips.
const LEAST_WINDOW: Duration = Duration::from_secs(1);
/// Far paths bring something when at least this share of what was delivered without them is delivered
/// with them. With 1, chance would end every other trial.
const LEAST_SHARE: f64 = 0.97;
/// After this many windows in a row with less, a trial has failed.
const STRIKES: u8 = 2;
/// How long a path rests after a failed trial. A trial costs a flow 3 to 12 % for some seconds.
const REST: Duration = Duration::from_secs(30);
/// The same for a path that carries more than all others together: there is more to win.
const WIDE_REST: Duration = Duration::from_secs(4);
/// Each further failure makes the rest longer by this factor, until a trial brings something ...
const RESTS_LONGER: u32 = 4;
/// ... up to 4^3 times, which is half an hour.
const MOST_FAILURES: u8 = 3;
/// The same while a path's rate is searched for: it has not shown yet what it brings.
const SEARCHING_STRIKES: u8 = 3;
/// The same for a wide path: a flow's window grows slowly over a long round trip.
const WIDE_STRIKES: u8 = 4;

/// What is sent is measured over no less than this, and a round trip.
const LEAST_WATCH: Duration = Duration::from_millis(200);
/// This share of what the near paths carry is enough: while a queue is drained 15 % less is sent.
const ENOUGH: f64 = 0.8;

/// Whether a path loses some of what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    /// It does not.
    Nothing,
    /// It does.
    Some,
    /// That is not known yet.
    Unknown,
}

/// How long a packet has to have waited for the near paths before one that is slower by `slower`
/// takes it. What a lossy path loses comes a round trip later by another one, so on it the detour is
/// the round trip. From `NEAR` to twice as much it grows from nothing.
pub(super) fn detour(slower: Duration, rtt: Duration, loses: Loses) -> Duration {
    let Some(beyond) = slower.checked_sub(NEAR) else {
        return Duration::ZERO;
    };
    let repaired = rtt.max(slower);
    let whole = match loses {
        Loses::Nothing => slower,
        Loses::Some => repaired,
        Loses::Unknown => (slower + repaired) / 2,
    };
    if beyond >= NEAR {
        return whole;
    }
    whole.mul_f64(beyond.as_secs_f64() / NEAR.as_secs_f64())
}

/// True when the path is not worth a trial.
pub(super) fn is_hopeless(detour: Duration) -> bool {
    detour > LONGEST_DETOUR
}

/// Whether all paths together send at least what the near ones alone would carry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Yields {
    begun: Instant,
    sent: u64,
    low: bool,
}

impl Yields {
    /// All paths together sent so many bytes by now; the near ones alone carry `near` bytes per second.
    /// `rtt` is the round trip of the slowest path in use.
    pub fn on_sent(&mut self, now: Instant, rtt: Duration, sent: u64, near: u64) {
        let age = now.since(self.begun);
        if age < rtt.max(LEAST_WATCH) {
            return;
        }
        let got = sent.saturating_sub(self.sent) as f64 / age.as_secs_f64();
        self.low = got < ENOUGH * near as f64;
        (self.begun, self.sent) = (now, sent);
    }

    /// True when less was sent lately than the near paths alone carry.
    pub fn is_low(&self) -> bool {
        self.low
    }
}

/// The paths that a trial gives more time, a bit for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathSets {
    /// Their rate is still searched for.
    pub searching: u8,
    /// They carry more than all others together.
    pub wide: u8,
}

/// What far paths brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trials {
    /// When this window began, and what had been delivered by then, bytes.
    begun: Instant,
    delivered: u64,
    /// The far paths that carried data in it.
    used: u8,
    /// What came without them last, bytes per second.
    without: f64,
    /// Windows in a row in which less came with them.
    strikes: u8,
    rests_until: [Instant; MAX_PATHS],
    failures: [u8; MAX_PATHS],
}

impl Trials {
    /// A far path carries data.
    pub fn on_used(&mut self, path: PathId) {
        self.used |= path.bit();
    }

    /// True when the path is left out.
    pub fn rests(&self, now: Instant, path: PathId) -> bool {
        now < self.rests_until[path.index()]
    }

    /// All paths together have delivered so many bytes by now. `rtt` is the round trip of the slowest.
    pub fn on_delivered(&mut self, now: Instant, delivered: u64, rtt: Duration, sets: PathSets) {
        let window = LEAST_WINDOW.max(2 * rtt);
        let age = now.since(self.begun);
        if age < window {
            return;
        }
        let rate = delivered.saturating_sub(self.delivered) as f64 / age.as_secs_f64();
        let used = std::mem::take(&mut self.used);
        (self.begun, self.delivered) = (now, delivered);
        if age > 2 * window {
            // Nobody sent for a while.
            self.strikes = 0;
        } else if used == 0 {
            self.without = rate;
            self.strikes = 0;
        } else if rate >= LEAST_SHARE * self.without {
            self.strikes = 0;
            self.judge(used, |_, failures| *failures = 0);
        } else {
            self.strikes += 1;
            let most = if used & sets.wide != 0 {
                WIDE_STRIKES
            } else if used & sets.searching != 0 {
                SEARCHING_STRIKES
            } else {
                STRIKES
            };
            if self.strikes >= most {
                self.strikes = 0;
                let mut fail = |paths, rest: Duration| {
                    self.judge(paths, |until, failures| {
                        *until = now + rest * RESTS_LONGER.pow(u32::from(*failures));
                        *failures = MOST_FAILURES.min(*failures + 1);
                    });
                };
                fail(used & sets.wide, WIDE_REST);
                fail(used & !sets.wide, REST);
            }
        }
    }

    fn judge(&mut self, paths: u8, mut verdict: impl FnMut(&mut Instant, &mut u8)) {
        for path in PathId::all().filter(|path| paths & path.bit() != 0) {
            let at = path.index();
            verdict(&mut self.rests_until[at], &mut self.failures[at]);
        }
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
    fn the_detour_grows_from_nothing_to_the_whole_way() {
        use Loses::{Nothing, Some, Unknown};
        assert_eq!(detour(50 * MS, 120 * MS, Some), Duration::ZERO);
        assert_eq!(detour(75 * MS, 160 * MS, Some), 80 * MS);
        assert_eq!(detour(75 * MS, 160 * MS, Nothing), 75 * MS / 2);
        assert_eq!(detour(285 * MS, 600 * MS, Nothing), 285 * MS);
        assert_eq!(detour(285 * MS, 600 * MS, Unknown), 885 * MS / 2);
        assert_eq!(detour(285 * MS, 600 * MS, Some), 600 * MS);
        assert!(!is_hopeless(800 * MS) && is_hopeless(801 * MS));
    }

    #[test]
    fn what_is_sent_is_compared_with_what_the_near_paths_carry() {
        let mut yields = Yields::default();
        let rtt = 600 * MS;
        // 1 MB/s near, and a flow that sends 2, 0.5 and 1 MB/s.
        let seen = [
            (1_200, 0),
            (1_800, 1_200),
            (2_100, 1_250),
            (2_400, 1_500),
            (3_000, 2_100),
        ]
        .map(|(ms, kilobytes)| {
            yields.on_sent(at(ms), rtt, 1000 * kilobytes, 1_000_000);
            yields.is_low()
        });
        assert_eq!(seen, [true, false, false, true, false]);
    }

    /// Delivers `rates`, one a second; in each of them the far path was used or not. Gives when it
    /// rested.
    fn run(rates: &[(u64, bool)], sets: PathSets) -> Vec<bool> {
        let path = PathId::new(1).unwrap();
        let mut trials = Trials::default();
        let mut delivered = 0;
        let second = |(second, (rate, used)): (usize, &(u64, bool))| {
            if *used {
                trials.on_used(path);
            }
            delivered += rate;
            let now = at(1000 * (second as u64 + 1));
            trials.on_delivered(now, delivered, 300 * MS, sets);
            trials.rests(now, path)
        };
        rates.iter().enumerate().map(second).collect()
    }

    #[test]
    fn what_brings_nothing_rests_longer_each_time() {
        let mut rates = vec![(100, false)];
        rates.extend([(60, true); 4]);
        rates.extend([(100, false); 4]);
        rates.extend([(60, true); 4]);
        rates.extend([(100, false); 16]);
        let wide = PathSets {
            searching: 0,
            wide: 2,
        };
        let rested = run(&rates, wide);
        let expected = (0..rates.len()).map(|n| (4..8).contains(&n) || (12..28).contains(&n));
        assert_eq!(rested, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_narrow_path_rests_longer_and_one_that_is_searched_has_more_time() {
        let mut rates = vec![(100, false), (60, true), (90, true), (90, true)];
        rates.extend([(100, false); 40]);
        let rested_from = |searching, begins: usize| {
            let rested = run(&rates, PathSets { searching, wide: 0 });
            let expected = (0..rates.len()).map(|n| (begins..begins + 30).contains(&n));
            assert_eq!(rested, expected.collect::<Vec<_>>());
        };
        rested_from(0, 2);
        rested_from(2, 3);
    }

    #[test]
    fn what_brings_something_stays() {
        let mut rates = vec![(100, false), (60, true)];
        rates.extend([(101, true), (60, true), (120, true), (98, true)]);
        assert_eq!(run(&rates, PathSets::default()), vec![false; 6]);
    }
}
