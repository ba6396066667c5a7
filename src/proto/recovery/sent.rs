//! The datagrams of one path that are not yet accounted for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::Instant;
use crate::proto::wire::PacketNumber;

/// A datagram is lost when one sent this many after it has arrived (RFC 9002 section 6.1.1).
const PACKET_THRESHOLD: u64 = 3;

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
    /// When the newest of all newly acknowledged ones was sent.
    pub newest_sent: Option<Instant>,
    /// What the largest number of this very acknowledgement was, when that is new: only it gives a
    /// round trip.
    pub largest: Option<Sent>,
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
}

impl Lost {
    fn add(&mut self, sent: Sent) {
        self.datagrams += 1;
        self.bytes += u64::from(sent.bytes);
        self.newest_sent = self.newest_sent.max(Some(sent.at));
        self.status |= sent.status;
    }
}

/// The datagrams of one path, from the oldest one not accounted for to the newest sent. A ring:
/// nothing is allocated once it has grown to a window.
#[derive(Debug, Default)]
pub struct SentPackets {
    /// The number of `ring[0]`.
    first: PacketNumber,
    /// `None`: accounted for.
    ring: VecDeque<Option<Sent>>,
    largest_acked: Option<PacketNumber>,
    in_flight: u64,
}

impl SentPackets {
    /// The number the next datagram gets.
    pub fn next_number(&self) -> PacketNumber {
        PacketNumber(self.first.0 + self.ring.len() as u64)
    }

    /// Notes that the next datagram was sent.
    pub fn push(&mut self, sent: Sent) {
        if sent.eliciting {
            self.in_flight += u64::from(sent.bytes);
        }
        self.ring.push_back(Some(sent));
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
        self.ring
            .iter()
            .flatten()
            .find(|sent| sent.eliciting)
            .map(|sent| sent.at)
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
            if high < self.first {
                break;
            }
            if low.0 >= end {
                continue;
            }
            self.largest_acked = self.largest_acked.max(Some(PacketNumber(last)));
            for number in low.0.max(self.first.0)..=last {
                let Some(sent) = self.ring[(number - self.first.0) as usize].take() else {
                    continue;
                };
                if number == largest.0 && sent.eliciting {
                    acked.largest = Some(sent);
                }
                acked.newest_sent = acked.newest_sent.max(Some(sent.at));
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
    /// threshold`. Returns when the next one would be, if nothing comes.
    pub fn detect_lost(&mut self, now: Instant, threshold: Duration) -> (Lost, Option<Instant>) {
        let mut lost = Lost::default();
        let mut next = None;
        let Some(largest) = self.largest_acked else {
            return (lost, next);
        };
        let overtaken = largest.0.saturating_sub(self.first.0) as usize;
        for (offset, slot) in self.ring.iter_mut().take(overtaken).enumerate() {
            let Some(sent) = *slot else { continue };
            let number = self.first.0 + offset as u64;
            if number + PACKET_THRESHOLD <= largest.0 || sent.at + threshold <= now {
                *slot = None;
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

    /// Forgets the oldest datagrams, but for so many: on a path that does not answer the questions
    /// would pile up for ever.
    pub fn keep_newest(&mut self, most: usize) {
        while self.ring.len() > most {
            if let Some(Some(sent)) = self.ring.pop_front()
                && sent.eliciting
            {
                self.in_flight -= u64::from(sent.bytes);
            }
            self.first = self.first.next();
        }
    }

    /// Holds everything in flight for lost: the path is silent.
    pub fn abandon(&mut self) -> Lost {
        let mut lost = Lost::default();
        self.first = self.next_number();
        for sent in self.ring.drain(..).flatten().filter(|sent| sent.eliciting) {
            lost.add(sent);
        }
        self.in_flight = 0;
        lost
    }

    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first = self.first.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sent(at: u64) -> Sent {
        Sent {
            at: Instant::from_micros(at),
            bytes: 100,
            eliciting: true,
            status: false,
            total: 0,
            limited: 0,
        }
    }

    fn pn(range: (u64, u64)) -> (PacketNumber, PacketNumber) {
        (PacketNumber(range.0), PacketNumber(range.1))
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
        let (lost, next) = packets.detect_lost(Instant::from_micros(10), 100 * MS);
        assert_eq!((lost.datagrams, lost.bytes, next), (1, 100, None));
        assert_eq!(packets.in_flight(), 200);
        assert_eq!(packets.oldest_sent(), Some(Instant::from_micros(4)));
    }

    #[test]
    fn a_smaller_gap_waits_for_its_time() {
        let mut packets = SentPackets::default();
        (0..3).for_each(|n| packets.push(sent(n)));
        packets.on_ack(PacketNumber(1), [pn((1, 1))].into_iter());
        let (lost, next) = packets.detect_lost(Instant::from_micros(10), MS);
        assert_eq!(
            (lost.datagrams, next),
            (0, Some(Instant::from_micros(1000)))
        );
        let (lost, next) = packets.detect_lost(Instant::from_micros(1000), MS);
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
            packets.detect_lost(Instant::from_micros(10), 100 * MS).0,
            Lost::default()
        );
        assert_eq!(packets.in_flight(), 400);
    }

    #[test]
    fn questions_without_answers_do_not_pile_up() {
        let mut packets = SentPackets::default();
        for n in 0..1000 {
            packets.push(sent(n));
            packets.keep_newest(32);
        }
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
