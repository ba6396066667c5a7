//! Queues that are held short: what waited too long is marked (ECN, RFC 3168) where it says that it can
//! be, and dropped where it does not.

use std::time::Duration;

/// How a link's queue is held short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aqm {
    /// CoDel with its usual 5 and 100 ms (RFC 8289 section 4.3).
    CoDel,
    /// All that waited longer than this, as routers of data centres do it (RFC 8257).
    Step(Duration),
}

/// What a link does to ECN besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EcnFault {
    /// What can be marked is dropped.
    DropsCapable,
    /// What can be marked is, always.
    MarksAll,
}

const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// CoDel's state (RFC 8289 section 5.3).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AqmState {
    /// When the queue will have been above target for an interval.
    first_above: Option<Duration>,
    dropping: bool,
    next: Duration,
    count: u32,
    last_count: u32,
}

impl AqmState {
    /// True when the packet that leaves the queue at `now` is to be marked or dropped; `last` says
    /// that none waits behind it.
    pub(super) fn hits(&mut self, aqm: Aqm, now: Duration, waited: Duration, last: bool) -> bool {
        match aqm {
            Aqm::Step(threshold) => waited > threshold,
            Aqm::CoDel => self.codel(now, waited, last),
        }
    }

    fn codel(&mut self, now: Duration, waited: Duration, last: bool) -> bool {
        let above = self.is_above(now, waited, last);
        if self.dropping {
            self.dropping = above;
            if !above || now < self.next {
                return false;
            }
            self.count += 1;
            self.next = control(self.next, self.count);
            return true;
        }
        if !above {
            return false;
        }
        self.dropping = true;
        let delta = self.count - self.last_count;
        let recent = now.saturating_sub(self.next) < 16 * INTERVAL;
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.next = control(now, self.count);
        self.last_count = self.count;
        true
    }

    fn is_above(&mut self, now: Duration, waited: Duration, last: bool) -> bool {
        if waited < TARGET || last {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + INTERVAL)
    }
}

fn control(at: Duration, count: u32) -> Duration {
    at + INTERVAL.div_f64(f64::from(count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Packets each millisecond that waited so long; when one was hit, ms.
    fn hits(aqm: Aqm, waited: Duration) -> Vec<u32> {
        let mut state = AqmState::default();
        (0..500)
            .filter(|ms| state.hits(aqm, MS * *ms, waited, false))
            .collect()
    }

    #[test]
    fn codel_waits_for_an_interval_and_then_hits_more_and_more() {
        assert_eq!(hits(Aqm::CoDel, 4 * MS), [0u32; 0]);
        assert_eq!(
            hits(Aqm::CoDel, 6 * MS),
            [100, 200, 271, 329, 379, 424, 464]
        );
    }

    #[test]
    fn a_step_hits_all_that_waited_longer() {
        assert_eq!(hits(Aqm::Step(MS), MS), [0u32; 0]);
        assert_eq!(hits(Aqm::Step(MS), 2 * MS).len(), 500);
    }
}
