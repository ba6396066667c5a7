//! Lost means re-decided: what a path lost goes before the queue's head, on the path that is best for
//! it now.

use std::time::Duration;

use super::Tunnel;
use super::mtu::cutting;
use super::outbound::{Draft, MOST_BATCH, MOST_SEGMENTS, Way, passage, transmit};
use crate::packet::Packet;
use crate::packet::ip::is_tcp;
use crate::proto::Instant;
use crate::proto::batch::Batch;
use crate::proto::event::{Cutting, PathState, Transmit};
use crate::proto::path::{MAX_ACK_DELAY, Path};
use crate::proto::recovery::{Fate, KeptId};
use crate::proto::reorder::patience;
use crate::proto::repair::{Place, Why};
use crate::proto::scheduler::{Loses, Order, PathSets};
use crate::proto::wire::frame::{self, Bucket};
use crate::proto::wire::{Kind, MAX_PATHS, PathId, TAG_LEN};

/// Beyond the time in which the peer acknowledges even a lone datagram, before the newest data counts
/// as doubtful: timers of a busy portal are late by about this (PROTOCOL.md 7).
const TAIL_MARGIN: Duration = Duration::from_millis(10);
/// A path that lost the packet is chosen for its repair only before one that takes so much longer:
/// what lost one packet may lose the next, but a repair after 250 ms is none.
const DETOUR: Duration = Duration::from_millis(100);
/// So long a repair waits for the path that is best for it before it takes any: one full datagram at
/// 3 Mbit/s.
const PATIENCE: Duration = Duration::from_millis(4);
/// Packets that wait behind one when it is taken from the queue, for a flow that counts as bulk: a
/// burst of ten (an initial window) is.
const BULK_BACKLOG: usize = 4;
/// Packets in flight with which a flow counts as bulk too: a call has 5 in 100 ms, a download that no
/// queue holds back has the product of its rate and the round trip.
const BULK_FLYING: u32 = 16;
/// A flow counts as bulk for so long after that (PROTOCOL.md 4.1: the time it counts as spread).
const BULK_FOR: Duration = Duration::from_secs(3);
/// A path counts as used for so long after it carried data: as long as a flow counts as spread.
pub(super) const IN_USE: Duration = Duration::from_secs(3);
/// A second copy shorter than this may overdraw the pacer, bytes: what is sent twice because it must
/// come at once, like the packets of a call.
const SMALL: usize = 300;
/// A second copy on a path with such a detour would come later than a repair.
const LATE_COPY: Duration = Duration::from_millis(150);
/// Over a longer round trip a flow that begins is sent twice on a path that has no other near it, until
/// the path's rate is found: one loss makes a slow start wait for a round trip more, which ends it
/// (CUBIC's HyStart), and then the rate grows by 5 % a round trip. Over 330 ms with 0.5 % loss a flow had
/// 3 Mbit/s after 5 s, of 40 (simulated).
pub(super) const LONG_RTT: Duration = Duration::from_millis(150);
/// FORWARD frames in one datagram, 5 bytes each: it passes on every path (476 bytes, the tag included).
const MOST_FORWARDS: usize = 90;

impl Tunnel {
    /// True when a packet waits at the peer for earlier ones that are being repaired: TCP takes a gap
    /// for congestion, and so does any flow that fills a queue (QUIC). A call rather misses a packet.
    pub(super) fn is_patient(&mut self, now: Instant, bucket: Bucket, packet: &[u8]) -> bool {
        let bulk = self.queue.backlog(bucket) >= BULK_BACKLOG
            || self.repairs.unsettled(bucket) >= BULK_FLYING;
        let domain = &mut self.domains[usize::from(bucket.0)];
        if bulk {
            domain.bulk_until = now + BULK_FOR;
        }
        (is_tcp(packet) || now < domain.bulk_until) && self.repairs_come_in_time()
    }

    /// Computes once a batch what is needed for every packet but changes with acknowledgements and time only.
    pub(super) fn prepare(&mut self) {
        for path in self.paths.iter_mut().flatten() {
            path.set_pace();
        }
        self.quickest = self.quickest_rtt();
        self.choose_covers();
    }

    /// False when even the quickest repair, a round trip after the loss was noticed, comes when the
    /// peer waits no longer: then waiting only delays.
    fn repairs_come_in_time(&self) -> bool {
        self.quickest.is_none_or(|rtt| rtt < self.patience)
    }

    fn quickest_rtt(&self) -> Option<Duration> {
        // The paths of the order, but not sorted: those that are up, else the suspects, of the
        // lowest tier.
        let usable = self.paths.iter().flatten().filter_map(|path| {
            let suspect = match path.state {
                PathState::Up => false,
                PathState::Suspect => true,
                PathState::Validating | PathState::Down | PathState::Dead => return None,
            };
            Some((suspect, path.metric, path.rtt.smoothed()))
        });
        usable.min().and_then(|(_, _, rtt)| rtt)
    }

    /// Keeps a packet that leaves with the next datagram of a path.
    pub(super) fn keep(&mut self, now: Instant, id: PathId, order: frame::Order, packet: Packet) {
        let place = Place {
            bucket: order.bucket,
            sequence: order.sequence,
            wait: order.wait,
            settled: order.settled,
        };
        let Some(path) = self.paths[id.index()].as_deref_mut() else {
            self.pool.give(packet);
            return;
        };
        let twice = self.redundant.contain(packet.bytes());
        let bulk = now < self.domains[usize::from(order.bucket.0)].bulk_until;
        let begins = bulk && is_searched_from_afar(path);
        let kept = self.repairs.keep(now, place, id, packet, &mut self.pool);
        path.sent.carry(kept);
        path.carried = now;
        if twice || begins && path.cover.is_none() {
            let order = self.order();
            if twice && self.has_other(id, &order) || begins && is_alone(id, &order) {
                self.repairs.send_twice(now, kept);
            }
        }
    }

    /// Learns what became of packets, and doubts what is silent.
    pub(super) fn collect(&mut self, now: Instant) {
        let (repairs, pool) = (&mut self.repairs, &mut self.pool);
        for path in self.paths.iter_mut().flatten() {
            for fate in path.sent.fates() {
                match fate {
                    Fate::Arrived(kept) => repairs.on_arrived(kept, pool),
                    Fate::Lost(kept) => repairs.on_lost(now, kept, path.id, pool),
                }
            }
        }
        for id in PathId::all() {
            if self.is_doubtful(now, id)
                && let Some(path) = self.paths[id.index()].as_deref()
            {
                let from = self.repairs.doubted(id);
                for kept in path.sent.under_way(from) {
                    self.repairs.on_lost(now, kept, id, &mut self.pool);
                }
                self.repairs.set_doubted(id, path.sent.next_number().0);
            }
        }
        self.collected = now;
        self.judge_far_paths(now);
        self.set_patience(now);
        self.repairs.expire(now, self.patience, &mut self.pool);
    }

    fn set_patience(&mut self, now: Instant) {
        self.patience = patience(self.slowest_in_use(now));
        self.reorder.set_patience(self.patience);
    }

    /// The peer says that these paths may hold something sent before: they are in use from then on, not
    /// only when that comes. Otherwise the first packet of a far path would be waited for only as long as
    /// the near paths need.
    pub(super) fn note_under_way(&mut self, now: Instant, paths: u8) {
        let mut unused = false;
        for path in self.paths.iter_mut().flatten() {
            if paths & path.id.bit() != 0 {
                unused |= now >= path.carried + IN_USE;
                path.carried = now;
            }
        }
        if unused {
            self.set_patience(now);
        }
    }

    /// Looks at what far paths brought.
    fn judge_far_paths(&mut self, now: Instant) {
        let (mut delivered, mut slowest) = (0, Duration::ZERO);
        let mut sets = PathSets::default();
        let bandwidth = |path: &Path| path.gate.controller.bandwidth();
        let paths = self.paths.iter().flatten();
        let sum: u64 = paths.map(|path| bandwidth(path)).sum();
        for path in self.paths.iter().flatten() {
            delivered += path.delivered();
            if path.gate.controller.is_searching() {
                sets.searching |= path.id.bit();
            }
            if bandwidth(path) > sum / 2 {
                sets.wide |= path.id.bit();
            }
            if now < path.carried + IN_USE {
                slowest = slowest.max(path.rtt.smoothed().unwrap_or_default());
            }
        }
        self.trials.on_delivered(now, delivered, slowest, sets);
    }

    /// The round trip of the slowest path that carried data lately, whichever way: both portals find
    /// nearly the same.
    fn slowest_in_use(&self, now: Instant) -> Duration {
        let used = self
            .paths
            .iter()
            .flatten()
            .filter(|path| now < path.carried + IN_USE);
        let slowest = used.filter_map(|path| path.rtt.smoothed()).max();
        slowest.unwrap_or_default()
    }

    /// True when packets in flight on a path should go by another as well.
    fn is_doubtful(&self, now: Instant, id: PathId) -> bool {
        let Some(path) = self.path(id) else {
            return false;
        };
        let silent = path.state == PathState::Suspect
            && path.sent.in_flight() > 0
            && self.repairs.doubted(id) < path.sent.next_number().0;
        // The order costs most, and is seldom asked for.
        (silent || self.tail_at(path).is_some_and(|at| at <= now))
            && self.has_other(id, &self.order())
    }

    /// When the newest data on a path becomes doubtful, if nothing is heard of it.
    fn tail_at(&self, path: &Path) -> Option<Instant> {
        let (number, at) = path.sent.tail()?;
        (path.state == PathState::Up && number >= self.repairs.doubted(path.id))
            .then(|| at + path.rtt.probe_timeout(MAX_ACK_DELAY) + TAIL_MARGIN)
    }

    /// When that is to be acted on: another path takes it.
    pub(super) fn tail_due(&self, path: &Path, order: &Order) -> Option<Instant> {
        self.tail_at(path)
            .filter(|_| self.has_other(path.id, order))
    }

    /// True when another path takes what is doubtful on this one.
    fn has_other(&self, id: PathId, order: &Order) -> bool {
        order.iter().any(|other| {
            other != id
                && self
                    .path(other)
                    .is_some_and(|other| other.state == PathState::Up)
        })
    }

    /// A batch of repairs and of second copies, or the report of what was given up.
    pub(super) fn repair(&mut self, now: Instant, out: &mut Batch) -> Option<Transmit> {
        if self.repairs.has_forwards()
            && let Some(transmit) = self.forwards(now, out)
        {
            return Some(transmit);
        }
        let (mut why, id) = self.next_again(now)?;
        let (kind, overhead) = self.framing();
        let longest = self.repairs.head(why)?.2.len() + overhead;
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
        let mut segment: Option<usize> = None;
        for _ in 0..MOST_SEGMENTS {
            let capacity = segment.unwrap_or(most);
            if segment.is_some() {
                match self.next_again(now) {
                    Some((next, path)) if path == id => why = next,
                    _ => break,
                }
            }
            let too_long = |(_, _, packet): (_, _, &[u8])| packet.len() + overhead > capacity;
            if out.bytes.len() + capacity > MOST_BATCH
                || self.repairs.head(why).is_none_or(too_long)
            {
                break;
            }
            let length = self.datagram_again(now, why, id, way, out)?;
            let first = *segment.get_or_insert(length);
            if length < first {
                break;
            }
        }
        segment.map(|segment| way.transmit(place, segment))
    }

    /// What goes next, and by which path.
    fn next_again(&mut self, now: Instant) -> Option<(Why, PathId)> {
        self.path_for_second(now)
            .map(|id| (Why::Twice, id))
            .or_else(|| self.path_for_repair(now).map(|id| (Why::Lost, id)))
    }

    /// One datagram with the oldest one.
    fn datagram_again(
        &mut self,
        now: Instant,
        why: Why,
        id: PathId,
        way: Way,
        out: &mut Batch,
    ) -> Option<usize> {
        let number = self.path(id)?.sent.next_number().0;
        let (_, place, _) = self.repairs.head(why)?;
        let mask = match why {
            Why::Twice => self.note_place(place.bucket, id, number),
            // A packet that waits for repairs waits for no path, and any other has waited enough.
            Why::Lost => 0,
        };
        let path = self.paths[id.index()].as_deref_mut()?;
        let session = &self.keys.current()?.session;
        let (kept, place, packet) = self.repairs.head(why)?;
        let mut draft = way.draft(out, now);
        draft.data = true;
        let order = frame::Order {
            bucket: place.bucket,
            sequence: place.sequence,
            mask,
            wait: place.wait,
            settled: place.settled,
        };
        frame::put_data(draft.out, Some(order), packet, true);
        path.sent.carry(kept);
        path.carried = now;
        self.repairs.on_sent_again(why, id);
        self.last_data = now;
        if why == Why::Lost {
            self.last_repair = Some(now);
        }
        path.note_limited(self.queue.is_empty() && self.repairs.oldest().is_none());
        Some(draft.finish(now, path, session))
    }

    /// The path that takes the oldest second copy now: the best one on which the packet does not fly.
    fn path_for_second(&mut self, now: Instant) -> Option<PathId> {
        let (flying, length) = self.repairs.oldest_twice(now)?;
        let urgent = length < SMALL;
        let order = self.order();
        order.iter().find(|id| {
            (flying & id.bit() == 0 || self.may_double(*id, &order))
                && order.detour(*id) < LATE_COPY
                && self.fits(*id, length)
                && self.paths[id.index()]
                    .as_deref_mut()
                    .is_some_and(|path| path.may_send(now, urgent))
        })
    }

    /// When pacing lets the oldest second copy go.
    pub(super) fn second_due(&self, order: &Order) -> Option<Instant> {
        let (flying, length) = self.repairs.peek_twice()?;
        let others = order
            .iter()
            .filter(|id| flying & id.bit() == 0 || self.may_double(*id, order))
            .filter(|id| order.detour(*id) < LATE_COPY)
            .filter(|id| self.fits(*id, length));
        others
            .filter_map(|id| self.path(id).and_then(Path::paced_until))
            .min()
    }

    /// True when a second copy may follow the first on the same path.
    fn may_double(&self, id: PathId, order: &Order) -> bool {
        self.path(id).is_some_and(is_searched_from_afar) && is_alone(id, order)
    }

    /// The path that takes the oldest repair now. For a while it waits for the best one.
    fn path_for_repair(&mut self, now: Instant) -> Option<PathId> {
        let (kept, lost_by, since) = self.repairs.oldest()?;
        let patient = now.since(since) < PATIENCE;
        let urgent = self
            .repairs
            .head(Why::Lost)
            .is_some_and(|(_, place, _)| !place.wait);
        let order = self.order();
        let ranked = self.rank(kept, lost_by, &order);
        let found = ranked
            .into_iter()
            .flatten()
            .take(if patient { 1 } else { MAX_PATHS })
            .filter(|id| now >= since + order.detour(*id))
            .find(|id| {
                self.paths[id.index()]
                    .as_deref_mut()
                    .is_some_and(|path| path.may_send(now, urgent))
            });
        if found.is_none() && !patient {
            self.no_path_for = Some((kept, since));
        }
        found
    }

    /// When pacing, or its patience, lets the oldest repair go.
    pub(super) fn repair_due(&self, order: &Order) -> Option<Instant> {
        let (kept, lost_by, since) = self.repairs.oldest()?;
        // For a far path it waits as long as the detour takes.
        let paced = |id: PathId| {
            let paced = self.path(id).and_then(Path::paced_until)?;
            Some(paced.max(since + order.detour(id)))
        };
        let ranked = self.rank(kept, lost_by, order).into_iter().flatten();
        if self.no_path_for == Some((kept, since)) {
            ranked.filter_map(paced).min()
        } else {
            let best = ranked.take(1).find_map(paced);
            [best, Some(since + PATIENCE)].into_iter().flatten().min()
        }
    }

    /// The paths for a repair, best first: the fastest, those that lost it later. Those that are silent
    /// get none, as long as there is another.
    fn rank(&self, kept: KeptId, lost_by: u8, order: &Order) -> [Option<PathId>; MAX_PATHS] {
        let length = self.repairs.length(kept);
        let mut ranked = [None; MAX_PATHS];
        let mut count = 0;
        let all_silent = order.iter().all(|id| self.is_silent(id));
        let asked = order
            .iter()
            .filter(|id| all_silent || !self.is_silent(*id))
            .filter(|id| self.fits(*id, length));
        for (slot, id) in ranked.iter_mut().zip(asked) {
            *slot = Some(id);
            count += 1;
        }
        ranked[..count].sort_by_key(|id| {
            let path = id.and_then(|id| self.path(id))?;
            let detour = if lost_by & path.id.bit() == 0 {
                0
            } else {
                DETOUR.as_micros() as i64
            };
            // What was never measured comes last, as in the order.
            let owd = path
                .owd
                .smoothed()
                .map_or(i64::MAX / 2, |owd| owd.as_micros());
            Some(owd + detour)
        });
        ranked
    }

    /// True when what flew on a path was doubted, and nothing was heard of the path since.
    fn is_silent(&self, id: PathId) -> bool {
        let newest = self.repairs.doubted(id).checked_sub(1);
        self.path(id)
            .zip(newest)
            .is_some_and(|(path, newest)| path.sent.may_be_under_way(newest))
    }

    /// Tells the peer what was given up, on the best path. It is sealed whatever the security is.
    fn forwards(&mut self, now: Instant, out: &mut Batch) -> Option<Transmit> {
        let id = self.order().iter().next()?;
        let path = self.paths[id.index()].as_deref_mut()?;
        let session = &self.keys.current()?.session;
        let place = path.place?;
        let mut draft = Draft::new(out, now, Kind::Sealed);
        draft.eliciting = true;
        for _ in 0..MOST_FORWARDS {
            let Some((bucket, sequence)) = self.repairs.next_forward() else {
                break;
            };
            frame::put_forward(draft.out, bucket, sequence);
        }
        draft.passage = passage(cutting(path, draft.len() + TAG_LEN));
        let length = draft.finish(now, path, session);
        Some(transmit(place, length, cutting(path, length)))
    }
}

/// True when a path's rate is still searched for, over a long way on which something is lost, as far as is
/// known.
fn is_searched_from_afar(path: &Path) -> bool {
    path.rtt.smoothed().is_some_and(|rtt| rtt > LONG_RTT)
        && path.gate.controller.is_searching()
        && path.loses() != Loses::Nothing
}

/// True when a path leads the order, and no other one is near.
fn is_alone(id: PathId, order: &Order) -> bool {
    let mut near = order.iter().filter(|path| order.detour(*path).is_zero());
    near.next() == Some(id) && near.next().is_none()
}
