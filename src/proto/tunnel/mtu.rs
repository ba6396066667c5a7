//! How long packets may be: what the paths carry together, and the answer to longer ones.

use std::time::Duration;

use super::{OVERHEAD, Tunnel};
use crate::config::units::Mtu;
use crate::packet::{Packet, icmp};
use crate::proto::Instant;
use crate::proto::event::{Cutting, Event, PathState, SocketId};
use crate::proto::path::{Path, PathMtu, Place};
use crate::proto::stats::Discard;
use crate::proto::wire::PathId;

/// The least MTU of the TUN, bytes: below it there is no IPv6 on a device (RFC 8200 section 5).
const LEAST: u16 = 1280;
/// What is carried may grow again after it was so for this long: a path that comes and goes is not to
/// change the TUN each time.
const RAISE_AFTER: Duration = Duration::from_secs(10);
/// "Packet too big" a second at most, and at once (RFC 4443 section 2.4 f asks for a limit; Linux has
/// 1,000 and 50 for all ICMP).
const ANSWERS: u64 = 100;
const BURST: u64 = 50;

/// The tunnel's MTU.
#[derive(Debug)]
pub(super) struct InnerMtu {
    /// What the TUN is to take.
    tun: u16,
    /// Packets up to this length are cut on no path: TCP is held to it.
    whole: u16,
    /// The longest packet that any path carries, in fragments if need be.
    carried: u16,
    /// When the TUN's may grow.
    raise_at: Option<Instant>,
    answers: Answers,
}

/// A token bucket, in microseconds of its rate.
#[derive(Debug, Default)]
struct Answers {
    /// The bucket is full then.
    full_at: Instant,
}

impl Answers {
    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_micros(1_000_000 / ANSWERS);
        let full_at = self.full_at.max(now) + each;
        let taken = full_at.since(now) <= each * BURST as u32;
        if taken {
            self.full_at = full_at;
        }
        taken
    }
}

impl InnerMtu {
    pub(super) fn new(most: Mtu) -> Self {
        Self {
            tun: most.bytes(),
            whole: most.bytes(),
            carried: most.bytes(),
            raise_at: None,
            answers: Answers::default(),
        }
    }

    /// What the TUN is to take, bytes.
    pub(super) fn tun(&self) -> u16 {
        self.tun
    }

    /// What TCP's segments are held to, bytes.
    pub(super) fn whole(&self) -> u16 {
        self.whole
    }

    /// When [`Tunnel::follow_mtu`] has something to do.
    pub(super) fn raise_at(&self) -> Option<Instant> {
        self.raise_at
    }
}

/// The MTU of a path of which nothing is known.
pub(super) fn path_mtu(most: Mtu) -> PathMtu {
    let datagram = |packet: u16| packet + OVERHEAD as u16;
    PathMtu::new(datagram(most.bytes()), datagram(LEAST))
}

/// How a datagram of this length leaves.
pub(super) fn cutting(path: &Path, length: usize) -> Cutting {
    if path.mtu.is_cut(length) {
        Cutting::Free
    } else {
        Cutting::IfRefused
    }
}

impl Tunnel {
    /// This host's device does not take a datagram of this length whole.
    pub fn handle_refused(
        &mut self,
        now: Instant,
        socket: SocketId,
        to: std::net::SocketAddr,
        length: usize,
    ) {
        let place = Some(Place { socket, remote: to });
        for path in self.paths.iter_mut().flatten() {
            if path.place == place {
                path.mtu.on_refused(now, length);
            }
        }
        self.report(now);
    }

    /// Learns what the paths in use carry.
    pub(super) fn follow_mtu(&mut self, now: Instant) {
        let paths = || self.paths.iter().flatten().map(|path| &**path);
        // As the scheduler chooses: suspects only where nothing is up.
        let any_up = paths().any(|path| path.state == PathState::Up);
        let in_use = |path: &&Path| match path.state {
            PathState::Up => true,
            PathState::Suspect => !any_up,
            PathState::Validating | PathState::Dead | PathState::Down => false,
        };
        let Some(tier) = paths().filter(in_use).map(|path| path.metric).min() else {
            // What it was is as good as anything.
            self.inner.raise_at = None;
            return;
        };
        let most = self.config.mtu.bytes();
        let packet = |datagram: u16| datagram.saturating_sub(OVERHEAD as u16).min(most);
        let mut whole = most;
        let mut carried = 0;
        for path in paths().filter(in_use).filter(|path| path.metric == tier) {
            whole = whole.min(packet(path.mtu.settled()));
            carried = carried.max(path.mtu.carried_at_most().map_or(most, packet));
        }
        let inner = &mut self.inner;
        (inner.whole, inner.carried) = (whole, carried);
        let tun = whole.max(LEAST);
        if tun <= inner.tun {
            inner.raise_at = None;
        } else if *inner.raise_at.get_or_insert(now + RAISE_AFTER) > now {
            return;
        }
        if tun != inner.tun {
            inner.tun = tun;
            inner.raise_at = None;
            self.events.extend(Mtu::new(tun).map(Event::Mtu));
        }
    }

    /// Looks at a packet from the TUN that may be too long. When it is, its sender is told, and it is
    /// given back.
    pub(super) fn refuse_long(&mut self, now: Instant, packet: Packet) -> Result<Packet, Packet> {
        let limit = self.inner.tun.min(self.inner.carried);
        let most = usize::from(self.config.mtu.bytes());
        // What a router may cut, the network outside cuts.
        let fits = packet.len() <= usize::from(limit)
            || packet.len() <= most && icmp::may_be_cut(packet.bytes());
        if fits {
            return Ok(packet);
        }
        if self.inner.answers.take(now) {
            let mut answer = self.pool.take();
            if icmp::packet_too_big(packet.bytes(), limit, answer.buffer()) {
                self.answers.push_back(answer);
            } else {
                self.pool.give(answer);
            }
        }
        self.count.discard(Discard::TooBig);
        Err(packet)
    }

    /// True when the path takes a datagram with a packet of this length: whole, or cut where that is
    /// known to pass. When no path does, each may try.
    pub(super) fn fits(&self, id: PathId, packet: usize) -> bool {
        let (_, overhead) = self.framing();
        let carries = |id| {
            self.path(id)
                .is_some_and(|path| path.mtu.carries(packet + overhead))
        };
        carries(id) || !self.order().iter().any(carries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_limited() {
        let mut answers = Answers::default();
        let at = |ms: u64| Instant::from_micros(5_000_000 + ms * 1000);
        let taken =
            |answers: &mut Answers, ms: u64| (0..200).filter(|_| answers.take(at(ms))).count();
        assert_eq!(taken(&mut answers, 0), 50);
        assert_eq!(taken(&mut answers, 0), 0);
        assert_eq!(taken(&mut answers, 100), 10);
        assert_eq!(taken(&mut answers, 60_000), 50);
    }
}
