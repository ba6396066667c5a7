//! The side that answers a handshake.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::blake::{MAC_LEN, mac16_is};
use super::boots::Boots;
use super::cookie::CookieJar;
use super::error::HandshakeError;
use super::hello::{BootId, Hello};
use super::identity::Identity;
use super::limit::{Bucket, KnownSources, Rate, SourceTable};
use super::message::{Envelope, RESPONSE_NOISE, assemble, initiation};
use super::noise;
use super::session::{Established, Session};
use crate::config::Security;
use crate::proto::crowd::most_crowded;
use crate::proto::wire::Kind;
use crate::proto::{Entropy, Instant};

/// Initiations that are read without a proof of their address, all senders together: 10 a second. Each
/// costs up to five multiplications on the curve, of some 5 ms each on the smallest routers.
const TOTAL: Rate = Rate {
    interval: Duration::from_millis(100),
    burst: 20,
};
/// Initiations that are read of all senders that proved their address: as many again.
const PROVEN_TOTAL: Rate = Rate {
    interval: Duration::from_millis(100),
    burst: 20,
};
/// Beside those, initiations with a proof that come from where the peer's own datagrams came from: a
/// flood from elsewhere leaves these to the peer. With all three together a flood costs a small router
/// half of a core (22 x 5 x 5 ms a second).
const KNOWN_TOTAL: Rate = Rate {
    interval: Duration::from_millis(500),
    burst: 8,
};
/// Initiations that are read of one source prefix: 4 a second. A peer tries 4 times in the first
/// second and once a second later.
const PER_SOURCE: Rate = Rate {
    interval: Duration::from_millis(250),
    burst: 8,
};
/// How long a copy of an initiation gets the same response: the delay spread of all paths.
const REPEAT_FOR: Duration = Duration::from_secs(5);
/// Runs of the peer whose initiations were answered lately, at most. Only one of them is alive. The others are
/// replayed recordings of earlier runs: they look like a restart and must not displace the live one.
const MOST_ANSWERED: usize = 8;
/// From this number of them on, only a sender that proves its address is answered, so recordings from
/// made-up addresses fill no more than half of the places.
const CROWD: usize = MOST_ANSWERED / 2;
/// An answered run that sends nothing more is forgotten after this: longer than a handshake's round trip.
const ANSWER_LIVES: Duration = Duration::from_secs(10);

/// What is known of the sender of an initiation, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It may be anybody, from anywhere.
    Anybody,
    /// It receives what is sent to its address.
    Proven,
    /// The peer itself was heard from that network lately.
    Known,
    /// It is the run of the peer that we have a session with.
    Alive,
}

/// What an initiation is answered with.
#[derive(Debug)]
pub enum Answer {
    /// A new session. It may be a replay of another run's initiation: use it only after the first
    /// datagram that it opens, and then call [`Responder::confirm`].
    Accepted {
        /// To be sent back.
        response: Vec<u8>,
        /// The session, unconfirmed.
        established: Box<Established>,
    },
    /// A copy of an answered initiation came, by another path: the same response again.
    Repeated {
        /// To be sent back.
        response: Vec<u8>,
    },
    /// Too much is coming: the sender shall prove its address first.
    ProveAddress {
        /// To be sent back.
        cookie_reply: Vec<u8>,
    },
    /// The peer is set to another security mode: no session, but it is told.
    SecurityMismatch {
        /// To be sent back.
        response: Vec<u8>,
        /// What the peer is set to.
        peer: Security,
    },
}

/// Answers initiations. Its memory and its work are bounded, whatever is sent.
pub struct Responder {
    cookies: CookieJar,
    total: Bucket,
    /// Of sources that did not prove their address; anybody can spend their tokens.
    unproven: SourceTable,
    /// Of sources that did.
    proven: SourceTable,
    proven_total: Bucket,
    known: KnownSources,
    known_total: Bucket,
    boots: Boots,
    /// One for each run, oldest first.
    answered: Vec<Answered>,
}

/// The newest initiation of a run that was answered, known again by its first MAC.
struct Answered {
    boot: BootId,
    counter: u64,
    standing: Standing,
    source: IpAddr,
    mac1: [u8; MAC_LEN],
    response: Vec<u8>,
    at: Instant,
}

impl Responder {
    /// A responder that saw nothing.
    pub fn new(now: Instant, entropy: &mut dyn Entropy) -> Self {
        Self {
            cookies: CookieJar::new(now, entropy),
            total: Bucket::default(),
            unproven: SourceTable::new(PER_SOURCE, entropy),
            proven: SourceTable::new(PER_SOURCE, entropy),
            proven_total: Bucket::default(),
            known: KnownSources::default(),
            known_total: Bucket::default(),
            boots: Boots::default(),
            answered: Vec::new(),
        }
    }

    /// Reads an initiation that came from `source`; `hello` is what this portal says of itself.
    pub fn receive(
        &mut self,
        identity: &Identity,
        hello: &Hello,
        message: &[u8],
        source: SocketAddr,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<Answer, HandshakeError> {
        let parts = initiation(message).ok_or(HandshakeError::Malformed)?;
        if !mac16_is(&identity.our_mac1, &[parts.covered], parts.mac1) {
            return Err(HandshakeError::WrongMac);
        }
        if let Some(response) = self.repeated(&parts, now) {
            return Ok(Answer::Repeated { response });
        }
        self.answered.retain(|it| now.since(it.at) < ANSWER_LIVES);
        let mut standing = Standing::Anybody;
        if self.cookies.proves(&parts, source, now, entropy) {
            let known = self.is_known(source);
            standing = if known {
                Standing::Known
            } else {
                Standing::Proven
            };
            let reserved = known && self.known_total.take(KNOWN_TOTAL, now);
            let mut shared =
                || self.proven.take(source, now) && self.proven_total.take(PROVEN_TOTAL, now);
            if !reserved && !shared() {
                return Err(HandshakeError::Flooded);
            }
        } else if self.answered.len() >= CROWD
            || !(self.unproven.take(source, now) && self.total.take(TOTAL, now))
        {
            let cookie_reply =
                self.cookies
                    .reply(&parts, &identity.our_cookie, source, now, entropy);
            return Ok(Answer::ProveAddress { cookie_reply });
        }
        self.answer(
            identity,
            hello,
            &parts,
            (standing, source.ip()),
            now,
            entropy,
        )
    }

    /// Notes that the peer proved to be alive with what it said in a handshake: the first datagram
    /// of an accepted session was opened, or the peer responded to an initiation of ours. Only now
    /// are initiations of its earlier runs refused.
    pub fn confirm(&mut self, peer_hello: &Hello) {
        self.boots.confirm(peer_hello);
    }

    /// Notes that an authentic datagram of the peer came from there.
    pub fn note_source(&mut self, source: SocketAddr) {
        self.known.add(source);
    }

    /// True when the peer was heard from this network lately.
    pub fn is_known(&self, source: SocketAddr) -> bool {
        self.known.contains(source)
    }

    /// True while a session with this run may still come about.
    pub fn waits_for(&self, boot: BootId) -> bool {
        self.answered.iter().any(|it| it.boot == boot)
    }

    fn repeated(&self, parts: &Envelope<'_>, now: Instant) -> Option<Vec<u8>> {
        let mut answered = self.answered.iter();
        let same = answered.find(|it| it.mac1 == *parts.mac1 && now.since(it.at) < REPEAT_FOR)?;
        Some(same.response.clone())
    }

    /// Makes room for one more run, or for a newer initiation of the same one. When all places are taken, the
    /// run with the lowest standing goes; of several, one in the most crowded network.
    fn make_room(&mut self, standing: Standing, hello: &Hello) -> Result<(), HandshakeError> {
        if let Some(place) = self.answered.iter().position(|it| it.boot == hello.boot) {
            if self.answered[place].counter >= hello.counter {
                return Err(HandshakeError::Replayed);
            }
            self.answered.remove(place);
        }
        if self.answered.len() < MOST_ANSWERED {
            return Ok(());
        }
        let least = self.answered.iter().map(|it| it.standing).min();
        let least = least.filter(|least| *least <= standing);
        let rivals = self.answered.iter().enumerate();
        let (places, sources): (Vec<usize>, Vec<IpAddr>) = rivals
            .filter(|(_, it)| Some(it.standing) == least)
            .map(|(place, it)| (place, it.source))
            .unzip();
        let victim = most_crowded(&sources).and_then(|it| places.get(it));
        self.answered
            .remove(*victim.ok_or(HandshakeError::Flooded)?);
        Ok(())
    }

    /// The costly part: five multiplications on the curve.
    fn answer(
        &mut self,
        identity: &Identity,
        hello: &Hello,
        parts: &Envelope<'_>,
        (mut standing, source): (Standing, IpAddr),
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<Answer, HandshakeError> {
        let mut noise = noise::responder(identity, entropy);
        let mut payload = Zeroizing::new(vec![0; parts.noise.len()]);
        let len = noise
            .read_message(parts.noise, &mut payload)
            .map_err(|_| HandshakeError::Forged)?;
        if noise.get_remote_static() != Some(&identity.peer.bytes()[..]) {
            return Err(HandshakeError::WrongPeer);
        }
        let peer_hello = Hello::decode(&payload[..len]).ok_or(HandshakeError::Malformed)?;
        if self.boots.is_alive(&peer_hello) {
            standing = Standing::Alive;
        }
        if !self.boots.accept(&peer_hello) {
            return Err(HandshakeError::Replayed);
        }
        self.make_room(standing, &peer_hello)?;
        let response = assemble(
            Kind::Response,
            parts.index,
            &write(&mut noise, hello),
            &identity.peer_mac1,
        );
        self.answered.push(Answered {
            boot: peer_hello.boot,
            counter: peer_hello.counter,
            standing,
            source,
            mac1: *parts.mac1,
            response: response.clone(),
            at: now,
        });
        if peer_hello.security != hello.security {
            return Ok(Answer::SecurityMismatch {
                response,
                peer: peer_hello.security,
            });
        }
        let split = Zeroizing::new(noise.dangerously_get_raw_split());
        Ok(Answer::Accepted {
            response,
            established: Box::new(Established {
                session: Session::new(&split, false, hello, &peer_hello),
                peer_hello,
            }),
        })
    }
}

/// The Noise message of a response.
#[expect(
    clippy::expect_used,
    reason = "it is the responder's turn and the buffer has the message's size"
)]
fn write(noise: &mut HandshakeState, hello: &Hello) -> [u8; RESPONSE_NOISE] {
    let mut message = [0; RESPONSE_NOISE];
    noise
        .write_message(&hello.encode(), &mut message)
        .expect("a response can be written");
    message
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("boots", &self.boots)
            .finish_non_exhaustive()
    }
}
