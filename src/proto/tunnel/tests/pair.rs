//! Two portals, and FIFO links between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::units::{Family, Mtu, Prefix};
use crate::config::{Class, Congestion, PublicAddresses, Security, Transport, TunnelAddresses};
use crate::packet::ecn::Codepoint;
use crate::packet::{Crossing, Packet};
use crate::proto::crypto::keys::PrivateKey;
use crate::proto::event::{
    Attachment, Cutting, Event, LinkId, PathState, Side, SocketId, Transmit, TunnelConfig,
};
use crate::proto::{Batch, Entropy, Instant, Tunnel};

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
    /// The longest IP packet; what is longer vanishes, unless it may be cut and `cuts` is set.
    pub(super) mtu: usize,
    pub(super) cuts: bool,
    /// The longest IP packet that the portal's own device takes.
    pub(super) device: usize,
    /// What it makes of the codepoint of the n-th datagram; nothing: it drops it.
    pub(super) ecn: fn(Codepoint, u64) -> Option<Codepoint>,
    /// The address that the remote portal sees.
    pub(super) address: SocketAddr,
    /// Its tier.
    pub(super) metric: u8,
    /// Bytes of IP packets that were put on it, in both directions.
    pub(super) cost: u64,
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
            mtu: 1500,
            cuts: true,
            device: 1500,
            ecn: |codepoint, _| Some(codepoint),
            address,
            metric: 0,
            cost: 0,
        }
    }
}

/// A datagram under way.
struct Flying {
    id: usize,
    to: To,
    /// The receiver's socket, and whom it comes from.
    socket: SocketId,
    from: SocketAddr,
    codepoint: Codepoint,
    bytes: Vec<u8>,
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
    flying: BTreeMap<(Instant, u64), Flying>,
    count: u64,
    pub(super) random: Seeded,
    /// What came out, and the news.
    pub(super) at_local: Vec<Packet>,
    pub(super) at_remote: Vec<Packet>,
    pub(super) local_events: Vec<Event>,
    pub(super) remote_events: Vec<Event>,
    /// Every datagram that was put on a link.
    pub(super) tap: Vec<(To, Vec<u8>)>,
    /// The longest datagram that was put on a link whole, since this was set to zero.
    pub(super) longest_whole: usize,
    /// Bytes that the remote portal sent to addresses that are no link's.
    pub(super) astray: u64,
    security: Security,
    transport: Transport,
    restarts: u64,
    /// The local portal's clock is behind by so much: it stood still with its host.
    behind: Duration,
    paused: bool,
}

/// The remote portal's own link to the local one, where it has one.
const REMOTE_DIALS: SocketId = SocketId(3000);
/// Connections that the remote portal accepted count from here.
const ACCEPTED: u32 = 2000;
pub(super) const LISTEN: SocketId = SocketId(1000);
pub(super) const REMOTE: ([u8; 4], u16) = ([203, 0, 113, 2], 4725);

fn keys(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut Seeded(seed))
}

/// Packets from and to any address cross.
pub(super) fn crossing() -> Crossing {
    let public = PublicAddresses { v4: None, v6: None };
    let all = Prefix::default_of(Family::V4);
    Crossing::new(&public, &TunnelAddresses::default(), &[all])
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
        redundant: vec![Class::Dscp(46)],
        crossing: crossing(),
        ecn: true,
    };
    Tunnel::new(config, Box::new(Seeded(seed)), now)
}

fn link(id: u8, transport: Transport, remote: SocketAddr, metric: u8) -> Attachment {
    Attachment::Link {
        link: LinkId(id),
        transport,
        remote,
        metric,
        rate_up: None,
        rate_down: None,
        congestion: Congestion::default(),
    }
}

impl Pair {
    pub(super) fn new(links: Vec<Link>) -> Self {
        Self::with(links, Security::Encrypt, Security::Encrypt)
    }

    pub(super) fn with(links: Vec<Link>, local: Security, remote: Security) -> Self {
        Self::over(Transport::Udp, links, local, remote)
    }

    pub(super) fn over(
        transport: Transport,
        links: Vec<Link>,
        local: Security,
        remote: Security,
    ) -> Self {
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
            longest_whole: 0,
            astray: 0,
            security: remote,
            transport,
            restarts: 0,
            behind: Duration::ZERO,
            paused: false,
        };
        pair.listen();
        for id in 0..pair.links.len() {
            pair.open_link(id, id as u32);
        }
        pair
    }

    pub(super) fn open_link(&mut self, id: usize, socket: u32) {
        let metric = self.links[id].metric;
        let attachment = link(id as u8, self.transport, REMOTE.into(), metric);
        self.local
            .handle_socket_up(self.local_now(), SocketId(socket), attachment);
    }

    /// A new process of the remote portal.
    pub(super) fn restart_remote(&mut self) {
        self.restarts += 1;
        self.remote = portal(Side::Remote, self.security, 44 + self.restarts, self.now);
        self.listen();
    }

    fn listen(&mut self) {
        let attachment = Attachment::Listen {
            transport: Transport::Udp,
        };
        self.remote.handle_socket_up(self.now, LISTEN, attachment);
        for id in 0..self.links.len() as u32 {
            let attachment = Attachment::Listen {
                transport: Transport::Tcp,
            };
            self.remote
                .handle_socket_up(self.now, SocketId(ACCEPTED + id), attachment);
        }
    }

    /// The remote portal opens a path too, to a socket on which the local one listens.
    pub(super) fn dial_back(&mut self) {
        let attachment = Attachment::Listen {
            transport: Transport::Udp,
        };
        self.local
            .handle_socket_up(self.local_now(), LISTEN, attachment);
        let attachment = link(0, Transport::Udp, self.links[0].address, 0);
        self.remote
            .handle_socket_up(self.now, REMOTE_DIALS, attachment);
    }

    fn put(
        &mut self,
        id: usize,
        to: To,
        (socket, from): (SocketId, SocketAddr),
        (cutting, ect): (Cutting, bool),
        datagram: &[u8],
    ) {
        self.tap.push((to, datagram.to_vec()));
        self.links[id].cost += datagram.len() as u64 + 28;
        let Link {
            delay,
            rate,
            queue,
            up,
            loss,
            mtu,
            cuts,
            ecn,
            ..
        } = self.links[id];
        let codepoint = match ect {
            true => Codepoint::Capable,
            false => Codepoint::NotCapable,
        };
        let free = self.busy.entry((id, to)).or_insert(self.now);
        let start = (*free).max(self.now);
        let waiting = start.since(self.now).as_micros() as u64 * rate / 1_000_000;
        let tcp = self.transport == Transport::Tcp;
        let long = !tcp && datagram.len() + 28 > mtu;
        if cutting != Cutting::Free {
            self.longest_whole = self.longest_whole.max(datagram.len());
        }
        if long && (cutting != Cutting::Free || !cuts) {
            return;
        }
        let unlucky = loss > 0 && self.random.next().is_multiple_of(loss);
        let Some(codepoint) = ecn(codepoint, self.count) else {
            return;
        };
        if !up || (!tcp && waiting > queue) || unlucky {
            return;
        }
        // Headers of UDP and IPv4.
        *free = start + Duration::from_micros((datagram.len() as u64 + 28) * 1_000_000 / rate);
        self.count += 1;
        let flying = Flying {
            id,
            to,
            socket,
            from,
            codepoint,
            bytes: datagram.to_vec(),
        };
        self.flying.insert((*free + delay, self.count), flying);
    }

    fn drain(&mut self) {
        let local_now = self.local_now();
        let tcp = self.transport == Transport::Tcp;
        if tcp {
            // The kernels take what they are given, half a window each time.
            for id in 0..self.links.len() as u32 {
                self.local.handle_writable(local_now, SocketId(id), 16_000);
                self.remote
                    .handle_writable(self.now, SocketId(ACCEPTED + id), 16_000);
            }
        }
        let mut batch = Batch::default();
        while !self.paused && self.local.poll_transmit(local_now, &mut batch) {
            let Some((t, out)) = batch.seal() else { break };
            // What leaves by the listening socket answers the remote portal's own link.
            let (id, socket) = match t.socket {
                LISTEN => (0, REMOTE_DIALS),
                SocketId(n) if tcp => (n as usize % 10, SocketId(ACCEPTED + n)),
                SocketId(n) => (n as usize % 10, LISTEN),
            };
            let from = self.links[id].address;
            let cutting = self.pass_device(id, To::Local, &t, tcp);
            for datagram in out.chunks(t.segment_size) {
                self.put(id, To::Remote, (socket, from), (cutting, t.ect), datagram);
            }
        }
        while self.remote.poll_transmit(self.now, &mut batch) {
            let Some((t, out)) = batch.seal() else { break };
            let to = |link: &Link| link.address == t.destination;
            let Some(id) = self.links.iter().position(to) else {
                self.astray += out.len() as u64;
                continue;
            };
            let socket = match t.socket {
                REMOTE_DIALS => LISTEN,
                SocketId(n) if n >= ACCEPTED => SocketId(n - ACCEPTED),
                SocketId(_) => self.socket_of(id).unwrap_or(LISTEN),
            };
            let cutting = self.pass_device(id, To::Remote, &t, tcp);
            for datagram in out.chunks(t.segment_size) {
                self.put(
                    id,
                    To::Local,
                    (socket, REMOTE.into()),
                    (cutting, t.ect),
                    datagram,
                );
            }
        }
        while let Some(packet) = self.local.poll_packet() {
            self.at_local.push(packet);
        }
        while let Some(packet) = self.remote.poll_packet() {
            self.at_remote.push(packet);
        }
        let events = std::iter::from_fn(|| self.local.poll_event());
        self.local_events.extend(events);
        let events = std::iter::from_fn(|| self.remote.poll_event());
        self.remote_events.extend(events);
    }

    /// What a portal's device makes of a batch: a probe that it does not take goes nowhere.
    fn pass_device(&mut self, id: usize, of: To, transmit: &Transmit, tcp: bool) -> Cutting {
        if tcp
            || transmit.cutting == Cutting::Free
            || transmit.segment_size + 28 <= self.links[id].device
        {
            return transmit.cutting;
        }
        let (tunnel, now) = self.portal(of);
        tunnel.handle_refused(
            now,
            transmit.socket,
            transmit.destination,
            transmit.segment_size,
        );
        match transmit.cutting {
            Cutting::IfRefused => Cutting::Free,
            // Longer than any link.
            Cutting::Never | Cutting::Free => {
                self.links[id].mtu = self.links[id].mtu.min(self.links[id].device);
                Cutting::Never
            }
        }
    }

    /// Gives a datagram to a portal, as if it came from `from`.
    pub(super) fn inject(&mut self, to: To, from: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        match to {
            To::Remote => self
                .remote
                .handle_datagram(self.now, LISTEN, from, &mut datagram),
            To::Local => {
                let now = self.local_now();
                self.local
                    .handle_datagram(now, SocketId(0), from, &mut datagram);
            }
        }
        self.drain();
    }

    /// Steps to the next thing that happens, but not beyond `until`.
    fn step(&mut self, until: Instant) {
        let local = self.local.poll_timeout().filter(|_| !self.paused);
        let local = local.map(|at| at + self.behind);
        let timeouts = [local, self.remote.poll_timeout()];
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
            && let Some((_, flying)) = self.flying.pop_first()
        {
            let Flying {
                id,
                to,
                socket,
                from,
                codepoint,
                mut bytes,
            } = flying;
            if self.links[id].up && (to == To::Remote || !self.paused) {
                let length = bytes.len();
                let (tunnel, now) = self.portal(to);
                tunnel.handle_datagrams(now, socket, from, &mut bytes, length, codepoint);
            }
        }
        for of in [To::Local, To::Remote] {
            if of == To::Local && self.paused {
                continue;
            }
            let (tunnel, now) = self.portal(of);
            if tunnel.poll_timeout().is_some_and(|at| at <= now) {
                tunnel.handle_timeout(now);
            }
        }
        self.drain();
    }

    /// The time by the local portal's clock.
    fn local_now(&self) -> Instant {
        let behind = self.behind.as_micros() as u64;
        Instant::from_micros(self.now.as_micros() - behind)
    }

    /// A portal, and the time by its clock.
    fn portal(&mut self, of: To) -> (&mut Tunnel, Instant) {
        let local_now = self.local_now();
        match of {
            To::Local => (&mut self.local, local_now),
            To::Remote => (&mut self.remote, self.now),
        }
    }

    /// The local portal's host stands still, and its clock with it.
    pub(super) fn pause_local(&mut self, time: Duration) {
        self.paused = true;
        // What its clock says meanwhile asks for nothing: see `step`.
        self.run(time);
        self.paused = false;
        self.behind += time;
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
        let (packet, now) = (inner(flow, number, len), self.local_now());
        self.local.handle_packet(now, packet);
        self.drain();
    }

    pub(super) fn send_down(&mut self, flow: u16, number: u32, len: usize) {
        let packet = inner(flow, number, len);
        self.remote.handle_packet(self.now, packet);
        self.drain();
    }

    pub(super) fn states(&mut self) -> Vec<PathState> {
        let now = self.local_now();
        self.local
            .stats(now)
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
