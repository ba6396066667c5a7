//! Datagrams to the sockets: handshakes first, then what a path has to say, then data, which is
//! put on a path only now.

use std::sync::Arc;
use std::time::Duration;

use super::inbound::PROOF_LEN;
use super::mtu::cutting;
use super::repair::IN_USE;
use super::timers::{SEAL_EVERY, control_due};
use super::{OVERHEAD, Tunnel, discard};
use crate::config::Security;
use crate::config::units::Bitrate;
use crate::proto::Instant;
use crate::proto::batch::{Batch, Seal};
use crate::proto::crypto::Session;
use crate::proto::event::{Cutting, PathState, Transmit};
use crate::proto::path::{Passage, Path, Place};
use crate::proto::queue::Head;
use crate::proto::recovery::Sent;
use crate::proto::scheduler::{Candidate, Order};
use crate::proto::wire::frame::{self, Bucket, ack_len};
use crate::proto::wire::{HEADER_LEN, Header, Kind, PathId, STAMP_LEN, Stamp, TAG_LEN};

/// Datagrams in one batch at most: what Linux takes in one GSO call (UDP_MAX_SEGMENTS was 64 before
/// Linux 6.9).
pub(super) const MOST_SEGMENTS: usize = 64;
/// Bytes in one batch at most: the length of a UDP datagram, headers off (quinn-udp).
pub(super) const MOST_BATCH: usize = 65_000;

/// A packet of a flow that sends now and then waits no longer for the fastest path than this, and only
/// where the next one is slower by more: the pacer's debt of two datagrams is paid in 0.5 ms at 50 Mbit/s.
const SPARSE_WAIT: Duration = Duration::from_millis(2);

/// While losses are being repaired, flows wait for a round trip more now and then, and need a longer
/// queue to fill the links meanwhile (PROTOCOL.md 6: with loss, a target of 15 ms costs 13 %). That is
/// so for this long after a repair.
const REPAIRING: Duration = Duration::from_secs(2);

/// How the datagrams of one batch of data leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) kind: Kind,
    pub(super) cutting: Cutting,
    /// As ECT(0).
    pub(super) ect: bool,
}

impl Way {
    /// The next one of them.
    pub(super) fn draft(self, out: &mut Batch, now: Instant) -> Draft<'_> {
        let mut draft = Draft::new(out, now, self.kind);
        draft.eliciting = true;
        draft.ect = self.ect;
        draft.passage = passage(self.cutting);
        draft
    }

    /// All of them.
    pub(super) fn transmit(self, place: Place, segment_size: usize) -> Transmit {
        Transmit {
            ect: self.ect,
            ..transmit(place, segment_size, self.cutting)
        }
    }
}

/// One datagram being written at the end of a batch.
pub(super) struct Draft<'a> {
    pub(super) out: &'a mut Vec<u8>,
    start: usize,
    seal: &'a mut Option<Seal>,
    kind: Kind,
    pub(super) eliciting: bool,
    status: bool,
    /// It carries data, which parities may bring back.
    pub(super) data: bool,
    pub(super) ect: bool,
    pub(super) passage: Passage,
}

impl<'a> Draft<'a> {
    pub(super) fn new(batch: &'a mut Batch, now: Instant, kind: Kind) -> Self {
        let (out, seal) = (&mut batch.bytes, &mut batch.seal);
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        out.extend_from_slice(&Stamp::of(now).encode());
        Self {
            out,
            seal,
            start,
            kind,
            eliciting: false,
            status: false,
            data: false,
            ect: false,
            passage: Passage::Whole,
        }
    }

    /// The datagram's length so far, without its tag.
    pub(super) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Adds the acknowledgement that the path owes, if `room` bytes hold it.
    fn put_ack(&mut self, path: &mut Path, room: usize) {
        let (head, ranges) = path.arrivals.ack(path.id);
        if path.arrivals.due().is_some() && frame::put_ack(self.out, head, ranges, room) {
            path.arrivals.on_ack_sent();
        }
    }

    /// Numbers and accounts for the datagram. Returns its length.
    pub(super) fn finish(self, now: Instant, path: &mut Path, session: &Arc<Session>) -> usize {
        let number = path.sent.next_number();
        if self.data
            && let Some(cover) = &mut path.cover
        {
            let frames = &self.out[self.start + HEADER_LEN + STAMP_LEN..];
            cover.add(now, number.0, frames);
        }
        let header = Header {
            kind: self.kind,
            index: session.tx_index(path.id),
            number: number.truncated(),
        };
        self.out[self.start..][..HEADER_LEN].copy_from_slice(&header.encode());
        if self.kind == Kind::Sealed {
            self.out.extend_from_slice(&[0; TAG_LEN]);
            self.seal.get_or_insert_with(|| Seal {
                session: Arc::clone(session),
                path: path.id,
                first: number,
            });
            path.bare_run = 0;
        } else {
            path.bare_run += 1;
        }
        let length = self.out.len() - self.start;
        path.on_sent(
            now,
            Sent {
                at: now,
                bytes: length as u32,
                eliciting: self.eliciting && self.passage != Passage::Probe,
                status: self.status,
                ect: self.ect,
                passage: self.passage,
                total: path.count.bytes_sent + length as u64,
                limited: path.count.limited,
            },
        );
        length
    }
}

impl Tunnel {
    /// Fills `out` with one batch of datagrams for one socket and destination; `out` is cleared
    /// first. False: there is nothing that could leave now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Batch) -> bool {
        out.clear();
        self.collect(now);
        out.transmit = self.next_batch(now, out);
        out.transmit.is_some()
    }

    fn next_batch(&mut self, now: Instant, out: &mut Batch) -> Option<Transmit> {
        if let Some((place, datagram)) = self.outbox.pop() {
            out.bytes.extend_from_slice(&datagram);
            return Some(Transmit {
                // An initiation is our own beginning; the others answer somebody.
                answers: datagram.first() != Some(&(Kind::Initiation as u8)),
                ..transmit(place, datagram.len(), Cutting::IfRefused)
            });
        }
        self.keys.current()?;
        if self.closing {
            return self.close_next(now, out);
        }
        self.prepare();
        if let Some(transmit) = PathId::all().find_map(|id| self.control(now, id, out)) {
            return Some(transmit);
        }
        if let Some(transmit) = PathId::all().find_map(|id| self.parities(now, id, out)) {
            return Some(transmit);
        }
        if let Some(transmit) = self.repair(now, out) {
            return Some(transmit);
        }
        if self.queue.is_empty() {
            return None;
        }
        let order = self.order();
        self.first_path = order.first();
        // A far path counts while it is used.
        let slowest = order
            .iter()
            .filter_map(|id| self.path(id))
            .filter(|path| order.detour(path.id).is_zero() || now < path.carried + IN_USE)
            .filter_map(|path| path.rtt.smoothed())
            .max()
            .unwrap_or_default();
        self.queue.set_patience(now, order.longest_detour());
        self.watch_far_paths(now, &order, slowest);
        let repairing = self
            .last_repair
            .is_some_and(|last| now.since(last) < REPAIRING);
        self.queue
            .set_rtt(if repairing { 2 * slowest } else { slowest });
        order.iter().find_map(|id| self.data(now, id, &order, out))
    }

    /// Sees whether all paths together send what the near ones alone would carry.
    fn watch_far_paths(&mut self, now: Instant, order: &Order, slowest: Duration) {
        // Paths out of use count too: it is the sum of all that was ever sent.
        let paths = self.paths.iter().flatten();
        let sent = paths.map(|path| path.count.bytes_sent).sum();
        let near = order.iter().filter(|id| order.detour(*id).is_zero());
        let near = near.filter_map(|id| self.path(id));
        let near = near.map(|path| path.gate.controller.bandwidth()).sum();
        self.yields.on_sent(now, slowest, sent, near);
    }

    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths[id.index()].as_deref()
    }

    /// The order in which paths are asked for room.
    pub(super) fn order(&self) -> Order {
        let candidates = self.paths.iter().flatten().map(|path| Candidate {
            path: path.id,
            state: path.state,
            metric: path.metric,
            owd: path.owd.smoothed(),
            bandwidth: path.gate.controller.bandwidth(),
            rtt: path.rtt.smoothed().unwrap_or_default(),
            least_rtt: path.rtt.min().unwrap_or_default(),
            loses: path.loses(),
            rests: self.trials.rests(self.collected, path.id),
        });
        Order::of(candidates, self.first_path)
    }

    /// True when the path may carry the packet that goes next, `first` being the path that would
    /// deliver it soonest.
    fn may_carry(&mut self, now: Instant, id: PathId, order: &Order) -> bool {
        let (Some(head), Some(first)) = (self.head(now), order.first()) else {
            return false;
        };
        if now < self.turn_of(id, order, &head) || !self.fits(id, head.length) {
            return false;
        }
        let first_fits = self.fits(first, head.length);
        let mut ready = |id: PathId| {
            self.paths[id.index()]
                .as_deref_mut()
                .is_some_and(|path| path.may_send(now, head.sparse))
        };
        // What is sent now and then goes by the best path that takes it.
        (id == first || !head.sparse || !first_fits || !ready(first)) && ready(id)
    }

    /// From when on a path may carry the packet that goes next.
    pub(super) fn turn_of(&self, id: PathId, order: &Order, head: &Head) -> Instant {
        if order.first() == Some(id) {
            return head.since;
        }
        let detour = order.detour(id);
        if !head.sparse {
            let spread = &self.domains[usize::from(head.bucket.0)].spread;
            return if detour.is_zero() {
                spread.spills_at(head)
            } else {
                spread.goes_far_at(head, id, detour, self.yields.is_low())
            };
        }
        let owd = |id| self.path(id).and_then(|path| path.owd.smoothed());
        match (owd(id), order.first().and_then(owd)) {
            _ if detour > SPARSE_WAIT => head.since + detour,
            // Rather wait a moment for the first one's pacer than go a longer way.
            (Some(owd), Some(first)) if owd.since(first) > SPARSE_WAIT => head.since + SPARSE_WAIT,
            _ => head.since,
        }
    }

    /// True when the packet may go in a datagram of this path that leaves anyway.
    fn may_ride(&self, now: Instant, id: PathId, order: &Order, head: &Head) -> bool {
        order.first() == Some(id) || !head.sparse && now >= self.turn_of(id, order, head)
    }

    /// What a path has to say besides data, in one datagram.
    fn control(&mut self, now: Instant, id: PathId, out: &mut Batch) -> Option<Transmit> {
        let busy_until = self.busy_until();
        let idle = self.queue.is_empty();
        let path = self.paths[id.index()].as_deref_mut()?;
        let session = &self.keys.current()?.session;
        control_due(path, busy_until).filter(|due| *due <= now)?;
        if path.urgent.is_none() && !path.mtu.follow && path.mtu_due().is_some_and(|due| due <= now)
        {
            return mtu_probe(now, path, session, out);
        }
        let urgent = path.urgent.take();
        let place = urgent.map(|urgent| urgent.place).or(path.place)?;
        let mut draft = Draft::new(out, now, Kind::Sealed);
        // The acknowledgement first: it is about what was, a proof voids that.
        let room = if path.place == Some(place) {
            ack_len(frame::MOST_RANGES)
        } else {
            // To an unproven place goes no more than came from it: a proof and a question follow.
            ack_len(0)
        };
        draft.put_ack(path, room);
        if let Some(token) = urgent.and_then(|urgent| urgent.response) {
            frame::put_response(draft.out, token);
            draft.eliciting = true;
        }
        let mut proof = urgent.and_then(|urgent| urgent.challenge);
        if path.place == Some(place) {
            if path.proof_due().is_some_and(|due| due <= now)
                && let Some(asked) = &mut path.proof
            {
                asked.asked = Some(now);
                asked.tries += 1;
                proof = Some(asked.token);
            }
            if path.status_due && path.state == PathState::Up {
                path.status_due = false;
                draft.status = true;
                draft.eliciting = true;
                let kbit = |rate: Bitrate| {
                    u32::try_from(rate.bits_per_second() / 1000).unwrap_or(u32::MAX)
                };
                let cap = path
                    .opener
                    .and_then(|opener| opener.rate_down)
                    .map_or(0, kbit);
                frame::put_status(draft.out, id, path.metric, cap);
            }
            let probe = path.probe_due(busy_until).is_some_and(|due| due <= now);
            if probe {
                path.liveness.on_probe(now);
            }
            let follows = std::mem::take(&mut path.mtu.follow);
            if probe || follows || path.bare_run >= SEAL_EVERY {
                draft.eliciting = true;
                frame::put_ping(draft.out);
            }
        }
        if let Some(token) = proof {
            frame::put_challenge(draft.out, token);
            draft.eliciting = true;
        }
        if draft.eliciting {
            // Long enough that the other side may answer a proof, a question and an acknowledgement.
            let length = draft.start + PROOF_LEN - TAG_LEN;
            frame::pad(draft.out, length);
            // A path that carries no more than probes is not full.
            path.note_limited(idle);
        }
        let length = draft.finish(now, path, session);
        Some(transmit(place, length, Cutting::IfRefused))
    }

    /// A batch of data for one path, as much as window and pacing let go now.
    fn data(
        &mut self,
        now: Instant,
        id: PathId,
        order: &Order,
        out: &mut Batch,
    ) -> Option<Transmit> {
        let mut segment: Option<usize> = None;
        let (kind, overhead) = self.framing();
        let longest = self.head(now)?.length + overhead;
        let path = self.paths[id.index()].as_deref_mut()?;
        let place = path.place?;
        let way = Way {
            kind,
            cutting: cutting(path, longest),
            ect: path.marks(now),
        };
        let most = if way.cutting == Cutting::Free {
            usize::from(self.config.mtu.bytes()) + overhead
        } else {
            usize::from(path.mtu.proven())
        };
        for _ in 0..MOST_SEGMENTS {
            let capacity = segment.unwrap_or(most);
            let is_full = self.path(id)?.cover.as_ref().is_some_and(|it| it.is_full());
            if is_full || out.bytes.len() + capacity > MOST_BATCH || !self.may_carry(now, id, order)
            {
                break;
            }
            let head = self.queue.chosen()?;
            if head.length + overhead > capacity {
                break;
            }
            if order.first() != Some(id) && !head.sparse {
                let domain = &mut self.domains[usize::from(head.bucket.0)];
                domain.spread.on_spill(now, head.since);
                if !order.detour(id).is_zero() {
                    domain.spread.on_far(now, id);
                    self.trials.on_used(id);
                }
            }
            let length = self.data_datagram(now, id, order, way, capacity, out)?;
            let full = *segment.get_or_insert(length);
            if length < full {
                break;
            }
        }
        segment.map(|segment| way.transmit(place, segment))
    }

    /// How data goes, and what that adds to a packet at most, bytes.
    pub(super) fn framing(&self) -> (Kind, usize) {
        match self.config.security {
            // A bare datagram has no tag.
            Security::None => (Kind::Bare, OVERHEAD - TAG_LEN),
            Security::Encrypt | Security::Authenticate => (Kind::Sealed, OVERHEAD),
        }
    }

    /// One datagram with as many waiting packets as `capacity` holds; the head fits.
    fn data_datagram(
        &mut self,
        now: Instant,
        id: PathId,
        order: &Order,
        way: Way,
        capacity: usize,
        out: &mut Batch,
    ) -> Option<usize> {
        let number = self.path(id)?.sent.next_number();
        let mut draft = way.draft(out, now);
        draft.data = true;
        let most = if way.kind == Kind::Bare {
            capacity
        } else {
            capacity - TAG_LEN
        };
        if way.kind == Kind::Sealed {
            let data = frame::DATA_OVERHEAD + self.queue.chosen()?.length;
            let room = most.saturating_sub(draft.len() + data);
            let path = self.paths[id.index()].as_deref_mut()?;
            draft.put_ack(path, room);
        }
        loop {
            let (bucket, packet) = self.queue.take()?;
            let mut place = self.place_in_order(bucket, id, number.0);
            place.wait = self.is_patient(now, bucket, packet.bytes());
            // Another one behind it costs two bytes for this one's length.
            let after = draft.len() + frame::DATA_OVERHEAD + 2 + packet.len();
            let more = self.head(now).is_some_and(|next| {
                after + frame::DATA_OVERHEAD + next.length <= most
                    && self.may_ride(now, id, order, &next)
            });
            frame::put_data(draft.out, Some(place), packet.bytes(), !more);
            self.keep(now, id, place, packet);
            if !more {
                break;
            }
        }
        self.last_data = now;
        let path = self.paths[id.index()].as_deref_mut()?;
        path.note_limited(self.queue.is_empty());
        let session = &self.keys.current()?.session;
        Some(draft.finish(now, path, session))
    }

    fn head(&mut self, now: Instant) -> Option<Head> {
        let (count, pool) = (&mut self.count, &mut self.pool);
        self.queue
            .head(now, |drop, packet| discard(count, pool, drop, packet))
    }

    /// Gives a packet its place in its order domain.
    fn place_in_order(&mut self, bucket: Bucket, id: PathId, number: u64) -> frame::Order {
        let next = &mut self.domains[usize::from(bucket.0)].next;
        let sequence = *next;
        *next = sequence.next();
        frame::Order {
            bucket,
            sequence,
            mask: self.note_place(bucket, id, number),
            wait: false,
            settled: self.repairs.is_settled(bucket),
        }
    }

    /// Notes that a datagram of a path carries a packet of a domain, and says which other paths may
    /// still hold an earlier one.
    pub(super) fn note_place(&mut self, bucket: Bucket, id: PathId, number: u64) -> u8 {
        let last_sent = &mut self.domains[usize::from(bucket.0)].last_sent;
        last_sent[id.index()] = number + 1;
        let may_hold = |path: &&Path| {
            let last = last_sent[path.id.index()];
            path.id != id && last > 0 && path.sent.may_be_under_way(last - 1)
        };
        let paths = self.paths.iter().flatten().map(|path| &**path);
        let paths = paths.filter(may_hold);
        paths.fold(0, |mask, path| mask | path.id.bit())
    }

    /// Tells the peer on one more path that we go.
    fn close_next(&mut self, now: Instant, out: &mut Batch) -> Option<Transmit> {
        let session = &self.keys.current()?.session;
        let path = self
            .paths
            .iter_mut()
            .flatten()
            .find(|path| path.verdict().is_some())?;
        let place = path.place?;
        let draft = Draft::new(out, now, Kind::Sealed);
        frame::put_close(draft.out);
        let length = draft.finish(now, path, session);
        path.close();
        Some(transmit(place, length, Cutting::IfRefused))
    }
}

/// A datagram that asks whether its length passes.
fn mtu_probe(
    now: Instant,
    path: &mut Path,
    session: &Arc<Session>,
    out: &mut Batch,
) -> Option<Transmit> {
    let place = path.place?;
    let probe = path.mtu.probe();
    path.mtu
        .on_probe_sent(now, probe, path.sent.next_number().0);
    let mut draft = Draft::new(out, now, Kind::Sealed);
    draft.eliciting = true;
    draft.passage = Passage::Probe;
    frame::put_ping(draft.out);
    let length = draft.start + usize::from(probe.length) - TAG_LEN;
    frame::pad(draft.out, length);
    let length = draft.finish(now, path, session);
    let cutting = if probe.cut {
        Cutting::Free
    } else {
        Cutting::Never
    };
    Some(transmit(place, length, cutting))
}

/// What the acknowledgement of a datagram that leaves so proves.
pub(super) fn passage(cutting: Cutting) -> Passage {
    match cutting {
        Cutting::Free => Passage::Cut,
        Cutting::Never | Cutting::IfRefused => Passage::Whole,
    }
}

pub(super) fn transmit(place: Place, segment_size: usize, cutting: Cutting) -> Transmit {
    Transmit {
        socket: place.socket,
        destination: place.remote,
        segment_size,
        cutting,
        ect: false,
        answers: false,
    }
}
