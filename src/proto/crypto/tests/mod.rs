//! The handshake as a whole, and frozen vectors of its wire format.

mod flood;
mod handshake;
mod sealing;
mod vectors;

use std::net::SocketAddr;

use super::keys::{PresharedKey, PrivateKey};
use super::*;
use crate::config::Security;
use crate::proto::wire::{HEADER_LEN, PacketNumber, PathId, TAG_LEN};
use crate::proto::{Entropy, Instant};

/// A repeatable generator (SplitMix64), for tests only.
pub(in crate::proto::crypto) struct TestEntropy(u64);

impl TestEntropy {
    pub(in crate::proto::crypto) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for TestEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ z >> 31).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// One portal of a test, with all it needs for handshakes.
struct Portal {
    identity: Identity,
    hello: Hello,
    responder: Responder,
    entropy: TestEntropy,
}

/// What differs between the portals of a test.
#[derive(Clone)]
struct Setting {
    psk: Option<PresharedKey>,
    security: Security,
    aes: bool,
}

const PLAIN: Setting = Setting {
    psk: None,
    security: Security::Encrypt,
    aes: false,
};

/// A key that only the number decides.
fn key(number: u64) -> PrivateKey {
    PrivateKey::generate(&mut TestEntropy::new(number))
}

fn portal(own: u64, peer: u64, setting: Setting) -> Portal {
    let mut entropy = TestEntropy::new(own << 32);
    Portal {
        identity: Identity::new(key(own), key(peer).public(), setting.psk),
        hello: Hello {
            boot: BootId::generate(&mut entropy),
            counter: 0,
            security: setting.security,
            aes: setting.aes,
            parity: false,
        },
        responder: Responder::new(T0, &mut entropy),
        entropy,
    }
}

/// Seals one datagram, and makes room for the tag first.
fn seal(session: &Session, path: PathId, number: PacketNumber, datagram: &mut Vec<u8>) {
    datagram.extend([0; TAG_LEN]);
    session.seal(path, number, datagram.len(), datagram);
}

/// Opens one datagram: its body, if its tag is right.
fn open<'a>(
    session: &Session,
    path: PathId,
    number: PacketNumber,
    datagram: &'a mut [u8],
) -> Option<&'a [u8]> {
    let mut sealed = [Sealed {
        path,
        number,
        datagram,
        genuine: false,
    }];
    session.open(&mut sealed);
    let [sealed] = sealed;
    let body = HEADER_LEN..sealed.datagram.len().saturating_sub(TAG_LEN);
    sealed.genuine.then(|| &sealed.datagram[body])
}

/// The initiator's and the responder's portal, set alike.
fn pair(setting: Setting) -> (Portal, Portal) {
    (portal(1, 2, setting.clone()), portal(2, 1, setting))
}

const T0: Instant = Instant::from_micros(1_000_000);

fn source(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Portal {
    /// Begins a handshake.
    fn start(&mut self) -> Initiator {
        self.hello.counter += 1;
        Initiator::start(&self.identity, self.hello, &mut self.entropy)
    }

    /// Reads an initiation that came from `from`.
    fn receive(
        &mut self,
        message: &[u8],
        from: &str,
        now: Instant,
    ) -> Result<Answer, HandshakeError> {
        self.responder.receive(
            &self.identity,
            &self.hello,
            message,
            source(from),
            now,
            &mut self.entropy,
        )
    }

    /// Reads an initiation that must be accepted.
    fn accept(&mut self, message: &[u8], now: Instant) -> (Vec<u8>, Established) {
        accepted(self.receive(message, HOME, now))
    }
}

const HOME: &str = "192.0.2.1:4725";

fn accepted(answer: Result<Answer, HandshakeError>) -> (Vec<u8>, Established) {
    match answer {
        Ok(Answer::Accepted {
            response,
            established,
        }) => (response, *established),
        other => panic!("not accepted: {other:?}"),
    }
}

fn cookie_reply(answer: Result<Answer, HandshakeError>) -> Vec<u8> {
    match answer {
        Ok(Answer::ProveAddress { cookie_reply }) => cookie_reply,
        other => panic!("no cookie: {other:?}"),
    }
}

/// A whole handshake: the initiator's session and the responder's.
fn sessions(setting: Setting) -> (Session, Session) {
    let (mut local, mut remote) = pair(setting);
    let mut initiator = local.start();
    let (response, theirs) = remote.accept(&initiator.message(None, T0), T0);
    (initiator.finish(&response).unwrap().session, theirs.session)
}

/// Every way of damaging one byte a little.
fn damaged(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..message.len()).flat_map(|at| {
        [0x01, 0x80, 0xff].map(|flip| {
            let mut message = message.to_vec();
            message[at] ^= flip;
            (at, message)
        })
    })
}
