//! The cookie: a proof that a sender receives at the address it sends from, asked for under load.
//!
//! The responder keeps no state for it: a cookie is a MAC over the sender's address. It travels
//! sealed under a key made of the responder's public key and bound to the initiation it answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::blake::{MAC_LEN, hash, mac16, mac16_is};
use super::message::{COOKIE_NONCE_LEN, COOKIE_REPLY_LEN, CookieReply, Envelope};
use crate::proto::wire::{Kind, TAG_LEN};
use crate::proto::{Entropy, Instant};

/// How long a cookie is used after it came (as WireGuard, section 5.4.7 of its paper).
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Makes the key of `mac2` of a cookie.
const LABEL_MAC2: &str = "netcombiner v1 mac2";

/// A cookie that a responder gave; it is good for one source address only.
#[derive(Clone)]
pub struct Cookie {
    value: [u8; MAC_LEN],
    received: Instant,
}

impl Cookie {
    /// Whether it is still young enough to be used.
    pub fn is_fresh(&self, now: Instant) -> bool {
        now.since(self.received) < COOKIE_LIFETIME
    }

    /// Opens the cookie in a reply to the initiation whose first MAC is `mac1`.
    pub(super) fn open(
        reply: CookieReply<'_>,
        key: &[u8; 32],
        mac1: &[u8; MAC_LEN],
        now: Instant,
    ) -> Option<Self> {
        let (value, tag) = reply.sealed.split_first_chunk::<MAC_LEN>()?;
        let mut value = *value;
        XChaCha20Poly1305::new(key.into())
            .decrypt_in_place_detached(
                XNonce::from_slice(reply.nonce),
                mac1,
                &mut value,
                Tag::from_slice(tag),
            )
            .ok()?;
        Some(Self {
            value,
            received: now,
        })
    }

    /// The second MAC over `covered` and `mac1`.
    pub(super) fn mac2(&self, covered: &[u8], mac1: &[u8]) -> [u8; MAC_LEN] {
        mac16(&hash(LABEL_MAC2, &self.value), &[covered, mac1])
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie(received {})", self.received)
    }
}

/// Gives cookies and knows them again.
pub(super) struct CookieJar {
    current: Zeroizing<[u8; 32]>,
    /// The secret before: so a cookie lives for its whole time, whenever it was given.
    previous: Option<Zeroizing<[u8; 32]>>,
    since: Instant,
}

impl CookieJar {
    pub(super) fn new(now: Instant, entropy: &mut dyn Entropy) -> Self {
        Self {
            current: secret(entropy),
            previous: None,
            since: now,
        }
    }

    /// Whether the second MAC of an initiation shows a cookie given to `source`.
    pub(super) fn proves(
        &mut self,
        message: &Envelope<'_>,
        source: SocketAddr,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> bool {
        if *message.mac2 == [0; MAC_LEN] {
            return false;
        }
        self.rotate(now, entropy);
        let address = address(source);
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|secret| {
                let key = hash(LABEL_MAC2, &mac16(secret, &[&address]));
                mac16_is(&key, &[message.covered, message.mac1], message.mac2)
            })
    }

    /// A cookie reply for `source` to the initiation `message`, sealed under `key`.
    pub(super) fn reply(
        &mut self,
        message: &Envelope<'_>,
        key: &[u8; 32],
        source: SocketAddr,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Vec<u8> {
        self.rotate(now, entropy);
        let mut cookie = mac16(&self.current, &[&address(source)]);
        let mut nonce = [0; COOKIE_NONCE_LEN];
        entropy.fill(&mut nonce);
        let tag: [u8; TAG_LEN] = seal(key, &nonce, message.mac1, &mut cookie);
        let mut reply = Vec::with_capacity(COOKIE_REPLY_LEN);
        reply.push(Kind::Cookie as u8);
        reply.extend(message.index.bytes());
        reply.extend(nonce);
        reply.extend(cookie);
        reply.extend(tag);
        reply
    }

    fn rotate(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let age = now.since(self.since);
        if age < COOKIE_LIFETIME {
            return;
        }
        let old = std::mem::replace(&mut self.current, secret(entropy));
        self.previous = (age < 2 * COOKIE_LIFETIME).then_some(old);
        self.since = now;
    }
}

#[expect(
    clippy::expect_used,
    reason = "the cipher fails only on more than 256 GiB, here are 16 bytes"
)]
fn seal(
    key: &[u8; 32],
    nonce: &[u8; COOKIE_NONCE_LEN],
    associated: &[u8],
    cookie: &mut [u8; MAC_LEN],
) -> [u8; TAG_LEN] {
    XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(XNonce::from_slice(nonce), associated, cookie)
        .expect("16 bytes are not too long")
        .into()
}

fn secret(entropy: &mut dyn Entropy) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    entropy.fill(&mut *secret);
    secret
}

/// Address and port as 18 bytes; an IPv4 address is the same in its IPv6 form (RFC 4291 section
/// 2.5.5.2).
fn address(source: SocketAddr) -> [u8; 18] {
    let ip = match source.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&source.port().to_be_bytes());
    bytes
}
