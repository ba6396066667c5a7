//! The keys of a tunnel, and what the handshake derives of them once.

use std::fmt;

use super::blake::hash;
use super::keys::{PresharedKey, PrivateKey, PublicKey};

/// The keys of a tunnel, ready for handshakes. Its `Debug` shows public keys only.
#[derive(Clone)]
pub struct Identity {
    /// This portal's private key.
    pub(super) private: PrivateKey,
    /// This portal's public key.
    pub(super) public: PublicKey,
    /// The peer's public key.
    pub(super) peer: PublicKey,
    /// The pre-shared key, zeros when none is configured (as WireGuard does).
    pub(super) preshared: PresharedKey,
    /// Keys the first MAC of what this portal receives.
    pub(super) our_mac1: [u8; 32],
    /// Keys the first MAC of what the peer receives.
    pub(super) peer_mac1: [u8; 32],
    /// Seals the cookies that this portal gives.
    pub(super) our_cookie: [u8; 32],
    /// Seals the cookies that the peer gives.
    pub(super) peer_cookie: [u8; 32],
}

/// Makes the key of the first MAC of a public key.
const LABEL_MAC1: &str = "netcombiner v1 mac1";
/// Makes the key that seals cookies of a public key.
const LABEL_COOKIE: &str = "netcombiner v1 cookie";

impl Identity {
    /// The identity of the portal that has `private` and speaks with `peer`.
    pub fn new(private: PrivateKey, peer: PublicKey, preshared: Option<PresharedKey>) -> Self {
        let public = private.public();
        Self {
            our_mac1: hash(LABEL_MAC1, public.bytes()),
            peer_mac1: hash(LABEL_MAC1, peer.bytes()),
            our_cookie: hash(LABEL_COOKIE, public.bytes()),
            peer_cookie: hash(LABEL_COOKIE, peer.bytes()),
            preshared: preshared.unwrap_or_else(|| PresharedKey::from_bytes([0; 32])),
            private,
            public,
            peer,
        }
    }

    /// This portal's public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public", &self.public)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
