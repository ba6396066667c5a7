//! The side that begins a handshake.

use std::fmt;

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::blake::{MAC_LEN, mac16_is};
use super::cookie::Cookie;
use super::error::HandshakeError;
use super::hello::{HELLO_LEN, Hello};
use super::identity::Identity;
use super::message::{
    INITIATION_NOISE, INITIATION_PAYLOAD, assemble, cookie_reply, initiation, response,
};
use super::noise;
use super::session::{Established, Session};
use crate::proto::wire::{Kind, ReceiverIndex};
use crate::proto::{Entropy, Instant};

/// A handshake that was begun and waits for its answer.
///
/// One initiation may leave by every path: it is the same message except for the MAC of the cookie,
/// which belongs to a path's source address. Whatever arrives as an answer, a wrong one changes
/// nothing, so a forger cannot end a handshake.
pub struct Initiator {
    noise: HandshakeState,
    index: ReceiverIndex,
    hello: Hello,
    /// The initiation, without a cookie's MAC.
    message: Vec<u8>,
    our_mac1: [u8; 32],
    peer_cookie: [u8; 32],
}

impl Initiator {
    /// Begins a handshake. The counter of `hello` must be greater than in the initiation before.
    #[expect(
        clippy::expect_used,
        reason = "it is the initiator's turn and the buffer has the message's size"
    )]
    pub fn start(identity: &Identity, hello: Hello, entropy: &mut dyn Entropy) -> Self {
        let mut index = [0; 3];
        entropy.fill(&mut index);
        let index = ReceiverIndex::new(index);
        let mut noise = noise::initiator(identity, entropy);
        let mut payload = [0; INITIATION_PAYLOAD];
        payload[..HELLO_LEN].copy_from_slice(&hello.encode());
        let mut buffer = [0; INITIATION_NOISE];
        noise
            .write_message(&payload, &mut buffer)
            .expect("an initiation can be written");
        Self {
            noise,
            index,
            hello,
            message: assemble(Kind::Initiation, index, &buffer, &identity.peer_mac1),
            our_mac1: identity.our_mac1,
            peer_cookie: identity.peer_cookie,
        }
    }

    /// The index by which answers name this handshake.
    pub fn index(&self) -> ReceiverIndex {
        self.index
    }

    /// The initiation, to be sent from the source address that `cookie` was given to; an old
    /// cookie is as good as none.
    pub fn message(&self, cookie: Option<&Cookie>, now: Instant) -> Vec<u8> {
        let mut message = self.message.clone();
        let fresh = cookie.filter(|cookie| cookie.is_fresh(now));
        if let (Some(cookie), Some(parts)) = (fresh, initiation(&self.message)) {
            let mac2 = cookie.mac2(parts.covered, parts.mac1);
            let end = message.len() - MAC_LEN;
            message[end..].copy_from_slice(&mac2);
        }
        message
    }

    /// Reads a response. A success, or [`HandshakeError::SecurityMismatch`] (which only the peer can
    /// cause), ends the handshake; any other error changes nothing.
    pub fn finish(&mut self, message: &[u8]) -> Result<Established, HandshakeError> {
        let parts = response(message).ok_or(HandshakeError::Malformed)?;
        if parts.index != self.index {
            return Err(HandshakeError::NotForThis);
        }
        if *parts.mac2 != [0; MAC_LEN] || !mac16_is(&self.our_mac1, &[parts.covered], parts.mac1) {
            return Err(HandshakeError::WrongMac);
        }
        let mut payload = Zeroizing::new(vec![0; parts.noise.len()]);
        // snow restores its state when this fails, so the next response finds it as it was.
        let len = self
            .noise
            .read_message(parts.noise, &mut payload)
            .map_err(|_| HandshakeError::Forged)?;
        let peer_hello = Hello::decode(&payload[..len]).ok_or(HandshakeError::Malformed)?;
        if peer_hello.security != self.hello.security {
            return Err(HandshakeError::SecurityMismatch(peer_hello.security));
        }
        let split = Zeroizing::new(self.noise.dangerously_get_raw_split());
        Ok(Established {
            session: Session::new(&split, true, &self.hello, &peer_hello),
            peer_hello,
        })
    }

    /// Reads a cookie reply. The cookie is for the source address that the initiation left from;
    /// send [`Self::message`] with it, or keep it for the next initiation.
    pub fn cookie(&self, message: &[u8], now: Instant) -> Result<Cookie, HandshakeError> {
        let reply = cookie_reply(message).ok_or(HandshakeError::Malformed)?;
        if reply.index != self.index {
            return Err(HandshakeError::NotForThis);
        }
        let parts = initiation(&self.message).ok_or(HandshakeError::Malformed)?;
        Cookie::open(reply, &self.peer_cookie, parts.mac1, now).ok_or(HandshakeError::Forged)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
