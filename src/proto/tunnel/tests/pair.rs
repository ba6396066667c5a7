//! Two portals, and FIFO links between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::units::Mtu;
use crate::config::{Congestion, Security, Transport};
use crate::packet::Packet;
use crate::proto::crypto::keys::PrivateKey;
use crate::proto::event::{Attachment, Event, LinkId, PathState, Side, SocketId, TunnelConfig};
use crate::proto::{Entropy, Instant, Tunnel};

pub(super) const MS: Duration = Duration::from_millis(1);

/// Deterministic bytes (SplitMix64).
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

/// One link, both ways alike.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) delay: Duration,
    /// Bytes per second.
    pub(super) rate: u64,
    /// Bytes that may wait.
    pub(super) queue: u64,
    pub(super) up: bool,
    /// One in so many is lost; zero: none.
    pub(super) loss: u64,
    /// The address that the remote portal sees.
    pub(super) address: SocketAddr,
}

impl Link {
    pub(super) fn new(id: u8, mbit: u64, delay_ms: u64) -> Self {
        let rate = mbit * 125_000;
        let address = SocketAddr::from(([192, 0, 2, id], 40_000));
        Self {
            delay: delay_ms as u32 * MS,
            rate,
            queue: rate / 10,
            up: true,
            loss: 0,
            address,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    Local,
    Remote,
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) local: Tunnel,
    pub(super) remote: Tunnel,
    pub(super) links: Vec<Link>,
    /// When each direction of a link is free again.
    busy: BTreeMap<(usize, To), Instant>,
    /// Datagrams under way, by time of arrival and a count that keeps order.
    flying: BTreeMap<(Instant, u64), (usize, To, Vec<u8>)>,
    count: u64,
    pub(super) random: Seeded,
    /// What came out, and the news.
    pub(super) at_local: Vec<Packet>,
    pub(super) at_remote: Vec<Packet>,
    pub(super) local_events: Vec<Event>,
    pub(super) remote_events: Vec<Event>,
    /// Every datagram that was put on a link.
    pub(super) tap: Vec<(To, Vec<u8>)>,
    /// Bytes that the remote portal sent to addresses that are no link's.
    pub(super) astray: u64,
    security: Security,
}

pub(super) const LISTEN: SocketId = SocketId(1000);
pub(super) const REMOTE: ([u8; 4], u16) = ([203, 0, 113, 2], 4725);

fn keys(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut Seeded(seed))
}

fn portal(side: Side, security: Security, seed: u64, now: Instant) -> Tunnel {
    let (private, peer) = match side {
        Side::Local => (keys(1), keys(2)),
        Side::Remote => (keys(2), keys(1)),
    };
    let mtu = Mtu::TUNNEL_DEFAULT;
    let config = TunnelConfig {
        side,
        private,
        peer: peer.public(),
        preshared: None,
        security,
        aes: false,
        mtu,
    };
    Tunnel::new(config, Box::new(Seeded(seed)), now)
}

impl Pair {
    pub(super) fn new(links: Vec<Link>) -> Self {
        Self::with(links, Security::Encrypt, Security::Encrypt)
    }

    pub(super) fn with(links: Vec<Link>, local: Security, remote: Security) -> Self {
        let now = Instant::from_micros(5_000_000);
        let mut pair = Self {
            now,
            local: portal(Side::Local, local, 11, now),
            remote: portal(Side::Remote, remote, 22, now),
            links,
            busy: BTreeMap::new(),
            flying: BTreeMap::new(),
            count: 0,
            random: Seeded(33),
            at_local: Vec::new(),
            at_remote: Vec::new(),
            local_events: Vec::new(),
            remote_events: Vec::new(),
            tap: Vec::new(),
            astray: 0,
            security: remote,
        };
        pair.remote.handle_socket_up(
            now,
            LISTEN,
            Attachment::Listen {
                transport: Transport::Udp,
            },
        );
        for id in 0..pair.links.len() {
            pair.open_link(id, id as u32);
        }
        pair
    }

    pub(super) fn open_link(&mut self, id: usize, socket: u32) {
        let attachment = Attachment::Link {
            link: LinkId(id as u8),
            transport: Transport::Udp,
            remote: REMOTE.into(),
            metric: 0,
            rate_up: None,
            rate_down: None,
            congestion: Congestion::NewReno,
        };
        self.local
            .handle_socket_up(self.now, SocketId(socket), attachment);
    }

    /// A new process of the remote portal.
    pub(super) fn restart_remote(&mut self) {
        self.remote = portal(Side::Remote, self.security, 44, self.now);
        self.remote.handle_socket_up(
            self.now,
            LISTEN,
            Attachment::Listen {
                transport: Transport::Udp,
            },
        );
    }

    fn put(&mut self, id: usize, to: To, datagram: &[u8]) {
        self.tap.push((to, datagram.to_vec()));
        let lost = self.links[id].loss;
        let Link {
            delay,
            rate,
            queue,
            up,
            ..
        } = self.links[id];
        let free = self.busy.entry((id, to)).or_insert(self.now);
        let start = (*free).max(self.now);
        let waiting = start.since(self.now).as_micros() as u64 * rate / 1_000_000;
        if !up || waiting > queue || (lost > 0 && self.random.next().is_multiple_of(lost)) {
            return;
        }
        // Headers of UDP and IPv4.
        *free = start + Duration::from_micros((datagram.len() as u64 + 28) * 1_000_000 / rate);
        self.count += 1;
        self.flying
            .insert((*free + delay, self.count), (id, to, datagram.to_vec()));
    }

    fn drain(&mut self) {
        let mut out = Vec::new();
        while let Some(t) = self.local.poll_transmit(self.now, &mut out) {
            let id = t.socket.0 as usize % 10;
            for datagram in out.chunks(t.segment_size) {
                self.put(id, To::Remote, datagram);
            }
        }
        while let Some(t) = self.remote.poll_transmit(self.now, &mut out) {
            match self
                .links
                .iter()
                .position(|link| link.address == t.destination)
            {
                Some(id) => out
                    .chunks(t.segment_size)
                    .for_each(|datagram| self.put(id, To::Local, datagram)),
                None => self.astray += out.len() as u64,
            }
        }
        while let Some(packet) = self.local.poll_packet() {
            self.at_local.push(packet);
        }
        while let Some(packet) = self.remote.poll_packet() {
            self.at_remote.push(packet);
        }
        self.local_events
            .extend(std::iter::from_fn(|| self.local.poll_event()));
        self.remote_events
            .extend(std::iter::from_fn(|| self.remote.poll_event()));
    }

    /// Gives a datagram to a portal, as if it came from `from`.
    pub(super) fn inject(&mut self, to: To, from: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        match to {
            To::Remote => self
                .remote
                .handle_datagram(self.now, LISTEN, from, &mut datagram),
            To::Local => self
                .local
                .handle_datagram(self.now, SocketId(0), from, &mut datagram),
        }
        self.drain();
    }

    /// Steps to the next thing that happens, but not beyond `until`.
    fn step(&mut self, until: Instant) {
        let timeouts = [self.local.poll_timeout(), self.remote.poll_timeout()];
        let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
        let next = timeouts
            .into_iter()
            .flatten()
            .chain(arrival)
            .min()
            .unwrap_or(until);
        self.now = next.clamp(self.now, until);
        while let Some(((at, _), _)) = self.flying.first_key_value()
            && *at <= self.now
            && let Some((_, (id, to, mut datagram))) = self.flying.pop_first()
        {
            match to {
                To::Local if self.links[id].up => {
                    if let Some(socket) = self.socket_of(id) {
                        self.local
                            .handle_datagram(self.now, socket, REMOTE.into(), &mut datagram);
                    }
                }
                To::Remote if self.links[id].up => {
                    let from = self.links[id].address;
                    self.remote
                        .handle_datagram(self.now, LISTEN, from, &mut datagram);
                }
                To::Local | To::Remote => {}
            }
        }
        for tunnel in [&mut self.local, &mut self.remote] {
            if tunnel.poll_timeout().is_some_and(|at| at <= self.now) {
                tunnel.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    fn socket_of(&self, id: usize) -> Option<SocketId> {
        // A reopened link's socket counts in tens: 0, 10, 20 are link 0's.
        (0..10)
            .rev()
            .map(|n| SocketId(n * 10 + id as u32))
            .find(|s| self.local.knows(*s))
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut still = 0;
        self.drain();
        while self.now < until {
            let before = self.now;
            self.step(until);
            // A timer that is due again and again without a step of time is a busy loop.
            still = if self.now == before { still + 1 } else { 0 };
            assert!(still < 50, "a busy timer at {}", self.now);
        }
    }

    /// An inner UDP packet of `len` bytes of flow `flow` with a number in it, from the local side.
    pub(super) fn send_up(&mut self, flow: u16, number: u32, len: usize) {
        let packet = inner(flow, number, len);
        self.local.handle_packet(self.now, packet);
        self.drain();
    }

    pub(super) fn send_down(&mut self, flow: u16, number: u32, len: usize) {
        let packet = inner(flow, number, len);
        self.remote.handle_packet(self.now, packet);
        self.drain();
    }

    pub(super) fn states(&mut self) -> Vec<PathState> {
        self.local
            .stats(self.now)
            .paths
            .iter()
            .map(|path| path.state)
            .collect()
    }
}

/// An inner packet.
pub(super) fn inner(flow: u16, number: u32, len: usize) -> Packet {
    assert!(len >= 32, "a header, ports and a number");
    let mut bytes = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    bytes.extend_from_slice(&flow.to_be_bytes());
    bytes.extend_from_slice(&[0, 53, 0, 0, 0, 0]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(len, 0xaa);
    Packet::from(&bytes[..])
}

/// The numbers in packets of a flow, in order of delivery.
pub(super) fn numbers(packets: &[Packet], flow: u16) -> Vec<u32> {
    let of_flow = packets
        .iter()
        .filter(|p| p.bytes()[20..22] == flow.to_be_bytes());
    of_flow
        .map(|p| u32::from_be_bytes(p.bytes()[28..32].try_into().unwrap()))
        .collect()
}
