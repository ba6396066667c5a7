//! What one direction of a link is like.

use std::time::Duration;

use super::aqm::{Aqm, EcnFault};
use super::loss::Loss;
use super::policer::Policer;

/// The properties of one direction of a link; every one may change while packets are on their way.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Bits per second of the transmitter, counted on packets as they are offered (the running
    /// emulator: IP packets, without Ethernet's header); `None` takes no time.
    pub rate: Option<u64>,
    /// One-way propagation delay.
    pub delay: Duration,
    /// Up to so much is added to the delay of each packet, uniformly. Order is kept: a packet waits
    /// for the one before it, so a dense flow sees nearly `delay + jitter` all the time.
    pub jitter: Duration,
    /// Loss on the wire.
    pub loss: Loss,
    /// Bytes that may wait or be in transmission; what comes beyond is dropped (tail drop).
    /// A packet that finds the queue empty always fits.
    pub queue: usize,
    /// Drops what comes faster than a contract allows, before the queue.
    pub policer: Option<Policer>,
    /// Holds the queue short.
    pub aqm: Option<Aqm>,
    /// What it does to ECN besides, as packets come.
    pub ecn_fault: Option<EcnFault>,
    /// Whether the link works at all.
    pub outage: Outage,
}

/// A link that does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outage {
    /// It works.
    #[default]
    None,
    /// A black hole: what comes, waits or flies is lost, and nobody is told.
    Drop,
    /// A stall (a radio that lost its cell): nothing moves, the queue fills up to its limit,
    /// and all that waited goes on when the stall ends.
    Hold,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::None,
            queue: MIN_QUEUE,
            policer: None,
            aqm: None,
            ecn_fault: None,
            outage: Outage::None,
        }
    }
}

/// Bytes of the smallest queue [`Shape::new`] gives: one whole TCP super-packet of 64 KiB, which a
/// sender puts on the wire in one burst.
const MIN_QUEUE: usize = 65_536;

/// What [`Shape::new`] lets wait: 100 ms, the common depth of a home router's queue.
const QUEUE_TIME_MS: u64 = 100;

impl Shape {
    /// A link of `mbps` Mbit/s, half of the round trip `rtt`, and a queue of 100 ms but at least
    /// 64 KiB.
    pub fn new(mbps: f64, rtt: Duration) -> Self {
        let rate = (mbps * 1e6) as u64;
        Self {
            rate: Some(rate),
            delay: rtt / 2,
            queue: MIN_QUEUE.max((rate / 8 * QUEUE_TIME_MS / 1000) as usize),
            ..Self::default()
        }
    }

    /// The same with another loss.
    pub fn with_loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    /// The same with jitter.
    pub fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// The same with a policer before it.
    pub fn with_policer(self, policer: Policer) -> Self {
        Self {
            policer: Some(policer),
            ..self
        }
    }

    /// The same with a queue that is held short.
    pub fn with_aqm(self, aqm: Aqm) -> Self {
        Self {
            aqm: Some(aqm),
            ..self
        }
    }

    /// The same, but it does this to ECN.
    pub fn with_ecn_fault(self, fault: EcnFault) -> Self {
        Self {
            ecn_fault: Some(fault),
            ..self
        }
    }

    /// The same with a queue of so many bytes.
    pub fn with_queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }
}
