//! New Reno (RFC 6582 as QUIC has it, RFC 9002 section 7): the dissertation's controller (3.2.3).

use std::time::Duration;

use super::{AckEvent, CeEvent, Controller, DATAGRAM, LossEvent};
use crate::proto::Instant;

/// The window at the start: ten datagrams (RFC 6928, RFC 9002 section 7.2).
const INITIAL_WINDOW: u64 = 10 * DATAGRAM;
/// The least window: two datagrams (RFC 9002 section 7.2).
const MINIMUM_WINDOW: u64 = 2 * DATAGRAM;

/// Slow start, then one datagram more a round trip, half of it at a loss.
#[derive(Debug)]
pub struct NewReno {
    window: u64,
    threshold: u64,
    /// Losses of datagrams sent before this belong to a reduction already made.
    recovery_start: Option<Instant>,
    /// Bytes acknowledged towards the next step of congestion avoidance.
    acked: u64,
}

impl Default for NewReno {
    fn default() -> Self {
        Self {
            window: INITIAL_WINDOW,
            threshold: u64::MAX,
            recovery_start: None,
            acked: 0,
        }
    }
}

impl NewReno {
    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Half of the window, once for all that was sent before it.
    fn on_congestion(&mut self, now: Instant, newest_sent: Instant) {
        if self
            .recovery_start
            .is_some_and(|start| newest_sent <= start)
        {
            return;
        }
        self.recovery_start = Some(now);
        self.window = (self.window / 2).max(MINIMUM_WINDOW);
        self.threshold = self.window;
        self.acked = 0;
    }
}

impl Controller for NewReno {
    fn on_ack(&mut self, ack: &AckEvent) {
        if self
            .recovery_start
            .is_some_and(|start| ack.newest_sent <= start)
        {
            return;
        }
        // Grow only a window that was used: RFC 9002 section 7.8. In slow start pacing at twice
        // the rate leaves up to half of it unused, hence the halves.
        let used = if self.in_slow_start() {
            self.window / 2
        } else {
            self.window - 4 * DATAGRAM.min(self.window / 8)
        };
        if ack.in_flight_before < used {
            return;
        }
        if self.in_slow_start() {
            self.window += ack.bytes;
            return;
        }
        self.acked += ack.bytes;
        if self.acked >= self.window {
            self.acked -= self.window;
            self.window += DATAGRAM;
        }
    }

    fn on_loss(&mut self, loss: &LossEvent) {
        self.on_congestion(loss.now, loss.newest_sent);
    }

    /// As a loss (RFC 9002 sections 7.1 and B.7).
    fn on_ce(&mut self, ce: &CeEvent) {
        self.on_congestion(ce.now, ce.newest_sent);
    }

    fn heeds_marks(&self) -> bool {
        true
    }

    fn on_restart(&mut self) {
        // In slow start up to what was good before; without end where nothing was ever lost.
        if self.threshold != u64::MAX {
            self.threshold = self.window.max(2 * INITIAL_WINDOW);
        }
        self.window = INITIAL_WINDOW;
        self.recovery_start = None;
        self.acked = 0;
    }

    fn fills_queues(&self) -> bool {
        true
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn pacing_rate(&self, srtt: Option<Duration>) -> Option<u64> {
        let micros = srtt?.as_micros().max(1) as u64;
        // RFC 9002 section 7.7: a little over window / RTT; twice in slow start, so that it doubles.
        let quarters = if self.in_slow_start() { 8 } else { 5 };
        Some((self.window.saturating_mul(quarters).saturating_mul(250_000) / micros).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(reno: &mut NewReno, at: u64, bytes: u64) {
        let now = Instant::from_micros(at);
        let srtt = Duration::from_millis(10);
        let in_flight_before = reno.window();
        reno.on_ack(&AckEvent {
            now,
            bytes,
            newest_sent: now,
            in_flight_before,
            srtt,
            min_rtt: srtt,
            arrival: None,
        });
    }

    fn lose(reno: &mut NewReno, now: u64, sent: u64) {
        let (now, newest_sent) = (Instant::from_micros(now), Instant::from_micros(sent));
        reno.on_loss(&LossEvent {
            now,
            bytes: DATAGRAM,
            newest_sent,
        });
    }

    #[test]
    fn doubles_then_halves_then_creeps() {
        let mut reno = NewReno::default();
        ack(&mut reno, 1, INITIAL_WINDOW);
        assert_eq!(reno.window(), 2 * INITIAL_WINDOW);
        lose(&mut reno, 10, 5);
        assert_eq!(reno.window(), INITIAL_WINDOW);
        // The same flight loses more: one reduction a round trip.
        lose(&mut reno, 12, 9);
        assert_eq!(reno.window(), INITIAL_WINDOW);
        ack(&mut reno, 20, INITIAL_WINDOW);
        assert_eq!(reno.window(), INITIAL_WINDOW + DATAGRAM);
        for sent in 20..60 {
            lose(&mut reno, 2 * sent, 2 * sent - 1);
        }
        assert_eq!(reno.window(), MINIMUM_WINDOW);
    }

    #[test]
    fn a_mark_is_a_loss_once_a_round_trip() {
        let mut reno = NewReno::default();
        let mut mark = |now: u64, sent: u64| {
            reno.on_ce(&CeEvent {
                now: Instant::from_micros(now),
                marked: 1,
                of: 10,
                newest_sent: Instant::from_micros(sent),
            });
            reno.window()
        };
        assert_eq!(mark(10, 5), INITIAL_WINDOW / 2);
        assert_eq!(mark(12, 9), INITIAL_WINDOW / 2, "the same flight");
        assert_eq!(mark(25, 11), INITIAL_WINDOW / 4);
        // A loss in the flight that was marked is no second reason.
        lose(&mut reno, 26, 24);
        assert_eq!(reno.window(), INITIAL_WINDOW / 4);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut reno = NewReno::default();
        let now = Instant::from_micros(1);
        let srtt = Duration::from_millis(10);
        reno.on_ack(&AckEvent {
            now,
            bytes: DATAGRAM,
            newest_sent: now,
            in_flight_before: DATAGRAM,
            srtt,
            min_rtt: srtt,
            arrival: None,
        });
        assert_eq!(reno.window(), INITIAL_WINDOW);
    }

    #[test]
    fn paces_a_little_above_the_window() {
        let mut reno = NewReno::default();
        lose(&mut reno, 1, 0);
        let rate = reno.pacing_rate(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(rate, reno.window() * 10 * 5 / 4);
        assert_eq!(reno.pacing_rate(None), None);
    }
}
