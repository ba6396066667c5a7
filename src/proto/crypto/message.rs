//! The layout of the three messages of the handshake.
//!
//! ```text
//! initiation    kind 1 | sender's index 3 | Noise message with a padded Hello | mac1 16 | mac2 16
//! response      kind 1 | receiver 3       | Noise message with a Hello        | mac1 16 | zero 16
//! cookie reply  kind 1 | receiver 3       | nonce 24 | sealed cookie 32
//! ```
//!
//! `receiver` is the index that the initiation named. `mac1` is keyed by the receiver's public key
//! and covers all before it; `mac2` is keyed by a cookie and covers `mac1` too, all zero without
//! one. A Noise message may be longer than this version writes it: a Hello may grow.

use super::blake::{MAC_LEN, mac16};
use super::hello::HELLO_LEN;
use crate::proto::wire::{Kind, ReceiverIndex, TAG_LEN};

/// The kind and the index, bytes.
pub(super) const PREFIX_LEN: usize = 4;
/// What Noise adds to the payload of the first message: ephemeral key, static key with tag, tag.
const NOISE_INITIATION: usize = 32 + 32 + TAG_LEN + TAG_LEN;
/// What Noise adds to the payload of the second message: ephemeral key, tag.
const NOISE_RESPONSE: usize = 32 + TAG_LEN;
/// Both MACs.
const MACS_LEN: usize = 2 * MAC_LEN;

/// The payload of an initiation, bytes: a [`Hello`](super::Hello) and zeros. The zeros let a
/// response or its Hello grow in later versions and still be shorter than what it answers.
pub(super) const INITIATION_PAYLOAD: usize = 64;
/// The Noise part of an initiation that this version writes.
pub(super) const INITIATION_NOISE: usize = NOISE_INITIATION + INITIATION_PAYLOAD;
/// The Noise part of a response that this version writes.
pub(super) const RESPONSE_NOISE: usize = NOISE_RESPONSE + HELLO_LEN;
/// An initiation, bytes.
pub const INITIATION_LEN: usize = PREFIX_LEN + INITIATION_NOISE + MACS_LEN;
/// A response, bytes.
pub const RESPONSE_LEN: usize = PREFIX_LEN + RESPONSE_NOISE + MACS_LEN;
/// The nonce of a cookie reply, bytes (XChaCha20-Poly1305).
pub(super) const COOKIE_NONCE_LEN: usize = 24;
/// The sealed cookie, bytes.
pub(super) const SEALED_COOKIE_LEN: usize = MAC_LEN + TAG_LEN;
/// A cookie reply, bytes.
pub const COOKIE_REPLY_LEN: usize = PREFIX_LEN + COOKIE_NONCE_LEN + SEALED_COOKIE_LEN;

/// The shortest initiation that is read: with a Hello and no padding.
const INITIATION_MIN: usize = PREFIX_LEN + NOISE_INITIATION + HELLO_LEN + MACS_LEN;
/// The longest handshake message that is read, bytes: room for later versions, small enough for
/// every link.
const MESSAGE_MAX: usize = 512;

// Nobody gets more bytes than he sent: no amplification.
const _: () = assert!(RESPONSE_LEN <= INITIATION_MIN);
const _: () = assert!(COOKIE_REPLY_LEN <= INITIATION_MIN);
const _: () = assert!(INITIATION_LEN <= MESSAGE_MAX);

/// The parts of an initiation or a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    /// The index of the initiator.
    pub(super) index: ReceiverIndex,
    /// The Noise message.
    pub(super) noise: &'a [u8],
    /// What `mac1` covers.
    pub(super) covered: &'a [u8],
    /// Keyed by the receiver's public key.
    pub(super) mac1: &'a [u8; MAC_LEN],
    /// Keyed by a cookie, or zeros.
    pub(super) mac2: &'a [u8; MAC_LEN],
}

/// The parts of an initiation, when its length and kind fit.
pub(super) fn initiation(message: &[u8]) -> Option<Envelope<'_>> {
    envelope(message, Kind::Initiation, INITIATION_MIN)
}

/// The parts of a response, when its length and kind fit.
pub(super) fn response(message: &[u8]) -> Option<Envelope<'_>> {
    envelope(message, Kind::Response, RESPONSE_LEN)
}

fn envelope(message: &[u8], kind: Kind, min: usize) -> Option<Envelope<'_>> {
    if message.len() < min || message.len() > MESSAGE_MAX {
        return None;
    }
    let (rest, mac2) = message.split_last_chunk()?;
    let (covered, mac1) = rest.split_last_chunk()?;
    let (&[first, a, b, c], noise) = covered.split_first_chunk()?;
    (first == kind as u8).then_some(Envelope {
        index: ReceiverIndex::new([a, b, c]),
        noise,
        covered,
        mac1,
        mac2,
    })
}

/// An initiation or a response, without a cookie's MAC.
pub(super) fn assemble(
    kind: Kind,
    index: ReceiverIndex,
    noise: &[u8],
    mac1_key: &[u8; 32],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(PREFIX_LEN + noise.len() + MACS_LEN);
    message.push(kind as u8);
    message.extend(index.bytes());
    message.extend(noise);
    let mac1 = mac16(mac1_key, &[&message]);
    message.extend(mac1);
    message.extend([0; MAC_LEN]);
    message
}

/// The parts of a cookie reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct CookieReply<'a> {
    /// The index of the initiator.
    pub(super) index: ReceiverIndex,
    /// The nonce.
    pub(super) nonce: &'a [u8; COOKIE_NONCE_LEN],
    /// The cookie, sealed.
    pub(super) sealed: &'a [u8; SEALED_COOKIE_LEN],
}

/// The parts of a cookie reply, when its length and kind fit.
pub(super) fn cookie_reply(message: &[u8]) -> Option<CookieReply<'_>> {
    let (&[first, a, b, c], rest) = message.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let sealed = rest.try_into().ok()?;
    (first == Kind::Cookie as u8).then_some(CookieReply {
        index: ReceiverIndex::new([a, b, c]),
        nonce,
        sealed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_frozen() {
        assert_eq!(INITIATION_LEN, 196);
        assert_eq!(INITIATION_MIN, 150);
        assert_eq!(RESPONSE_LEN, 102);
        assert_eq!(COOKIE_REPLY_LEN, 60);
    }

    #[test]
    fn a_message_comes_apart_as_it_was_put_together() {
        let key = [3; 32];
        let index = ReceiverIndex::new([1, 2, 3]);
        let noise = [9; INITIATION_NOISE];
        let message = assemble(Kind::Initiation, index, &noise, &key);
        assert_eq!(message.len(), INITIATION_LEN);
        let parts = initiation(&message).unwrap();
        assert_eq!(parts.index, index);
        assert_eq!(parts.noise, noise);
        assert_eq!(*parts.mac1, mac16(&key, &[parts.covered]));
        assert_eq!(*parts.mac2, [0; MAC_LEN]);
        assert!(response(&message).is_none());
        assert!(cookie_reply(&message).is_none());
    }
}
