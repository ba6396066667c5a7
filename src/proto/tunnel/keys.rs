//! Sessions come and go: handshakes, rekeying without loss, the peer's restart.

use std::sync::Arc;
use std::time::Duration;

use super::Tunnel;
use crate::proto::crypto::{
    Answer, BootId, Cookie, Established, HandshakeError, Hello, Initiator, Session,
};
use crate::proto::event::{Event, PathState, SocketId, TunnelConfig};
use crate::proto::path::Place;
use crate::proto::reorder::Resequencer;
use crate::proto::stats::Discard;
use crate::proto::wire::{HEADER_LEN, Header, Kind, PathId};
use crate::proto::{Entropy, Instant};

/// New keys are made this long after the last ones, by the side that made those (PROTOCOL.md 2.2,
/// WireGuard's REKEY_AFTER_TIME).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// The other side steps in when that did not happen.
const REKEY_AFTER_BY_RESPONDER: Duration = Duration::from_secs(140);
/// Keys die (WireGuard's REJECT_AFTER_TIME).
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Old keys still open what was sent before the new ones were in use (PROTOCOL.md 2.2).
const KEEP_PREVIOUS: Duration = Duration::from_secs(5);
/// An initiation is repeated after this, then twice that, then every second (PROTOCOL.md 2.2).
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(1);
/// After so many repeats (3.75 s) a new initiation is made: the peer forgets after 5 s what it
/// answered, and refuses copies from then on.
const REPEATS: u32 = 4;
/// Old keys that still open at a time: those of a rekeying, and of one that both sides began at once.
const MOST_PREVIOUS: usize = 2;
/// A notice of an unknown index starts a handshake no more often than this.
const NOTICE_EVERY: Duration = Duration::from_millis(250);
/// We send such notices no more often than this.
const NOTICES_EVERY: Duration = Duration::from_millis(100);
/// A notice: its kind, three zeros, the clear header of its cause.
const NOTICE_LEN: usize = 4 + HEADER_LEN;

/// Which handshake's keys; never used twice by a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochId(u64);

/// The keys of one handshake.
pub(super) struct Epoch {
    id: EpochId,
    pub(super) session: Arc<Session>,
    peer: Hello,
    pub(super) since: Instant,
    initiator: bool,
}

struct Handshake {
    initiator: Initiator,
    tries: u32,
    next_at: Instant,
}

/// All keys of a tunnel.
pub(super) struct Keys {
    pub(super) hello: Hello,
    /// Epochs so far.
    epochs: u64,
    current: Option<Epoch>,
    /// Answered, but the peer has not used them yet; one of each run that the responder still knows, oldest
    /// first.
    next: Vec<Epoch>,
    /// Still good for opening, until then; oldest first.
    previous: Vec<(Epoch, Instant)>,
    /// In a box, which is wiped when it is freed.
    handshake: Option<Box<Handshake>>,
    handshake_began: Option<Instant>,
    /// How long the last handshake took.
    handshake_rtt: Duration,
    /// Which process of the peer the paths' numbers belong to.
    peer_boot: Option<BootId>,
    cookies: Vec<(Place, Cookie)>,
}

/// Which keys opened a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    /// Answered, not used yet: the place in the list.
    Next(usize),
    /// Replaced: the place in the list.
    Previous(usize),
}

/// Whose datagram one is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) epoch: EpochId,
    pub(super) path: PathId,
    /// It would be the first of a peer that restarted: its numbers start at zero.
    pub(super) fresh: bool,
}

impl Keys {
    pub(super) fn new(config: &TunnelConfig, entropy: &mut dyn Entropy) -> Self {
        let boot = BootId::generate(entropy);
        Self {
            hello: Hello {
                boot,
                counter: 0,
                security: config.security,
                aes: config.aes,
                parity: true,
            },
            epochs: 0,
            current: None,
            next: Vec::new(),
            previous: Vec::new(),
            handshake: None,
            handshake_began: None,
            handshake_rtt: Duration::ZERO,
            peer_boot: None,
            cookies: Vec::new(),
        }
    }

    pub(super) fn current(&self) -> Option<&Epoch> {
        self.current.as_ref()
    }

    /// True when the peer knows PARITY frames.
    pub(super) fn peer_takes_parity(&self) -> bool {
        self.current().is_some_and(|epoch| epoch.peer.parity)
    }

    /// All keys that open something, those in use first.
    fn all(&self) -> impl Iterator<Item = (Which, &Epoch)> {
        let current = self.current.iter().map(|epoch| (Which::Current, epoch));
        let next = self.next.iter().enumerate();
        let next = next.map(|(place, epoch)| (Which::Next(place), epoch));
        let previous = self.previous.iter().enumerate();
        let previous = previous.map(|(place, (epoch, _))| (Which::Previous(place), epoch));
        current.chain(next).chain(previous)
    }

    /// Whose datagram this is.
    pub(super) fn find(&self, header: &Header) -> Option<Owner> {
        self.all().find_map(|(_, epoch)| {
            Some(Owner {
                path: epoch.session.rx_path(header.index)?,
                epoch: epoch.id,
                fresh: self.is_fresh(epoch),
            })
        })
    }

    /// The session of an epoch, unless it was forgotten meanwhile.
    pub(super) fn session(&self, id: EpochId) -> Option<&Session> {
        let mut all = self.all();
        all.find_map(|(_, epoch)| (epoch.id == id).then_some(&*epoch.session))
    }

    /// What an epoch is now, unless it was forgotten meanwhile; and whether its datagram would be the
    /// first of a peer that restarted.
    pub(super) fn which(&self, id: EpochId) -> Option<(Which, bool)> {
        let (which, epoch) = self.all().find(|(_, epoch)| epoch.id == id)?;
        Some((which, self.is_fresh(epoch)))
    }

    /// True for the keys of a peer that restarted and did not use them yet.
    fn is_fresh(&self, epoch: &Epoch) -> bool {
        self.peer_boot != Some(epoch.peer.boot)
    }

    fn new_epoch(&mut self, established: Established, now: Instant, initiator: bool) -> Epoch {
        self.epochs += 1;
        Epoch {
            id: EpochId(self.epochs),
            session: Arc::new(established.session),
            peer: established.peer_hello,
            since: now,
            initiator,
        }
    }

    /// The peer still sends under replaced keys, as after a handshake that both sides began at
    /// once: they live on while they are used.
    pub(super) fn on_previous_used(&mut self, now: Instant, place: usize) {
        if let Some((epoch, until)) = self.previous.get_mut(place) {
            *until = (now + KEEP_PREVIOUS).min(epoch.since + REJECT_AFTER);
        }
    }
}

impl Tunnel {
    /// Where initiations go: by every link; without links, by every path that is proven.
    fn peers(&self) -> impl Iterator<Item = Place> {
        let dialed = || self.sockets.values().filter_map(|socket| socket.dials);
        let waits = dialed().next().is_none();
        let proven = self.paths.iter().flatten().filter_map(move |path| {
            let proven = waits && path.verdict().is_some();
            path.place.filter(|_| proven)
        });
        dialed().map(|(_, place)| place).chain(proven)
    }

    fn has_peers(&self) -> bool {
        self.peers().next().is_some()
    }

    pub(super) fn begin_handshake_if_needed(&mut self, now: Instant) {
        if self.keys.current.is_none() {
            self.begin_handshake(now);
        }
    }

    fn begin_handshake(&mut self, now: Instant) {
        if self.closing || self.keys.handshake.is_some() || !self.has_peers() {
            return;
        }
        self.keys.handshake = Some(Box::new(self.new_handshake(now)));
        self.keys.handshake_began = Some(now);
        self.send_initiations(now);
    }

    fn new_handshake(&mut self, now: Instant) -> Handshake {
        self.keys.hello.counter += 1;
        let initiator = Initiator::start(&self.identity, self.keys.hello, self.entropy.as_mut());
        Handshake {
            initiator,
            tries: 0,
            next_at: now,
        }
    }

    fn send_initiations(&mut self, now: Instant) {
        let peers: Vec<Place> = self.peers().collect();
        let mut jitter = [0; 1];
        self.entropy.fill(&mut jitter);
        let Some(handshake) = &mut self.keys.handshake else {
            return;
        };
        for place in peers {
            let cookie = self
                .keys
                .cookies
                .iter()
                .find(|(of, _)| *of == place)
                .map(|(_, cookie)| cookie);
            self.outbox
                .push(place, handshake.initiator.message(cookie, now));
        }
        let pause = (RETRY_FIRST * 2u32.pow(handshake.tries.min(2))).min(RETRY_MOST);
        handshake.tries += 1;
        // Up to an eighth more, that two peers do not keep in step.
        handshake.next_at = now + pause + pause * u32::from(jitter[0]) / 2048;
    }

    /// When a handshake has something to do.
    pub(super) fn keys_due(&self) -> Option<Instant> {
        let keys = &self.keys;
        let current = keys.current.as_ref();
        let idle = !self.closing && keys.handshake.is_none() && self.has_peers();
        let rekey = current.map(|epoch| {
            epoch.since
                + if epoch.initiator {
                    REKEY_AFTER
                } else {
                    REKEY_AFTER_BY_RESPONDER
                }
        });
        let again = keys
            .handshake_began
            .map_or(Instant::default(), |began| began + RETRY_MOST);
        // New keys are of no use before the paths had the time to prove themselves under these.
        let patience = RETRY_MOST.max(3 * keys.handshake_rtt);
        let lonely = match current {
            None => Some(again),
            Some(epoch) => (!self.link_up()).then(|| again.max(epoch.since + patience)),
        };
        let begin = rekey
            .into_iter()
            .chain(lonely)
            .min()
            .filter(|_| idle)
            .map(|at| at.max(again));
        let retry = keys.handshake.as_ref().map(|handshake| handshake.next_at);
        let forget = keys.previous.iter().map(|(_, until)| *until).min();
        let reject = current.map(|epoch| epoch.since + REJECT_AFTER);
        [begin, retry, forget, reject].into_iter().flatten().min()
    }

    /// Does what is due by [`Self::keys_due`].
    pub(super) fn keys_timeout(&mut self, now: Instant) {
        self.keys.previous.retain(|(_, until)| *until > now);
        if self
            .keys
            .current
            .as_ref()
            .is_some_and(|epoch| epoch.since + REJECT_AFTER <= now)
        {
            self.lose_session();
        }
        match &self.keys.handshake {
            Some(handshake) if handshake.next_at <= now => {
                if !self.has_peers() {
                    self.keys.handshake = None;
                    return;
                }
                if handshake.tries > REPEATS {
                    self.keys.handshake = Some(Box::new(self.new_handshake(now)));
                }
                self.send_initiations(now);
            }
            Some(_) => {}
            None if self.keys_due().is_some_and(|due| due <= now) => self.begin_handshake(now),
            None => {}
        }
    }

    /// The keys are void: no path carries anything until there are new ones.
    pub(super) fn lose_session(&mut self) {
        self.keys.current = None;
        self.keys.previous.clear();
        self.void_paths();
    }

    /// This host stood still, or was set back to an earlier state: the numbers that come next may have
    /// been used. Nothing leaves under these keys any more, and for the peer we are a new process.
    pub fn start_over(&mut self, now: Instant) {
        let epochs = self.keys.epochs;
        self.keys = Keys::new(&self.config, self.entropy.as_mut());
        // Their names are never used twice.
        self.keys.epochs = epochs;
        self.outbox.clear();
        self.void_paths();
        self.begin_handshake(now);
        self.report(now);
    }

    /// Nothing is known of any path any more: ours ask for a proof again, the peer's are to come.
    fn void_paths(&mut self) {
        for path in self.paths.iter_mut().flatten() {
            match path.place {
                Some(place) if path.opener.is_some() => {
                    path.begin_proof(place, super::token(self.entropy.as_mut()));
                }
                Some(_) | None => path.close(),
            }
        }
    }

    pub(super) fn on_initiation(&mut self, now: Instant, from: Place, message: &[u8]) {
        let Self {
            responder,
            identity,
            keys,
            entropy,
            ..
        } = self;
        let answer = responder.receive(
            identity,
            &keys.hello,
            message,
            from.remote,
            now,
            entropy.as_mut(),
        );
        match answer {
            Ok(Answer::Accepted {
                response,
                established,
            }) => {
                let boot = established.peer_hello.boot;
                keys.next
                    .retain(|next| next.peer.boot != boot && responder.waits_for(next.peer.boot));
                let epoch = keys.new_epoch(*established, now, false);
                keys.next.push(epoch);
                self.outbox.push(from, response);
            }
            Ok(Answer::Repeated { response }) => self.answer(now, from, response),
            Ok(Answer::ProveAddress { cookie_reply }) => {
                self.count.discard(Discard::HandshakeFlood);
                self.answer(now, from, cookie_reply);
            }
            Ok(Answer::SecurityMismatch { response, peer }) => {
                self.outbox.push(from, response);
                self.events.push_back(Event::SecurityMismatch { peer });
            }
            Err(error) => self.count.discard(error.discard()),
        }
    }

    /// Answers somebody who may be anybody.
    fn answer(&mut self, now: Instant, from: Place, datagram: Vec<u8>) {
        let known = self.responder.is_known(from.remote);
        if !self.outbox.may_answer(now, from.remote, known) || !self.outbox.push(from, datagram) {
            self.count.discard(Discard::HandshakeFlood);
        }
    }

    pub(super) fn on_handshake_response(&mut self, now: Instant, from: Place, message: &[u8]) {
        let Some(handshake) = &mut self.keys.handshake else {
            self.count.discard(Discard::BadHandshake);
            return;
        };
        match handshake.initiator.finish(message) {
            Ok(established) => {
                self.keys.handshake = None;
                let began = self.keys.handshake_began.unwrap_or(now);
                self.keys.handshake_rtt = now.since(began);
                self.responder.confirm(&established.peer_hello);
                let epoch = self.keys.new_epoch(established, now, true);
                self.install(now, epoch);
                // The peer may not answer under the new keys before it has seen them used; and the
                // way that the response came by is good.
                let dialed = self
                    .sockets
                    .get(&from.socket)
                    .and_then(|socket| socket.dials);
                let by = dialed.map(|(id, _)| id);
                for path in self
                    .paths
                    .iter_mut()
                    .flatten()
                    .filter(|path| path.opener.is_some())
                {
                    let Some(place) = path.place else { continue };
                    if path.state == PathState::Validating
                        || (Some(path.id) == by && path.state != PathState::Up)
                    {
                        path.begin_proof(place, super::token(self.entropy.as_mut()));
                    } else {
                        path.status_due = true;
                    }
                }
            }
            Err(HandshakeError::SecurityMismatch(peer)) => {
                handshake.next_at = now + RETRY_MOST;
                self.events.push_back(Event::SecurityMismatch { peer });
            }
            Err(error) => self.count.discard(error.discard()),
        }
    }

    pub(super) fn on_cookie(&mut self, now: Instant, from: Place, message: &[u8]) {
        let Some(handshake) = &self.keys.handshake else {
            self.count.discard(Discard::BadHandshake);
            return;
        };
        match handshake.initiator.cookie(message, now) {
            Ok(cookie) => {
                // Whoever saw an initiation go by can make such a reply: it moves nothing but a
                // message to where we send them anyway.
                let place = self.dialed_place(from);
                if !self.peers().any(|peer| peer == place) {
                    self.count.discard(Discard::BadHandshake);
                    return;
                }
                let again = handshake.initiator.message(Some(&cookie), now);
                self.keys
                    .cookies
                    .retain(|(of, cookie)| *of != place && cookie.is_fresh(now));
                self.keys.cookies.push((place, cookie));
                self.outbox.push(place, again);
            }
            Err(error) => self.count.discard(error.discard()),
        }
    }

    /// The peer may answer from another address than was asked; we keep to the one configured.
    fn dialed_place(&self, from: Place) -> Place {
        self.sockets
            .get(&from.socket)
            .and_then(|socket| socket.dials)
            .map_or(from, |(_, place)| place)
    }

    /// The peer used the keys that we answered with.
    pub(super) fn on_next_used(&mut self, now: Instant, place: usize) {
        let next = self.keys.next.remove(place);
        self.responder.confirm(&next.peer);
        self.install(now, next);
    }

    fn install(&mut self, now: Instant, epoch: Epoch) {
        let fresh = self.keys.peer_boot != Some(epoch.peer.boot);
        if fresh {
            self.restart(epoch.peer.boot);
        }
        // When both sides began a handshake at once, each may send under the keys that the other
        // has just replaced; they stay good for opening as long as they are used.
        if let Some(old) = self.keys.current.replace(epoch) {
            if self.keys.previous.len() == MOST_PREVIOUS {
                self.keys.previous.remove(0);
            }
            self.keys.previous.push((old, now + KEEP_PREVIOUS));
            self.events.push_back(Event::Rekeyed);
        }
        self.keys.handshake = None;
    }

    /// A new process of the peer: all numbers start again.
    fn restart(&mut self, boot: BootId) {
        self.keys.peer_boot = Some(boot);
        self.keys.current = None;
        self.keys.next.clear();
        self.keys.previous.clear();
        self.reorder = Resequencer::default();
        self.domains.fill(super::Domain::default());
        self.repairs.clear(&mut self.pool);
        self.peer_clock = None;
        self.void_paths();
        for path in self.paths.iter_mut().flatten() {
            path.restart();
        }
    }

    /// "I do not know this index", of a datagram that we must have sent: the peer restarted, perhaps.
    pub(super) fn on_unknown_index(&mut self, now: Instant, datagram: &[u8]) {
        let header = datagram.get(4..).and_then(Header::parse);
        let ours = |header: Header| {
            let session = &self.keys.current.as_ref()?.session;
            PathId::all().find(|path| session.tx_index(*path) == header.index)
        };
        let recent = self
            .keys
            .handshake_began
            .is_some_and(|began| now.since(began) < NOTICE_EVERY);
        match header.and_then(ours) {
            Some(_) if !recent => self.begin_handshake(now),
            Some(_) => {}
            None => self.count.discard(Discard::Malformed),
        }
    }

    /// Tells the sender of a datagram that its index is nobody's: never larger, and rarely.
    pub(super) fn send_notice(&mut self, now: Instant, from: Place, datagram: &[u8]) {
        self.count.discard(Discard::UnknownIndex);
        let recent = self
            .last_notice
            .is_some_and(|last| now.since(last) < NOTICES_EVERY);
        let Some(cause) = datagram.first_chunk::<HEADER_LEN>() else {
            return;
        };
        if recent || datagram.len() < NOTICE_LEN {
            return;
        }
        self.last_notice = Some(now);
        let mut notice = vec![Kind::UnknownIndex as u8, 0, 0, 0];
        notice.extend_from_slice(cause);
        self.outbox.push(from, notice);
    }

    /// Which sockets initiations and their answers may use.
    pub(super) fn knows(&self, socket: SocketId) -> bool {
        self.sockets.contains_key(&socket)
    }
}
