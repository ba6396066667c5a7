//! Whether a path handles ECN: data leaves as ECT(0), and the peer tells how much of it came so and how
//! much came marked (RFC 3168, RFC 9000 section 13.4 and appendix A.4).
//!
//! ```text
//! Testing --- one arrived, the counts fit ---> Capable --- ten in a row lost ---> Testing
//!    |                                            |
//!    +--- ten lost and none arrived, or the counts do not fit, or all is marked ---> Failed
//! ```
//!
//! Only data is marked. What keeps a path alive (probes, proofs, acknowledgements, handshakes) is not:
//! it has to pass where marked datagrams do not, shows by passing that only those are lost, and has no
//! rate that a mark could lower.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::event::{EcnFault, EcnState};
use crate::proto::recovery::Acked;
use crate::proto::wire::PacketNumber;
use crate::proto::wire::frame::EcnCounts;

/// So many datagrams are risked before one is known to have arrived (RFC 9000 appendix A.4), and a
/// batch more: its datagrams share one header. As many lost in a row make a new test.
const TESTED: u32 = 10;
/// A test of which nothing was heard for so long goes on: what it sent was forgotten with a path that
/// fell silent. Longer than any round trip that is used.
const TEST_AGAIN: Duration = Duration::from_secs(3);
/// A network that marks everything, whatever is sent, tells nothing. A queue in which our rate counts
/// shows an unmarked datagram within some round trips, each of which lowers the rate: ...
const EVERYTHING_ROUNDS: u32 = 8;
/// ... no less than this of them, on a short way, for an AQM looks at its queue for as long (RFC 8289:
/// its interval is 100 ms) ...
const EVERYTHING_TIME: Duration = Duration::from_millis(300);
/// ... and no fewer datagrams.
const EVERYTHING: u64 = 50;
/// What failed is tried again after this, for links get other routers: RFC 9000 section 13.4.2.2 leaves
/// it to us. It costs a path that drops what is marked ten datagrams, which go again elsewhere.
const RETRY: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Testing { since: Instant, sent: u32 },
    Capable,
    Failed { fault: EcnFault, at: Instant },
}

/// Marks that an acknowledgement newly reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Datagrams that came marked.
    pub(super) marked: u64,
    /// Of so many.
    pub(super) of: u64,
}

/// The marks of one path's sending direction.
#[derive(Debug)]
pub struct Ecn {
    state: State,
    /// Datagrams that left as ECT(0), and those of them that were acknowledged.
    sent: u64,
    acked: u64,
    /// What the peer counted when it was heard last, and in all.
    last: EcnCounts,
    ect0: u64,
    ce: u64,
    /// Lost since the last one that arrived, of those from the last test's first on.
    lost: u32,
    /// The last test's first; nothing: it has not begun.
    tested_from: Option<PacketNumber>,
    /// Since when all that came was marked, and how many came.
    everything: Option<(Instant, u64)>,
}

impl Ecn {
    /// A path that is to be tested, or one that leaves it alone.
    pub(super) fn new(enabled: bool) -> Self {
        let state = if enabled { State::TEST } else { State::Off };
        Self {
            state,
            sent: 0,
            acked: 0,
            last: EcnCounts::default(),
            ect0: 0,
            ce: 0,
            lost: 0,
            tested_from: None,
            everything: None,
        }
    }

    /// The peer restarted and counts from zero, and so do we.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.state != State::Off);
    }

    /// Tests another way through the network. The counts go on.
    pub(super) fn test_again(&mut self) {
        if self.state == State::Off {
            return;
        }
        self.state = State::TEST;
        // What did not fit before is no fault of the new way.
        self.acked = self.acked.min(self.ect0 + self.ce);
        self.sent = self.sent.max(self.ect0 + self.ce);
        self.lost = 0;
        self.tested_from = None;
        self.everything = None;
    }

    /// The losses of datagrams from this number on count: what was under way when a test began says
    /// nothing of it.
    pub(super) fn tested_from(&self) -> PacketNumber {
        self.tested_from.unwrap_or(PacketNumber(u64::MAX))
    }

    /// True when the next batch of data is to leave as ECT(0).
    pub(super) fn marks(&mut self, now: Instant) -> bool {
        if matches!(self.state, State::Failed { at, .. } if now.since(at) >= RETRY) {
            self.test_again();
        }
        match &mut self.state {
            State::Off | State::Failed { .. } => false,
            State::Capable => true,
            State::Testing { since, sent } => {
                if *sent == 0 || now.since(*since) >= TEST_AGAIN {
                    (*since, *sent) = (now, 0);
                }
                *sent < TESTED
            }
        }
    }

    /// Notes that the datagram of this number leaves as ECT(0).
    pub(super) fn on_sent(&mut self, number: PacketNumber) {
        self.sent += 1;
        self.tested_from.get_or_insert(number);
        if let State::Testing { sent, .. } = &mut self.state {
            *sent = sent.saturating_add(1);
        }
    }

    /// Takes an acknowledgement that newly accounted for `acked`, and the peer's counts. Returns the
    /// marks that the controller is to hear of.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        counts: EcnCounts,
        acked: &Acked,
        srtt: Duration,
    ) -> Option<Marks> {
        if self.state == State::Off {
            return None;
        }
        self.acked += acked.ect;
        // One that was overtaken by a later one says less (RFC 9000 section 13.4.2.1).
        if !acked.advanced {
            return None;
        }
        let ect0 = u64::from(counts.ect0.wrapping_sub(self.last.ect0));
        let ce = u64::from(counts.ce.wrapping_sub(self.last.ce));
        self.last = counts;
        self.ect0 += ect0;
        self.ce += ce;
        if matches!(self.state, State::Failed { .. }) {
            return None;
        }
        // All counts are sums, not differences: what came is counted once, however few ranges an
        // acknowledgement has room for.
        let came = self.ect0 + self.ce;
        if came > self.sent {
            return self.fail(now, EcnFault::Impossible);
        }
        if came < self.acked {
            return self.fail(now, EcnFault::Erased);
        }
        if acked.ect > 0 {
            self.lost = 0;
            self.state = State::Capable;
        }
        if ect0 > 0 {
            self.everything = None;
        } else if ce > 0 {
            let (since, count) = self.everything.get_or_insert((now, 0));
            *count += ce;
            let long = EVERYTHING_TIME.max(EVERYTHING_ROUNDS * srtt);
            if *count >= EVERYTHING && now.since(*since) >= long {
                return self.fail(now, EcnFault::Everything);
            }
        }
        (ce > 0).then(|| Marks {
            marked: ce,
            of: (ect0 + ce).max(acked.ect),
        })
    }

    /// Datagrams that left as ECT(0), from [`Ecn::tested_from`] on, are lost, and something sent later
    /// arrived.
    pub(super) fn on_lost(&mut self, now: Instant, lost: u64) {
        let lost = u32::try_from(lost).unwrap_or(u32::MAX);
        self.lost = self.lost.saturating_add(lost);
        if self.lost < TESTED {
            return;
        }
        match self.state {
            State::Capable => self.test_again(),
            // None arrived: what did was not marked.
            State::Testing { .. } => {
                self.fail(now, EcnFault::Dropped);
            }
            State::Off | State::Failed { .. } => {}
        }
    }

    fn fail(&mut self, now: Instant, fault: EcnFault) -> Option<Marks> {
        self.state = State::Failed { fault, at: now };
        None
    }

    /// What `show` tells.
    pub fn state(&self) -> EcnState {
        match self.state {
            State::Off => EcnState::Off,
            State::Testing { .. } => EcnState::Testing,
            State::Capable => EcnState::Capable,
            State::Failed { fault, .. } => EcnState::Failed(fault),
        }
    }

    /// Datagrams of ours that came to the peer marked, as far as that can be.
    pub fn marked(&self) -> u64 {
        self.ce.min(self.sent)
    }
}

impl State {
    /// A test that has not begun.
    const TEST: Self = Self::Testing {
        since: Instant::from_micros(0),
        sent: 0,
    };
}

#[cfg(test)]
#[path = "ecn_tests.rs"]
mod tests;
