//! Two tunnels in memory, and between them links that take no processor time except one copy
//! each way, as the kernel's do.

use std::net::SocketAddr;
use std::time::Duration;

use netcombiner::config::units::{Bitrate, Family, Mtu, Prefix};
use netcombiner::config::{Congestion, PublicAddresses, Security, Transport, TunnelAddresses};
use netcombiner::packet::Crossing;
use netcombiner::packet::ecn::Codepoint;
use netcombiner::proto::crypto::keys::PrivateKey;
use netcombiner::proto::event::{
    Attachment, LinkId, PathState, Side, SocketId, Transmit, TunnelConfig,
};
use netcombiner::proto::{Batch, Instant, Tunnel};

use crate::packets::{BATCH, LENGTH, Seeded, segments};

/// A link's one-way delay; each takes a half of a round.
const DELAY: Duration = Duration::from_micros(250);
/// The remote portal's socket.
const LISTEN: SocketId = SocketId(1000);
/// Its address.
const REMOTE: ([u8; 4], u16) = ([203, 0, 113, 2], 4725);

/// What makes a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// How it protects data.
    pub(crate) security: Security,
    /// Whether both have instructions for AES.
    pub(crate) aes: bool,
    /// How many links.
    pub(crate) links: u8,
    /// How many packets go at once.
    pub(crate) batch: usize,
}

/// Datagrams under way.
#[derive(Debug)]
struct Flight {
    transmit: Transmit,
    bytes: Vec<u8>,
}

/// The pair.
pub(crate) struct Pair {
    now: Instant,
    local: Tunnel,
    remote: Tunnel,
    batch: Batch,
    inner: Vec<Vec<u8>>,
    /// To either portal.
    up: Vec<Flight>,
    down: Vec<Flight>,
    spare: Vec<Vec<u8>>,
    delivered: usize,
}

/// A link's address, as the remote portal sees it.
fn address(link: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, link as u8, 2], 40_000))
}

/// Packets from and to any address cross.
fn crossing() -> Crossing {
    let public = PublicAddresses {
        v4: Some([10, 0, 0, 1].into()),
        v6: None,
    };
    let all = Prefix::default_of(Family::V4);
    Crossing::new(&public, &TunnelAddresses::default(), &[all])
}

fn portal(side: Side, setting: Setting, now: Instant) -> Tunnel {
    let keys = |seed| PrivateKey::generate(&mut Seeded(seed));
    let (private, peer) = match side {
        Side::Local => (keys(1), keys(2)),
        Side::Remote => (keys(2), keys(1)),
    };
    let config = TunnelConfig {
        side,
        private,
        peer: peer.public(),
        preshared: None,
        security: setting.security,
        aes: setting.aes,
        mtu: Mtu::TUNNEL_DEFAULT,
        redundant: Vec::new(),
        crossing: crossing(),
        ecn: true,
    };
    let seed = if side == Side::Local { 11 } else { 22 };
    Tunnel::new(config, Box::new(Seeded(seed)), now)
}

impl Pair {
    /// A pair that is connected and has found its rate.
    pub(crate) fn new(setting: Setting) -> Self {
        let now = Instant::from_micros(5_000_000);
        let mut pair = Self {
            now,
            local: portal(Side::Local, setting, now),
            remote: portal(Side::Remote, setting, now),
            batch: Batch::default(),
            inner: segments(BATCH)
                .iter()
                .cycle()
                .take(setting.batch)
                .map(|packet| packet.bytes().to_vec())
                .collect(),
            up: Vec::new(),
            down: Vec::new(),
            spare: Vec::new(),
            delivered: 0,
        };
        let transport = Transport::Udp;
        pair.remote
            .handle_socket_up(now, LISTEN, Attachment::Listen { transport });
        // Of several links none can take it all alone.
        let offered =
            (setting.batch * LENGTH * 8) as u64 * 1_000_000 / (2 * DELAY).as_micros() as u64;
        let share = Bitrate::from_bits_per_second(offered * 6 / 10);
        for link in 0..setting.links {
            let attachment = Attachment::Link {
                link: LinkId(link),
                transport,
                remote: REMOTE.into(),
                metric: 0,
                rate_up: (setting.links > 1).then_some(share),
                rate_down: None,
                congestion: Congestion::default(),
            };
            pair.local
                .handle_socket_up(now, SocketId(u32::from(link)), attachment);
        }
        for _ in 0..4000 {
            pair.step(0);
        }
        let paths = pair.local.stats(pair.now).paths;
        let up = paths.iter().filter(|path| path.state == PathState::Up);
        assert_eq!(up.count(), usize::from(setting.links));
        for _ in 0..4000 {
            pair.round();
        }
        pair
    }

    /// A batch of packets goes to the peer, and its acknowledgements come back.
    pub(crate) fn round(&mut self) {
        self.step(self.inner.len());
    }

    /// How many packets came out since the last call.
    pub(crate) fn take_delivered(&mut self) -> usize {
        std::mem::take(&mut self.delivered)
    }

    /// The share of what was sent that each path carried, for checks.
    pub(crate) fn sent(&mut self) -> Vec<u64> {
        let paths = self.local.stats(self.now).paths;
        paths.iter().map(|path| path.datagrams_sent).collect()
    }

    fn step(&mut self, packets: usize) {
        let now = self.now;
        for Flight {
            transmit,
            mut bytes,
        } in self.down.drain(..)
        {
            let links = 0..8;
            let link = links
                .into_iter()
                .find(|link| address(*link) == transmit.destination);
            let socket = SocketId(link.expect("a link's address"));
            let length = transmit.segment_size;
            self.local.handle_datagrams(
                now,
                socket,
                REMOTE.into(),
                &mut bytes,
                length,
                Codepoint::Capable,
            );
            self.spare.push(bytes);
        }
        for inner in &self.inner[..packets] {
            let mut packet = self.local.take_buffer();
            packet.buffer().extend_from_slice(inner);
            self.local.handle_packet(now, packet);
        }
        wake(&mut self.local, now);
        drain(
            &mut self.local,
            now,
            &mut self.batch,
            &mut self.spare,
            &mut self.up,
        );
        self.now += DELAY;
        let now = self.now;
        for Flight {
            transmit,
            mut bytes,
        } in self.up.drain(..)
        {
            let from = address(transmit.socket.0);
            let length = transmit.segment_size;
            self.remote
                .handle_datagrams(now, LISTEN, from, &mut bytes, length, Codepoint::Capable);
            self.spare.push(bytes);
            while let Some(packet) = self.remote.poll_packet() {
                self.delivered += 1;
                self.remote.recycle(packet);
            }
        }
        wake(&mut self.remote, now);
        drain(
            &mut self.remote,
            now,
            &mut self.batch,
            &mut self.spare,
            &mut self.down,
        );
        self.now += DELAY;
    }
}

/// Time has passed.
fn wake(tunnel: &mut Tunnel, now: Instant) {
    if tunnel.poll_timeout().is_some_and(|at| at <= now) {
        tunnel.handle_timeout(now);
    }
}

/// Puts on the links what a tunnel has to say.
fn drain(
    tunnel: &mut Tunnel,
    now: Instant,
    batch: &mut Batch,
    spare: &mut Vec<Vec<u8>>,
    flights: &mut Vec<Flight>,
) {
    while tunnel.poll_transmit(now, batch) {
        let Some((transmit, datagrams)) = batch.seal() else {
            continue;
        };
        let mut bytes = spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(datagrams);
        flights.push(Flight { transmit, bytes });
    }
    while tunnel.poll_event().is_some() {}
}
