//! Rounds of a path, and how the rate grew in them: a rate that was raised and held, or that leaves the
//! path without a queue while there is more to send, is raised more boldly (C4's cascade of probes);
//! and one that no longer grows, ends the search.

use std::time::Duration;

use crate::proto::Instant;

/// So much more after a round is growth.
const GREW: f64 = 1.03;
/// After so many rounds of growth the gain is the one beside it.
const CASCADE: [(u32, f64); 3] = [(8, 1.5), (4, 1.25), (2, 1.1)];
/// The queue that a bold round may fill where no growth was seen yet, seconds.
const MOST_FILLED: f64 = 0.01;
/// A round is no shorter than the train that its rate is measured by.
const LEAST_ROUND: Duration = Duration::from_millis(40);
/// In the search so much more is expected of a round ...
const SEARCH: f64 = 1.2;
/// ... and so many rounds without end it.
const PATIENCE: u32 = 2;

/// What a round showed at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The source could not give more.
    pub(super) limited: bool,
    /// A queue stands, or more is lost than the wire loses.
    pub(super) full: bool,
    /// There is hardly any.
    pub(super) empty: bool,
}

/// The rounds of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    /// A round ends when something sent after this arrived.
    round: Instant,
    /// The rate at its begin, bytes per second.
    before: f64,
    grew: u32,
    /// Rounds in a row in which the source gave enough and the rate did not grow.
    stuck: u32,
    /// The source was the limit in this round.
    limited: bool,
    /// The rate grew in the last round.
    proven: bool,
    /// The rate was found.
    found: bool,
}

impl Growth {
    /// Takes an acknowledgement of what was sent at `sent_at`; true when a round ended with it.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        sent_at: Instant,
        bandwidth: f64,
        round: Round,
    ) -> bool {
        self.limited |= round.limited;
        if sent_at < self.round || now.since(self.round) < self.least() {
            return false;
        }
        let more = bandwidth / self.before.max(1.0);
        self.proven = more > GREW;
        let room = self.proven || round.empty && !self.limited;
        self.grew = if room && !round.full {
            self.grew + 1
        } else {
            0
        };
        self.stuck = match self.limited {
            true => self.stuck,
            false if more < SEARCH => self.stuck + 1,
            false => 0,
        };
        (self.round, self.before, self.limited) = (now, bandwidth, false);
        true
    }

    /// The least length of a round: in the search the rate doubles each round trip, and its trains
    /// are short.
    fn least(&self) -> Duration {
        if self.found {
            LEAST_ROUND
        } else {
            Duration::ZERO
        }
    }

    /// How boldly to look for more. What has only room for it may fill no more than a short queue
    /// before that is seen, a round trip later.
    pub(super) fn gain(&self, srtt: Duration) -> f64 {
        let bold = CASCADE
            .iter()
            .find(|(rounds, _)| self.grew >= *rounds)
            .map_or(1.0, |(_, gain)| *gain);
        if self.proven {
            return bold;
        }
        bold.min(1.0 + MOST_FILLED / srtt.as_secs_f64().max(MOST_FILLED))
    }

    /// The rate does not grow any more.
    pub(super) fn has_ended(&self) -> bool {
        self.stuck >= PATIENCE
    }

    /// Starts again at this rate.
    pub(super) fn clear(&mut self, now: Instant, bandwidth: f64) {
        *self = Self {
            round: now,
            before: bandwidth,
            grew: self.grew,
            found: true,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// One acknowledgement each round trip of 40 ms, the first one `from` round trips after 1 s.
    fn rounds(growth: &mut Growth, from: u64, rates: &[f64], limited: bool) {
        for (n, rate) in rates.iter().enumerate() {
            let now = 1000 + 40 * (from + n as u64);
            let round = Round {
                limited,
                full: false,
                empty: false,
            };
            growth.on_ack(at(now), at(now - 40), *rate, round);
        }
    }

    #[test]
    fn growth_makes_bold() {
        let mut growth = Growth::default();
        growth.clear(at(960), 100.0);
        rounds(&mut growth, 0, &[104.0], false);
        assert_eq!(growth.gain(Duration::from_millis(40)), 1.0);
        rounds(&mut growth, 1, &[108.5], false);
        assert_eq!(growth.gain(Duration::from_millis(40)), 1.1);
        rounds(&mut growth, 2, &[120.0, 135.0], false);
        assert_eq!(growth.gain(Duration::from_millis(40)), 1.25);
        rounds(&mut growth, 4, &[160.0, 200.0, 250.0, 310.0], false);
        assert_eq!(growth.gain(Duration::from_millis(40)), 1.5);
        rounds(&mut growth, 8, &[311.0], false);
        assert_eq!(growth.gain(Duration::from_millis(40)), 1.0);
    }

    #[test]
    fn the_search_ends_when_nothing_grows_but_not_for_want_of_data() {
        let mut growth = Growth::default();
        rounds(&mut growth, 0, &[100.0, 101.0, 102.0, 102.0], true);
        assert!(!growth.has_ended());
        rounds(&mut growth, 4, &[110.0, 112.0], false);
        assert!(growth.has_ended());
    }
}
