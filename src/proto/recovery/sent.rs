//! The datagrams of one path that are not yet accounted for.

use std::collections::VecDeque;
use std::time::Duration;

use super::carried::{Carried, KeptId, Span};
use super::reordering::Reordering;
use crate::proto::Instant;
use crate::proto::path::{Long, Passage};
use crate::proto::wire::PacketNumber;

/// One datagram that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// Its length, bytes.
    pub bytes: u32,
    /// It asks for an acknowledgement and counts as in flight. Bare acknowledgements do not.
    pub eliciting: bool,
    /// It carries a STATUS frame, which is sent again when lost.
    pub status: bool,
    /// It left as ECT(0).
    pub ect: bool,
    /// Whether it may be cut on the way. A probe of the path's MTU does not count as in flight: its
    /// loss says nothing of congestion, nor of the path's life.
    pub passage: Passage,
    /// Bytes sent on the path so far, it included.
    pub total: u64,
    /// Datagrams so far that left an empty queue behind.
    pub limited: u64,
}

/// What an acknowledgement newly accounted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acked {
    /// Datagrams that asked for it.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that left as ECT(0).
    pub ect: u64,
    /// It acknowledges a later one than all before it did.
    pub advanced: bool,
    /// Datagrams that had been held for lost: they had only been overtaken.
    pub spurious: u64,
    /// When the newest of all newly acknowledged ones was sent.
    pub newest_sent: Option<Instant>,
    /// What the largest number of this very acknowledgement was, when that is new: only it gives a
    /// round trip.
    pub largest: Option<Sent>,
    /// The long ones.
    pub long: Long,
}

/// What is held for lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the newest of them was sent.
    pub newest_sent: Option<Instant>,
    /// One of them carried a STATUS.
    pub status: bool,
    /// Those that left as ECT(0), from the number asked for on, where it was seen that later ones arrived.
    pub ect: u64,
    /// The long ones, where it was seen that later ones arrived.
    pub long: Long,
}

impl Lost {
    fn add(&mut self, sent: Sent) {
        self.datagrams += 1;
        self.bytes += u64::from(sent.bytes);
        self.newest_sent = self.newest_sent.max(Some(sent.at));
        self.status |= sent.status;
    }
}

/// What became of a packet on this path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Arrived(KeptId),
    /// Its datagram is held for lost, or nothing is known and nothing will be.
    Lost(KeptId),
}

#[derive(Debug, Clone, Copy)]
struct Record {
    sent: Sent,
    span: Span,
}

/// The datagrams of one path, from the oldest one not accounted for to the newest sent. A ring:
/// nothing is allocated once it has grown to a window.
#[derive(Debug, Default)]
pub struct SentPackets {
    /// The number of `ring[0]`.
    first: PacketNumber,
    /// `None`: accounted for.
    ring: VecDeque<Option<Record>>,
    largest_acked: Option<PacketNumber>,
    in_flight: u64,
    reordering: Reordering,
    carried: Carried,
    /// The newest datagram with packets that may have to be sent again, and when it left.
    newest_carrier: Option<(u64, Instant)>,
    /// What became of packets, until somebody asks.
    fates: Vec<Fate>,
}

impl SentPackets {
    /// The number the next datagram gets.
    pub fn next_number(&self) -> PacketNumber {
        PacketNumber(self.first.0 + self.ring.len() as u64)
    }

    /// The next datagram will carry this packet.
    pub fn carry(&mut self, kept: KeptId) {
        self.carried.push(kept);
    }

    /// Notes that the next datagram was sent.
    pub fn push(&mut self, sent: Sent) {
        if sent.eliciting {
            self.in_flight += u64::from(sent.bytes);
        }
        let span = self.carried.close();
        if !span.is_empty() {
            self.newest_carrier = Some((self.next_number().0, sent.at));
        }
        self.ring.push_back(Some(Record { sent, span }));
    }

    /// What became of packets since the last call.
    pub fn fates(&mut self) -> std::vec::Drain<'_, Fate> {
        self.fates.drain(..)
    }

    /// When the newest datagram with packets was sent, while nothing is known of it nor of anything
    /// sent later; and its number.
    pub fn tail(&self) -> Option<(u64, Instant)> {
        self.newest_carrier.filter(|(number, _)| {
            let offset = number.checked_sub(self.first.0);
            let slot = offset.and_then(|offset| self.ring.get(offset as usize));
            self.may_be_under_way(*number) && matches!(slot, Some(Some(_)))
        })
    }

    /// The packets of all datagrams from number `from` on of which nothing is known.
    pub fn under_way(&self, from: u64) -> impl Iterator<Item = KeptId> + '_ {
        let skipped = from.saturating_sub(self.first.0) as usize;
        let records = self.ring.iter().skip(skipped).flatten();
        records.flat_map(|record| self.carried.of(record.span))
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// True when nothing is known yet of what became of the datagram: on a FIFO path it still may
    /// arrive only if nothing sent after it did.
    pub fn may_be_under_way(&self, number: u64) -> bool {
        number >= self.first.0 && self.largest_acked.is_none_or(|largest| number > largest.0)
    }

    /// When the oldest datagram in flight was sent.
    pub fn oldest_sent(&self) -> Option<Instant> {
        if self.in_flight == 0 {
            return None;
        }
        self.ring
            .iter()
            .flatten()
            .find(|record| record.sent.eliciting)
            .map(|record| record.sent.at)
    }

    /// Accounts for one acknowledgement: `largest` and ranges, newest first. Numbers that were never
    /// sent are passed over: where data is not authenticated a stranger can make the peer
    /// acknowledge them.
    pub fn on_ack(
        &mut self,
        largest: PacketNumber,
        ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>,
    ) -> Acked {
        let mut acked = Acked::default();
        let end = self.next_number().0;
        for (low, high) in ranges {
            let last = high.0.min(end.saturating_sub(1));
            let oldest = self.reordering.oldest().unwrap_or(u64::MAX);
            if high.0 < self.first.0.min(oldest) {
                break;
            }
            if low.0 >= end {
                continue;
            }
            acked.advanced |= self.largest_acked < Some(PacketNumber(last));
            self.largest_acked = self.largest_acked.max(Some(PacketNumber(last)));
            acked.spurious += self.reordering.acquit(low.0, last);
            for number in low.0.max(self.first.0)..=last {
                let Some(Record { sent, span }) =
                    self.ring[(number - self.first.0) as usize].take()
                else {
                    continue;
                };
                self.fates.extend(self.carried.of(span).map(Fate::Arrived));
                if number == largest.0 && sent.eliciting {
                    acked.largest = Some(sent);
                }
                acked.newest_sent = acked.newest_sent.max(Some(sent.at));
                acked.long.add(number, sent.bytes, sent.passage);
                acked.ect += u64::from(sent.ect);
                if sent.eliciting {
                    acked.datagrams += 1;
                    acked.bytes += u64::from(sent.bytes);
                    self.in_flight -= u64::from(sent.bytes);
                }
            }
        }
        self.trim();
        acked
    }

    /// Holds for lost what was overtaken by enough datagrams, or long enough ago: sent before `now -
    /// threshold`. Returns when the next one would be, if nothing comes. Of ECT(0) those from the
    /// number `ect_from` on are told.
    pub fn detect_lost(
        &mut self,
        now: Instant,
        threshold: Duration,
        ect_from: PacketNumber,
    ) -> (Lost, Option<Instant>) {
        let mut lost = Lost::default();
        let mut next = None;
        self.reordering.adapt(now);
        let packets = self.reordering.threshold();
        let Some(largest) = self.largest_acked else {
            return (lost, next);
        };
        let overtaken = largest.0.saturating_sub(self.first.0) as usize;
        for (offset, slot) in self.ring.iter_mut().take(overtaken).enumerate() {
            let Some(Record { sent, span }) = *slot else {
                continue;
            };
            let number = self.first.0 + offset as u64;
            if number + packets <= largest.0 || sent.at + threshold <= now {
                *slot = None;
                self.reordering.condemn(number);
                self.fates.extend(self.carried.of(span).map(Fate::Lost));
                lost.long.add(number, sent.bytes, sent.passage);
                lost.ect += u64::from(sent.ect && number >= ect_from.0);
                if sent.eliciting {
                    self.in_flight -= u64::from(sent.bytes);
                    lost.add(sent);
                }
            } else {
                next = Some(sent.at + threshold);
                break;
            }
        }
        self.trim();
        (lost, next)
    }

    /// Forgets all but the newest `most` datagrams: on a path that does not answer, questions would
    /// pile up for ever. Called before one is added, the ring does not outgrow them.
    pub fn keep_newest(&mut self, most: usize) {
        while self.ring.len() > most {
            if let Some(Some(Record { sent, span })) = self.ring.pop_front() {
                self.fates.extend(self.carried.of(span).map(Fate::Lost));
                if sent.eliciting {
                    self.in_flight -= u64::from(sent.bytes);
                }
            }
            self.first = self.first.next();
        }
        self.trim();
    }

    /// Holds everything in flight for lost: the path is silent.
    pub fn abandon(&mut self) -> Lost {
        let mut lost = Lost::default();
        self.first = self.next_number();
        for Record { sent, span } in self.ring.drain(..).flatten() {
            self.fates.extend(self.carried.of(span).map(Fate::Lost));
            if sent.eliciting {
                lost.add(sent);
            }
        }
        self.in_flight = 0;
        self.trim();
        lost
    }

    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first = self.first.next();
        }
        let oldest = self.ring.front().copied().flatten();
        self.carried.forget(oldest.map(|record| record.span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ALL: PacketNumber = PacketNumber(0);

    fn sent(at: u64) -> Sent {
        Sent {
            at: Instant::from_micros(at),
            bytes: 100,
            eliciting: true,
            status: false,
            ect: false,
            passage: Passage::Whole,
            total: 0,
            limited: 0,
        }
    }

    fn pn(range: (u64, u64)) -> (PacketNumber, PacketNumber) {
        (PacketNumber(range.0), PacketNumber(range.1))
    }

    #[test]
    fn the_first_gap_is_a_loss_until_it_was_none() {
        let mut packets = SentPackets::default();
        (0..8).for_each(|n| packets.push(sent(n)));
        packets.on_ack(PacketNumber(1), [pn((1, 1))].into_iter());
        let now = Instant::from_micros(10);
        assert_eq!(packets.detect_lost(now, 100 * MS, ALL).0.datagrams, 1);
        // It was only overtaken.
        let late = packets.on_ack(PacketNumber(1), [pn((0, 1))].into_iter());
        assert_eq!((late.spurious, late.datagrams), (1, 0));
        packets.on_ack(PacketNumber(3), [pn((3, 3))].into_iter());
        assert_eq!(packets.detect_lost(now, 100 * MS, ALL).0.datagrams, 0);
        packets.on_ack(PacketNumber(4), [pn((3, 4))].into_iter());
        assert_eq!(packets.detect_lost(now, 100 * MS, ALL).0.datagrams, 1);
    }

    #[test]
    fn what_left_as_ect_before_a_test_says_nothing_of_it() {
        for (from, told) in [(0, 7), (3, 4), (9, 0)] {
            let mut packets = SentPackets::default();
            (0..8).for_each(|n| {
                packets.push(Sent {
                    ect: true,
                    ..sent(n)
                })
            });
            packets.on_ack(PacketNumber(7), [pn((7, 7))].into_iter());
            let now = Instant::from_micros(10);
            let (lost, _) = packets.detect_lost(now, 100 * MS, PacketNumber(from));
            assert_eq!((lost.datagrams, lost.ect), (7, told));
        }
    }

    #[test]
    fn every_packet_has_one_fate() {
        let mut packets = SentPackets::default();
        for n in 0..6 {
            packets.carry(KeptId(2 * n));
            packets.carry(KeptId(2 * n + 1));
            packets.push(sent(n));
        }
        packets.push(sent(6));
        assert_eq!(packets.tail(), Some((5, Instant::from_micros(5))));
        packets.on_ack(PacketNumber(2), [pn((1, 2))].into_iter());
        packets.detect_lost(Instant::from_micros(10), 100 * MS, ALL);
        let fates: Vec<_> = packets.fates().collect();
        let arrived = (2..6).map(|n| Fate::Arrived(KeptId(n)));
        assert_eq!(
            fates,
            arrived
                .chain([Fate::Lost(KeptId(0)), Fate::Lost(KeptId(1))])
                .collect::<Vec<_>>()
        );
        let flying: Vec<_> = packets.under_way(4).map(|kept| kept.0).collect();
        assert_eq!(flying, [8, 9, 10, 11]);
        packets.abandon();
        assert_eq!(packets.fates().count(), 6);
        assert_eq!(packets.tail(), None);
        assert_eq!(packets.under_way(0).count(), 0);
    }

    #[test]
    fn a_gap_of_three_is_a_loss() {
        let mut packets = SentPackets::default();
        (0..6).for_each(|n| packets.push(sent(n)));
        let acked = packets.on_ack(PacketNumber(3), [pn((1, 3))].into_iter());
        assert_eq!((acked.datagrams, acked.bytes), (3, 300));
        assert_eq!(
            acked.largest.map(|sent| sent.at),
            Some(Instant::from_micros(3))
        );
        let (lost, next) = packets.detect_lost(Instant::from_micros(10), 100 * MS, ALL);
        assert_eq!((lost.datagrams, lost.bytes, next), (1, 100, None));
        assert_eq!(packets.in_flight(), 200);
        assert_eq!(packets.oldest_sent(), Some(Instant::from_micros(4)));
    }

    #[test]
    fn a_smaller_gap_waits_for_its_time() {
        let mut packets = SentPackets::default();
        packets.reordering.condemn(0);
        packets.reordering.acquit(0, 0);
        (0..3).for_each(|n| packets.push(sent(n)));
        packets.on_ack(PacketNumber(1), [pn((1, 1))].into_iter());
        let (lost, next) = packets.detect_lost(Instant::from_micros(10), MS, ALL);
        assert_eq!(
            (lost.datagrams, next),
            (0, Some(Instant::from_micros(1000)))
        );
        let (lost, next) = packets.detect_lost(Instant::from_micros(1000), MS, ALL);
        assert_eq!((lost.datagrams, next), (1, None));
    }

    #[test]
    fn an_ack_of_what_was_never_sent_means_nothing() {
        let mut packets = SentPackets::default();
        (0..5).for_each(|n| packets.push(sent(n)));
        let lie = [pn((70_000, 70_000)), pn((0, 0))];
        let acked = packets.on_ack(PacketNumber(70_000), lie.into_iter());
        assert_eq!((acked.datagrams, acked.largest), (1, None));
        assert_eq!(
            packets
                .detect_lost(Instant::from_micros(10), 100 * MS, ALL)
                .0,
            Lost::default()
        );
        assert_eq!(packets.in_flight(), 400);
    }

    #[test]
    fn questions_without_answers_do_not_pile_up() {
        let mut packets = SentPackets::default();
        for n in 0..1000 {
            packets.keep_newest(31);
            packets.push(sent(n));
        }
        assert_eq!(packets.ring.capacity(), 32);
        assert_eq!(
            (packets.in_flight(), packets.next_number()),
            (3200, PacketNumber(1000))
        );
        packets.on_ack(PacketNumber(990), [pn((990, 990))].into_iter());
        assert_eq!(packets.in_flight(), 3100);
    }

    #[test]
    fn an_abandoned_window_keeps_its_numbers() {
        let mut packets = SentPackets::default();
        (0..3).for_each(|n| packets.push(sent(n)));
        packets.push(Sent {
            eliciting: false,
            ..sent(3)
        });
        let next = packets.next_number();
        assert_eq!(packets.abandon().datagrams, 3);
        assert_eq!(packets.next_number(), next);
        assert_eq!(packets.in_flight(), 0);
        // A late acknowledgement of them accounts for nothing.
        let acked = packets.on_ack(PacketNumber(3), [pn((0, 3))].into_iter());
        assert_eq!(acked, Acked::default());
    }
}
