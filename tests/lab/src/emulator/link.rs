//! One direction of a link, pure: a transmitter with a queue, then a wire with a delay.
//!
//! ```text
//! offer -> policer -> [queue, tail drop] -> AQM -> transmitter (rate) -> loss -> wire (delay, jitter) -> poll
//! ```
//!
//! Time is an argument (a reading of any clock that starts at zero) and never goes back. The
//! contract: after [`Link::offer`] and [`Link::reshape`], and whenever [`Link::next`] is due, call
//! [`Link::poll`] until it gives `None`.

use std::collections::VecDeque;
use std::time::Duration;

use netcombiner::packet::ecn::Codepoint;

use super::aqm::{AqmState, EcnFault};
use super::counters::Counters;
use super::loss::LossState;
use super::policer::PolicerState;
use super::rng::Rng;
use super::shape::{Outage, Shape};

/// What a link needs to know of a packet.
pub trait Packet {
    /// Bytes that the packet takes on the wire.
    fn size(&self) -> usize;

    /// What it says of congestion.
    fn codepoint(&self) -> Codepoint {
        Codepoint::NotCapable
    }

    /// Marks it; false when it cannot be marked.
    fn mark(&mut self) -> bool {
        false
    }
}

impl Packet for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }
}

/// Why a packet was not taken; the packet is given back, so that its buffer is used again.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<P> {
    /// The queue was full, or the policer had no credit.
    Full(P),
    /// The link is a black hole now.
    Outage(P),
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link<P> {
    shape: Shape,
    rng: Rng,
    loss: LossState,
    policer: PolicerState,
    aqm: AqmState,
    waiting: VecDeque<Waiting<P>>,
    waiting_bytes: usize,
    /// Of the packet at the head of the queue: what is still to send, in bit nanoseconds
    /// (bits x 10^9), so that a change of the rate in its middle is exact.
    remaining: u128,
    /// Since when the head is sent at the present rate.
    since: Duration,
    wire: VecDeque<Flying<P>>,
    /// When the last packet put on the wire comes out: none may overtake it.
    last_arrival: Duration,
    counters: Counters,
}

#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    since: Duration,
}

#[derive(Debug)]
struct Flying<P> {
    packet: P,
    arrival: Duration,
}

const BIT_NANOS: u128 = 1_000_000_000;

impl<P: Packet> Link<P> {
    /// An idle link. `seed` decides its losses and jitter.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            rng: Rng::new(seed),
            loss: LossState::default(),
            policer: PolicerState::default(),
            aqm: AqmState::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            remaining: 0,
            since: Duration::ZERO,
            wire: VecDeque::new(),
            last_arrival: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// What the link is like now.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What it has done so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes that wait or are in transmission.
    pub const fn waiting(&self) -> usize {
        self.waiting_bytes
    }

    /// Gives the link a packet.
    pub fn offer(&mut self, now: Duration, mut packet: P) -> Result<(), Refused<P>> {
        self.transmit(now);
        let size = packet.size();
        self.counters.offered(size);
        if self.shape.outage == Outage::Drop {
            self.counters.dropped_outage += 1;
            return Err(Refused::Outage(packet));
        }
        match self.shape.ecn_fault {
            Some(EcnFault::DropsCapable) if packet.codepoint() != Codepoint::NotCapable => {
                self.counters.dropped_capable += 1;
                return Err(Refused::Full(packet));
            }
            Some(EcnFault::MarksAll) => self.counters.marked += u64::from(packet.mark()),
            Some(EcnFault::DropsCapable) | None => {}
        }
        if let Some(policer) = self.shape.policer
            && !self.policer.passes(policer, now, size)
        {
            self.counters.dropped_policer += 1;
            return Err(Refused::Full(packet));
        }
        if !self.waiting.is_empty() && self.waiting_bytes + size > self.shape.queue {
            self.counters.dropped_queue += 1;
            return Err(Refused::Full(packet));
        }
        let idle = self.waiting.is_empty();
        self.waiting_bytes += size;
        self.counters.queue_peak = self.counters.queue_peak.max(self.waiting_bytes);
        self.waiting.push_back(Waiting { packet, since: now });
        if idle {
            self.begin(now);
        }
        Ok(())
    }

    /// The next packet that came out by `now`.
    pub fn poll(&mut self, now: Duration) -> Option<P> {
        self.transmit(now);
        if self.shape.outage != Outage::None {
            return None;
        }
        self.wire.front().filter(|flying| flying.arrival <= now)?;
        let flying = self.wire.pop_front()?;
        self.counters.delivered(flying.packet.size());
        Some(flying.packet)
    }

    /// When [`Link::poll`] has something to do again, if no packet comes before.
    pub fn next(&self) -> Option<Duration> {
        if self.shape.outage != Outage::None {
            return None;
        }
        // What waits comes out after what flies: until then its time of sending can be reckoned
        // afterwards, so it is no reason to wake up.
        let arrival = self.wire.front().map(|flying| flying.arrival);
        arrival.or_else(|| self.waiting.front().map(|_| self.head_sent()))
    }

    /// Makes the link another one from now on. What waits or flies stays, except in a black hole:
    /// what it swallows is given back for its buffers.
    pub fn reshape(&mut self, now: Duration, shape: Shape) -> Vec<P> {
        self.transmit(now);
        let elapsed = now.saturating_sub(self.since).as_nanos();
        let sent = match (self.shape.outage, self.shape.rate) {
            (Outage::None, Some(rate)) => elapsed * u128::from(rate),
            (Outage::None | Outage::Drop | Outage::Hold, _) => 0,
        };
        self.remaining = self.remaining.saturating_sub(sent);
        self.since = now;
        self.shape = shape;
        if self.shape.outage != Outage::Drop {
            return Vec::new();
        }
        let swallowed = (self.waiting.drain(..).map(|waiting| waiting.packet))
            .chain(self.wire.drain(..).map(|flying| flying.packet))
            .collect::<Vec<_>>();
        self.counters.dropped_outage += swallowed.len() as u64;
        self.waiting_bytes = 0;
        swallowed
    }

    /// Moves all that the transmitter has sent by `now` to the wire.
    fn transmit(&mut self, now: Duration) {
        if self.shape.outage != Outage::None {
            return;
        }
        while !self.waiting.is_empty() {
            let sent = self.head_sent();
            if sent > now {
                return;
            }
            let Some(head) = self.waiting.pop_front() else {
                return;
            };
            let size = head.packet.size();
            self.waiting_bytes -= size;
            self.counters.sent(sent.saturating_sub(head.since));
            self.begin(sent);
            if self.loss.loses(self.shape.loss, &mut self.rng) {
                self.counters.dropped_loss += 1;
                continue;
            }
            let jitter = self.shape.jitter.mul_f64(self.rng.unit());
            let arrival = (sent + self.shape.delay + jitter).max(self.last_arrival);
            self.last_arrival = arrival;
            self.wire.push_back(Flying {
                packet: head.packet,
                arrival,
            });
        }
    }

    /// Begins to send the head of the queue: the first one that the AQM leaves.
    fn begin(&mut self, now: Duration) {
        while let Some(head) = self.waiting.front_mut() {
            let size = head.packet.size();
            let waited = now.saturating_sub(head.since);
            // The rest is no queue when it is less than a packet (RFC 8289 section 5.1).
            let last = self.waiting_bytes <= size;
            let hit = (self.shape.aqm).is_some_and(|aqm| self.aqm.hits(aqm, now, waited, last));
            if !hit || head.packet.mark() {
                self.counters.marked += u64::from(hit);
                self.remaining = size as u128 * 8 * BIT_NANOS;
                self.since = now;
                return;
            }
            self.counters.dropped_aqm += 1;
            self.waiting_bytes -= size;
            self.waiting.pop_front();
        }
    }

    /// When the last bit of the head is sent at the present rate.
    fn head_sent(&self) -> Duration {
        match self.shape.rate {
            None => self.since,
            Some(rate) => {
                let nanos = self.remaining.div_ceil(u128::from(rate.max(1)));
                self.since.saturating_add(Duration::from_nanos(
                    u64::try_from(nanos).unwrap_or(u64::MAX),
                ))
            }
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
