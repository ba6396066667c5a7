//! Every constant and every structure of the protocol (PROTOCOL.md section 2.1).

pub mod frame;
pub mod header;
pub mod number;
pub mod stamp;

pub use header::Header;
pub use number::{PacketNumber, PathId, ReceiverIndex};
pub use stamp::Stamp;

/// The paths of one tunnel at most: the mask of a DATA frame is one byte.
pub const MAX_PATHS: usize = 8;
/// The clear header of a datagram, bytes: type, receiver index (3), packet number (4).
pub const HEADER_LEN: usize = 8;
/// The send time at the head of a datagram's body, bytes.
pub const STAMP_LEN: usize = 3;
/// The tag of an AEAD or of the keyed BLAKE2s, bytes.
pub const TAG_LEN: usize = 16;

/// The first byte of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation = 0x10,
    /// Its answer.
    Response = 0x20,
    /// "Prove your address": the answer to an initiation under load.
    Cookie = 0x30,
    /// Sealed frames, with a tag.
    Sealed = 0x40,
    /// "I do not know this receiver index"; not authenticated, never larger than its cause.
    UnknownIndex = 0x50,
    /// DATA frames without a tag, in the security mode `none` only.
    Bare = 0x60,
}

impl Kind {
    /// The kind of this first byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Initiation,
            Self::Response,
            Self::Cookie,
            Self::Sealed,
            Self::UnknownIndex,
            Self::Bare,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}
