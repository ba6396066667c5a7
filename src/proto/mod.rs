//! The tunnel, pure: no clock, socket, file, thread or `unsafe`. Bytes and events in, bytes and
//! events out; time is an argument.
//!
//! # The contract
//!
//! A [`Tunnel`] is driven by its owner, and only by its owner. After any `handle_*(now, ..)`, drain
//! `poll_transmit`, `poll_packet` and `poll_event` until each gives nothing, then read
//! `poll_timeout` and come back with `handle_timeout` at that time or with the next input before
//! it. Time never goes back.
//!
//! Two rules keep multipath simple. *Schedule late*: a packet waits in the one queue until a path
//! can really send it; only then does it get a path, a packet number and a seal. *Lost means
//! re-decided*: a lost packet is never resent "on its path"; it is kept until it is known to have
//! arrived, and goes on whichever path is best then ([`repair`]).
#![forbid(unsafe_code)]

pub mod batch;
pub mod congestion;
pub mod crowd;
pub mod crypto;
pub mod event;
pub mod parity;
pub mod path;
pub mod queue;
pub mod recovery;
pub mod reorder;
pub mod repair;
pub mod scheduler;
pub mod stats;
pub mod time;
pub mod tunnel;
pub mod wire;

pub use batch::Batch;
pub use time::Instant;
pub use tunnel::Tunnel;

/// Randomness, injected so that a simulated run repeats.
pub trait Entropy: Send {
    /// Fills `out` with unpredictable bytes.
    fn fill(&mut self, out: &mut [u8]);
}
