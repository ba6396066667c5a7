//! The delivery rate as the kernel samples it (draft-cheng-iccrg-delivery-rate-estimation).

use std::time::Duration;

/// What a segment remembers of the moment it was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    /// Segments delivered by then.
    pub delivered: u64,
    /// When the last of them was.
    pub delivered_at: Duration,
    /// When the first segment of that flight was sent.
    pub first_sent: Duration,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSample {
    /// Segments delivered since the sampled segment was sent.
    pub delivered: u64,
    /// In which time: the longer one of sending and acknowledging.
    pub interval: Duration,
    /// Segments delivered when the sampled segment was sent.
    pub prior_delivered: u64,
}

/// The connection's side of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sampler {
    /// Segments delivered so far.
    pub delivered: u64,
    delivered_at: Duration,
    first_sent: Duration,
    newest: Option<(Duration, Snapshot, Duration)>,
}

impl Sampler {
    /// A segment is sent; `idle` when nothing is in flight.
    pub fn on_sent(&mut self, now: Duration, idle: bool) -> Snapshot {
        if idle {
            self.first_sent = now;
            self.delivered_at = now;
        }
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
        }
    }

    /// A segment sent at `sent` was delivered.
    pub fn on_delivered(&mut self, now: Duration, sent: Duration, snapshot: Snapshot) {
        self.delivered += 1;
        self.delivered_at = now;
        if self.newest.is_none_or(|(newest, ..)| sent >= newest) {
            let send_time = sent.saturating_sub(snapshot.first_sent);
            self.newest = Some((sent, snapshot, send_time));
            self.first_sent = sent;
        }
    }

    /// The sample of an acknowledgement; nothing when it delivered nothing, or came faster than the
    /// least round trip allows.
    pub fn take(&mut self, now: Duration, least_rtt: Duration) -> Option<RateSample> {
        let (_, snapshot, send_time) = self.newest.take()?;
        let interval = send_time.max(now.saturating_sub(snapshot.delivered_at));
        (interval >= least_rtt && !interval.is_zero()).then_some(RateSample {
            delivered: self.delivered - snapshot.delivered,
            interval,
            prior_delivered: snapshot.delivered,
        })
    }
}
