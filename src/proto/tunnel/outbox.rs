//! Datagrams of handshakes on their way out. Whatever answers a sender that has not proven itself passes
//! here: few at a time, and few in a second.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::crypto::{Bucket, Rate, SourceTable};
use crate::proto::event::SocketId;
use crate::proto::path::Place;
use crate::proto::wire::MAX_PATHS;
use crate::proto::{Entropy, Instant};

/// Datagrams that wait at most: what is asked on all paths, and the burst of [`ALL`].
const MOST: usize = 2 * MAX_PATHS + ALL.burst as usize;
/// Answers to all sources together: 256 a second of at most 100 bytes are 200 kbit/s.
const ALL: Rate = Rate {
    interval: Duration::from_micros(3_906),
    burst: 128,
};
/// Answers to one source. Eight links behind one NAT ask together, again after 0.25 s, and then once a
/// second.
const PER_SOURCE: Rate = Rate {
    interval: Duration::from_micros(62_500),
    burst: 32,
};

/// What waits, and how much more may be answered.
pub(super) struct Outbox {
    waiting: VecDeque<(Place, Vec<u8>)>,
    all: Bucket,
    sources: SourceTable,
    /// Of the sources that the peer's own datagrams came from lately: a flood leaves these tokens alone
    /// unless it comes from, or pretends to come from, the peer's network.
    known: SourceTable,
}

impl Outbox {
    pub(super) fn new(entropy: &mut dyn Entropy) -> Self {
        Self {
            waiting: VecDeque::new(),
            all: Bucket::default(),
            sources: SourceTable::new(PER_SOURCE, entropy),
            known: SourceTable::new(PER_SOURCE, entropy),
        }
    }

    /// Queues what we begin ourselves, or answer to a peer that paid for it with a handshake.
    pub(super) fn push(&mut self, place: Place, datagram: Vec<u8>) -> bool {
        let room = self.waiting.len() < MOST;
        if room {
            self.waiting.push_back((place, datagram));
        }
        room
    }

    /// True when one more answer may go to this source. A `known` one has tokens of its own.
    pub(super) fn may_answer(&mut self, now: Instant, source: SocketAddr, known: bool) -> bool {
        self.waiting.len() < MOST
            && (known && self.known.take(source, now)
                || self.sources.take(source, now) && self.all.take(ALL, now))
    }

    pub(super) fn pop(&mut self) -> Option<(Place, Vec<u8>)> {
        self.waiting.pop_front()
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Forgets what waits for a socket that is gone.
    pub(super) fn forget(&mut self, socket: SocketId) {
        self.waiting.retain(|(place, _)| place.socket != socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Entropy for Zeros {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    fn source(a: u8, b: u8) -> SocketAddr {
        ([192, a, b, 1], 1000).into()
    }

    /// Field row A4: answers are few for one source, few for all, and the peer still gets its own.
    #[test]
    fn answers_are_limited_for_one_source_and_for_all() {
        let mut outbox = Outbox::new(&mut Zeros);
        let now = Instant::from_micros(7);
        let one = (0..1000).filter(|_| outbox.may_answer(now, source(0, 2), false));
        assert_eq!(one.count(), 32);
        let all = (0..=255).flat_map(|a| (0..40).map(move |b| source(a, b)));
        let all = all.filter(|source| outbox.may_answer(now, *source, false));
        assert_eq!(all.count(), 128 - 32);
        let known = (0..1000).filter(|_| outbox.may_answer(now, source(0, 2), true));
        assert_eq!(known.count(), 32);
        let later = now + Duration::from_secs(1);
        let all = (0..=255).flat_map(|a| (0..40).map(move |b| source(a, b)));
        let all = all.filter(|source| outbox.may_answer(later, *source, false));
        assert_eq!(all.count(), 128);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::new(&mut Zeros);
        let place = Place {
            socket: SocketId(1),
            remote: source(0, 2),
        };
        let queued = (0..10_000).filter(|_| outbox.push(place, vec![0; 92]));
        assert_eq!(queued.count(), MOST);
        assert!(!outbox.may_answer(Instant::from_micros(9), source(1, 1), true));
        outbox.forget(SocketId(1));
        assert!(outbox.pop().is_none());
    }
}
