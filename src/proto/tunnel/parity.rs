//! Parities over a long way: what a path loses comes back without a round trip.

use super::Tunnel;
use super::inbound::MOST_PACKET;
use super::mtu::cutting;
use super::outbound::Way;
use super::repair::LONG_RTT;
use crate::config::{Security, Transport};
use crate::packet::ip::is_packet;
use crate::proto::Instant;
use crate::proto::batch::Batch;
use crate::proto::event::{PathState, Transmit};
use crate::proto::parity::Parity;
use crate::proto::path::Path;
use crate::proto::scheduler::Loses;
use crate::proto::stats::Discard;
use crate::proto::wire::frame::{self, Frame, Frames};
use crate::proto::wire::{HEADER_LEN, Kind, PacketNumber, PathId, STAMP_LEN, Stamp, TAG_LEN};

/// The share that a path is taken to lose until it is known: a flow that begins must not lose anything. With
/// 0 the flow of the simulator's row `far_lossy` gets 28 Mbit/s of 40 instead of 32.
const UNKNOWN: f32 = 0.01;
/// A path whose rate is known to be less has no parities, bytes per second: of 2 Mbit/s a group is three
/// datagrams, so its one parity would be a quarter of all.
const LEAST_RATE: u64 = 250_000;

impl Tunnel {
    /// Decides which paths' datagrams are covered by parities from now on.
    pub(super) fn choose_covers(&mut self) {
        let peer_takes_them = self.keys.peer_takes_parity();
        for path in self.paths.iter_mut().flatten() {
            if !peer_takes_them || !is_worth_it(path) {
                path.cover = None;
                continue;
            }
            let least = match path.loses() {
                Loses::Unknown => UNKNOWN,
                Loses::Some | Loses::Nothing => 0.0,
            };
            let (loss, room) = (path.loss(), path.gate.controller.is_searching());
            let cover = path.cover.get_or_insert_default();
            cover.set(loss.max(least), room);
        }
    }

    /// The parities of a group that is full or was open long enough.
    pub(super) fn parities(
        &mut self,
        now: Instant,
        id: PathId,
        out: &mut Batch,
    ) -> Option<Transmit> {
        let idle = self.queue.is_empty();
        let path = self.paths[id.index()].as_deref_mut()?;
        let due = path.cover.as_ref()?.due()?;
        if due > now || !path.may_send(now, true) {
            return None;
        }
        let session = &self.keys.current()?.session;
        let place = path.place?;
        let mut cover = path.cover.take()?;
        let (first, span, sums) = cover.close();
        let before = HEADER_LEN + STAMP_LEN + frame::PARITY_OVERHEAD;
        let longest = before + sums.first().map_or(0, Vec::len) + TAG_LEN;
        let way = Way {
            kind: Kind::Sealed,
            cutting: cutting(path, longest),
            ect: path.marks(now),
        };
        let (mut length, passes) = (None, path.mtu.carries(longest));
        for (index, sum) in (0..).zip(sums).filter(|_| passes) {
            let Ok(back) = u8::try_from(path.sent.next_number().0 - first) else {
                break;
            };
            let draft = way.draft(out, now);
            let parity = Parity {
                back,
                span,
                index,
                sum,
            };
            frame::put_parity(draft.out, parity);
            path.note_limited(idle);
            length = Some(draft.finish(now, path, session));
            self.count.parities += 1;
        }
        path.cover = Some(cover);
        length.map(|length| way.transmit(place, length))
    }

    /// Keeps the frames of a datagram that came, if the peer sends parities.
    pub(super) fn note_for_parity(&mut self, id: PathId, number: PacketNumber, frames: &[u8]) {
        if let Some(path) = self.paths[id.index()].as_deref_mut()
            && let Some(store) = &mut path.store
        {
            store.note(number, frames);
            if store.is_idle(number) {
                path.store = None;
            }
        }
    }

    /// A parity came.
    pub(super) fn on_parity(
        &mut self,
        now: Instant,
        id: PathId,
        number: PacketNumber,
        sent: Stamp,
        parity: &Parity<'_>,
    ) {
        let Some(path) = self.paths[id.index()].as_deref_mut() else {
            return;
        };
        let mut store = path.store.take().unwrap_or_default();
        match store.on_parity(number, parity) {
            Ok(true) => {
                for frames in store.back() {
                    match frames {
                        Ok(frames) => self.take_back(now, sent, frames),
                        Err(_) => self.count.discard(Discard::Malformed),
                    }
                }
            }
            Ok(false) => {}
            Err(_) => self.count.discard(Discard::Malformed),
        }
        if let Some(path) = self.paths[id.index()].as_deref_mut() {
            path.store = Some(store);
        }
    }

    /// Takes the data of a datagram that came back; what else it said is old.
    fn take_back(&mut self, now: Instant, sent: Stamp, frames: &[u8]) {
        let bare = self.config.security == Security::None;
        for frame in Frames::new(frames) {
            match frame {
                Ok(Frame::Data { order, packet })
                    if packet.len() <= MOST_PACKET && is_packet(packet) =>
                {
                    let is_new = self.take_in(now, order, packet, sent, bare);
                    self.count.recovered += u64::from(is_new);
                }
                Ok(_) => {}
                Err(_) => self.count.discard(Discard::Malformed),
            }
        }
    }
}

/// True when parities are worth their bytes on a path. A TCP connection loses nothing.
fn is_worth_it(path: &Path) -> bool {
    let controller = &path.gate.controller;
    path.state == PathState::Up
        && path.transport == Transport::Udp
        && path.rtt.smoothed().is_some_and(|rtt| rtt > LONG_RTT)
        && path.loses() != Loses::Nothing
        && (controller.is_searching() || controller.bandwidth() >= LEAST_RATE)
}
