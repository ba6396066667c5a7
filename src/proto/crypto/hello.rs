//! What a portal says of itself inside the handshake, encrypted.

use crate::config::Security;
use crate::proto::Entropy;

/// The bytes of a [`Hello`] in this version; more may follow and are ignored.
pub(super) const HELLO_LEN: usize = 18;

/// Which run of a portal: random, fixed while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; 8]);

impl BootId {
    /// A new one.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// One of these bytes.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

/// What a portal says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Which run of the portal.
    pub boot: BootId,
    /// The number of the initiation within the run, from 1; each is greater than the one before.
    /// In a response: that of the newest initiation, 0 before the first.
    pub counter: u64,
    /// How data is protected.
    pub security: Security,
    /// Whether the processor has instructions for AES.
    pub aes: bool,
    /// Whether it knows PARITY frames: older versions do not.
    pub parity: bool,
}

/// The bits of the flags byte that say `aes` and `parity`; the others are reserved, sent as 0 and ignored.
const FLAG_AES: u8 = 1;
const FLAG_PARITY: u8 = 2;

impl Hello {
    /// As sent: boot id (8), counter (8, big endian), security (1), flags (1).
    pub(super) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        bytes[..8].copy_from_slice(&self.boot.0);
        bytes[8..16].copy_from_slice(&self.counter.to_be_bytes());
        bytes[16] = match self.security {
            Security::Encrypt => 1,
            Security::Authenticate => 2,
            Security::None => 3,
        };
        bytes[17] = (u8::from(self.aes) * FLAG_AES) | (u8::from(self.parity) * FLAG_PARITY);
        bytes
    }

    /// Back from what was sent; nothing, when it is too short or of an unknown security mode.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk()?;
        let (counter, rest) = rest.split_first_chunk()?;
        let (&[security, flags], _) = rest.split_first_chunk()?;
        Some(Self {
            boot: BootId(*boot),
            counter: u64::from_be_bytes(*counter),
            security: match security {
                1 => Security::Encrypt,
                2 => Security::Authenticate,
                3 => Security::None,
                _ => return None,
            },
            aes: flags & FLAG_AES != 0,
            parity: flags & FLAG_PARITY != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_with_more_behind_it() {
        for security in [Security::Encrypt, Security::Authenticate, Security::None] {
            for (aes, parity) in [(false, false), (true, false), (false, true)] {
                let hello = Hello {
                    boot: BootId([1, 2, 3, 4, 5, 6, 7, 8]),
                    counter: 0x0102_0304_0506_0708,
                    security,
                    aes,
                    parity,
                };
                assert_eq!(hello.encode()[17], u8::from(aes) + 2 * u8::from(parity));
                let mut bytes = hello.encode().to_vec();
                assert_eq!(Hello::decode(&bytes), Some(hello));
                bytes.extend([0xff; 7]);
                assert_eq!(Hello::decode(&bytes), Some(hello));
                bytes[17] |= 0xfc;
                assert_eq!(Hello::decode(&bytes), Some(hello), "reserved flags");
            }
        }
    }

    #[test]
    fn what_is_short_or_unknown_is_refused() {
        let bytes = Hello {
            boot: BootId([0; 8]),
            counter: 1,
            security: Security::Encrypt,
            aes: true,
            parity: true,
        }
        .encode();
        for len in 0..HELLO_LEN {
            assert_eq!(Hello::decode(&bytes[..len]), None);
        }
        for security in [0, 4, 255] {
            let mut bytes = bytes;
            bytes[16] = security;
            assert_eq!(Hello::decode(&bytes), None);
        }
    }
}
