//! The one place where packets wait: a queue per bucket of flows, served in turn, each under CoDel
//! (FQ-CoDel, RFC 8290). Order domains are these very buckets, so order is given at the exit.

mod codel;
mod target;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::Instant;
use super::wire::frame::Bucket;
use crate::packet::{FlowHash, Packet, ecn};
use codel::Codel;
use target::{KnownTarget, Target};

/// Bytes that one flow may send before the next one's turn: a full packet (RFC 8290 section 5.2).
const QUANTUM: i32 = 1500;
/// Bytes in the whole queue: 130 ms at 500 Mbit/s.
const MOST_BYTES: usize = 8 << 20;
/// Packets in the whole queue. Each holds a buffer of the TUN's MTU, however short it is: 5,120 of
/// 1,400 bytes are 7 MB, what a router of 64 MB can spare (RFC 8290 section 5.2.3 proposes 10,240).
const MOST_PACKETS: usize = 5_120;
/// Packets that make room at once.
const MOST_DROPPED: usize = 64;
/// Nothing is sent that waited longer: its sender has given up on it (PROTOCOL.md 6). Where round trips
/// are long it is one and a half of them: a window that was held for a repair comes in one burst. And
/// where a queue is allowed to be long for a far path, it is twice as long as that.
const MOST_SOJOURN: Duration = Duration::from_millis(500);

/// A queue may still be long for this time after its far path went out of use: more than two round trips of
/// the farthest path that is used, whose detour is 0.8 s at most.
const PATIENT_FOR: Duration = Duration::from_secs(3);

/// A flow that sends more than this in a period is not sparse, even if it leaves no queue: 5 Mbit/s,
/// more than a video call.
const MOST_SPARSE: usize = 64_000;
const PERIOD: Duration = Duration::from_millis(100);

/// Packets for which an empty flow keeps memory: a round of the TUN, which a lone bulk flow fills and
/// empties each time (128, and its last super-packet is taken whole: 64 KiB in pieces of 512 bytes).
/// 40 bytes each, so 2.6 MB in all flows: filling one after the other makes us keep no more.
const SPARE: usize = 256;

/// Why the queue dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// There was no room.
    Full,
    /// It, or its queue, waited too long.
    Delay,
}

/// What is to be known of the packet that goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its length, bytes.
    pub length: usize,
    /// Since when it waits.
    pub since: Instant,
    /// Its flow sends now and then: no queue of it lasts.
    pub sparse: bool,
    /// Its order domain.
    pub bucket: Bucket,
}

#[derive(Debug)]
struct Chosen {
    head: Head,
    packet: Packet,
}

/// A packet in its flow's queue.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// Bytes of the flow when it came, itself included. Nothing: it was judged, and made way.
    backlog: Option<NonZeroUsize>,
    packet: Packet,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Waiting>,
    bytes: usize,
    deficit: i32,
    codel: Codel,
    listed: bool,
    rate: Rate,
}

/// What a flow sent lately: bytes in this period and in the last one.
#[derive(Debug, Default)]
struct Rate {
    period: Instant,
    bytes: usize,
    before: usize,
}

impl Rate {
    fn add(&mut self, now: Instant, bytes: usize) {
        let age = now.since(self.period);
        if age >= PERIOD {
            self.before = if age < 2 * PERIOD { self.bytes } else { 0 };
            (self.period, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
    }

    fn is_high(&self) -> bool {
        self.bytes.max(self.before) > MOST_SPARSE
    }
}

/// The queue of a tunnel.
#[derive(Debug)]
pub struct Queue {
    flows: Vec<Flow>,
    /// Flows that have just begun to send are served first (RFC 8290 section 4.2).
    fresh: VecDeque<u8>,
    old: VecDeque<u8>,
    packets: usize,
    bytes: usize,
    /// The packet that goes next: chosen, but on no path yet.
    head: Option<Chosen>,
    rtt: Duration,
    patience: Duration,
    patient_until: Instant,
    target: KnownTarget,
    marked: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            flows: (0..=u8::MAX).map(|_| Flow::default()).collect(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            packets: 0,
            bytes: 0,
            head: None,
            rtt: Duration::ZERO,
            patience: Duration::ZERO,
            patient_until: Instant::default(),
            target: KnownTarget::default(),
            marked: 0,
        }
    }
}

impl Queue {
    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.packets + usize::from(self.head.is_some())
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes + self.head.as_ref().map_or(0, |chosen| chosen.head.length)
    }

    /// Packets marked instead of dropped (RFC 3168).
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// Packets of one bucket that wait.
    pub fn backlog(&self, bucket: Bucket) -> usize {
        self.flows[usize::from(bucket.0)].packets.len()
    }

    /// The round trip of the slowest path in use: senders react no sooner.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// How long packets may wait before a far path takes them: CoDel leaves a flow alone whose packets wait
    /// less. It becomes shorter only after three seconds: a far path that is out of use for a moment may be
    /// back before the queue has drained.
    pub fn set_patience(&mut self, now: Instant, patience: Duration) {
        if patience >= self.patience || now >= self.patient_until {
            self.patience = patience;
            self.patient_until = now + PATIENT_FOR;
        }
    }

    fn most_sojourn(&self) -> Duration {
        MOST_SOJOURN.max(2 * self.patience).max(self.rtt * 3 / 2)
    }

    /// Takes a packet in. What has to make room is given to `dropped`.
    pub fn push(
        &mut self,
        now: Instant,
        hash: FlowHash,
        packet: Packet,
        mut dropped: impl FnMut(Drop, Packet),
    ) {
        let id = hash.0 as u8;
        let flow = &mut self.flows[usize::from(id)];
        if !flow.listed {
            flow.listed = true;
            flow.deficit = QUANTUM;
            self.fresh.push_back(id);
        }
        self.packets += 1;
        self.bytes += packet.len();
        flow.bytes += packet.len();
        flow.rate.add(now, packet.len());
        flow.packets.push_back(Waiting {
            since: now,
            backlog: NonZeroUsize::new(flow.bytes),
            packet,
        });
        while self.packets > MOST_PACKETS || self.bytes > MOST_BYTES {
            self.drop_from_fattest(&mut dropped);
        }
    }

    /// The packet that goes next, after the queue dropped what waited too long. One of a bulk flow
    /// that no path took yet makes way for a flow that has just begun to send.
    pub fn head(&mut self, now: Instant, mut dropped: impl FnMut(Drop, Packet)) -> Option<Head> {
        let most = self.most_sojourn();
        if let Some(stale) = self
            .head
            .take_if(|chosen| now.since(chosen.head.since) > most)
        {
            dropped(Drop::Delay, stale.packet);
        }
        if !self.fresh.is_empty()
            && let Some(chosen) = self.head.take_if(|chosen| !chosen.head.sparse)
        {
            self.put_back(chosen);
        }
        if self.head.is_none() {
            self.head = self.choose(now, &mut dropped);
        }
        self.chosen()
    }

    /// The packet that was chosen last and is not taken yet.
    pub fn chosen(&self) -> Option<Head> {
        self.head.as_ref().map(|chosen| chosen.head)
    }

    /// Takes out the packet that goes next: the one that `head` returned.
    pub fn take(&mut self) -> Option<(Bucket, Packet)> {
        let chosen = self.head.take()?;
        Some((chosen.head.bucket, chosen.packet))
    }

    fn put_back(&mut self, Chosen { head, packet }: Chosen) {
        let id = head.bucket.0;
        let flow = &mut self.flows[usize::from(id)];
        flow.deficit += head.length as i32;
        flow.bytes += head.length;
        self.packets += 1;
        self.bytes += head.length;
        flow.packets.push_front(Waiting {
            since: head.since,
            backlog: None,
            packet,
        });
    }

    fn choose(&mut self, now: Instant, dropped: &mut impl FnMut(Drop, Packet)) -> Option<Chosen> {
        loop {
            let from_fresh = !self.fresh.is_empty();
            let list = if from_fresh {
                &mut self.fresh
            } else {
                &mut self.old
            };
            let id = *list.front()?;
            let flow = &mut self.flows[usize::from(id)];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                list.pop_front();
                self.old.push_back(id);
                continue;
            }
            let target = self.target.of(self.rtt, self.old.len(), self.patience);
            match self.next_of(id, now, target, dropped) {
                Some((since, packet)) => {
                    let head = Head {
                        length: packet.len(),
                        since,
                        sparse: from_fresh && !self.flows[usize::from(id)].rate.is_high(),
                        bucket: Bucket(id),
                    };
                    self.flows[usize::from(id)].deficit -= packet.len() as i32;
                    return Some(Chosen { head, packet });
                }
                None => {
                    // A fresh flow that ran dry waits among the old ones once, so that it gains
                    // nothing by it (RFC 8290 section 4.2).
                    let list = if from_fresh {
                        &mut self.fresh
                    } else {
                        &mut self.old
                    };
                    list.pop_front();
                    if from_fresh && !self.old.is_empty() {
                        self.old.push_back(id);
                    } else {
                        self.flows[usize::from(id)].listed = false;
                    }
                }
            }
        }
    }

    fn next_of(
        &mut self,
        id: u8,
        now: Instant,
        target: Target,
        dropped: &mut impl FnMut(Drop, Packet),
    ) -> Option<(Instant, Packet)> {
        let most = self.most_sojourn();
        loop {
            let flow = &mut self.flows[usize::from(id)];
            let first = flow.packets.front()?;
            let since = first.since;
            let sojourn = now.since(since);
            let lone = flow.packets.len() <= 1;
            let stale = sojourn > most;
            // Each is judged once: CoDel let it pass, or it has its mark already.
            let told = first.backlog.is_some_and(|backlog| {
                let delay = target.delay(sojourn, backlog.get(), flow.bytes);
                flow.codel.judge(now, delay, lone, target)
            });
            let mut packet = self.pop(id)?;
            if !stale && !told {
                return Some((since, packet));
            }
            if !stale && ecn::mark(packet.buffer()) {
                self.marked += 1;
                return Some((since, packet));
            }
            dropped(Drop::Delay, packet);
        }
    }

    fn pop(&mut self, id: u8) -> Option<Packet> {
        let flow = &mut self.flows[usize::from(id)];
        let Waiting { packet, .. } = flow.packets.pop_front()?;
        flow.bytes -= packet.len();
        if flow.packets.is_empty() && flow.packets.capacity() > SPARE {
            flow.packets.shrink_to(SPARE);
        }
        self.packets -= 1;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Up to half of the fattest flow goes at once, so that not every packet of a flood searches for it
    /// (RFC 8290 section 5.4: 64 packets).
    fn drop_from_fattest(&mut self, dropped: &mut impl FnMut(Drop, Packet)) {
        let fattest = (0..=u8::MAX).max_by_key(|id| self.flows[usize::from(*id)].bytes);
        let Some(id) = fattest else { return };
        let half = self.flows[usize::from(id)].packets.len().div_ceil(2);
        for _ in 0..half.clamp(1, MOST_DROPPED) {
            if let Some(packet) = self.pop(id) {
                dropped(Drop::Full, packet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn packet(len: usize) -> Packet {
        Packet::from(&vec![0x45; len][..])
    }

    fn next(queue: &mut Queue, ms: u64) -> Option<(u8, usize)> {
        queue.head(at(ms), |_, _| {})?;
        queue
            .take()
            .map(|(bucket, packet)| (bucket.0, packet.len()))
    }

    #[test]
    fn a_sparse_flow_overtakes_a_bulk_flow() {
        let mut queue = Queue::default();
        for _ in 0..10 {
            queue.push(at(0), FlowHash(1), packet(1400), |_, _| {});
        }
        assert_eq!(next(&mut queue, 1), Some((1, 1400)));
        assert_eq!(next(&mut queue, 1), Some((1, 1400)));
        queue.push(at(1), FlowHash(2), packet(100), |_, _| {});
        assert_eq!(next(&mut queue, 1), Some((2, 100)));
        assert_eq!(next(&mut queue, 1), Some((1, 1400)));
    }

    #[test]
    fn what_no_path_took_makes_way_and_keeps_its_place() {
        let mut queue = Queue::default();
        for len in [1400, 1390, 1380, 1370] {
            queue.push(at(0), FlowHash(1), packet(len), |_, _| {});
        }
        assert_eq!(next(&mut queue, 0), Some((1, 1400)));
        assert_eq!(next(&mut queue, 0), Some((1, 1390)));
        // Chosen, but not taken.
        let head = queue.head(at(0), |_, _| {}).unwrap();
        assert_eq!((head.length, head.sparse), (1380, false));
        let bytes = queue.bytes();
        queue.push(at(1), FlowHash(2), packet(100), |_, _| {});
        let head = queue.head(at(1), |_, _| {}).unwrap();
        assert_eq!((head.length, head.sparse), (100, true));
        assert_eq!((queue.bytes(), queue.len()), (bytes + 100, 3));
        assert_eq!(next(&mut queue, 1), Some((2, 100)));
        assert_eq!(next(&mut queue, 1), Some((1, 1380)));
        assert_eq!(next(&mut queue, 1), Some((1, 1370)));
        assert_eq!(next(&mut queue, 1), None);
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
    }

    /// A queue that has lasted, under CoDel, and the time, ms.
    fn lasting(ecn: u8) -> (Queue, u64) {
        let mut queue = Queue::default();
        for ms in 0..400 {
            for _ in 0..2 {
                let mut packet = packet(1400);
                packet.buffer()[1] = ecn;
                queue.push(at(ms), FlowHash(1), packet, |_, _| {});
            }
            next(&mut queue, ms);
        }
        (queue, 400)
    }

    /// A packet is chosen that nobody takes, and makes way for that of a new flow. Gives the chosen one.
    fn makes_way(queue: &mut Queue, ms: u64) -> Head {
        let chosen = queue.head(at(ms), |_, _| {}).unwrap();
        assert_eq!(chosen.bucket.0, 1);
        let id = 2 + (ms % 250) as u8;
        queue.push(at(ms), FlowHash(id.into()), packet(100), |_, _| {});
        assert_eq!(next(queue, ms), Some((id, 100)));
        chosen
    }

    #[test]
    fn what_made_way_is_not_dropped_when_its_turn_comes() {
        let (mut queue, start) = lasting(0);
        for ms in start..start + 90 {
            let chosen = makes_way(&mut queue, ms);
            let mut dropped = 0;
            let again = queue.head(at(ms + 1), |_, _| dropped += 1).unwrap();
            assert_eq!((again, dropped), (chosen, 0), "{ms} ms");
            queue.take();
        }
    }

    #[test]
    fn what_made_way_is_marked_once() {
        let (mut queue, mut ms) = lasting(2); // ECT(0)
        let before = queue.marked();
        while queue.marked() == before {
            next(&mut queue, ms);
            queue.head(at(ms), |_, _| {});
            ms += 1;
        }
        // It made way again and again, for longer than CoDel pauses.
        for ms in ms..ms + 90 {
            makes_way(&mut queue, ms);
        }
        assert_eq!(queue.marked(), before + 1);
    }

    #[test]
    fn what_can_be_marked_is_not_dropped() {
        let mut queue = Queue::default();
        let mut marked = 0;
        for ms in 0..3000 {
            for _ in 0..2 {
                let mut packet = packet(1400);
                packet.buffer()[1] = 2; // ECT(0)
                queue.push(at(ms), FlowHash(1), packet, |_, _| {});
            }
            queue.head(at(ms), |drop, _| {
                assert!(ms > 900 || drop != Drop::Delay, "{ms} ms");
            });
            marked += queue
                .take()
                .map_or(0, |(_, packet)| u64::from(packet.bytes()[1] & 3 == 3));
        }
        assert!(marked > 20, "{marked}");
        assert_eq!(queue.marked(), marked);
    }

    #[test]
    fn two_bulk_flows_share() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            queue.push(at(0), FlowHash(1), packet(1400), |_, _| {});
            queue.push(at(0), FlowHash(2), packet(700), |_, _| {});
        }
        let mut bytes = [0usize; 3];
        for _ in 0..60 {
            let (bucket, len) = next(&mut queue, 1).unwrap();
            bytes[usize::from(bucket)] += len;
        }
        assert!(bytes[1].abs_diff(bytes[2]) <= 3000, "{bytes:?}");
    }

    #[test]
    fn a_lasting_queue_is_cut() {
        let mut queue = Queue::default();
        let mut drops = 0;
        let mut backlog = 0;
        for ms in 0..3000 {
            // 2 packets in, 1 out, each millisecond.
            for _ in 0..2 {
                queue.push(at(ms), FlowHash(1), packet(1400), |_, _| {});
            }
            queue.head(at(ms), |drop, _| drops += u32::from(drop == Drop::Delay));
            queue.take();
            backlog = queue.len();
        }
        assert!(drops > 20, "{drops}");
        // Not even an unresponsive flow waits longer than the cap: 500 packets, one a millisecond.
        assert!(backlog < 1100, "{backlog}");
    }

    /// The sender backs off when it is told once. What is left waited long, but it is not told again.
    #[test]
    fn a_queue_that_shrinks_is_left_alone() {
        let mut queue = Queue::default();
        for ms in 0..400 {
            let told = queue.marked() > 0;
            for _ in 0..if told { 0 } else { 3 } {
                let mut packet = packet(1400);
                packet.buffer()[1] = 2; // ECT(0)
                queue.push(at(ms), FlowHash(1), packet, |_, _| {});
            }
            for _ in 0..if told && ms % 4 > 0 { 1 } else { 2 } {
                next(&mut queue, ms);
            }
        }
        assert_eq!((queue.marked(), queue.len()), (1, 0));
    }

    #[test]
    fn the_fattest_makes_room() {
        let mut queue = Queue::default();
        queue.push(at(0), FlowHash(9), packet(100), |_, _| {});
        let mut dropped = 0;
        for _ in 0..MOST_PACKETS + 5 {
            queue.push(at(0), FlowHash(1), packet(500), |drop, packet| {
                assert_eq!((drop, packet.len()), (Drop::Full, 500));
                dropped += 1;
            });
        }
        assert_eq!(dropped, MOST_DROPPED);
        assert_eq!(next(&mut queue, 1), Some((9, 100)));
        assert_eq!(queue.bytes(), 500 * (MOST_PACKETS + 5 - MOST_DROPPED));
    }

    #[test]
    fn flows_filled_one_after_the_other_keep_no_memory() {
        let mut queue = Queue::default();
        for flow in 0..256 {
            for _ in 0..1000 {
                queue.push(at(0), FlowHash(flow), packet(40), |_, _| {});
            }
            while next(&mut queue, 0).is_some() {}
        }
        let kept: usize = queue.flows.iter().map(|f| f.packets.capacity()).sum();
        assert!(kept * size_of::<Waiting>() < 3_000_000, "{kept}");
    }

    /// A path that falls silent for a moment costs a flow none of its packets.
    #[test]
    fn a_queue_for_a_far_path_may_stay_long_for_a_while() {
        let mut queue = Queue::default();
        let patience = Duration::from_millis(600);
        queue.set_patience(at(0), patience);
        queue.set_patience(at(2000), Duration::ZERO);
        assert_eq!(queue.patience, patience);
        queue.set_patience(at(3001), Duration::ZERO);
        assert_eq!(queue.patience, Duration::ZERO);
        queue.set_patience(at(3002), patience);
        assert_eq!(queue.patience, patience);
    }
}
