//! BBR, first version (draft-cardwell-iccrg-bbr-congestion-control-00), as Linux has it; without its
//! search for policers.

use std::collections::VecDeque;
use std::time::Duration;

use netcombiner_lab::emulator::Rng;

use super::control::{Ack, Controller, INITIAL, State, Window};

/// 2/ln 2: doubles the rate each round trip (section 4.3.2.1 of the draft), and its inverse.
const STARTUP_GAIN: f64 = 2.885;
/// The window is so many times the product of bandwidth and delay, for delayed acknowledgements.
const WINDOW_GAIN: f64 = 2.0;
/// The gains of one cycle; each phase lasts a round trip.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Bandwidth is the greatest of so many round trips.
const BANDWIDTH_ROUNDS: u64 = 10;
/// A pipe is full when bandwidth grew by less than this for so many rounds.
const FULL_GROWTH: f64 = 1.25;
const FULL_ROUNDS: u32 = 3;
/// The least round trip is held for so long, then looked for with a window of 4 for 200 ms.
const LEAST_RTT_HELD: Duration = Duration::from_secs(10);
const PROBE_RTT: Duration = Duration::from_millis(200);
const LEAST_WINDOW: u32 = 4;
/// Paced a little below the estimate (Linux: bbr_pacing_margin_percent).
const MARGIN: f64 = 0.99;
/// Rounds for which one of the two maxima of aggregation is held, and the most that it adds, seconds.
const AGGREGATION_ROUNDS: u32 = 5;
const AGGREGATION_MOST: f64 = 0.1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

/// BBR.
#[derive(Debug)]
pub struct Bbr {
    rng: Rng,
    mode: Mode,
    /// Round, segments per second; bandwidth falls from front to back.
    bandwidths: VecDeque<(u64, f64)>,
    round: u64,
    round_ends: u64,
    round_start: bool,
    least_rtt: Option<(Duration, Duration)>,
    probe_rtt_until: Option<Duration>,
    probe_rtt_round: bool,
    full: bool,
    full_bandwidth: f64,
    full_rounds: u32,
    phase: usize,
    phase_start: Duration,
    pacing: Option<f64>,
    seen_rtt: bool,
    prior_window: u32,
    conserve: bool,
    before: State,
    extra: [f64; 2],
    extra_at: usize,
    extra_rounds: u32,
    epoch_start: Duration,
    epoch_acked: f64,
}

impl Bbr {
    /// A new one; `seed` decides where in its cycle it begins.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            mode: Mode::Startup,
            bandwidths: VecDeque::new(),
            round: 0,
            round_ends: 0,
            round_start: false,
            least_rtt: None,
            probe_rtt_until: None,
            probe_rtt_round: false,
            full: false,
            full_bandwidth: 0.0,
            full_rounds: 0,
            phase: 0,
            phase_start: Duration::ZERO,
            pacing: None,
            seen_rtt: false,
            prior_window: 0,
            conserve: false,
            before: State::Open,
            extra: [0.0; 2],
            extra_at: 0,
            extra_rounds: 0,
            epoch_start: Duration::ZERO,
            epoch_acked: 0.0,
        }
    }

    fn bandwidth(&self) -> f64 {
        self.bandwidths.front().map_or(0.0, |(_, rate)| *rate)
    }

    /// Segments of the pipe times a gain.
    fn pipe(&self, gain: f64) -> f64 {
        self.least_rtt.map_or(f64::from(INITIAL), |(rtt, _)| {
            (self.bandwidth() * rtt.as_secs_f64() * gain).ceil()
        })
    }

    /// Segments in one burst at the pacing rate: a millisecond, 2 at least.
    fn burst(&self, size: u32) -> u32 {
        let rate = self.pacing.unwrap_or_default();
        ((rate * 0.001 / f64::from(size)) as u32).clamp(2, 44)
    }

    /// What has to be in flight for the pipe times a gain, with room for bursts at three places.
    fn inflight(&self, gain: f64, size: u32) -> u32 {
        let cwnd = self.pipe(gain) as u32 + 3 * self.burst(size);
        let probing = self.mode == Mode::ProbeBandwidth && self.phase == 0;
        cwnd.next_multiple_of(2) + if probing { 2 } else { 0 }
    }

    fn gain(&self) -> f64 {
        match self.mode {
            Mode::Startup => STARTUP_GAIN,
            Mode::Drain => 1.0 / STARTUP_GAIN,
            Mode::ProbeBandwidth => CYCLE[self.phase],
            Mode::ProbeRtt => 1.0,
        }
    }

    fn measure(&mut self, ack: &Ack) {
        self.round_start = false;
        let Some(rate) = ack.rate else { return };
        if rate.prior_delivered >= self.round_ends {
            self.round_ends = ack.total_delivered;
            self.round += 1;
            self.round_start = true;
            self.conserve = false;
        }
        let bandwidth = rate.delivered as f64 / rate.interval.as_secs_f64();
        while self
            .bandwidths
            .back()
            .is_some_and(|(_, known)| *known <= bandwidth)
        {
            self.bandwidths.pop_back();
        }
        self.bandwidths.push_back((self.round, bandwidth));
        let oldest = self.round.saturating_sub(BANDWIDTH_ROUNDS);
        while self
            .bandwidths
            .front()
            .is_some_and(|(round, _)| *round < oldest)
        {
            self.bandwidths.pop_front();
        }
    }

    fn measure_aggregation(&mut self, ack: &Ack, cwnd: u32) {
        if ack.delivered == 0 {
            return;
        }
        if self.round_start {
            self.extra_rounds += 1;
            if self.extra_rounds >= AGGREGATION_ROUNDS {
                self.extra_rounds = 0;
                self.extra_at ^= 1;
                self.extra[self.extra_at] = 0.0;
            }
        }
        let since = ack.now.saturating_sub(self.epoch_start).as_secs_f64();
        let mut expected = self.bandwidth() * since;
        if self.epoch_acked <= expected {
            self.epoch_acked = 0.0;
            self.epoch_start = ack.now;
            expected = 0.0;
        }
        self.epoch_acked += f64::from(ack.delivered);
        let extra = (self.epoch_acked - expected).min(f64::from(cwnd));
        self.extra[self.extra_at] = self.extra[self.extra_at].max(extra);
    }

    fn aggregation(&self) -> u32 {
        if !self.full {
            return 0;
        }
        self.extra[0]
            .max(self.extra[1])
            .min(self.bandwidth() * AGGREGATION_MOST) as u32
    }

    fn next_phase(&mut self, ack: &Ack) {
        let Some((least, _)) = self.least_rtt.filter(|_| self.mode == Mode::ProbeBandwidth) else {
            return;
        };
        let long = ack.now.saturating_sub(self.phase_start) > least;
        let gain = CYCLE[self.phase];
        let over = if gain > 1.0 {
            long && (ack.lost > 0 || ack.prior_in_flight >= self.inflight(gain, ack.size))
        } else if gain < 1.0 {
            long || ack.prior_in_flight <= self.inflight(1.0, ack.size)
        } else {
            long
        };
        if over {
            self.phase = (self.phase + 1) % CYCLE.len();
            self.phase_start = ack.now;
        }
    }

    fn look_for_full_pipe(&mut self) {
        if self.full || !self.round_start {
            return;
        }
        if self.bandwidth() >= self.full_bandwidth * FULL_GROWTH {
            self.full_bandwidth = self.bandwidth();
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.full = self.full_rounds >= FULL_ROUNDS;
    }

    fn probe_bandwidth(&mut self, now: Duration) {
        self.mode = Mode::ProbeBandwidth;
        // Anywhere but in the phase below the rate, which follows the one above it.
        self.phase = [0, 2, 3, 4, 5, 6, 7][(self.rng.bits() % 7) as usize];
        self.phase_start = now;
    }

    fn look_for_least_rtt(&mut self, ack: &Ack, window: &mut Window) {
        let expired = self
            .least_rtt
            .is_some_and(|(_, at)| ack.now > at + LEAST_RTT_HELD);
        if let Some(rtt) = ack.rtt
            && (expired || self.least_rtt.is_none_or(|(least, _)| rtt < least))
        {
            self.least_rtt = Some((rtt, ack.now));
        }
        if expired && self.mode != Mode::ProbeRtt {
            self.save(window);
            self.mode = Mode::ProbeRtt;
            self.probe_rtt_until = None;
        }
        if self.mode != Mode::ProbeRtt {
            return;
        }
        match self.probe_rtt_until {
            None if ack.in_flight <= LEAST_WINDOW => {
                self.probe_rtt_until = Some(ack.now + PROBE_RTT);
                self.probe_rtt_round = false;
                self.round_ends = ack.total_delivered;
            }
            None => {}
            Some(until) => {
                self.probe_rtt_round |= self.round_start;
                if self.probe_rtt_round && ack.now > until {
                    if let Some((_, at)) = &mut self.least_rtt {
                        *at = ack.now;
                    }
                    window.cwnd = window.cwnd.max(self.prior_window);
                    if self.full {
                        self.probe_bandwidth(ack.now);
                    } else {
                        self.mode = Mode::Startup;
                    }
                }
            }
        }
    }

    const fn in_recovery(state: State) -> bool {
        matches!(state, State::Recovery | State::Loss)
    }

    fn save(&mut self, window: &Window) {
        let plain = !Self::in_recovery(self.before) && self.mode != Mode::ProbeRtt;
        self.prior_window = if plain {
            window.cwnd
        } else {
            self.prior_window.max(window.cwnd)
        };
    }

    fn set_pacing(&mut self, ack: &Ack) {
        if !self.seen_rtt && !ack.srtt.is_zero() {
            self.seen_rtt = true;
            let rate = f64::from(INITIAL * ack.size) / ack.srtt.as_secs_f64();
            self.pacing = Some(rate * STARTUP_GAIN);
        }
        let rate = self.bandwidth() * f64::from(ack.size) * self.gain() * MARGIN;
        if rate > 0.0 && (self.full || self.pacing.is_none_or(|pacing| rate > pacing)) {
            self.pacing = Some(rate);
        }
    }

    fn set_window(&mut self, ack: &Ack, window: &mut Window) {
        let mut cwnd = window.cwnd;
        if ack.delivered > 0 {
            cwnd = cwnd.saturating_sub(ack.lost).max(1);
            if ack.state == State::Recovery && self.before != State::Recovery {
                self.conserve = true;
                self.round_ends = ack.total_delivered;
                cwnd = ack.in_flight + ack.delivered;
            } else if Self::in_recovery(self.before) && !Self::in_recovery(ack.state) {
                cwnd = cwnd.max(self.prior_window);
                self.conserve = false;
            }
            self.before = ack.state;
            if self.conserve {
                cwnd = cwnd.max(ack.in_flight + ack.delivered);
            } else {
                let gain = match self.mode {
                    Mode::Startup | Mode::Drain => STARTUP_GAIN,
                    Mode::ProbeBandwidth => WINDOW_GAIN,
                    Mode::ProbeRtt => 1.0,
                };
                let target = self.inflight(gain, ack.size) + self.aggregation();
                if self.full {
                    cwnd = (cwnd + ack.delivered).min(target);
                } else if cwnd < target || ack.total_delivered < u64::from(INITIAL) {
                    cwnd += ack.delivered;
                }
                cwnd = cwnd.max(LEAST_WINDOW);
            }
        }
        if self.mode == Mode::ProbeRtt {
            cwnd = cwnd.min(LEAST_WINDOW);
        }
        window.cwnd = cwnd;
    }
}

impl Controller for Bbr {
    fn on_ack(&mut self, ack: &Ack, window: &mut Window) {
        self.measure(ack);
        self.measure_aggregation(ack, window.cwnd);
        self.next_phase(ack);
        self.look_for_full_pipe();
        if self.mode == Mode::Startup && self.full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && ack.in_flight <= self.inflight(1.0, ack.size) {
            self.probe_bandwidth(ack.now);
        }
        self.look_for_least_rtt(ack, window);
        self.set_pacing(ack);
        self.set_window(ack, window);
    }

    fn threshold(&mut self, window: &Window) -> u32 {
        self.save(window);
        window.ssthresh
    }

    fn on_state(&mut self, _now: Duration, state: State, window: &mut Window, in_flight: u32) {
        if state == State::Loss {
            self.before = State::Loss;
            self.full_bandwidth = 0.0;
            self.round_start = true;
            window.cwnd = in_flight + 1;
        }
    }

    fn on_undo(&mut self, window: &mut Window) {
        self.full_bandwidth = 0.0;
        self.full_rounds = 0;
        window.cwnd = window.cwnd.max(self.prior_window);
    }

    fn owns_window(&self) -> bool {
        true
    }

    fn pacing_rate(&self) -> Option<u64> {
        // Before the first round trip: the initial window in a millisecond, as Linux assumes.
        Some(self.pacing.map_or(40_000_000, |rate| rate as u64))
    }
}
