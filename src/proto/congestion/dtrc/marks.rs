//! What marks say (ECN): the link's AQM holds its queue for too long, and knows it, where the one-way
//! delay only lets it be guessed. The queue to keep is then shorter than ours, and what is too much of it
//! is drained in a round trip; no more than that, so that the link does not run dry.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::congestion::CeEvent;

/// After a mark this share of the queue that met it is kept: that of CUBIC's window (RFC 9438 section 4.6).
const KEPT: f64 = 0.7;
/// But no less than this: below it there is nothing to keep, for datagrams leave in bursts of up to 1 ms.
const LEAST_QUEUE: Duration = Duration::from_micros(300);
/// A round without marks lets so much more stand: what one mark took is back after twelve.
const REGAIN: f64 = 1.03;
/// The gain while a queue is drained after a mark: less than one also where no queue is seen, for what
/// is held for the delay without it may have one in it; ...
const MOST_GAIN: f64 = 0.97;
/// ... and no less than that of a drain.
const LEAST_GAIN: f64 = 0.85;
/// A round in which this share was marked has a queue that our rate fills.
const MOSTLY: f64 = 0.5;

/// The marks of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// Marks of what was sent before this belong to the last reaction.
    reacted: Option<Instant>,
    /// Less is sent until then: this many times as much as the path delivers.
    drain: Option<(Instant, f64)>,
    /// The queue to keep at most, seconds.
    cap: Option<f64>,
    /// In this round.
    marked: u64,
    of: u64,
}

impl Marks {
    /// Takes marks. True when they are the first of a round trip: then less is to be sent.
    pub(super) fn on_ce(
        &mut self,
        ce: &CeEvent,
        queue: Duration,
        target: Duration,
        srtt: Duration,
    ) -> bool {
        self.marked += ce.marked;
        self.of += ce.of;
        if self.reacted.is_some_and(|at| ce.newest_sent <= at) {
            return false;
        }
        self.reacted = Some(ce.now);
        let queue = queue.as_secs_f64();
        let cap = KEPT * queue.min(self.target(target).as_secs_f64());
        let cap = cap.max(LEAST_QUEUE.as_secs_f64());
        self.cap = Some(cap);
        let too_much = (queue - cap) / srtt.as_secs_f64().max(LEAST_QUEUE.as_secs_f64());
        let gain = (1.0 - too_much).clamp(LEAST_GAIN, MOST_GAIN);
        self.drain = Some((ce.now + srtt, gain));
        true
    }

    /// A round ended.
    pub(super) fn on_round(&mut self, target: Duration) {
        if self.marked == 0
            && let Some(cap) = self.cap
        {
            let cap = cap * REGAIN;
            self.cap = (cap < target.as_secs_f64()).then_some(cap);
        }
        (self.marked, self.of) = (0, 0);
    }

    /// Something was marked in this round.
    pub(super) fn any(&self) -> bool {
        self.marked > 0
    }

    /// Most of what came in this round was.
    pub(super) fn mostly(&self) -> bool {
        self.marked as f64 > MOSTLY * self.of as f64
    }

    /// The queue to keep, where without marks it would be this.
    pub(super) fn target(&self, target: Duration) -> Duration {
        self.cap
            .map_or(target, |cap| target.min(Duration::from_secs_f64(cap)))
    }

    /// The gain, at most.
    pub(super) fn most_gain(&self, now: Instant) -> f64 {
        self.drain
            .filter(|(until, _)| now < *until)
            .map_or(f64::INFINITY, |(_, gain)| gain)
    }
}
