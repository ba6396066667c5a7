//! A session: the keys that a handshake gave, both directions, all paths.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::blake::derive;
use super::datagram_mac::{DatagramMac, MACS};
use super::hello::Hello;
use super::indices::Indices;
use crate::config::Security;
use crate::proto::wire::{HEADER_LEN, PacketNumber, PathId, ReceiverIndex, TAG_LEN};

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

    /// Seals datagrams of `segment` bytes each (the last may be shorter), with consecutive numbers
    /// from `first` on: the header stays in clear and is authenticated, the body is encrypted in
    /// place (in the mode `authenticate` it stays in clear too), and the tag takes the last
    /// [`TAG_LEN`] bytes.
    ///
    /// What is too short for header and tag, or cannot be sealed, is overwritten with zeros: nothing
    /// ever leaves without its seal.
    pub fn seal(&self, path: PathId, first: PacketNumber, segment: usize, batch: &mut [u8]) {
        self.tx.seal(path, first, segment.max(1), batch);
    }

    /// Opens datagrams in place, and says of each whether its tag was right. The body of one that was
    /// not is worthless afterwards.
    pub fn open(&self, sealed: &mut [Sealed<'_>]) {
        self.rx.open(sealed);
    }
}

/// A datagram to be opened.
#[derive(Debug)]
pub struct Sealed<'a> {
    /// Its path.
    pub path: PathId,
    /// Its number.
    pub number: PacketNumber,
    /// Header, body and tag.
    pub datagram: &'a mut [u8],
    /// Its tag was right.
    pub genuine: bool,
}

impl Sealed<'_> {
    /// What a MAC is made of.
    fn input(&self) -> (PathId, PacketNumber, &[u8]) {
        (self.path, self.number, before_tag(self.datagram))
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

/// MIPS has no instructions for AES, and so its program does without the code: 12 kB.
const MAY_HAVE_AES: bool = cfg!(any(test, not(target_arch = "mips")));

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
        if MAY_HAVE_AES && a.aes && b.aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes256Gcm if MAY_HAVE_AES => &AES_256_GCM,
            Self::ChaCha20Poly1305 | Self::Aes256Gcm => &CHACHA20_POLY1305,
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
    Mac(DatagramMac),
}

impl Half {
    /// The direction whose keys come of `secret`; `direction` is 0 from the initiator, 1 to it.
    fn new(secret: &[u8; 32], direction: u8, cipher: Cipher, security: Security) -> Self {
        let protection = match security {
            Security::Authenticate => Protection::Mac(DatagramMac::new(&derive(secret, LABEL_MAC))),
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

    fn seal(&self, path: PathId, first: PacketNumber, segment: usize, batch: &mut [u8]) {
        match &self.protection {
            Protection::Aead { key, iv } => {
                let numbers = (first.0..).map(PacketNumber);
                for (number, datagram) in numbers.zip(batch.chunks_mut(segment)) {
                    if seal(key, nonce(iv, path, number), datagram).is_none() {
                        datagram.fill(0);
                    }
                }
            }
            Protection::Mac(key) => {
                let mut numbers = (first.0..).map(PacketNumber);
                for datagrams in batch.chunks_mut(segment * MACS) {
                    // The datagrams first: the end of a group must not use up a number.
                    let inputs = datagrams.chunks(segment).zip(numbers.by_ref());
                    let macs =
                        key.macs(inputs.map(|(datagram, n)| (path, n, before_tag(datagram))));
                    for (mac, datagram) in macs.iter().zip(datagrams.chunks_mut(segment)) {
                        match tag_of(datagram) {
                            Some(tag) => tag.copy_from_slice(mac.as_bytes()),
                            None => datagram.fill(0),
                        }
                    }
                }
            }
        }
    }

    fn open(&self, sealed: &mut [Sealed<'_>]) {
        match &self.protection {
            Protection::Aead { key, iv } => {
                for sealed in sealed {
                    let nonce = nonce(iv, sealed.path, sealed.number);
                    sealed.genuine = open(key, nonce, sealed.datagram).is_some();
                }
            }
            Protection::Mac(key) => {
                for group in sealed.chunks_mut(MACS) {
                    let macs = key.macs(group.iter().map(Sealed::input));
                    for (mac, sealed) in macs.iter().zip(group) {
                        // Takes the same time whichever byte differs.
                        sealed.genuine = tag_of(sealed.datagram).is_some_and(|tag| mac == &tag[..]);
                    }
                }
            }
        }
    }
}

fn seal(key: &LessSafeKey, nonce: Nonce, datagram: &mut [u8]) -> Option<()> {
    let (header, sealed) = datagram.split_at_mut_checked(HEADER_LEN)?;
    let (body, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
    let made = key.seal_in_place_separate_tag(nonce, Aad::from(header), body);
    tag.copy_from_slice(made.ok()?.as_ref());
    Some(())
}

fn open(key: &LessSafeKey, nonce: Nonce, datagram: &mut [u8]) -> Option<()> {
    let (header, sealed) = datagram.split_at_mut_checked(HEADER_LEN)?;
    key.open_in_place(nonce, Aad::from(header), sealed).ok()?;
    Some(())
}

/// What a MAC is made over: all but itself.
fn before_tag(datagram: &[u8]) -> &[u8] {
    datagram
        .split_last_chunk::<TAG_LEN>()
        .map_or(&[], |(before, _)| before)
}

/// The place of the tag; nothing when the datagram is too short for header and tag.
fn tag_of(datagram: &mut [u8]) -> Option<&mut [u8; TAG_LEN]> {
    datagram.get_mut(HEADER_LEN..)?.last_chunk_mut()
}

#[expect(
    clippy::expect_used,
    reason = "ring refuses keys of a wrong length only, and both ciphers take 32 bytes"
)]
fn aead(cipher: Cipher, secret: &[u8; 32]) -> LessSafeKey {
    let key = derive(secret, cipher.label());
    LessSafeKey::new(UnboundKey::new(cipher.algorithm(), &*key).expect("32 bytes are a key"))
}

/// IV xor position (32-bit path id, 64-bit number), as the multi-path extension of QUIC does (its
/// section "Nonce Calculation").
fn nonce(iv: &[u8; 12], path: PathId, number: PacketNumber) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3] = path.byte();
    bytes[4..].copy_from_slice(&number.0.to_be_bytes());
    for (byte, iv) in bytes.iter_mut().zip(iv) {
        *byte ^= iv;
    }
    Nonce::assume_unique_for_key(bytes)
}
