//! The tunnel: joins keys, paths, queue, scheduler and reorder buffer. Wiring only.
//!
//! `keys` makes and changes sessions, `inbound` takes datagrams apart, `outbound` puts them
//! together, `timers` knows when what is due, `report` tells the owner.

mod deliver;
mod inbound;
mod keys;
mod mtu;
mod outbound;
mod outbox;
mod parity;
mod repair;
mod report;
mod timers;

use std::collections::VecDeque;
use std::time::Duration;

use super::congestion::{Controller, Dtrc, Fixed, Kernel, NewReno, Pacer};
use super::crypto::{Identity, Responder};
use super::event::{Attachment, Event, LinkId, PathState, PathTerms, Side, SocketId, TunnelConfig};
use super::path::{Gate, Opener, Path, Place};
use super::queue::{self, Queue};
use super::recovery::KeptId;
use super::reorder::{Resequencer, Steady, patience};
use super::repair::Repairs;
use super::scheduler::{Spread, Trials, Yields};
use super::stats::Discard;
use super::wire::frame::Sequence;
use super::wire::{HEADER_LEN, MAX_PATHS, PathId, STAMP_LEN, Stamp, TAG_LEN, frame};
use super::{Entropy, Instant};
use crate::config::units::Bitrate;
use crate::config::{Class, Congestion, Transport};
use crate::packet::ip::is_packet;
use crate::packet::{Classes, Crossing, FlowHasher, Packet, Pool, Towards, mss};
use crate::sorted::Map;
use keys::Keys;
use mtu::{InnerMtu, path_mtu};
use outbox::Outbox;

/// What our datagram adds to an inner packet at most, bytes: 8 + 3 + 6 + 16.
pub const OVERHEAD: usize = HEADER_LEN + STAMP_LEN + frame::DATA_OVERHEAD + TAG_LEN;

/// A socket that the owner lent.
#[derive(Debug, Clone, Copy)]
struct Socket {
    transport: Transport,
    /// A link's own socket opens this path to this peer.
    dials: Option<(PathId, Place)>,
    /// What a TCP connection takes, as the owner said last; bytes.
    budget: usize,
}

/// Counters of the whole tunnel.
#[derive(Debug, Default)]
struct Count {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    copies: u64,
    /// Parities that were sent.
    parities: u64,
    /// Packets that came back by the peer's.
    recovered: u64,
    discards: Map<Discard, u64>,
}

impl Count {
    fn discard(&mut self, cause: Discard) {
        *self.discards.get_or_insert_with(cause, || 0) += 1;
    }
}

/// What the sender remembers of one order domain.
#[derive(Debug, Clone, Copy, Default)]
struct Domain {
    next: Sequence,
    /// One more than the number of the last datagram with a packet of this domain, for each path;
    /// zero: none.
    last_sent: [u64; MAX_PATHS],
    /// Until then its packets wait for repairs whatever they are: it had a queue lately.
    bulk_until: Instant,
    spread: Spread,
}

/// One tunnel to one peer. See the contract in [`crate::proto`].
pub struct Tunnel {
    config: TunnelConfig,
    identity: Identity,
    entropy: Box<dyn Entropy>,
    responder: Responder,
    keys: Keys,
    sockets: Map<SocketId, Socket>,
    paths: [Option<Box<Path>>; MAX_PATHS],
    inner: InnerMtu,
    hasher: FlowHasher,
    /// What is sent on two paths at once.
    redundant: Classes,
    queue: Queue,
    domains: Vec<Domain>,
    repairs: Repairs,
    /// The repair for which no path had room after it had been patient, and since when it waited.
    no_path_for: Option<(KeptId, Instant)>,
    /// The round trip of the quickest path.
    quickest: Option<Duration>,
    /// How long a packet waits at its receiver for a repair.
    patience: Duration,
    /// When it was last learned what became of what was sent.
    collected: Instant,
    /// What far paths brought.
    trials: Trials,
    /// Whether flows on them send enough.
    yields: Yields,
    /// The path that led the scheduler's order last.
    first_path: Option<PathId>,
    reorder: Resequencer,
    /// TCP packets that are in order and held for an even delay.
    steady: Steady,
    /// The newest send time seen of the peer's clock, and when.
    peer_clock: Option<(Stamp, Instant)>,
    pool: Pool,
    /// Datagrams of handshakes.
    outbox: Outbox,
    delivered: VecDeque<Packet>,
    /// ICMP answers to packets that this host gave to the TUN. They did not cross the tunnel, so `crossing`
    /// does not judge them.
    answers: VecDeque<Packet>,
    events: VecDeque<Event>,
    /// When a lost packet was last sent again.
    last_repair: Option<Instant>,
    /// When data last came or went.
    last_data: Instant,
    connected: bool,
    /// The peer is to be told that we go.
    closing: bool,
    last_notice: Option<Instant>,
    count: Count,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("side", &self.config.side)
            .finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel without sockets.
    pub fn new(config: TunnelConfig, mut entropy: Box<dyn Entropy>, now: Instant) -> Self {
        let identity = Identity::new(
            config.private.clone(),
            config.peer,
            config.preshared.clone(),
        );
        let responder = Responder::new(now, entropy.as_mut());
        let keys = Keys::new(&config, entropy.as_mut());
        let mut secret = [0; 8];
        entropy.fill(&mut secret);
        let outbox = Outbox::new(entropy.as_mut());
        // The owner reads one byte more, to see what is too long.
        let pool = Pool::new(usize::from(config.mtu.bytes()) + 1);
        Self {
            identity,
            entropy,
            responder,
            keys,
            sockets: Map::new(),
            paths: [const { None }; MAX_PATHS],
            inner: InnerMtu::new(config.mtu),
            redundant: Classes::new(config.redundant.clone()),
            hasher: FlowHasher::new(u64::from_ne_bytes(secret)),
            queue: Queue::default(),
            domains: vec![Domain::default(); 256],
            repairs: Repairs::default(),
            no_path_for: None,
            quickest: None,
            patience: patience(Duration::ZERO),
            collected: now,
            trials: Trials::default(),
            yields: Yields::default(),
            first_path: None,
            reorder: Resequencer::default(),
            steady: Steady::default(),
            peer_clock: None,
            pool,
            outbox,
            delivered: VecDeque::new(),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            last_repair: None,
            last_data: Instant::default(),
            connected: false,
            closing: false,
            last_notice: None,
            count: Count::default(),
            config,
        }
    }

    /// From now on these kinds of packets are sent on two links at once.
    pub fn set_redundant(&mut self, classes: Vec<Class>) {
        self.redundant = Classes::new(classes);
    }

    /// A socket may be used from now on. A link that came back comes with a new socket.
    pub fn handle_socket_up(&mut self, now: Instant, socket: SocketId, attachment: Attachment) {
        match attachment {
            Attachment::Listen { transport } => {
                self.sockets.insert(
                    socket,
                    Socket {
                        transport,
                        dials: None,
                        budget: 0,
                    },
                );
            }
            Attachment::Link {
                link,
                transport,
                remote,
                metric,
                rate_up,
                rate_down,
                congestion,
            } => {
                let Some(id) = self.path_of(link) else { return };
                let place = Place { socket, remote };
                self.sockets.insert(
                    socket,
                    Socket {
                        transport,
                        dials: Some((id, place)),
                        budget: 0,
                    },
                );
                let (mtu, ecn) = (self.config.mtu, self.config.ecn);
                let path = self.paths[id.index()].get_or_insert_with(|| {
                    let gate = gate(transport, congestion, rate_up);
                    Box::new(Path::new(id, transport, gate, path_mtu(mtu), ecn))
                });
                let terms = PathTerms {
                    metric,
                    rate_up,
                    rate_down,
                    congestion,
                };
                set_terms(path, link, transport, terms);
                path.begin_proof(place, token(self.entropy.as_mut()));
                self.begin_handshake_if_needed(now);
            }
        }
        self.report(now);
    }

    /// The configuration says something else of a link; its socket and its path stay as they are.
    pub fn handle_terms(&mut self, now: Instant, link: LinkId, terms: PathTerms) {
        let Some(id) = self.path_of(link) else { return };
        if let Some(path) = self.paths[id.index()].as_deref_mut()
            && path.opener.is_some()
        {
            set_terms(path, link, path.transport, terms);
            let socket = path.place.and_then(|place| self.sockets.get(&place.socket));
            path.set_budget(socket.map_or(0, |socket| socket.budget));
        }
        self.report(now);
    }

    /// A socket is gone.
    pub fn handle_socket_down(&mut self, now: Instant, socket: SocketId) {
        self.sockets.remove(&socket);
        self.outbox.forget(socket);
        for path in self.paths.iter_mut().flatten() {
            if path.proof.is_some_and(|proof| proof.place.socket == socket) {
                path.proof = None;
            }
            if path
                .urgent
                .is_some_and(|urgent| urgent.place.socket == socket)
            {
                path.urgent = None;
            }
            if path.place.is_some_and(|place| place.socket == socket) {
                path.close();
            }
        }
        self.report(now);
    }

    /// A TCP connection takes `budget` more bytes now.
    pub fn handle_writable(&mut self, _now: Instant, socket: SocketId, budget: usize) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.budget = budget;
        }
        for path in self.paths.iter_mut().flatten() {
            if path.place.is_some_and(|place| place.socket == socket) {
                path.set_budget(budget);
            }
        }
    }

    /// A packet from the TUN, in a buffer of `take_buffer`.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet) {
        self.count.packets_in += 1;
        self.count.bytes_in += packet.len() as u64;
        if !self.config.crossing.admits(self.outwards(), packet.bytes()) {
            self.count.discard(if is_packet(packet.bytes()) {
                Discard::NotAllowedOut
            } else {
                Discard::NotIp
            });
            return self.pool.give(packet);
        }
        let mut packet = match self.refuse_long(now, packet) {
            Ok(packet) => packet,
            Err(packet) => return self.pool.give(packet),
        };
        let cause = match self.hasher.flow(packet.bytes()) {
            _ if self.keys.current().is_none() => Discard::NoPath,
            None => Discard::NotIp,
            Some(hash) => {
                mss::clamp(packet.buffer(), self.inner.whole());
                let (count, pool) = (&mut self.count, &mut self.pool);
                self.queue.push(now, hash, packet, |drop, packet| {
                    discard(count, pool, drop, packet)
                });
                self.last_data = now;
                return;
            }
        };
        self.count.discard(cause);
        self.pool.give(packet);
    }

    /// A packet for the TUN.
    pub fn poll_packet(&mut self) -> Option<Packet> {
        let packet = self.answers.pop_front().or_else(|| self.admitted())?;
        self.count.packets_out += 1;
        self.count.bytes_out += packet.len() as u64;
        Some(packet)
    }

    /// The next packet from the peer that may cross.
    fn admitted(&mut self) -> Option<Packet> {
        let mut packet = self.delivered.pop_front()?;
        // Here and not where it came in: what is refused keeps its place in the order of its flow.
        while !self.config.crossing.admits(self.inwards(), packet.bytes()) {
            self.count.discard(Discard::NotAllowedIn);
            self.pool.give(packet);
            packet = self.delivered.pop_front()?;
        }
        // Again: what the two portals' paths carry may differ.
        mss::clamp(packet.buffer(), self.inner.whole());
        Some(packet)
    }

    /// Other packets may cross from now on.
    pub fn set_crossing(&mut self, crossing: Crossing) {
        self.config.crossing = crossing;
    }

    /// Where this portal's host sends.
    fn outwards(&self) -> Towards {
        match self.config.side {
            Side::Local => Towards::Internet,
            Side::Remote => Towards::Home,
        }
    }

    /// Where the peer sends.
    fn inwards(&self) -> Towards {
        match self.config.side {
            Side::Local => Towards::Home,
            Side::Remote => Towards::Internet,
        }
    }

    /// News.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// An empty buffer for a packet.
    pub fn take_buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Lends up to `count` free buffers, to be filled elsewhere.
    pub fn lend(&mut self, count: usize, into: &mut Vec<Packet>) {
        self.pool.spare(count, into);
    }

    /// A buffer back.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.give(packet);
    }

    /// Tells the peer that we go; drain `poll_transmit` after it.
    pub fn close(&mut self, _now: Instant) {
        self.closing = true;
    }

    /// The path of a link of ours. The two portals number theirs from both ends, so that both may
    /// open paths.
    fn path_of(&self, link: LinkId) -> Option<PathId> {
        let id = match self.config.side {
            Side::Local => link.0,
            Side::Remote => (MAX_PATHS as u8 - 1).checked_sub(link.0)?,
        };
        PathId::new(id)
    }

    fn link_up(&self) -> bool {
        let alive = |path: &Path| matches!(path.state, PathState::Up | PathState::Suspect);
        self.paths.iter().flatten().any(|path| alive(path))
    }
}

fn discard(count: &mut Count, pool: &mut Pool, drop: queue::Drop, packet: Packet) {
    count.discard(match drop {
        queue::Drop::Full => Discard::QueueFull,
        queue::Drop::Delay => Discard::QueueDelay,
    });
    pool.give(packet);
}

/// Gives a path of ours its link's terms; its controller is replaced only when it has to be another.
fn set_terms(path: &mut Path, link: LinkId, transport: Transport, terms: PathTerms) {
    let gate_terms = (transport, terms.congestion, terms.rate_up);
    if path.opener.is_none_or(|opener| opener.terms != gate_terms) {
        path.transport = transport;
        path.gate = gate(transport, terms.congestion, terms.rate_up);
    }
    path.opener = Some(Opener {
        link,
        rate_down: terms.rate_down,
        terms: gate_terms,
    });
    path.metric = terms.metric;
    path.caps[0] = terms.rate_up;
    path.status_due = true;
}

/// What lets a path send: the kernel on a TCP connection, a controller of ours on UDP.
fn gate(transport: Transport, congestion: Congestion, rate: Option<Bitrate>) -> Gate {
    let controller: Box<dyn Controller> = match (transport, congestion, rate) {
        (Transport::Tcp, _, _) => Box::new(Kernel),
        (Transport::Udp, Congestion::Fixed, Some(rate)) => Box::new(Fixed::new(rate)),
        (Transport::Udp, Congestion::NewReno, _) => Box::<NewReno>::default(),
        // Fixed without a rate cannot be: the configuration asks for one.
        (Transport::Udp, Congestion::Fixed | Congestion::Dtrc, _) => Box::<Dtrc>::default(),
    };
    Gate {
        controller,
        pacer: Pacer::default(),
        budget: (transport == Transport::Tcp).then_some(0),
    }
}

fn token(entropy: &mut dyn Entropy) -> [u8; 8] {
    let mut token = [0; 8];
    entropy.fill(&mut token);
    token
}

#[cfg(test)]
mod tests;
