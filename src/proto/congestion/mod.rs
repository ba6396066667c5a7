//! How much a path may carry: the controllers behind one trait, and the pacer.

mod fixed;
mod new_reno;
mod pacer;

use std::fmt::Debug;
use std::time::Duration;

use super::Instant;

pub use fixed::Fixed;
pub use new_reno::NewReno;
pub use pacer::Pacer;

/// A full datagram, bytes: the unit in which windows grow. Our own overhead on an inner packet of
/// 1,400 bytes, rounded.
pub const DATAGRAM: u64 = 1440;

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

/// A congestion controller of one direction of one path.
pub trait Controller: Debug + Send {
    /// Datagrams arrived.
    fn on_ack(&mut self, ack: &AckEvent);
    /// Datagrams are lost.
    fn on_loss(&mut self, loss: &LossEvent);
    /// The path was silent and speaks again, or its address changed: what was known is old.
    fn on_restart(&mut self);
    /// It takes what it can until something is lost: its path's queue has to be limited from
    /// outside.
    fn fills_queues(&self) -> bool;
    /// The window, bytes: no more may be in flight.
    fn window(&self) -> u64;
    /// The rate to send at, bytes per second; nothing: not known yet, the window alone rules.
    fn pacing_rate(&self, srtt: Option<Duration>) -> Option<u64>;
}
