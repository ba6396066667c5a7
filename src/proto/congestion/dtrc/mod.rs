//! DTRC, delay-target rate control (PROTOCOL.md 3.2): sends at the rate at which the path delivers,
//! and keeps a queue of a few milliseconds in it. What the path delivers is measured by the
//! receiver's clock, the queue by the one-way delay; neither loss nor jitter nor a slow way back is
//! taken for congestion. The family: C4 (draft-huitema-ccwg-c4), Copa (NSDI 2018), BBR.

mod delay;
mod growth;
mod loss;
mod marks;
mod train;

use std::time::Duration;

use super::{AckEvent, CeEvent, Controller, DATAGRAM, Estimate, LossEvent, OneWayDelay};
use crate::proto::Instant;
use delay::Delay;
use growth::{Growth, Round};
use loss::Losses;
use marks::Marks;
use train::{Rates, Train};

/// The first rate: so many datagrams a round trip. Ten are TCP's initial window (RFC 6928).
const FIRST: u64 = 16;
/// The round trip assumed for it before there is one.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// But no less than this, bytes per second, however long the round trip is: 2 Mbit/s. A flow's first ten
/// packets then leave within 30 ms; what they wait longer looks to CUBIC like a queue that grows, and
/// ends its slow start (over 330 ms at 144 packets, simulated).
const LEAST_FIRST: f64 = 250_000.0;
/// The window always holds so many datagrams.
const LEAST_WINDOW: u64 = 16 * DATAGRAM;
/// The least rate, bytes per second: one datagram in 100 ms.
const LEAST_RATE: f64 = 14_400.0;
/// The search for the rate doubles it each round trip (BBR: 2.77; C4: 2).
const STARTUP_GAIN: f64 = 2.0;
/// It ends at this queue at the latest.
const STARTUP_QUEUE: Duration = Duration::from_millis(10);
/// Where the train arrived this much slower than it was sent; else at this many times the queue.
const STARTUP_DISPERSION: f64 = 0.25;
const STARTUP_TIMES: u32 = 3;
/// Or when this share of no less than so many bytes was lost: a link that loses 5 % by itself is not
/// taken for a full one.
const STARTUP_LOSS: f64 = 0.2;
const STARTUP_BYTES: u64 = 60_000;
/// The queue to keep: timers of a busy router are 1 ms late, acknowledgements come each 5 ms.
const TARGET: Duration = Duration::from_millis(3);
/// On a slow link so many datagrams are kept.
const TARGET_DATAGRAMS: f64 = 2.0;
/// With jitter more is kept, but no more than this.
const MOST_TARGET: Duration = Duration::from_millis(15);
/// So much beyond the target, a queue stands.
const TOLERANCE: Duration = Duration::from_millis(4);
/// What the tolerance may grow by for jitter.
const MOST_TOLERANCE: Duration = Duration::from_millis(12);
/// Half of the queue's error is worked off in a round trip ...
const STIFFNESS: f64 = 0.5;
/// ... of no less than this.
const LEAST_RTT: f64 = 0.03;
/// The gain's bounds while the rate is known.
const LEAST_GAIN: f64 = 0.5;
const PROBE_GAIN: f64 = 1.04;
/// A train of datagrams is no shorter; half a round trip is taken where that is longer.
const LEAST_TRAIN: Duration = Duration::from_millis(40);
/// In the search, where the queue grows quickly: and no longer than the burst of a slow start, or the rate
/// that is found falls behind its own.
const STARTUP_TRAIN: Duration = Duration::from_millis(10);
const MOST_STARTUP_TRAIN: Duration = Duration::from_millis(50);
/// Over a round trip longer than this a drained queue is seen too late for the rate of a train that
/// arrived faster than it was sent.
const LONG_RTT: Duration = Duration::from_millis(150);
/// A train is so many times as long as the jitter.
const TRAIN_JITTER: u32 = 5;
/// Arriving slower (or faster) by more than this than it was sent, a train fills (or drains) the
/// queue: then it arrives at the link's own rate.
const DISPERSION: f64 = 0.03;
/// The queue is drained no more often than this, and than in so many round trips: what the delay is
/// without it has to be seen again and again, or the target creeps upwards with it.
const DRAIN_EVERY: Duration = Duration::from_secs(1);
const DRAIN_ROUNDS: u32 = 10;
/// At this gain (harder where a policer is suspected: one that takes a third shows it then), for one and
/// a half round trips or until the queue is nearly gone.
const DRAIN_GAIN: f64 = 0.85;
const DOUBT_GAIN: f64 = 0.6;
const DRAINED: Duration = Duration::from_micros(800);
/// A queue that stands for so long (and four round trips), or is so much longer than it should be
/// when a drain is due, is put to the test: is it ours?
const STANDS: Duration = Duration::from_millis(250);
const SUSPICIOUS: Duration = Duration::from_millis(1);
/// For so long, in round trips, so much less is sent.
const TEST_ROUNDS: u32 = 2;
const TEST_GAIN: f64 = 0.75;
/// It is not, when less than this share of what the test had to drain went away.
const OURS: f64 = 0.3;
/// What passes a policer, a little less.
const BELOW_POLICER: f64 = 0.98;
/// The window: beyond the round trip, for acknowledgements that come late or in clumps.
const SLACK: Duration = Duration::from_millis(60);
/// A round trip counts at most so much more than the least.
const MOST_QUEUE: Duration = Duration::from_millis(250);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// The rate is not known yet.
    Startup,
    /// It is.
    Steady,
    /// The queue is being drained until then, to see the delay without it.
    Drain { until: Instant },
    /// The same harder.
    Test { until: Instant },
}

/// The controller.
#[derive(Debug)]
pub struct Dtrc {
    /// What the path delivers, bytes per second; zero: nothing is known.
    bandwidth: f64,
    gain: f64,
    /// The rate to send at and that of the path, bytes per second, and the window, bytes: of the last
    /// acknowledgement.
    rate: u64,
    window: u64,
    delivers: u64,
    phase: Phase,
    delay: Delay,
    train: Train,
    growth: Growth,
    losses: Losses,
    marks: Marks,
    /// The rate of the search, bytes per second, when it last took the delay for that of an empty queue.
    rebased_at: f64,
    /// What the last train showed of the link's own rate: it arrived more slowly than it was sent.
    link: Option<f64>,
    srtt: Duration,
    min_rtt: Duration,
    next_drain: Instant,
    /// Since when a queue stands.
    stands: Option<Instant>,
    trial: Option<Trial>,
}

/// What becomes of the queue when less is sent: seen a round trip later.
#[derive(Debug, Clone, Copy)]
struct Trial {
    begun: Instant,
    /// The queue before the first that was sent more slowly arrived.
    before: Option<Duration>,
    /// The shortest since then.
    after: Option<Duration>,
    /// The source gave less than the trial let through: it says nothing.
    void: bool,
}

impl Default for Dtrc {
    fn default() -> Self {
        Self {
            bandwidth: 0.0,
            gain: STARTUP_GAIN,
            rate: 0,
            window: 0,
            delivers: 0,
            phase: Phase::Startup,
            delay: Delay::default(),
            train: Train::default(),
            growth: Growth::default(),
            losses: Losses::default(),
            marks: Marks::default(),
            rebased_at: 0.0,
            link: None,
            srtt: Duration::ZERO,
            min_rtt: Duration::ZERO,
            next_drain: Instant::default(),
            stands: None,
            trial: None,
        }
    }
}

impl Dtrc {
    /// The queue to keep.
    fn target(&self) -> Duration {
        let datagrams = if self.bandwidth > 0.0 {
            TARGET_DATAGRAMS * DATAGRAM as f64 / self.bandwidth
        } else {
            0.0
        };
        let jitter = self.delay.jitter() * 3 / 2;
        let most = MOST_TARGET.as_secs_f64();
        TARGET
            .max(jitter.min(MOST_TARGET))
            .max(Duration::from_secs_f64(datagrams.min(most)))
    }

    /// The same where the link's own AQM wants a shorter one.
    fn aim(&self) -> Duration {
        self.marks.target(self.target())
    }

    /// The queue beyond which too much is sent.
    fn threshold(&self) -> Duration {
        self.target() + TOLERANCE.max((self.delay.jitter() * 3 / 2).min(MOST_TOLERANCE))
    }

    /// True when the source gave so much that its packets met each other on the way.
    fn is_dense(&self, rates: &Rates) -> bool {
        !rates.limited || rates.sent > LEAST_GAIN * self.bandwidth
    }

    fn train_length(&self) -> Duration {
        let half = self.srtt / 2;
        let length = if self.phase == Phase::Startup {
            half.clamp(STARTUP_TRAIN, MOST_STARTUP_TRAIN)
        } else {
            half.max(LEAST_TRAIN)
        };
        length.max(self.delay.jitter() * TRAIN_JITTER)
    }

    fn enter_steady(&mut self, now: Instant) {
        self.phase = Phase::Steady;
        self.next_drain = now + DRAIN_EVERY.max(DRAIN_ROUNDS * self.srtt);
        self.growth.clear(now, self.bandwidth);
    }

    fn on_rates(&mut self, now: Instant, rates: Rates) {
        let queue = self.delay.queue();
        let received = rates.received / self.losses.kept();
        let delivered = received.min(rates.sent);
        let noise = self.delay.jitter().as_secs_f64() / rates.length;
        self.link = (rates.dispersion > 1.0 + noise && !rates.limited).then_some(received);
        if self.phase == Phase::Startup {
            self.bandwidth = self.bandwidth.max(delivered).max(first(self.srtt));
            if self.bandwidth > 2.0 * self.rebased_at {
                // The path delivers twice what it did then, so it was not full: the delay is no queue.
                self.rebased_at = self.bandwidth;
                self.delay.rebase();
            }
            let limit = STARTUP_QUEUE.max(self.threshold());
            let slower = rates.dispersion > 1.0 + STARTUP_DISPERSION + 2.0 * noise;
            // Probes over a link with jitter look like a queue too, but they do not fill one.
            let own = queue.saturating_sub(self.delay.range());
            let grew =
                own > STARTUP_TIMES * limit || (own > limit || self.marks.mostly()) && slower;
            let full = grew && self.is_dense(&rates) || queue > MOST_QUEUE;
            let lossy = rates.lost > STARTUP_LOSS && rates.bytes >= STARTUP_BYTES;
            if full || lossy || self.growth.has_ended() {
                self.bandwidth = received.max(LEAST_RATE);
                self.enter_steady(now);
            }
            return;
        }
        let fills = (rates.dispersion - 1.0).abs() > DISPERSION + noise;
        // A source that gives less than the link takes makes a queue for a moment, not for a train.
        let stood = |since| now.since(since) > self.train_length();
        let grows = rates.dispersion > 1.0 && self.stands.is_some_and(stood);
        let late = rates.dispersion < 1.0 && self.srtt > LONG_RTT;
        if queue > self.threshold() && fills {
            // A queue that grows or shrinks gives at the link's own rate.
            if received > self.bandwidth {
                self.bandwidth += (received - self.bandwidth) / 4.0;
            } else if (!rates.limited || grows) && !late {
                self.bandwidth += (received - self.bandwidth) / 2.0;
            }
        } else if delivered > self.bandwidth && !self.losses.is_policed(now) {
            self.bandwidth = delivered.min(1.25 * self.bandwidth);
        }
        self.bandwidth = self.bandwidth.max(LEAST_RATE);
    }

    fn next_phase(&mut self, now: Instant, limited: bool) {
        let queue = self.delay.queue();
        if queue <= self.threshold() {
            self.stands = None;
        } else {
            self.stands.get_or_insert(now);
        }
        match self.phase {
            Phase::Startup => {}
            Phase::Steady => {
                let long = STANDS.max(4 * self.srtt);
                let stands = self.stands.is_some_and(|since| now.since(since) > long);
                let due = now >= self.next_drain && !limited;
                if (stands || due && queue > self.target() + SUSPICIOUS) && self.trial.is_none() {
                    let until = now + TEST_ROUNDS * self.srtt;
                    self.phase = Phase::Test { until };
                    self.losses.begin_drain(now);
                    self.trial = Some(Trial {
                        begun: now,
                        before: None,
                        after: None,
                        void: false,
                    });
                } else if due {
                    let until = now + self.srtt * 3 / 2;
                    self.phase = Phase::Drain { until };
                    self.losses.begin_drain(now);
                }
            }
            Phase::Drain { until } | Phase::Test { until } => {
                if now >= until || (queue < DRAINED && !self.losses.any()) {
                    self.losses.end_drain(now);
                    self.enter_steady(now);
                }
            }
        }
        self.judge_trial(now);
    }

    /// Less was sent for a while: did that shorten the queue? If not it is not ours: the way got
    /// longer, or somebody else fills it.
    fn judge_trial(&mut self, now: Instant) {
        let Some(trial) = &mut self.trial else { return };
        let queue = self.delay.queue();
        let age = now.since(trial.begun);
        if age < self.srtt {
            return;
        }
        let before = *trial.before.get_or_insert(queue);
        let after = trial.after.map_or(queue, |after| after.min(queue));
        trial.after = Some(after);
        if age < self.srtt * (TEST_ROUNDS + 1) + LEAST_TRAIN / 2 {
            return;
        }
        let void = trial.void;
        self.trial = None;
        self.stands = None;
        let had_to = (TEST_ROUNDS * self.srtt)
            .mul_f64(1.0 - TEST_GAIN)
            .min(before);
        let ours = before.saturating_sub(after) >= had_to.mul_f64(OURS) || after <= DRAINED;
        // A foreign queue is followed so far only (PROTOCOL.md 3.2).
        if !ours && !void && self.srtt <= self.min_rtt + MOST_QUEUE {
            self.delay.rebase();
        }
    }

    /// What is asked for every datagram is computed for every acknowledgement: routers have no
    /// floating-point unit.
    fn decide(&mut self) {
        self.rate = (self.bandwidth * self.gain) as u64;
        // While it is searched for, what was found is no measure of the path.
        self.delivers = if self.phase == Phase::Startup {
            0
        } else {
            self.bandwidth as u64
        };
        let rtt = self.srtt.min(self.min_rtt + MOST_QUEUE);
        let time = rtt + self.delay.jitter().min(MOST_QUEUE) + SLACK;
        let bytes = self.bandwidth * self.gain.max(1.0) * time.as_secs_f64();
        self.window = bytes as u64;
    }

    fn set_gain(&mut self, now: Instant) {
        if self.phase == Phase::Startup {
            self.gain = STARTUP_GAIN;
            return;
        }
        let (queue, target) = (self.delay.queue(), self.aim());
        let error = target.as_secs_f64() - queue.as_secs_f64();
        let rtt = self.srtt.as_secs_f64().max(LEAST_RTT);
        let gain = (1.0 + STIFFNESS * error / rtt).clamp(LEAST_GAIN, PROBE_GAIN);
        self.gain = match self.phase {
            Phase::Drain { .. } if self.losses.is_in_doubt() => gain.min(DOUBT_GAIN),
            Phase::Drain { .. } => gain.min(DRAIN_GAIN),
            Phase::Test { .. } => gain.min(TEST_GAIN),
            Phase::Startup | Phase::Steady if self.losses.is_policed(now) => gain.min(1.0),
            Phase::Startup | Phase::Steady if queue < target => {
                gain.max(self.growth.gain(self.srtt))
            }
            Phase::Startup | Phase::Steady => gain,
        };
        self.gain = self.gain.min(self.marks.most_gain(now));
    }
}

impl Controller for Dtrc {
    fn on_ack(&mut self, ack: &AckEvent) {
        (self.srtt, self.min_rtt) = (ack.srtt, ack.min_rtt);
        let Some(arrival) = ack.arrival else { return };
        let now = ack.now;
        let delay = OneWayDelay::new(arrival.sent_at, arrival.received_at);
        let length = self.train_length();
        let rates = self.train.on_arrival(arrival, length);
        let dense = rates.is_some_and(|rates| self.is_dense(&rates));
        self.delay.on_sample(now, delay, ack.srtt, dense);
        self.losses.on_arrival(&arrival);
        if let Some(rates) = rates {
            self.on_rates(now, rates);
            if let Some(trial) = &mut self.trial {
                trial.void |= rates.limited && rates.sent < LEAST_GAIN * self.bandwidth;
            }
        }
        // In the search a source that has enough sends at twice the rate.
        let limited = rates.is_none_or(|rates| {
            rates.limited || self.phase == Phase::Startup && rates.sent < self.bandwidth
        });
        let queued = self.delay.queue() > self.threshold();
        let round = Round {
            limited,
            full: queued || self.losses.is_in_doubt() || self.marks.any(),
            empty: self.delay.queue() < self.aim() / 2,
        };
        let ended = self
            .growth
            .on_ack(now, arrival.sent_at, self.bandwidth, round);
        if ended {
            self.marks.on_round(self.target());
        }
        if ended
            && self.losses.on_round(now, queued)
            && let Some(rates) = rates
            && self.phase != Phase::Startup
        {
            let passes = BELOW_POLICER * rates.received / self.losses.kept();
            self.bandwidth = self.bandwidth.min(passes).max(LEAST_RATE);
        }
        self.next_phase(now, limited);
        self.set_gain(now);
        self.decide();
    }

    fn on_loss(&mut self, _: &LossEvent) {}

    fn on_ce(&mut self, ce: &CeEvent) {
        let (queue, target) = (self.delay.queue(), self.target());
        let first = self.marks.on_ce(ce, queue, target, self.srtt);
        if !first || self.phase == Phase::Startup {
            return;
        }
        // What arrived more slowly than it was sent, arrived at the link's rate. It is told once.
        if let Some(link) = self.link.take() {
            self.bandwidth = self.bandwidth.min(link).max(LEAST_RATE);
        }
        self.set_gain(ce.now);
        self.decide();
    }

    fn heeds_marks(&self) -> bool {
        true
    }

    fn on_restart(&mut self) {
        if self.srtt == Duration::ZERO {
            // Nothing was acknowledged since the last time.
            return;
        }
        // Searched for again, from the rate that was known: the gain of the search is two.
        *self = Self {
            bandwidth: self.bandwidth / STARTUP_GAIN,
            ..Self::default()
        };
        self.decide();
    }

    fn fills_queues(&self) -> bool {
        false
    }

    fn window(&self) -> u64 {
        self.window.max(LEAST_WINDOW)
    }

    fn pacing_rate(&self, srtt: Option<Duration>) -> Option<u64> {
        if self.bandwidth == 0.0 {
            return Some((STARTUP_GAIN * first(srtt.unwrap_or(FIRST_RTT))) as u64);
        }
        Some(self.rate)
    }

    fn bandwidth(&self) -> u64 {
        self.delivers
    }

    fn is_searching(&self) -> bool {
        self.phase == Phase::Startup
    }

    fn estimate(&self) -> Option<Estimate> {
        (self.bandwidth > 0.0).then(|| Estimate {
            bandwidth: self.bandwidth as u64,
            queue: self.delay.queue(),
            jitter: self.delay.jitter(),
        })
    }
}

/// The rate of the first window, bytes per second.
fn first(srtt: Duration) -> f64 {
    let rtt = srtt.max(Duration::from_millis(1));
    ((FIRST * DATAGRAM) as f64 / rtt.as_secs_f64()).max(LEAST_FIRST)
}

#[cfg(test)]
mod tests;
