//! Datagrams from the sockets: whose they are, whether they are authentic and new, what they say.

use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::keys::{Owner, Which};
use super::mtu::path_mtu;
use super::{Tunnel, gate, token};
use crate::config::units::Bitrate;
use crate::config::{Congestion, Security, Transport};
use crate::packet::ecn::Codepoint;
use crate::packet::ip::is_packet;
use crate::proto::Instant;
use crate::proto::crypto::Sealed;
use crate::proto::event::{Event, SocketId};
use crate::proto::path::{Path, Place, Proof, Told, Urgent};
use crate::proto::stats::Discard;
use crate::proto::wire::frame::{Frame, Frames};
use crate::proto::wire::{HEADER_LEN, Header, Kind, PacketNumber, PathId, Stamp, TAG_LEN};

/// Everything that asks for a proof, or answers one, is this long, so that the answer (a proof, a
/// question and an acknowledgement) is never longer: 8 + 3 + 9 + 9 + 20 + 16 bytes, and a few spare.
pub(super) const PROOF_LEN: usize = 72;
/// Datagrams that went astray ask for a proof of their sender no more often than this.
const PROOF_EVERY: Duration = Duration::from_millis(100);
/// A bare datagram (security `none`) can be forged: its number must lie so near to the largest
/// authentic one. The sender seals one in 1,024, so genuine ones do even when three of those are
/// lost; and the replay window of 8,192 holds all that can be, so no forged one makes it pass over
/// a genuine one.
const BARE_DISTANCE: u64 = 4096;
/// And its send time so near to the peer's clock, as far as that is known from authentic ones.
const BARE_TIME: Duration = Duration::from_secs(2);
/// The newest datagram of one path is later than what came by the others by no more than this, by the
/// time it was sent: whatever a link holds is less than that. What seems older has its stamp read one
/// wrap wrong.
const LATEST: Duration = Duration::from_secs(10);
/// The peer's clock and ours went on differently by so much: one of them stood still, or a link held
/// this.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// No inner packet is longer, whatever the peer's MTU: the largest of [`Mtu`], bytes.
///
/// [`Mtu`]: crate::config::units::Mtu
pub(super) const MOST_PACKET: usize = 9000;

/// Datagrams that are opened at once: as many as authenticated side by side (`crypto`).
const GROUP: usize = 8;

/// A sealed datagram before it is opened: by which keys, on which path, and its number.
#[derive(Debug, Clone, Copy)]
struct Claim {
    owner: Owner,
    number: PacketNumber,
    genuine: bool,
}

/// A datagram that was opened.
struct Opened<'a> {
    kind: Kind,
    which: Which,
    id: PathId,
    number: PacketNumber,
    body: &'a [u8],
    /// The whole datagram's length.
    length: usize,
}

/// What is known of a datagram besides its bytes.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// Where it came from.
    from: Place,
    /// What its IP header says of congestion.
    codepoint: Codepoint,
}

impl Tunnel {
    /// A record of a TCP connection came, or a datagram without a mark.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        datagram: &mut [u8],
    ) {
        let (segment, codepoint) = (datagram.len(), Codepoint::NotCapable);
        self.handle_datagrams(now, socket, from, datagram, segment, codepoint);
    }

    /// Datagrams of one sender came, each of them `segment` bytes long, the last one perhaps shorter,
    /// all with the same mark of the network in their IP headers. True: something of it was sealed by
    /// the peer, and new. No handshake is: copies of its messages are answered too.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        datagrams: &mut [u8],
        segment: usize,
        codepoint: Codepoint,
    ) -> bool {
        if !self.knows(socket) {
            return false;
        }
        let segment = segment.max(1);
        let origin = Origin {
            from: Place {
                socket,
                remote: from,
            },
            codepoint,
        };
        let mut authentic = false;
        for group in datagrams.chunks_mut(segment.saturating_mul(GROUP)) {
            let claims = self.open(group, segment);
            for (claim, datagram) in claims.into_iter().zip(group.chunks(segment)) {
                authentic |= self.on_datagram(now, origin, claim, datagram);
            }
        }
        self.release(now);
        self.report(now);
        authentic
    }

    /// Opens what of a group is sealed under keys that we know.
    fn open(&self, group: &mut [u8], segment: usize) -> [Option<Claim>; GROUP] {
        let mut claims = [None; GROUP];
        for (claim, datagram) in claims.iter_mut().zip(group.chunks(segment)) {
            *claim = self.claim(datagram);
        }
        let mut rest = claims.iter_mut().zip(group.chunks_mut(segment)).peekable();
        // Those of one session together: nearly always all.
        while let Some((claim, datagram)) = rest.next() {
            let Some(first) = claim else { continue };
            let Some(session) = self.keys.session(first.owner.epoch) else {
                continue;
            };
            let epoch = first.owner.epoch;
            let mut places = ArrayVec::<&mut Claim, GROUP>::new();
            let mut sealed = ArrayVec::<Sealed<'_>, GROUP>::new();
            sealed.push(first.sealed(datagram));
            places.push(first);
            while let Some((Some(claim), datagram)) =
                rest.next_if(|(claim, _)| claim.is_some_and(|claim| claim.owner.epoch == epoch))
            {
                sealed.push(claim.sealed(datagram));
                places.push(claim);
            }
            session.open(&mut sealed);
            for (claim, sealed) in places.into_iter().zip(sealed) {
                claim.genuine = sealed.genuine;
            }
        }
        claims
    }

    /// Finds the keys of a sealed datagram, and expands its number. Nothing: it is something else,
    /// nobody's, or came before.
    fn claim(&self, datagram: &[u8]) -> Option<Claim> {
        let header = Header::parse(datagram).filter(|header| header.kind == Kind::Sealed)?;
        let owner = self.keys.find(&header)?;
        let path = self.known_path(owner);
        let number = PacketNumber::expand(header.number, expected(path));
        // What is replayed is not worth the opening.
        let is_new = path.is_none_or(|path| path.replay.check(number).is_ok());
        is_new.then_some(Claim {
            owner,
            number,
            genuine: false,
        })
    }

    /// The path of a datagram, if its numbers go on there.
    fn known_path(&self, owner: Owner) -> Option<&Path> {
        self.paths[owner.path.index()]
            .as_deref()
            .filter(|_| !owner.fresh)
    }

    /// True: it is sealed, genuine and new.
    fn on_datagram(
        &mut self,
        now: Instant,
        origin: Origin,
        claim: Option<Claim>,
        datagram: &[u8],
    ) -> bool {
        let from = origin.from;
        let mut result = Err(None);
        match datagram.first().copied().and_then(Kind::from_byte) {
            Some(Kind::Initiation) => self.on_initiation(now, from, datagram),
            Some(Kind::Response) => self.on_handshake_response(now, from, datagram),
            Some(Kind::Cookie) => self.on_cookie(now, from, datagram),
            Some(Kind::UnknownIndex) => self.on_unknown_index(now, datagram),
            Some(Kind::Sealed) => result = self.admit_sealed(now, from, claim, datagram),
            Some(Kind::Bare) => result = self.admit_bare(now, from, datagram),
            None => result = Err(Some(Discard::Malformed)),
        }
        match result {
            Ok(opened) => {
                self.on_opened(now, origin, &opened);
                return opened.kind == Kind::Sealed;
            }
            Err(None) => {}
            Err(Some(cause)) => self.count.discard(cause),
        }
        false
    }

    /// A sealed datagram that is new and genuine. One that is refused with no cause is counted
    /// already.
    fn admit_sealed<'a>(
        &mut self,
        now: Instant,
        from: Place,
        claim: Option<Claim>,
        datagram: &'a [u8],
    ) -> Result<Opened<'a>, Option<Discard>> {
        let Some(Claim {
            owner,
            number,
            genuine,
        }) = claim
        else {
            let header = Header::parse(datagram).ok_or(Some(Discard::Malformed))?;
            if let Some(owner) = self.keys.find(&header) {
                if let Some(path) = self.paths[owner.path.index()].as_deref_mut() {
                    path.arrivals.on_replayed(now);
                }
                return Err(Some(Discard::Replayed));
            }
            self.send_notice(now, from, datagram);
            return Err(None);
        };
        // Those before it may have changed the keys, or be its copies.
        let which = self.keys.which(owner.epoch).filter(|_| genuine);
        let (which, fresh) = which.ok_or(Some(Discard::Forged))?;
        let path = self.known_path(Owner { fresh, ..owner });
        if path.is_some_and(|path| path.replay.check(number).is_err()) {
            return Err(Some(Discard::Replayed));
        }
        match which {
            Which::Current => {}
            Which::Next(place) => self.on_next_used(now, place),
            Which::Previous(place) => self.keys.on_previous_used(now, place),
        }
        let body = HEADER_LEN..datagram.len().saturating_sub(TAG_LEN);
        Ok(Opened {
            kind: Kind::Sealed,
            which,
            id: owner.path,
            number,
            body: datagram.get(body).ok_or(Some(Discard::Malformed))?,
            length: datagram.len(),
        })
    }

    /// A datagram without a tag: only where both portals are set to it, on a proven path, and never
    /// as the proof of anything.
    fn admit_bare<'a>(
        &mut self,
        now: Instant,
        from: Place,
        datagram: &'a [u8],
    ) -> Result<Opened<'a>, Option<Discard>> {
        let header = Header::parse(datagram).ok_or(Some(Discard::Malformed))?;
        let Some(owner) = self.keys.find(&header) else {
            self.send_notice(now, from, datagram);
            return Err(None);
        };
        let (which, _) = self.keys.which(owner.epoch).ok_or(Some(Discard::Forged))?;
        let path = self.known_path(owner);
        let number = PacketNumber::expand(header.number, expected(path));
        let path = path
            .filter(|path| path.place == Some(from))
            .ok_or(Some(Discard::Forged))?;
        if self.config.security != Security::None
            || number.0.abs_diff(expected(Some(path)).0) > BARE_DISTANCE
        {
            return Err(Some(Discard::Forged));
        }
        path.replay_bare
            .check(number)
            .map_err(|_| Some(Discard::Replayed))?;
        Ok(Opened {
            kind: Kind::Bare,
            which,
            id: owner.path,
            number,
            body: &datagram[HEADER_LEN..],
            length: datagram.len(),
        })
    }

    fn on_opened(&mut self, now: Instant, origin: Origin, opened: &Opened<'_>) {
        let from = origin.from;
        let Some((stamp, frames)) = opened.body.split_first_chunk() else {
            self.count.discard(Discard::Malformed);
            return;
        };
        let transport = self
            .sockets
            .get(&from.socket)
            .map(|socket| socket.transport);
        let Some(transport) = transport else { return };
        // The peer's clock went on since it was last seen.
        let clock = self.peer_clock.map(|(seen, at)| seen.after(now.since(at)));
        let mut sent = clock.map_or_else(
            || Stamp::first(*stamp),
            |clock| Stamp::expand(*stamp, clock),
        );
        let (mtu, ecn) = (self.config.mtu, self.config.ecn);
        let path = self.paths[opened.id.index()].get_or_insert_with(|| {
            let gate = gate(transport, Congestion::default(), None);
            Box::new(Path::new(opened.id, transport, gate, path_mtu(mtu), ecn))
        });
        if opened.kind == Kind::Bare {
            if clock.is_none_or(|clock| clock.distance(sent) > BARE_TIME) {
                self.count.discard(Discard::Forged);
                return;
            }
            path.replay_bare.commit(opened.number);
        } else {
            let newest = opened.number >= path.largest_sealed;
            if newest {
                // The newest number is the anchor, whatever the clocks say: its sender's clock does not
                // go back. After a pause of one of us (67 s and more) the nearest reading is behind.
                let seen = self.peer_clock.map(|(seen, _)| seen.before(LATEST));
                let least = path.newest_sent.max(seen);
                if let Some(least) = least.filter(|least| sent < *least) {
                    sent = Stamp::expand_after(*stamp, least);
                }
                path.newest_sent = Some(sent);
                if clock.is_some_and(|clock| clock.distance(sent) > CLOCK_JUMP) {
                    self.reorder.forget_clock();
                }
            }
            self.peer_clock = self.peer_clock.max(Some((sent, now)));
            path.replay.commit(opened.number);
            path.largest_sealed = path.largest_sealed.max(opened.number);
            if newest && path.opener.is_none() && path.place != Some(from) {
                ask_for_proof(path, now, from, opened.length, || {
                    token(self.entropy.as_mut())
                });
            }
        }
        path.arrivals
            .on_datagram(now, opened.number, opened.length, origin.codepoint);
        path.count.received.add(now, opened.length);
        path.heard = now;
        self.reorder.on_arrival(now, opened.id, sent);
        self.on_frames(now, from, opened, sent, frames);
    }

    fn on_frames(
        &mut self,
        now: Instant,
        from: Place,
        opened: &Opened<'_>,
        sent: Stamp,
        frames: &[u8],
    ) {
        let (mut eliciting, mut carried) = (false, false);
        let before = self.delivered.len();
        for frame in Frames::new(frames) {
            eliciting |= !matches!(frame, Ok(Frame::Ack(_)));
            match frame {
                Ok(Frame::Data { packet, .. })
                    if packet.len() > MOST_PACKET || !is_packet(packet) =>
                {
                    self.count.discard(Discard::NotIp);
                }
                Ok(Frame::Data { order, packet }) => {
                    carried = true;
                    self.take_in(now, order, packet, sent, opened.kind == Kind::Bare);
                }
                // What has no tag may be forged: it carries data and nothing else. That a forged one
                // counts as received, and moves its bucket on, is the price of no tag.
                Ok(_) if opened.kind == Kind::Bare => {
                    self.count.discard(Discard::Forged);
                    break;
                }
                Ok(Frame::Ack(ack)) => {
                    let path = self.paths[ack.path.index()].as_deref_mut();
                    match path.map(|path| path.on_ack(now, &ack, sent)) {
                        Some(Told::Unsent) => {
                            self.start_over(now);
                            return;
                        }
                        Some(Told::Leap) => self.forget_clock(),
                        Some(Told::News) | None => {}
                    }
                }
                Ok(Frame::Ping) => {}
                Ok(Frame::Parity(parity)) => {
                    self.on_parity(now, opened.id, opened.number, sent, &parity);
                }
                Ok(Frame::Challenge(token)) => self.on_challenge(opened.id, from, token),
                Ok(Frame::Response(token)) => self.on_response(now, opened.id, from, token),
                Ok(Frame::Status {
                    path,
                    metric,
                    rate_cap,
                }) => self.on_status(path, metric, rate_cap),
                Ok(Frame::Forward { bucket, sequence }) => {
                    self.reorder
                        .give_up(now, bucket, sequence, &mut self.delivered);
                }
                Ok(Frame::Close) if opened.which != Which::Current => {}
                Ok(Frame::Close) => {
                    self.lose_session();
                    return;
                }
                Err(_) => {
                    self.count.discard(Discard::Malformed);
                    break;
                }
            }
        }
        let kept = if carried { frames } else { &[] };
        self.note_for_parity(opened.id, opened.number, kept);
        // What comes back by a parity is later than others anyway.
        let sent = Some(sent).filter(|_| carried);
        self.hold(now, opened.id, sent, before);
        if let Some(path) = self.paths[opened.id.index()].as_deref_mut()
            && eliciting
        {
            if carried {
                path.carried = now;
            }
            let min_rtt = path.rtt.min();
            path.arrivals.on_eliciting(now, min_rtt);
        }
    }

    /// Nothing measured with both clocks holds any more.
    fn forget_clock(&mut self) {
        self.reorder.forget_clock();
        for path in self.paths.iter_mut().flatten() {
            path.forget_clock();
        }
    }

    fn on_challenge(&mut self, id: PathId, from: Place, token: [u8; 8]) {
        let Some(path) = self.paths[id.index()].as_deref_mut() else {
            return;
        };
        let challenge = path
            .urgent
            .filter(|urgent| urgent.place == from)
            .and_then(|urgent| urgent.challenge);
        // Asked on a link of ours, from an address that is not the configured one: the answer still
        // goes to the configured one.
        let place = if path.opener.is_some() {
            path.place
        } else {
            Some(from)
        };
        if let Some(place) = place {
            path.urgent = Some(Urgent {
                place,
                response: Some(token),
                challenge,
            });
        }
    }

    fn on_response(&mut self, now: Instant, id: PathId, from: Place, token: [u8; 8]) {
        let Some(path) = self.paths[id.index()].as_deref_mut() else {
            return;
        };
        let before = path.place;
        let from = if path.opener.is_some() {
            before.unwrap_or(from)
        } else {
            from
        };
        if !path.on_response(now, from, token) {
            return;
        }
        self.responder.note_source(from.remote);
        if before != Some(from)
            && let Some(socket) = self.sockets.get(&from.socket)
        {
            if path.transport != socket.transport {
                // The peer's link changed its transport: another gate.
                path.transport = socket.transport;
                path.gate = gate(socket.transport, Congestion::default(), None);
                path.mtu
                    .restart(from.remote.is_ipv6(), socket.transport == Transport::Tcp);
            }
            path.set_budget(socket.budget);
        }
        if before.is_some_and(|before| before != from) {
            self.events.push_back(Event::Roamed {
                path: id,
                to: from.remote,
            });
        }
    }

    fn on_status(&mut self, id: PathId, metric: u8, rate_cap: u32) {
        if let Some(path) = self.paths[id.index()]
            .as_deref_mut()
            .filter(|path| path.opener.is_none())
        {
            // Another tier may be in use now.
            path.mtu.changed |= path.metric != metric;
            path.metric = metric;
            path.caps[1] =
                (rate_cap > 0).then(|| Bitrate::from_bits_per_second(u64::from(rate_cap) * 1000));
        }
    }
}

impl Claim {
    fn sealed<'a>(&self, datagram: &'a mut [u8]) -> Sealed<'a> {
        Sealed {
            path: self.owner.path,
            number: self.number,
            datagram,
            genuine: false,
        }
    }
}

/// The number that the next datagram of a path probably has.
fn expected(path: Option<&Path>) -> PacketNumber {
    path.map_or(PacketNumber(0), Path::expected)
}

/// Something authentic came from a place that is not (yet) the path's: it must prove that it is
/// there before anything but this question goes to it, and the question is no longer than what came.
fn ask_for_proof(
    path: &mut Path,
    now: Instant,
    from: Place,
    length: usize,
    token: impl FnOnce() -> [u8; 8],
) {
    let mut proof = match path.proof {
        Some(proof) if proof.place == from => proof,
        Some(_) | None => Proof {
            place: from,
            token: token(),
            asked: None,
            tries: 0,
        },
    };
    let recent = proof
        .asked
        .is_some_and(|asked| now.since(asked) < PROOF_EVERY);
    if length >= PROOF_LEN && !recent {
        proof.asked = Some(now);
        proof.tries += 1;
        let response = path
            .urgent
            .filter(|urgent| urgent.place == from)
            .and_then(|urgent| urgent.response);
        path.urgent = Some(Urgent {
            place: from,
            response,
            challenge: Some(proof.token),
        });
    }
    path.proof = Some(proof);
    if path.place.is_none() {
        path.state = crate::proto::event::PathState::Validating;
    }
}
