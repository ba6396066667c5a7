//! One portal: a real tunnel, and its sockets by their numbers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use netcombiner::config::units::Mtu;
use netcombiner::config::{Congestion, PublicAddresses, Security, Transport, TunnelAddresses};
use netcombiner::packet::Crossing;
use netcombiner::packet::ecn::Codepoint;
use netcombiner::proto::crypto::keys::PrivateKey;
use netcombiner::proto::event::{Attachment, Event, LinkId, Side, SocketId, TunnelConfig};
use netcombiner::proto::stats::TunnelStats;
use netcombiner::proto::{Batch, Instant, Tunnel};
use netcombiner_lab::emulator::Rng;

use super::entropy::Seeded;
use crate::packet::{Host, Inner};

/// The remote portal's socket.
const LISTEN: SocketId = SocketId(1000);
/// Its address.
const REMOTE: ([u8; 4], u16) = ([203, 0, 113, 2], 4725);
/// What the client has.
const PUBLIC: PublicAddresses = PublicAddresses {
    v4: Some(Ipv4Addr::new(203, 0, 113, 2)),
    v6: None,
};
/// What the tunnel's clock shows at the start of a run: any time will do, zero would hide mistakes.
const CLOCK: Duration = Duration::from_secs(5);

/// A datagram for a link.
#[derive(Debug)]
pub struct Outgoing {
    /// Which.
    pub link: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What its IP header says of congestion.
    pub codepoint: Codepoint,
}

/// How both portals are set.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The security mode.
    pub security: Security,
    /// Whether datagrams say that they can be marked.
    pub ecn: bool,
    /// The controller of the local portal's direction; the remote one's is the default.
    pub congestion: Congestion,
}

/// A portal.
#[derive(Debug)]
pub struct Portal {
    side: Side,
    tunnel: Tunnel,
    links: usize,
    /// The timer's granularity; zero: exact.
    tick: Duration,
    timeout: Option<Duration>,
    batch: Batch,
    spare: Vec<Vec<u8>>,
    /// All its news, and when.
    pub events: Vec<(Duration, Event)>,
}

fn instant(now: Duration) -> Instant {
    Instant::default() + CLOCK + now
}

/// The local portal's address on a link, as the remote one sees it.
fn address(link: usize) -> SocketAddr {
    SocketAddr::from(([10, 10 + link as u8, 0, 2], 40_000))
}

fn keys(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut Seeded(Rng::new(seed)))
}

impl Portal {
    /// A portal at the start of a run; its timers fire at multiples of `tick`.
    pub fn new(side: Side, terms: Terms, links: usize, tick: Duration, seed: u64) -> Self {
        let (own, peer) = match side {
            Side::Local => (keys(1), keys(2)),
            Side::Remote => (keys(2), keys(1)),
        };
        let config = TunnelConfig {
            side,
            private: own,
            peer: peer.public(),
            preshared: None,
            security: terms.security,
            aes: true,
            mtu: Mtu::TUNNEL_DEFAULT,
            redundant: Vec::new(),
            crossing: Crossing::new(&PUBLIC, &TunnelAddresses::default(), &[]),
            ecn: terms.ecn,
        };
        let seed = seed * 2 + u64::from(side == Side::Remote);
        let entropy = Box::new(Seeded(Rng::new(seed)));
        let now = instant(Duration::ZERO);
        let mut tunnel = Tunnel::new(config, entropy, now);
        match side {
            Side::Remote => {
                let transport = Transport::Udp;
                tunnel.handle_socket_up(now, LISTEN, Attachment::Listen { transport });
            }
            Side::Local => {
                for link in 0..links {
                    let attachment = Attachment::Link {
                        link: LinkId(link as u8),
                        transport: Transport::Udp,
                        remote: REMOTE.into(),
                        metric: 0,
                        rate_up: None,
                        rate_down: None,
                        congestion: terms.congestion,
                    };
                    tunnel.handle_socket_up(now, SocketId(link as u32), attachment);
                }
            }
        }
        Self {
            side,
            tunnel,
            links,
            tick,
            timeout: Some(Duration::ZERO),
            batch: Batch::default(),
            spare: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The host behind it.
    pub const fn host(&self) -> Host {
        match self.side {
            Side::Local => Host::Client,
            Side::Remote => Host::Server,
        }
    }

    /// When [`Portal::wake`] has something to do.
    pub const fn next(&self) -> Option<Duration> {
        self.timeout
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) {
        self.tunnel.handle_timeout(instant(now));
    }

    /// A packet came from the host behind it.
    pub fn handle_packet(&mut self, now: Duration, inner: &Inner) {
        let mut packet = self.tunnel.take_buffer();
        inner.encode(self.host(), packet.buffer());
        self.tunnel.handle_packet(instant(now), packet);
    }

    /// A datagram came from a link.
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        link: usize,
        mut bytes: Vec<u8>,
        codepoint: Codepoint,
    ) {
        let (socket, from) = match self.side {
            Side::Local => (SocketId(link as u32), REMOTE.into()),
            Side::Remote => (LISTEN, address(link)),
        };
        let length = bytes.len();
        self.tunnel
            .handle_datagrams(instant(now), socket, from, &mut bytes, length, codepoint);
        self.recycle(bytes);
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }

    /// Takes all that the tunnel has to say, and its next time.
    pub fn drain(
        &mut self,
        now: Duration,
        outgoing: &mut Vec<Outgoing>,
        mut deliver: impl FnMut(Inner),
    ) {
        let at = instant(now);
        while self.tunnel.poll_transmit(at, &mut self.batch) {
            let Some((transmit, datagrams)) = self.batch.seal() else {
                continue;
            };
            let link = match self.side {
                Side::Local => transmit.socket.0 as usize,
                Side::Remote => {
                    let to = |link: &usize| address(*link) == transmit.destination;
                    let Some(link) = (0..self.links).find(to) else {
                        continue;
                    };
                    link
                }
            };
            for datagram in datagrams.chunks(transmit.segment_size) {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(datagram);
                let codepoint = match transmit.ect {
                    true => Codepoint::Capable,
                    false => Codepoint::NotCapable,
                };
                outgoing.push(Outgoing {
                    link,
                    bytes,
                    codepoint,
                });
            }
        }
        while let Some(packet) = self.tunnel.poll_packet() {
            if let Some(inner) = Inner::decode(packet.bytes()) {
                deliver(inner);
            }
            self.tunnel.recycle(packet);
        }
        while let Some(event) = self.tunnel.poll_event() {
            self.events.push((now, event));
        }
        self.timeout = self.tunnel.poll_timeout().map(|at| {
            let at = at.since(instant(Duration::ZERO));
            if self.tick.is_zero() {
                return at;
            }
            let ticks = at.as_nanos().div_ceil(self.tick.as_nanos());
            self.tick * u32::try_from(ticks).unwrap_or(u32::MAX)
        });
    }

    /// Counters and estimates.
    pub fn stats(&mut self, now: Duration) -> TunnelStats {
        self.tunnel.stats(instant(now))
    }
}
