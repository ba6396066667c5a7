//! What the owner is told: events and figures.

use std::net::SocketAddr;

use super::Tunnel;
use crate::config::Transport;
use crate::proto::Instant;
use crate::proto::event::{Event, PathState, SocketId};
use crate::proto::stats::{PathStats, TunnelStats};

impl Tunnel {
    /// Turns changes of state into events.
    pub(super) fn report(&mut self, now: Instant) {
        self.find_standby();
        let mut changed = self.inner.raise_at().is_some_and(|at| at <= now);
        for path in self.paths.iter_mut().flatten() {
            changed |= std::mem::take(&mut path.mtu.changed);
            if path.reported != path.state {
                changed = true;
                path.reported = path.state;
                self.events.push_back(Event::Path {
                    path: path.id,
                    link: path.opener.map(|opener| opener.link),
                    state: path.state,
                    remote: path.place.map(|place| place.remote),
                });
            }
        }
        if changed {
            self.follow_mtu(now);
        }
        let connected = self.link_up();
        if connected != self.connected {
            self.connected = connected;
            self.events.push_back(if connected {
                Event::Connected
            } else {
                Event::Disconnected
            });
        }
    }

    /// Which paths nothing needs, because one of a lower tier is up.
    fn find_standby(&mut self) {
        let up = self.paths.iter().flatten();
        let up = up.filter(|path| path.state == PathState::Up);
        let tier = up.map(|path| path.metric).min();
        for path in self.paths.iter_mut().flatten() {
            path.standby = tier.is_some_and(|tier| tier < path.metric);
        }
    }

    /// True when a path runs over this socket, or is being moved to it: only an authentic datagram
    /// of the peer brings that about on a socket that waits for peers.
    pub fn carries(&self, socket: SocketId) -> bool {
        self.paths.iter().flatten().any(|path| {
            path.place.is_some_and(|place| place.socket == socket)
                || path.proof.is_some_and(|proof| proof.place.socket == socket)
        })
    }

    /// True when a path was proven from this network lately.
    pub fn knows_source(&self, source: SocketAddr) -> bool {
        self.responder.is_known(source)
    }

    /// The figures of this moment.
    pub fn stats(&mut self, now: Instant) -> TunnelStats {
        let current = self.keys.current();
        let session_age = current.map(|epoch| now.since(epoch.since));
        let cipher = current.map_or("", |epoch| epoch.session.cipher_name());
        let paths = self.paths.iter_mut().flatten().map(|path| PathStats {
            path: path.id,
            link: path.opener.map(|opener| opener.link),
            state: path.state,
            remote: path.place.map(|place| place.remote),
            rtt: path.rtt.smoothed(),
            min_rtt: path.rtt.min(),
            rtt_var: path.rtt.variation(),
            mtu: path.mtu.link().filter(|_| path.transport == Transport::Udp),
            ecn: path.ecn_state(),
            marked: path.ecn.marked(),
            window: path.window(),
            in_flight: path.sent.in_flight(),
            estimate: path.estimate(),
            datagrams_sent: path.count.datagrams_sent,
            bytes_sent: path.count.bytes_sent,
            datagrams_received: path.arrivals.datagrams(),
            bytes_received: path.arrivals.bytes(),
            lost: path.count.lost,
            spurious: path.count.spurious,
            rate_sent: path.count.sent.rate(now),
            rate_received: path.count.received.rate(now),
        });
        TunnelStats {
            session_age,
            cipher,
            paths: paths.collect(),
            mtu: self.inner.tun(),
            packets_in: self.count.packets_in,
            bytes_in: self.count.bytes_in,
            packets_out: self.count.packets_out,
            bytes_out: self.count.bytes_out,
            queue_packets: self.queue.len(),
            marked: self.queue.marked(),
            queue_bytes: self.queue.bytes(),
            reorder_packets: self.reorder.waiting(),
            overdue: self.reorder.overdue(),
            repairs: self.repairs.count().sent,
            twice: self.repairs.count().twice,
            given_up: self.repairs.count().given_up,
            copies: self.count.copies,
            parities: self.count.parities,
            recovered: self.count.recovered,
            discards: self
                .count
                .discards
                .iter()
                .map(|(cause, count)| (*cause, *count))
                .collect(),
        }
    }
}
