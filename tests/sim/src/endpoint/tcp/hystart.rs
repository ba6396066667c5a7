//! HyStart (Ha, Rhee 2011), as in Linux: leaves slow start when acknowledgements come in a train as
//! long as the round trip, or when the round trip grows.

use std::time::Duration;

use super::control::{Ack, Window};

/// The window below which slow start goes on in any case, segments.
const LOW_WINDOW: u32 = 16;
/// Acknowledgements no further apart belong to one train.
const TRAIN_GAP: Duration = Duration::from_millis(2);
/// What Linux allows on top for a sender's own bursts, at the rates of a slow start.
const BURST: Duration = Duration::from_millis(1);
/// Round trips looked at in the head of a round.
const SAMPLES: u32 = 8;
/// How much the round trip must grow: an eighth of the least, within these.
const RISE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// The detectors' state.
#[derive(Debug, Default)]
pub struct HyStart {
    found: bool,
    /// The round ends when this segment is acknowledged.
    round_end: u64,
    round_start: Duration,
    last_ack: Duration,
    least_in_round: Option<Duration>,
    samples: u32,
}

impl HyStart {
    /// After an acknowledgement in slow start; `least` is the least round trip seen. Sets the
    /// threshold when it is time.
    pub fn on_ack(&mut self, ack: &Ack, rtt: Duration, least: Duration, window: &mut Window) {
        if self.found || !window.in_slow_start() || window.cwnd < LOW_WINDOW {
            return;
        }
        if ack.una > self.round_end {
            self.round_end = ack.next;
            self.round_start = ack.now;
            self.last_ack = ack.now;
            self.least_in_round = None;
            self.samples = 0;
        }
        if ack.now.saturating_sub(self.last_ack) <= TRAIN_GAP {
            self.last_ack = ack.now;
            // Half of it: without pacing, a window leaves in the first half of a round trip.
            if ack.now.saturating_sub(self.round_start) > (least + BURST) / 2 {
                self.found = true;
            }
        }
        let least_in_round = self.least_in_round.map_or(rtt, |known| known.min(rtt));
        self.least_in_round = Some(least_in_round);
        if self.samples < SAMPLES {
            self.samples += 1;
        } else if least_in_round > least + (least / 8).clamp(RISE.0, RISE.1) {
            self.found = true;
        }
        if self.found {
            window.ssthresh = window.cwnd;
        }
    }

    /// A new slow start begins.
    pub fn restart(&mut self, now: Duration) {
        *self = Self {
            round_start: now,
            last_ack: now,
            ..Self::default()
        };
    }
}
