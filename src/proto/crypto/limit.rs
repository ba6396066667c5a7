//! How many handshakes are let through: token buckets of fixed memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;
use zeroize::Zeroizing;

use super::blake::keyed32;
use crate::proto::wire::MAX_PATHS;
use crate::proto::{Entropy, Instant};

/// A rate with a burst, as the generic cell rate algorithm counts it: one reading of the clock.
#[derive(Debug, Clone, Copy)]
pub(in crate::proto) struct Rate {
    /// The time between two, once the burst is used up.
    pub(in crate::proto) interval: Duration,
    /// How many may come at once.
    pub(in crate::proto) burst: u32,
}

/// The time at which a bucket is full again.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::proto) struct Bucket(Instant);

impl Bucket {
    /// Takes one token, if one is there.
    pub(in crate::proto) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.0.max(now);
        if full_at.since(now) > rate.interval * rate.burst.saturating_sub(1) {
            return false;
        }
        self.0 = full_at + rate.interval;
        true
    }
}

/// The buckets of a [`SourceTable`]. A sender that owns more prefixes than this is held by the bucket of
/// all sources that stands behind the table.
const SOURCES: usize = 128;

/// One bucket per source prefix: /24 of IPv4, /64 of IPv6, as nobody commands fewer addresses.
/// Prefixes that fall into the same bucket share it; a secret key decides, so nobody can choose
/// whom to collide with, and nothing is ever evicted.
pub(in crate::proto) struct SourceTable {
    key: Zeroizing<[u8; 32]>,
    rate: Rate,
    buckets: [Bucket; SOURCES],
}

impl SourceTable {
    pub(in crate::proto) fn new(rate: Rate, entropy: &mut dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut *key);
        Self {
            key,
            rate,
            buckets: [Bucket::default(); SOURCES],
        }
    }

    /// Takes one token of the source's prefix, if one is there.
    pub(in crate::proto) fn take(&mut self, source: SocketAddr, now: Instant) -> bool {
        let place = self.place(source);
        self.buckets[place].take(self.rate, now)
    }

    fn place(&self, source: SocketAddr) -> usize {
        let hash = match prefix(source) {
            IpAddr::V4(v4) => keyed32(&self.key, &[b"4", &v4.octets()[..3]]),
            IpAddr::V6(v6) => keyed32(&self.key, &[b"6", &v6.octets()[..8]]),
        };
        usize::from(hash[0]) % SOURCES
    }
}

/// Sources that are remembered: those of all paths.
const KNOWN: usize = MAX_PATHS;

/// The source prefixes that the peer's own datagrams came from lately, the newest of them.
#[derive(Debug, Default)]
pub(in crate::proto) struct KnownSources(ArrayVec<IpAddr, KNOWN>);

impl KnownSources {
    /// Remembers a source.
    pub(in crate::proto) fn add(&mut self, source: SocketAddr) {
        let prefix = prefix(source);
        self.0.retain(|known| *known != prefix);
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(prefix);
    }

    /// True when the peer was seen in this source's prefix.
    pub(in crate::proto) fn contains(&self, source: SocketAddr) -> bool {
        self.0.contains(&prefix(source))
    }
}

/// What counts as one source.
fn prefix(source: SocketAddr) -> IpAddr {
    match source.ip().to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::crypto::tests::TestEntropy;

    const RATE: Rate = Rate {
        interval: Duration::from_millis(50),
        burst: 20,
    };

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..100).filter(|_| bucket.take(RATE, now)).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let mut now = Instant::from_micros(0);
        assert_eq!(taken(&mut bucket, now), 20);
        now += Duration::from_millis(49);
        assert_eq!(taken(&mut bucket, now), 0);
        now += Duration::from_millis(1);
        assert_eq!(taken(&mut bucket, now), 1);
        now += Duration::from_secs(1);
        assert_eq!(taken(&mut bucket, now), 20);
        now += Duration::from_secs(1000);
        assert_eq!(taken(&mut bucket, now), 20);
    }

    #[test]
    fn a_prefix_shares_its_bucket_and_others_do_not() {
        let table = SourceTable::new(RATE, &mut TestEntropy::new(3));
        let place = |text: &str| table.place(text.parse().unwrap());
        assert_eq!(place("192.0.2.1:1"), place("192.0.2.254:9"));
        assert_eq!(place("192.0.2.1:1"), place("[::ffff:192.0.2.7]:1"));
        assert_eq!(place("[2001:db8:1:2::1]:1"), place("[2001:db8:1:2:ff::]:2"));
        let places: std::collections::BTreeSet<_> = (0..64)
            .map(|i| place(&format!("[2001:db8:0:{i}::1]:1")))
            .collect();
        assert!(places.len() > 40, "{}", places.len());
    }

    #[test]
    fn the_newest_sources_are_known_by_their_prefix() {
        let mut known = KnownSources::default();
        let source = |number: u8| SocketAddr::from(([192, 0, number, 7], 99));
        (0..40).for_each(|number| known.add(source(number)));
        (0..40).for_each(|_| known.add(source(39)));
        assert!(known.contains(([192, 0, 39, 200], 1).into()));
        assert!(known.contains(source(40 - MAX_PATHS as u8)));
        assert!(!known.contains(source(39 - MAX_PATHS as u8)));
    }

    #[test]
    fn a_source_that_floods_leaves_the_others_their_tokens() {
        let mut table = SourceTable::new(RATE, &mut TestEntropy::new(4));
        let now = Instant::from_micros(5);
        let (bad, good) = (
            "192.0.2.1:1".parse().unwrap(),
            "198.51.100.1:1".parse().unwrap(),
        );
        assert_ne!(table.place(bad), table.place(good));
        assert_eq!((0..1000).filter(|_| table.take(bad, now)).count(), 20);
        assert!(table.take(good, now));
    }
}
