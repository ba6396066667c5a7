//! The sending end of a connection that always has something to send.

use std::time::Duration;

use super::board::Board;
use super::control::{Controller, State, Window};
use super::rack::Rack;
use super::rate::Sampler;
use super::recovery::{Reduction, Undo};
use super::rtt::RttEstimator;
use super::timers::Timer;

/// The least burst of a paced sender, and how much time's worth one burst is (Linux: two segments,
/// a millisecond).
const PACED_BURST: Duration = Duration::from_millis(1);
const LEAST_BURST: u32 = 2;

/// One segment to put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Which.
    pub number: u64,
}

/// What a sender did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderCount {
    /// Segments sent, copies too.
    pub sent: u64,
    /// Copies.
    pub resent: u64,
    /// Fast recoveries.
    pub recoveries: u64,
    /// Reductions that were taken back.
    pub undone: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Tail loss probes.
    pub probes: u64,
}

/// The sending end.
pub struct Sender {
    pub(super) board: Board,
    pub(super) window: Window,
    pub(super) controller: Box<dyn Controller>,
    pub(super) state: State,
    pub(super) rtt: RttEstimator,
    pub(super) rack: Rack,
    pub(super) sampler: Sampler,
    pub(super) reduction: Option<Reduction>,
    pub(super) undo: Option<Undo>,
    /// The first segment that was new when the present recovery began.
    pub(super) high: u64,
    /// When the first copy of this recovery was sent.
    pub(super) resend_stamp: Option<Duration>,
    /// Segments out of order before it counts as loss (Linux: tp->reordering).
    pub(super) reordering: u32,
    pub(super) timer: Option<(Duration, Timer)>,
    /// The next new segment when a tail loss probe was sent, until it is acknowledged.
    pub(super) probe_high: Option<u64>,
    /// Segments below this the peer has room for.
    pub(super) limit: u64,
    pub(super) window_limited: bool,
    /// Segments that must be sent whatever the window says: a probe.
    pub(super) forced: Option<u64>,
    next_burst: Duration,
    burst_left: u32,
    pub(super) size: u32,
    pub(super) count: SenderCount,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("window", &self.window)
            .field("state", &self.state)
            .field("una", &self.board.una)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender of segments of `size` bytes to a peer with room for `room` bytes.
    pub fn new(controller: Box<dyn Controller>, size: u32, room: u32) -> Self {
        Self {
            board: Board::default(),
            window: Window::default(),
            controller,
            state: State::Open,
            rtt: RttEstimator::default(),
            rack: Rack::default(),
            sampler: Sampler::default(),
            reduction: None,
            undo: None,
            high: 0,
            resend_stamp: None,
            reordering: 3,
            timer: None,
            probe_high: None,
            limit: u64::from(room / size),
            window_limited: false,
            forced: None,
            next_burst: Duration::ZERO,
            burst_left: 0,
            size,
            count: SenderCount::default(),
        }
    }

    /// What it did.
    pub const fn count(&self) -> SenderCount {
        self.count
    }

    /// The congestion window and its threshold.
    pub const fn window(&self) -> Window {
        self.window
    }

    /// The state of recovery.
    pub const fn state(&self) -> State {
        self.state
    }

    /// First segment not cumulatively acknowledged.
    pub const fn una(&self) -> u64 {
        self.board.una
    }

    /// Bytes of a segment.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Smoothed round trip.
    pub fn smoothed_rtt(&self) -> Duration {
        self.rtt.smoothed()
    }

    /// A first round trip, measured by the handshake.
    pub fn on_handshake(&mut self, rtt: Duration) {
        self.rtt.on_sample(rtt);
    }

    /// The next segment to send now, if any.
    pub fn poll(&mut self, now: Duration) -> Option<Sending> {
        if let Some(number) = self.forced.take() {
            return Some(self.send(now, number));
        }
        if !self.paced_in(now) {
            return None;
        }
        let number = self.choose()?;
        self.burst_left = self.burst_left.saturating_sub(1);
        Some(self.send(now, number))
    }

    /// When to call again: a timer, or pacing.
    pub fn next(&self) -> Option<Duration> {
        let paced = self.controller.pacing_rate().is_some()
            && self.burst_left == 0
            && self.choose_index().is_some();
        let burst = paced.then_some(self.next_burst);
        self.timer.map(|(at, _)| at).into_iter().chain(burst).min()
    }

    fn paced_in(&mut self, now: Duration) -> bool {
        let Some(rate) = self.controller.pacing_rate() else {
            return true;
        };
        if self.burst_left > 0 {
            return true;
        }
        if now < self.next_burst {
            return false;
        }
        let rate = rate.max(u64::from(self.size));
        let bytes = rate * PACED_BURST.as_micros() as u64 / 1_000_000;
        let burst = ((bytes / u64::from(self.size)) as u32).clamp(LEAST_BURST, 44);
        if self.choose_index().is_some() {
            self.burst_left = burst;
            let took = u64::from(burst * self.size) * 1_000_000_000 / rate;
            self.next_burst = self.next_burst.max(now) + Duration::from_nanos(took);
        }
        true
    }

    /// What to send: what is lost first, then what is new.
    fn choose_index(&self) -> Option<u64> {
        if self.board.in_flight() >= self.window.cwnd {
            return None;
        }
        let recovering = matches!(self.state, State::Recovery | State::Loss);
        if recovering && let Some(number) = self.board.to_resend.first() {
            return Some(*number);
        }
        let next = self.board.next();
        (next < self.limit).then_some(next)
    }

    fn choose(&mut self) -> Option<u64> {
        let chosen = self.choose_index();
        if chosen.is_none() {
            self.window_limited = self.board.in_flight() >= self.window.cwnd;
        }
        chosen
    }

    fn send(&mut self, now: Duration, number: u64) -> Sending {
        let idle = self.board.out() == 0;
        let snapshot = self.sampler.on_sent(now, idle);
        self.count.sent += 1;
        if number >= self.board.next() {
            self.board.on_new(now, snapshot);
        } else {
            self.board.on_resent(now, number, snapshot);
            self.count.resent += 1;
            // As exact as the time stamp that the copy carries.
            let stamp = Duration::from_micros(now.as_micros() as u64);
            self.resend_stamp.get_or_insert(stamp);
            if let Some(undo) = &mut self.undo {
                undo.on_resent();
            }
        }
        if let Some(reduction) = &mut self.reduction {
            reduction.on_sent();
        }
        if self.timer.is_none() || idle {
            self.arm(now, false);
        }
        Sending { number }
    }
}
