//! A session: the keys that a handshake gave, both directions, all paths.

use std::fmt;

use blake2::digest::Mac;
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

use super::blake::{Mac16, derive, mac16_state};
use super::hello::Hello;
use super::indices::Indices;
use crate::config::Security;
use crate::proto::wire::{HEADER_LEN, PacketNumber, PathId, ReceiverIndex, TAG_LEN};

/// The tag of a datagram is wrong: another key, another path or number, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the datagram's tag is wrong")]
pub struct Forged;

/// What a handshake ends in.
#[derive(Debug)]
pub struct Established {
    /// The keys.
    pub session: Session,
    /// What the peer said of itself.
    pub peer_hello: Hello,
}

/// The keys of both directions. Packet numbers must never repeat on a path: they are the nonces.
pub struct Session {
    tx: Half,
    rx: Half,
    security: Security,
    cipher: Cipher,
}

impl Session {
    /// The session of the two secrets a handshake split into; the first is the initiator's for
    /// sending.
    pub(super) fn new(
        split: &([u8; 32], [u8; 32]),
        initiator: bool,
        us: &Hello,
        peer: &Hello,
    ) -> Self {
        let cipher = Cipher::negotiate(us, peer);
        let security = us.security;
        let first = Half::new(&split.0, 0, cipher, security);
        let second = Half::new(&split.1, 1, cipher, security);
        let (tx, rx) = if initiator {
            (first, second)
        } else {
            (second, first)
        };
        Self {
            tx,
            rx,
            security,
            cipher,
        }
    }

    /// The index by which the peer knows a path of ours.
    pub fn tx_index(&self, path: PathId) -> ReceiverIndex {
        self.tx.indices.of(path)
    }

    /// The path of a datagram that came with this index. Two sessions may, rarely, share an index:
    /// when [`Self::open`] fails, ask the other session.
    pub fn rx_path(&self, index: ReceiverIndex) -> Option<PathId> {
        self.rx.indices.path(index)
    }

    /// How data is protected.
    pub fn security(&self) -> Security {
        self.security
    }

    /// What makes the tags of sealed datagrams, as text.
    pub fn cipher_name(&self) -> &'static str {
        match (self.security, self.cipher) {
            (Security::Authenticate, _) => "BLAKE2s",
            (Security::Encrypt | Security::None, Cipher::ChaCha20Poly1305) => "ChaCha20-Poly1305",
            (Security::Encrypt | Security::None, Cipher::Aes256Gcm) => "AES-256-GCM",
        }
    }

    /// Seals the datagram that begins at `start` and reaches to the end of the buffer: its header
    /// stays in clear and is authenticated, its body is encrypted in place (in the mode
    /// `authenticate` it stays in clear too), and a tag of [`TAG_LEN`] is appended. Nothing is
    /// allocated if the buffer has room for the tag.
    ///
    /// What has no whole header, or cannot be sealed, is cut off at `start`: nothing ever leaves
    /// without its seal.
    pub fn seal(&self, path: PathId, number: PacketNumber, datagram: &mut Vec<u8>, start: usize) {
        let tag = datagram
            .get_mut(start..)
            .and_then(|datagram| datagram.split_at_mut_checked(HEADER_LEN))
            .and_then(|(header, body)| self.tx.seal(path, number, header, body));
        match tag {
            Some(tag) => datagram.extend_from_slice(&tag),
            None => datagram.truncate(start),
        }
    }

    /// Opens a datagram in place and gives its body. The body is worthless after an error.
    pub fn open<'a>(
        &self,
        path: PathId,
        number: PacketNumber,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        let (header, sealed) = datagram.split_at_mut_checked(HEADER_LEN).ok_or(Forged)?;
        self.rx.open(path, number, header, sealed)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("security", &self.security)
            .field("cipher", &self.cipher_name())
            .finish_non_exhaustive()
    }
}

/// The AEAD of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    /// RFC 8439.
    ChaCha20Poly1305,
    /// NIST SP 800-38D.
    Aes256Gcm,
}

impl Cipher {
    /// AES only when both have instructions for it: without, it is slow.
    fn negotiate(a: &Hello, b: &Hello) -> Self {
        if a.aes && b.aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }

    /// Different for each cipher, so that no key ever serves two.
    fn label(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "netcombiner v1 chacha20-poly1305",
            Self::Aes256Gcm => "netcombiner v1 aes-256-gcm",
        }
    }
}

/// Makes the 12 bytes that the nonces of a direction start from.
const LABEL_IV: &str = "netcombiner v1 iv";
/// Makes the key of the mode `authenticate`.
const LABEL_MAC: &str = "netcombiner v1 mac";
/// Makes the key of the receiver indices.
const LABEL_INDEX: &str = "netcombiner v1 index";

/// One direction.
struct Half {
    protection: Protection,
    indices: Indices,
}

/// What makes a direction's tags.
#[expect(
    clippy::large_enum_variant,
    reason = "a tunnel has a handful of them, and each datagram would follow the pointer"
)]
enum Protection {
    Aead { key: LessSafeKey, iv: [u8; 12] },
    Mac(Mac16),
}

impl Half {
    /// The direction whose keys come of `secret`; `direction` is 0 from the initiator, 1 to it.
    fn new(secret: &[u8; 32], direction: u8, cipher: Cipher, security: Security) -> Self {
        let protection = match security {
            Security::Authenticate => Protection::Mac(mac16_state(&derive(secret, LABEL_MAC))),
            Security::Encrypt | Security::None => {
                let mut iv = [0; 12];
                iv.copy_from_slice(&derive(secret, LABEL_IV)[..12]);
                Protection::Aead {
                    key: aead(cipher, secret),
                    iv,
                }
            }
        };
        Self {
            protection,
            indices: Indices::derive(&derive(secret, LABEL_INDEX), direction),
        }
    }

    fn seal(
        &self,
        path: PathId,
        number: PacketNumber,
        header: &[u8],
        body: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        match &self.protection {
            Protection::Aead { key, iv } => key
                .seal_in_place_separate_tag(nonce(iv, path, number), Aad::from(header), body)
                .ok()?
                .as_ref()
                .try_into()
                .ok(),
            Protection::Mac(state) => {
                let mac = mac_of(state, path, number, header, body);
                Some(mac.finalize().into_bytes().into())
            }
        }
    }

    fn open<'a>(
        &self,
        path: PathId,
        number: PacketNumber,
        header: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        match &self.protection {
            Protection::Aead { key, iv } => key
                .open_in_place(nonce(iv, path, number), Aad::from(header), sealed)
                .map_err(|_| Forged),
            Protection::Mac(state) => {
                let (body, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(Forged)?;
                mac_of(state, path, number, header, body)
                    .verify((&*tag).into())
                    .map_err(|_| Forged)?;
                Ok(body)
            }
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "ring refuses keys of a wrong length only, and both ciphers take 32 bytes"
)]
fn aead(cipher: Cipher, secret: &[u8; 32]) -> LessSafeKey {
    let key = derive(secret, cipher.label());
    LessSafeKey::new(UnboundKey::new(cipher.algorithm(), &*key).expect("32 bytes are a key"))
}

/// What stands for a path and a number in a nonce and in a MAC: 32-bit path id, 64-bit number.
fn position(path: PathId, number: PacketNumber) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[3] = path.byte();
    bytes[4..].copy_from_slice(&number.0.to_be_bytes());
    bytes
}

/// IV xor position, as the multi-path extension of QUIC does (its section "Nonce Calculation").
fn nonce(iv: &[u8; 12], path: PathId, number: PacketNumber) -> Nonce {
    let mut bytes = position(path, number);
    for (byte, iv) in bytes.iter_mut().zip(iv) {
        *byte ^= iv;
    }
    Nonce::assume_unique_for_key(bytes)
}

fn mac_of(state: &Mac16, path: PathId, number: PacketNumber, header: &[u8], body: &[u8]) -> Mac16 {
    let mut mac = state.clone();
    mac.update(&position(path, number));
    mac.update(header);
    mac.update(body);
    mac
}
