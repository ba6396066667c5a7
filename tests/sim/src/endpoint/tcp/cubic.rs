//! CUBIC (RFC 9438) with the constants and habits of Linux: HyStart, fast convergence, friendliness
//! to Reno.

use std::time::Duration;

use super::control::{Ack, Controller, State, Window};
use super::hystart::HyStart;

/// C of RFC 9438 section 5, segments per second cubed.
const C: f64 = 0.4;
/// Beta of RFC 9438 section 4.6, as the fraction that Linux uses.
const BETA: f64 = 717.0 / 1024.0;
/// The target is computed again so often at most, while the window stays the same (Linux: HZ/32).
const UPDATE: Duration = Duration::from_micros(31_250);
/// HyStart looks at nothing for so long after a reduction (Linux: HZ).
const SETTLE: Duration = Duration::from_secs(1);

/// CUBIC.
#[derive(Debug, Default)]
pub struct Cubic {
    hystart: HyStart,
    /// The window before the last reduction; zero: never reduced.
    last_max: f64,
    epoch: Option<Epoch>,
    /// The least round trip.
    least: Option<Duration>,
    /// Acknowledged segments for one segment of growth, and what it was computed for.
    every: u32,
    computed: Option<(Duration, u32)>,
}

/// Since the last reduction.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    start: Duration,
    /// Seconds until the window is back at `origin`.
    k: f64,
    origin: f64,
    /// What Reno's window would be.
    reno: f64,
    /// Acknowledged segments not yet counted for Reno.
    acked: f64,
}

impl Cubic {
    fn update(&mut self, ack: &Ack, cwnd: u32, acked: u32) {
        if let Some(epoch) = &mut self.epoch {
            epoch.acked += f64::from(acked);
        }
        if let Some((at, for_cwnd)) = self.computed
            && for_cwnd == cwnd
            && ack.now.saturating_sub(at) <= UPDATE
        {
            return;
        }
        self.computed = Some((ack.now, cwnd));
        let window = f64::from(cwnd);
        let last_max = self.last_max;
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: ack.now,
            k: ((last_max - window).max(0.0) / C).cbrt(),
            origin: last_max.max(window),
            reno: window,
            acked: f64::from(acked),
        });
        let t =
            (ack.now.saturating_sub(epoch.start) + self.least.unwrap_or_default()).as_secs_f64();
        let offset = t - epoch.k;
        let target = epoch.origin + C * offset * offset * offset;
        let mut every = if target > window {
            window / (target - window)
        } else {
            100.0 * window
        };
        // The first epoch has no plateau to wait on: 5 % a round trip at least.
        if last_max == 0.0 {
            every = every.min(20.0);
        }
        let step = window * (1.0 + BETA) / (3.0 * (1.0 - BETA));
        while epoch.acked > step {
            epoch.acked -= step;
            epoch.reno += 1.0;
        }
        if epoch.reno > window {
            every = every.min(window / (epoch.reno - window));
        }
        self.every = (every as u32).max(2);
    }
}

impl Controller for Cubic {
    fn on_rtt(&mut self, ack: &Ack, window: &mut Window) {
        let Some(rtt) = ack.rtt else { return };
        if self
            .epoch
            .is_some_and(|epoch| ack.now.saturating_sub(epoch.start) < SETTLE)
        {
            return;
        }
        let least = self.least.map_or(rtt, |least| least.min(rtt));
        self.least = Some(least);
        self.hystart.on_ack(ack, rtt, least, window);
    }

    fn on_ack(&mut self, ack: &Ack, window: &mut Window) {
        if !ack.window_limited {
            return;
        }
        let mut acked = ack.delivered;
        if window.in_slow_start() {
            acked = window.slow_start(acked);
        }
        if acked > 0 {
            self.update(ack, window.cwnd, acked);
            window.additive(self.every, acked);
        }
    }

    fn threshold(&mut self, window: &Window) -> u32 {
        let cwnd = f64::from(window.cwnd);
        self.epoch = None;
        self.computed = None;
        self.last_max = if cwnd < self.last_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        ((cwnd * BETA) as u32).max(2)
    }

    fn on_state(&mut self, now: Duration, state: State, _window: &mut Window, _in_flight: u32) {
        if state == State::Loss {
            *self = Self::default();
            self.hystart.restart(now);
        }
    }
}
