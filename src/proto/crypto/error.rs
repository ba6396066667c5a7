//! Why a message of the handshake was refused.

use thiserror::Error;

use crate::config::Security;
use crate::proto::stats::Discard;

/// Why a message of the handshake was refused. None of these changes a handshake in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Its length or first byte fits no message of this version.
    #[error("is no handshake message of this version")]
    Malformed,
    /// Its first MAC is wrong: the sender does not know our public key, or it was damaged.
    #[error("is not made for this portal's public key")]
    WrongMac,
    /// It answers another initiation.
    #[error("answers another initiation")]
    NotForThis,
    /// It cannot be decrypted: another key, another pre-shared key, another version, or damaged.
    #[error("cannot be decrypted: do the keys and the pre-shared key of both portals fit?")]
    Forged,
    /// It comes from a portal that has another key than the configured one.
    #[error("comes from a portal with another key than the configured one")]
    WrongPeer,
    /// It, or a later one of the same peer, was seen before.
    #[error("was seen before, or is older than one that was seen")]
    Replayed,
    /// Too many came from this source, though it proved its address.
    #[error("is one too many from this source")]
    Flooded,
    /// The peer is set to another security mode.
    #[error("the peer is set to another security mode")]
    SecurityMismatch(Security),
}

impl HandshakeError {
    /// Under which cause the message is counted.
    pub fn discard(self) -> Discard {
        match self {
            Self::Malformed => Discard::Malformed,
            Self::Flooded => Discard::HandshakeFlood,
            Self::WrongMac
            | Self::NotForThis
            | Self::Forged
            | Self::WrongPeer
            | Self::Replayed
            | Self::SecurityMismatch(_) => Discard::BadHandshake,
        }
    }
}
