//! What the receiving end of a flow saw.

use std::time::Duration;

use super::samples::Samples;
use super::series::Series;

/// A time without a byte: when it began, and how long it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// From the start of the run.
    pub began: Duration,
    /// Its length.
    pub lasted: Duration,
}

/// Gaps shorter than this are not worth a name.
const SHORTEST_GAP: Duration = Duration::from_millis(20);

/// What a connection's ends saw.
#[derive(Debug, Clone, Default)]
pub struct FlowRecord {
    /// Payload handed to the application.
    pub delivered: Series,
    gaps: Vec<Gap>,
    last: Duration,
    /// Round trips: when, and how long.
    pub rtt: Vec<(Duration, Duration)>,
    segments: u64,
    out_of_order: u64,
    newest: Option<u16>,
    size: u32,
}

impl FlowRecord {
    /// Of a connection that begins at `start`.
    pub fn new(start: Duration) -> Self {
        Self {
            last: start,
            ..Self::default()
        }
    }

    /// The handshake is done; segments carry `size` bytes.
    pub fn on_open(&mut self, now: Duration, size: u32) {
        self.last = now;
        self.size = size;
    }

    /// A segment came whose place in the order of sending is `number`.
    pub fn on_segment(&mut self, number: u16) {
        self.segments += 1;
        let newer = self
            .newest
            .is_none_or(|newest| (number.wrapping_sub(newest) as i16) > 0);
        if newer {
            self.newest = Some(number);
        } else {
            self.out_of_order += 1;
        }
    }

    /// Bytes went to the application, in order.
    pub fn on_delivered(&mut self, now: Duration, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.delivered.add(now, bytes);
        self.close_gap(now);
        self.last = now;
    }

    fn close_gap(&mut self, now: Duration) {
        let gap = Gap {
            began: self.last,
            lasted: now.saturating_sub(self.last),
        };
        if gap.lasted >= SHORTEST_GAP {
            self.gaps.push(gap);
        }
    }

    /// The sender measured a round trip.
    pub fn on_rtt(&mut self, now: Duration, rtt: Duration) {
        self.rtt.push((now, rtt));
    }

    /// Payload bytes of a full segment; zero before the handshake is done.
    pub const fn segment_size(&self) -> u32 {
        self.size
    }

    /// The longest time without a byte that overlaps this time.
    pub fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        let open = Gap {
            began: self.last,
            lasted: to.saturating_sub(self.last),
        };
        self.gaps
            .iter()
            .chain([&open])
            .filter(|gap| gap.began < to && gap.began + gap.lasted > from)
            .map(|gap| gap.lasted)
            .max()
            .unwrap_or_default()
    }

    /// The share of segments that came behind one sent later.
    pub fn out_of_order(&self) -> f64 {
        self.out_of_order as f64 / self.segments.max(1) as f64
    }

    /// Round trips measured between two times.
    pub fn round_trips(&self, from: Duration, to: Duration) -> Samples {
        let mut samples = Samples::default();
        for (at, rtt) in &self.rtt {
            if *at >= from && *at < to {
                samples.add(*rtt);
            }
        }
        samples
    }
}

/// What a stream's receiver saw.
#[derive(Debug, Clone, Default)]
pub struct StreamRecord {
    /// When each datagram was sent, by its place.
    sent: Vec<Duration>,
    /// How long it took, by its place.
    took: Vec<Option<Duration>>,
    newest: Option<u32>,
    received: u64,
    out_of_order: u64,
    /// Payload received.
    pub delivered: Series,
}

impl StreamRecord {
    /// The next datagram was sent.
    pub fn on_sent(&mut self, now: Duration) {
        self.sent.push(now);
        self.took.push(None);
    }

    /// A datagram came; copies count once.
    pub fn on_arrival(&mut self, now: Duration, sent: Duration, seq: u32, bytes: u64) {
        if let Some(took @ None) = self.took.get_mut(seq as usize) {
            *took = Some(now.saturating_sub(sent));
            self.delivered.add(now, bytes);
            self.received += 1;
            self.out_of_order += u64::from(self.newest.is_some_and(|newest| seq < newest));
            self.newest = self.newest.max(Some(seq));
        }
    }

    /// The share of datagrams that came behind one sent later.
    pub fn out_of_order(&self) -> f64 {
        self.out_of_order as f64 / self.received.max(1) as f64
    }

    /// How long the datagrams took that were sent between two times, and the share of them that
    /// never came.
    pub fn between(&self, from: Duration, to: Duration) -> (Samples, f64) {
        let mut samples = Samples::default();
        let mut sent = 0_u32;
        let mut lost = 0_u32;
        for (at, took) in self.sent.iter().zip(&self.took) {
            if *at < from || *at >= to {
                continue;
            }
            sent += 1;
            match took {
                Some(took) => samples.add(*took),
                None => lost += 1,
            }
        }
        (samples, f64::from(lost) / f64::from(sent.max(1)))
    }
}
