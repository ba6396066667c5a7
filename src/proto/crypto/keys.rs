//! The keys of the configuration: base64 of 32 bytes, as wg writes them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::noise;
use crate::proto::Entropy;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a key (44 characters of base64, as `netcombiner genkey` prints)")]
pub struct KeyError;

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let mut bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError)?;
    let key = bytes.as_slice().try_into().map_err(|_| KeyError);
    bytes.zeroize();
    key
}

/// A private key of X25519. Wiped when dropped; its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; 32]);

/// A public key of X25519.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A secret shared by both portals. Wiped when dropped; its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey([u8; 32]);

impl PrivateKey {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the handshake and for `genkey`.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A new key, in the form that `wg genkey` gives too (RFC 7748 section 5: clamped).
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut key = Self([0; 32]);
        entropy.fill(&mut key.0);
        key.0[0] &= 0b1111_1000;
        key.0[31] = key.0[31] & 0b0111_1111 | 0b0100_0000;
        key
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        let mut dh = noise::x25519();
        dh.set(&self.0);
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey());
        PublicKey(public)
    }

    /// The key in base64, for `genkey`: deliberately not `Display`. Wiped when dropped.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl PublicKey {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PresharedKey {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut key = Self([0; 32]);
        entropy.fill(&mut key.0);
        key
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key in base64, for `genpsk`: deliberately not `Display`. Wiped when dropped.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for PresharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(hidden)")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::crypto::tests::TestEntropy;

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        // Section 6.1: Alice's keys.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let key: PrivateKey = private.parse().unwrap();
        assert_eq!(key.public().to_string(), public);
        assert_eq!(key.reveal().as_str(), private);
        assert_eq!(public.parse::<PublicKey>(), Ok(key.public()));
    }

    #[test]
    fn generated_keys_are_clamped_differ_and_come_back_from_text() {
        let mut entropy = TestEntropy::new(1);
        let (a, b) = (
            PrivateKey::generate(&mut entropy),
            PrivateKey::generate(&mut entropy),
        );
        assert_ne!(a, b);
        assert_eq!(a.bytes()[0] & 7, 0);
        assert_eq!(a.bytes()[31] & 0xc0, 0x40);
        assert_eq!(a.reveal().parse(), Ok(a.clone()));
        let psk = PresharedKey::generate(&mut entropy);
        assert_eq!(psk.reveal().parse(), Ok(psk.clone()));
        assert_eq!(
            format!("{a:?} {psk:?}"),
            "PrivateKey(hidden) PresharedKey(hidden)"
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "AAAA",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC",
            "ä",
            "!",
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError), "{text}");
            assert!(text.parse::<PrivateKey>().is_err(), "{text}");
        }
    }
}
