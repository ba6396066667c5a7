//! What a path does for each datagram that is sent on it.

use super::{EcnState, Instant, MOST_FLYING, MOST_QUESTIONS, Path, PathState, Sent};

impl Path {
    /// True when a batch of data is to leave as ECT(0).
    pub fn marks(&mut self, now: Instant) -> bool {
        self.gate.controller.heeds_marks() && self.ecn.marks(now)
    }

    /// Whether its data can be marked, as `show` prints it.
    pub fn ecn_state(&self) -> EcnState {
        if self.gate.controller.heeds_marks() {
            self.ecn.state()
        } else {
            EcnState::Off
        }
    }

    /// Notes that a datagram was sent.
    pub fn on_sent(&mut self, now: Instant, sent: Sent) {
        let bytes = sent.bytes as usize;
        if sent.ect {
            self.ecn.on_sent(self.sent.next_number());
        }
        self.sent.keep_newest(match self.state {
            PathState::Dead | PathState::Validating => MOST_QUESTIONS - 1,
            PathState::Up | PathState::Suspect | PathState::Down => MOST_FLYING - 1,
        });
        self.sent.push(sent);
        self.count.datagrams_sent += 1;
        self.count.bytes_sent += u64::from(sent.bytes);
        self.count.sent.add(now, bytes);
        if sent.eliciting {
            self.liveness.on_asked(now);
            // Acknowledgements are not counted, as they are not in flight (RFC 9002 section 7): on a path
            // that carries little they would use up its rate.
            self.gate.pacer.on_sent(u64::from(sent.bytes));
        }
        if let Some(budget) = &mut self.gate.budget {
            // The record's length goes before it.
            *budget = budget.saturating_sub(bytes + 4);
        }
    }
}
