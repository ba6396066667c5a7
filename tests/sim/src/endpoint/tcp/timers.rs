//! The sender's one timer: retransmission, reordering or a tail loss probe.

use std::time::Duration;

use super::control::State;
use super::recovery::News;
use super::rtt::at_tick;
use super::sender::Sender;

/// What the timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Retransmission (RFC 6298).
    Retransmit,
    /// A segment may soon be held for lost (RFC 8985 section 6.3).
    Reorder,
    /// A tail loss probe (RFC 8985 section 7).
    Probe,
}

/// Added to short timers (Linux: TCP_TIMEOUT_MIN_US).
const SLACK: Duration = Duration::from_millis(2);
/// Added to a probe's timer when one segment is out: the peer may delay its acknowledgement (Linux:
/// the least timeout).
const LONE: Duration = Duration::from_millis(200);

impl Sender {
    /// Sets the timer for retransmission, or for a probe where one may be sent.
    pub(super) fn arm(&mut self, now: Duration, from_head: bool) {
        if self.board.out() == 0 {
            self.timer = None;
            return;
        }
        let head = self.board.get(self.board.una).map(|flying| flying.sent);
        let base = head.filter(|_| from_head).unwrap_or(now);
        let retransmit = (base + self.rtt.timeout()).max(now);
        let calm = matches!(self.state, State::Open) && self.board.sacked_out == 0;
        let srtt = self.rtt.smoothed();
        let probe = (calm && !srtt.is_zero() && self.probe_high.is_none()).then(|| {
            let slack = if self.board.out() == 1 { LONE } else { SLACK };
            now + srtt * 2 + slack
        });
        self.timer = Some(match probe {
            Some(at) if at < retransmit => (at_tick(at), Timer::Probe),
            _ => (at_tick(retransmit), Timer::Retransmit),
        });
    }

    /// Something may be lost at `at`.
    pub(super) fn arm_reorder(&mut self, at: Duration) {
        self.timer = Some((at_tick(at + SLACK), Timer::Reorder));
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) {
        let Some((_, timer)) = self.timer.take_if(|(at, _)| *at <= now) else {
            return;
        };
        match timer {
            Timer::Reorder => {
                let mut news = News::default();
                self.rack.advanced = true;
                self.alert(now, self.board.una, &mut news);
                if self.timer.is_none() {
                    self.arm(now, true);
                }
            }
            Timer::Probe => {
                self.count.probes += 1;
                let next = self.board.next();
                let number = if next < self.limit { next } else { next - 1 };
                self.forced = Some(number);
                self.probe_high = Some(next);
                self.arm(now, true);
            }
            Timer::Retransmit => {
                self.rtt.back_off();
                self.enter_loss(now);
                self.arm(now, false);
            }
        }
    }
}
