//! Keys, the handshake, the sealing of datagrams, the replay window.
//!
//! The handshake is Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s between two portals that know each
//! other's public key, with the message layout and the defence against floods of WireGuard
//! (PROTOCOL.md section 2.2). One session serves all paths.
//!
//! - An [`Initiator`] writes an initiation and reads what answers it; a wrong answer changes
//!   nothing.
//! - The [`Responder`] answers initiations, at a bounded cost whatever is sent.
//! - Both end in an [`Established`]: a [`Session`] that seals and opens datagrams, and what the
//!   peer said of itself.
//!
//! All randomness comes from [`Entropy`](super::Entropy), all time is an argument.

mod blake;
mod boots;
pub mod cookie;
mod datagram_mac;
mod error;
mod hello;
mod identity;
mod indices;
mod initiator;
pub mod keys;
mod limit;
mod message;
mod noise;
mod replay;
mod responder;
mod session;

#[cfg(test)]
mod tests;

pub use cookie::Cookie;
pub use error::HandshakeError;
pub use hello::{BootId, Hello};
pub use identity::Identity;
pub use initiator::Initiator;
pub(in crate::proto) use limit::{Bucket, Rate, SourceTable};
pub use message::{COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN};
pub use replay::{ReplayError, ReplayWindow};
pub use responder::{Answer, Responder};
pub use session::{Established, Sealed, Session};
