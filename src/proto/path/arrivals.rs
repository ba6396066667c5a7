//! What came in on a path, and when to acknowledge it.

use std::time::Duration;

use crate::packet::ecn::Codepoint;
use crate::proto::Instant;
use crate::proto::recovery::Ranges;
use crate::proto::wire::frame::{AckHead, EcnCounts};
use crate::proto::wire::{PacketNumber, PathId, Stamp};

/// An acknowledgement is late by no more than this, or a quarter of the least round trip.
pub const MAX_ACK_DELAY: Duration = Duration::from_millis(5);
/// Nor is it earlier than this after the first datagram: a burst is answered once.
const LEAST_ACK_DELAY: Duration = Duration::from_millis(1);
/// Answered at once after so many datagrams: 32 of 1,440 bytes are 46 kB, 2 ms at 180 Mbit/s.
const MOST_UNANSWERED: u32 = 32;
/// The first datagram after such a silence is answered at once: somebody asks whether we live.
const SILENCE: Duration = Duration::from_millis(50);
/// Datagrams that came before are answered no more often than this.
const REPLAYED_EVERY: Duration = Duration::from_millis(100);

/// What came in on a path.
#[derive(Debug, Default)]
pub struct Arrivals {
    ranges: Ranges,
    largest_at: Instant,
    last_at: Option<Instant>,
    bytes: u64,
    datagrams: u64,
    ecn: EcnCounts,
    /// The last datagram was marked.
    marked: bool,
    /// A mark is to be told at once, with the next answer.
    first_mark: bool,
    unanswered: u32,
    /// When the acknowledgement is due.
    due: Option<Instant>,
    /// When one was last made due by a datagram that came before.
    replayed: Option<Instant>,
}

impl Arrivals {
    /// Notes an authentic datagram, new to the replay window.
    pub fn on_datagram(
        &mut self,
        now: Instant,
        number: PacketNumber,
        bytes: usize,
        codepoint: Codepoint,
    ) {
        if self.ranges.largest().is_none_or(|largest| number > largest) {
            self.largest_at = now;
        }
        if self.ranges.insert(number) {
            // A gap on a FIFO path proves a loss: the sender wants to know now.
            self.due = Some(now);
        }
        self.bytes += bytes as u64;
        self.datagrams += 1;
        self.count_mark(codepoint);
    }

    /// The first marked datagram after others is told at once (RFC 9000 section 13.2.1), if it is to be
    /// answered at all: a mark of an acknowledgement is no reason for another one. Of a run of
    /// them the delayed acknowledgements tell, as in RFC 8257 section 3.2: a network that marks
    /// everything is to cost no acknowledgement a datagram.
    fn count_mark(&mut self, codepoint: Codepoint) {
        match codepoint {
            Codepoint::Capable => self.ecn.ect0 = self.ecn.ect0.wrapping_add(1),
            Codepoint::Experienced => {
                self.ecn.ce = self.ecn.ce.wrapping_add(1);
                self.first_mark |= !self.marked;
            }
            // What is sent as ECT(0) and comes so was rewritten: it is not counted, and the sender
            // sees that something is missing.
            Codepoint::NotCapable | Codepoint::CapableOne => {}
        }
        if codepoint != Codepoint::NotCapable {
            self.marked = codepoint == Codepoint::Experienced;
        }
    }

    /// Notes that the datagram asks for an acknowledgement.
    pub fn on_eliciting(&mut self, now: Instant, min_rtt: Option<Duration>) {
        self.unanswered = self.unanswered.saturating_add(1);
        let silent = self.last_at.is_none_or(|last| now.since(last) >= SILENCE);
        self.last_at = Some(now);
        let told_now = std::mem::take(&mut self.first_mark);
        let delay = if silent || told_now || self.unanswered >= MOST_UNANSWERED {
            Duration::ZERO
        } else {
            min_rtt.map_or(LEAST_ACK_DELAY, |rtt| {
                (rtt / 4).clamp(LEAST_ACK_DELAY, MAX_ACK_DELAY)
            })
        };
        let due = now + delay;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// A datagram came that came before. The peer may have been set back to an earlier state (a snapshot
    /// of a virtual machine), and repeat numbers under the same keys: that it hears what we have tells
    /// it so.
    pub fn on_replayed(&mut self, now: Instant) {
        let recent = |last| now.since(last) < REPLAYED_EVERY;
        if self.ranges.largest().is_some() && !self.replayed.is_some_and(recent) {
            self.replayed = Some(now);
            self.due = Some(now);
        }
    }

    /// When the acknowledgement is due, if one is owed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What an acknowledgement says.
    pub fn ack(&self, path: PathId) -> (AckHead, &Ranges) {
        let received_at = Stamp::of(self.largest_at);
        let head = AckHead {
            path,
            received_at,
            bytes: self.bytes as u32,
            ecn: self.ecn,
        };
        (head, &self.ranges)
    }

    /// Notes that the acknowledgement was sent.
    pub fn on_ack_sent(&mut self) {
        self.due = None;
        self.unanswered = 0;
    }

    /// Datagrams received.
    pub fn datagrams(&self) -> u64 {
        self.datagrams
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn arrive(arrivals: &mut Arrivals, micros: u64, number: u64) {
        arrivals.on_datagram(at(micros), PacketNumber(number), 100, Codepoint::Capable);
        arrivals.on_eliciting(at(micros), Some(Duration::from_millis(12)));
    }

    #[test]
    fn first_after_silence_then_delayed_then_at_once_on_a_gap() {
        let mut arrivals = Arrivals::default();
        arrive(&mut arrivals, 1_000, 0);
        assert_eq!(arrivals.due(), Some(at(1_000)));
        arrivals.on_ack_sent();
        arrive(&mut arrivals, 2_000, 1);
        assert_eq!(arrivals.due(), Some(at(5_000)));
        arrive(&mut arrivals, 3_000, 2);
        assert_eq!(arrivals.due(), Some(at(5_000)));
        arrive(&mut arrivals, 3_500, 4);
        assert_eq!(arrivals.due(), Some(at(3_500)));
    }

    #[test]
    fn a_bare_acknowledgement_is_not_answered() {
        let mut arrivals = Arrivals::default();
        for (number, codepoint) in [Codepoint::NotCapable, Codepoint::Experienced]
            .into_iter()
            .enumerate()
        {
            arrivals.on_datagram(at(1), PacketNumber(number as u64), 40, codepoint);
            assert_eq!(arrivals.due(), None);
        }
    }

    #[test]
    fn the_first_mark_is_told_at_once_and_all_are_counted() {
        let mut arrivals = Arrivals::default();
        let mut due = Vec::new();
        let (ect, ce) = (Codepoint::Capable, Codepoint::Experienced);
        for (n, codepoint) in [ect, ect, ce, ce, ect, ce].into_iter().enumerate() {
            let now = at(1_000 + n as u64);
            arrivals.on_datagram(now, PacketNumber(n as u64), 100, codepoint);
            arrivals.on_eliciting(now, Some(Duration::from_millis(12)));
            due.push(arrivals.due() == Some(now));
            arrivals.on_ack_sent();
        }
        // The very first one ends a silence.
        assert_eq!(due, [true, false, true, false, false, true]);
        let counts = EcnCounts { ect0: 3, ce: 3 };
        assert_eq!(arrivals.ack(PathId::all().next().unwrap()).0.ecn, counts);
    }
}
