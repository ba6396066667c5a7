//! Which losses are the wire's, and which are a policer's: those of a policer (or of a queue too
//! short to be seen as delay) go away when less is sent. Each time the queue is drained a path shows
//! what it loses then; what it loses beyond that at the full rate is dropped because of the rate.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::Arrival;

/// What is lost while draining is averaged over about so many drains.
const DRAINS: f64 = 4.0;
/// A drain shows something of the loss when it sent no less than this, bytes: 70 datagrams.
const LEAST_DRAINED: u64 = 100_000;
/// No path is believed to lose more than this by itself.
const MOST_WIRE_LOSS: f64 = 0.5;
/// More than this is believed only as long as whole rounds lose as much: it may have been a burst.
const MUCH: f64 = 0.1;
/// So much more than one and a half of the wire's own loss, ...
const EXCESS: f64 = 0.05;
const TIMES: f64 = 1.5;
/// (half of that is reason enough to look again) ... in so many rounds, ...
const ROUNDS: u32 = 3;
/// ... each of so many bytes at least, is a policer's.
const LEAST_BYTES: u64 = 30_000;
/// After a policer was found, no more is asked of it for so long (PROTOCOL.md 3.2).
const BELIEVED: Duration = Duration::from_secs(8);

/// Bytes sent and received from one point to another.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    sent: u64,
    received: u64,
}

impl Span {
    fn between(first: &Arrival, last: &Arrival) -> Self {
        Self {
            sent: last.sent.saturating_sub(first.sent),
            received: last.received.saturating_sub(first.received),
        }
    }

    fn lost(self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        (1.0 - self.received as f64 / self.sent as f64).clamp(0.0, 1.0)
    }
}

/// The losses of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// The share that the wire loses, once measured.
    wire: Option<f64>,
    newest: Option<Arrival>,
    round: Option<Arrival>,
    /// Sent between these the path was drained.
    drain: Option<(Instant, Option<Instant>)>,
    drain_from: Option<Arrival>,
    /// In the last drains, since the wire's share was averaged.
    drained: Span,
    /// Rounds in a row with more.
    policed_rounds: u32,
    policed_until: Instant,
    any: bool,
    doubt: bool,
}

impl Losses {
    /// Takes a point.
    pub(super) fn on_arrival(&mut self, arrival: &Arrival) {
        self.newest = Some(*arrival);
        self.round.get_or_insert(*arrival);
        let Some((begun, ended)) = self.drain else {
            return;
        };
        if arrival.sent_at < begun {
            return;
        }
        let first = *self.drain_from.get_or_insert(*arrival);
        if ended.is_some_and(|ended| arrival.sent_at >= ended) {
            let span = Span::between(&first, arrival);
            self.drained.sent += span.sent;
            self.drained.received += span.received;
            if self.drained.sent >= LEAST_DRAINED {
                let lost = self.drained.lost().min(MOST_WIRE_LOSS);
                let wire = self.wire.map_or(lost, |wire| wire + (lost - wire) / DRAINS);
                self.wire = Some(wire);
                self.doubt = false;
                self.drained = Span::default();
            }
            self.drain = None;
            self.drain_from = None;
        }
    }

    /// Draining begins.
    pub(super) fn begin_drain(&mut self, now: Instant) {
        self.drain = Some((now, None));
        self.drain_from = None;
    }

    /// And ends.
    pub(super) fn end_drain(&mut self, now: Instant) {
        if let Some((begun, _)) = self.drain {
            self.drain = Some((begun, Some(now)));
        }
    }

    /// Something was lost lately.
    pub(super) fn any(&self) -> bool {
        self.any || self.wire.is_some_and(|wire| wire > 0.001)
    }

    /// More is lost than the wire was seen to lose: a harder drain will tell.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// The share of what is sent that the wire keeps.
    pub(super) fn kept(&self) -> f64 {
        1.0 - self.wire.unwrap_or(0.0)
    }

    /// A policer was found lately: no more is asked for.
    pub(super) fn is_policed(&self, now: Instant) -> bool {
        now < self.policed_until
    }

    /// A round ended. True when a policer takes a part of what is sent.
    pub(super) fn on_round(&mut self, now: Instant, queued: bool) -> bool {
        let Some(newest) = self.newest else {
            return false;
        };
        let span = Span::between(self.round.get_or_insert(newest), &newest);
        if span.sent < LEAST_BYTES {
            // Too little to say anything: the round goes on.
            return false;
        }
        self.round = Some(newest);
        let lost = span.lost();
        self.any = lost > 0.0;
        if let Some(wire) = &mut self.wire
            && span.sent >= LEAST_DRAINED
            && *wire > MUCH
            && lost < *wire / 2.0
        {
            // A burst in the drain was no sample of the wire.
            *wire -= (*wire - lost) / 2.0;
        }
        let wire = self.wire.unwrap_or(0.0);
        self.doubt |= lost > EXCESS && lost > wire * TIMES + EXCESS / 2.0;
        if queued || self.wire.is_none() || lost < wire * TIMES + EXCESS {
            self.policed_rounds = 0;
            return false;
        }
        self.policed_rounds += 1;
        if self.policed_rounds < ROUNDS {
            return false;
        }
        self.policed_rounds = 0;
        self.policed_until = now + BELIEVED;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire::Stamp;

    /// A link under one controller's rounds of 20 ms: `lost(rate)` of what is sent at 1.0 or, in a
    /// drain each second, 0.85 times 5 MB/s is lost.
    fn run(seconds: u64, lost: impl Fn(f64) -> f64) -> (Losses, bool) {
        let mut losses = Losses::default();
        let (mut sent, mut received) = (0.0, 0.0);
        let mut policed = false;
        for ms in (5..seconds * 1000).step_by(5) {
            let now = Instant::from_micros(ms * 1000);
            match ms % 1000 {
                500 => losses.begin_drain(now),
                530 => losses.end_drain(now),
                _ => {}
            }
            let rate = if (505..=530).contains(&(ms % 1000)) {
                0.85
            } else {
                1.0
            };
            sent += 25_000.0 * rate;
            received += 25_000.0 * rate * (1.0 - lost(rate));
            losses.on_arrival(&Arrival {
                sent_at: now,
                sent: sent as u64,
                received_at: Stamp::of(now),
                received: received as u64,
                limited: 0,
            });
            if ms % 20 == 0 {
                policed |= losses.on_round(now, false);
            }
        }
        (losses, policed)
    }

    #[test]
    fn a_wire_loses_the_same_at_any_rate() {
        let (losses, policed) = run(20, |_| 0.04);
        assert!(!policed);
        assert!((losses.kept() - 0.96).abs() < 0.005, "{}", losses.kept());
    }

    #[test]
    fn a_policer_takes_what_is_too_much() {
        let (losses, policed) = run(3, |rate| (1.0 - 0.8 / rate).max(0.0));
        assert!(policed);
        assert!(losses.is_policed(Instant::from_micros(3_000_000)));
    }
}
