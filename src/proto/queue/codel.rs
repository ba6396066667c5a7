//! CoDel (RFC 8289): drops at the head when packets stayed too long for too long.

use std::time::Duration;

use super::target::Target;
use crate::proto::Instant;

/// The state of one queue (RFC 8289 section 5).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Codel {
    /// When dropping begins if the sojourn stays above the target.
    first_above: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    count: u32,
    last_count: u32,
}

impl Codel {
    /// Judges the packet at the head: true when it is to be dropped, then the next head is judged.
    /// `lone`: there is none behind it, so dropping helps nobody.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        sojourn: Duration,
        lone: bool,
        target: Target,
    ) -> bool {
        let above = self.is_above(now, sojourn, lone, target);
        if self.dropping {
            if !above {
                self.dropping = false;
            } else if now >= self.drop_next {
                self.count += 1;
                self.drop_next += self.pause(target);
                return true;
            }
            return false;
        }
        if !above {
            return false;
        }
        self.dropping = true;
        // Soon after the last time, start near the rate that held the queue then.
        let recent = now.since(self.drop_next) < 16 * target.interval;
        let delta = self.count - self.last_count;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = now + self.pause(target);
        true
    }

    fn is_above(&mut self, now: Instant, sojourn: Duration, lone: bool, target: Target) -> bool {
        if sojourn < target.sojourn || lone {
            self.first_above = None;
            return false;
        }
        let first = *self.first_above.get_or_insert(now + target.interval);
        now >= first
    }

    fn pause(&self, target: Target) -> Duration {
        target.interval.div_f64(f64::from(self.count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TARGET: Target = Target {
        sojourn: Duration::from_millis(5),
        interval: Duration::from_millis(100),
    };

    #[test]
    fn drops_faster_and_faster_after_an_interval() {
        let mut codel = Codel::default();
        let drops: Vec<u64> = (0..500)
            .filter(|ms| codel.judge(Instant::from_micros(ms * 1000), 20 * MS, false, TARGET))
            .collect();
        // 100, then pauses of 100, 71, 58, 50 ... ms.
        assert_eq!(drops, [100, 200, 271, 329, 379, 424, 464]);
    }

    #[test]
    fn a_burst_that_drains_is_left_alone() {
        let mut codel = Codel::default();
        for ms in 0..1000 {
            let sojourn = if ms % 90 == 0 { MS } else { 50 * MS };
            assert!(!codel.judge(Instant::from_micros(ms * 1000), sojourn, false, TARGET));
        }
    }
}
