//! What a congestion controller of an inner flow is asked and told.

use std::time::Duration;

use super::rate::RateSample;

/// A window that was never reached: slow start has no end in sight.
pub const NO_THRESHOLD: u32 = u32::MAX;

/// The state of recovery, as Linux names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Open,
    /// Something is missing, nothing is held for lost yet.
    Disorder,
    /// Lost segments are being sent again.
    Recovery,
    /// The retransmission timer fired.
    Loss,
}

/// The congestion window; the sender owns it, the controller changes it.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Segments.
    pub cwnd: u32,
    /// Where slow start ends, segments.
    pub ssthresh: u32,
    /// Acknowledged segments not yet turned into growth.
    count: u32,
}

/// The initial window, segments (RFC 6928).
pub const INITIAL: u32 = 10;

impl Default for Window {
    fn default() -> Self {
        Self {
            cwnd: INITIAL,
            ssthresh: NO_THRESHOLD,
            count: 0,
        }
    }
}

impl Window {
    /// Whether the window still doubles each round.
    pub const fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Grows by what was acknowledged up to the threshold; returns what is left of it.
    pub fn slow_start(&mut self, acked: u32) -> u32 {
        let cwnd = self.cwnd.saturating_add(acked).min(self.ssthresh);
        let left = acked - (cwnd - self.cwnd);
        self.cwnd = cwnd;
        left
    }

    /// Grows by one segment each `every` acknowledged ones.
    pub fn additive(&mut self, every: u32, acked: u32) {
        if self.count >= every {
            self.count = 0;
            self.cwnd += 1;
        }
        self.count += acked;
        if self.count >= every {
            let steps = self.count / every;
            self.count -= steps * every;
            self.cwnd += steps;
        }
    }

    /// Forgets half-done growth.
    pub const fn forget_growth(&mut self) {
        self.count = 0;
    }
}

/// What the sender knows when an acknowledgement has been worked in.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Now.
    pub now: Duration,
    /// Segments newly delivered by it, cumulatively or selectively.
    pub delivered: u32,
    /// Segments newly held for lost.
    pub lost: u32,
    /// First segment not yet cumulatively acknowledged.
    pub una: u64,
    /// Next new segment.
    pub next: u64,
    /// Segments in flight, after it.
    pub in_flight: u32,
    /// Segments in flight, before it.
    pub prior_in_flight: u32,
    /// The round trip that it measured.
    pub rtt: Option<Duration>,
    /// Smoothed round trip.
    pub srtt: Duration,
    /// Whether the window, and nothing else, held the sender back.
    pub window_limited: bool,
    /// The state of recovery, after it.
    pub state: State,
    /// The rate at which the newest delivered segment's flight went.
    pub rate: Option<RateSample>,
    /// All segments delivered so far.
    pub total_delivered: u64,
    /// The segment size, bytes.
    pub size: u32,
}

/// A congestion controller.
pub trait Controller {
    /// A round trip was measured, whatever the state (before anything else of this acknowledgement).
    fn on_rtt(&mut self, _ack: &Ack, _window: &mut Window) {}

    /// The window may grow (never called while it is being reduced, unless
    /// [`Controller::owns_window`]).
    fn on_ack(&mut self, ack: &Ack, window: &mut Window);

    /// A loss: the new threshold.
    fn threshold(&mut self, window: &Window) -> u32;

    /// Recovery changed its state.
    fn on_state(&mut self, _now: Duration, _state: State, _window: &mut Window, _in_flight: u32) {}

    /// The reduction was for nothing.
    fn on_undo(&mut self, _window: &mut Window) {}

    /// Whether it sets the window in every state by itself (no proportional rate reduction).
    fn owns_window(&self) -> bool {
        false
    }

    /// Bytes per second at which to pace; nothing: bursts as they come.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}
