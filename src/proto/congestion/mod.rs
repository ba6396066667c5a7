//! How much a path may carry: the controllers behind one trait, and the pacer.

mod dtrc;
mod fixed;
mod kernel;
mod new_reno;
mod pacer;

use std::fmt::Debug;
use std::time::Duration;

use super::Instant;
use super::wire::Stamp;

pub use dtrc::Dtrc;
pub use fixed::Fixed;
pub use kernel::Kernel;
pub use new_reno::NewReno;
pub use pacer::Pacer;

/// A full datagram, bytes: the unit in which windows grow. Our own overhead on an inner packet of
/// 1,400 bytes, rounded.
pub const DATAGRAM: u64 = 1440;

/// A one-way delay, microseconds, by two clocks that have no common start: only differences of two
/// of them mean something, and between the paths of one tunnel the difference is true too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OneWayDelay(i64);

impl OneWayDelay {
    /// From sending, by our clock, to arrival, by the peer's.
    pub fn new(sent_at: Instant, received_at: Stamp) -> Self {
        Self(received_at.as_micros() as i64 - sent_at.as_micros() as i64)
    }

    /// So many microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How much longer this one is than `shorter`; zero when it is not.
    pub fn since(self, shorter: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - shorter.0).unwrap_or(0))
    }
}

/// What is known of the newest datagram that arrived, at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it was sent.
    pub sent_at: Instant,
    /// Bytes sent on the path so far, it included.
    pub sent: u64,
    /// When it arrived, by the peer's clock.
    pub received_at: Stamp,
    /// Bytes received on the path so far, it included.
    pub received: u64,
    /// Datagrams sent so far that left an empty queue behind: there the source was the limit.
    pub limited: u64,
}

/// An acknowledgement that accounted for something.
#[derive(Debug, Clone, Copy)]
pub struct AckEvent {
    /// When it came.
    pub now: Instant,
    /// Bytes newly acknowledged.
    pub bytes: u64,
    /// When the newest acknowledged datagram was sent.
    pub newest_sent: Instant,
    /// Bytes in flight before it.
    pub in_flight_before: u64,
    /// The smoothed round trip.
    pub srtt: Duration,
    /// The least round trip.
    pub min_rtt: Duration,
    /// The newest datagram that arrived, when this acknowledges one for the first time.
    pub arrival: Option<Arrival>,
}

/// Datagrams held for lost because later ones arrived. The silence of a path is no loss event: a
/// timer without a gap says nothing of congestion (PROTOCOL.md 1.1, picoquic).
#[derive(Debug, Clone, Copy)]
pub struct LossEvent {
    /// When it was noticed.
    pub now: Instant,
    /// Bytes lost.
    pub bytes: u64,
    /// When the newest lost datagram was sent.
    pub newest_sent: Instant,
}

/// Datagrams that a queue of the path marked instead of dropping them (ECN), because it is longer than
/// it should be. Unlike a loss, it is never the wire's.
#[derive(Debug, Clone, Copy)]
pub struct CeEvent {
    /// When it was told.
    pub now: Instant,
    /// Datagrams marked.
    pub marked: u64,
    /// Of so many.
    pub of: u64,
    /// When the newest datagram that was acknowledged with them was sent (RFC 9002 section B.7).
    pub newest_sent: Instant,
}

/// What a controller found out of its path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What the path delivers, bytes per second.
    pub bandwidth: u64,
    /// The queue that stands in it.
    pub queue: Duration,
    /// How far single datagrams are later than the rest.
    pub jitter: Duration,
}

/// A congestion controller of one direction of one path.
pub trait Controller: Debug + Send {
    /// Datagrams arrived.
    fn on_ack(&mut self, ack: &AckEvent);
    /// Datagrams are lost.
    fn on_loss(&mut self, loss: &LossEvent);
    /// Datagrams came marked.
    fn on_ce(&mut self, ce: &CeEvent);
    /// It sends less when datagrams come marked. Only then may they say that they can be
    /// (RFC 3168 section 5): the packets of a sender that does not listen are to be dropped.
    fn heeds_marks(&self) -> bool;
    /// The path was silent and speaks again, or its address changed: what was known is old.
    fn on_restart(&mut self);
    /// It takes what it can until something is lost: its path's queue has to be limited from
    /// outside.
    fn fills_queues(&self) -> bool;
    /// The window, bytes: no more may be in flight.
    fn window(&self) -> u64;
    /// The rate to send at, bytes per second; nothing: not known yet, the window alone rules.
    fn pacing_rate(&self, srtt: Option<Duration>) -> Option<u64>;
    /// What the path delivers, bytes per second; zero where it is not known.
    fn bandwidth(&self) -> u64 {
        0
    }
    /// True while it searches for the rate.
    fn is_searching(&self) -> bool {
        false
    }
    /// What it found out; nothing where it measures no rate, or not yet.
    fn estimate(&self) -> Option<Estimate> {
        None
    }
}
