//! The rates at which a path took and gave: both ends of a train of datagrams, each by the clock of
//! the portal that saw it. Acknowledgements that come late or in clumps change nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::congestion::Arrival;

/// Points kept: a train in eighths, and as many more while it is measured.
const MOST_POINTS: usize = 16;
/// Between two acknowledged arrivals: 5 ms and what the link's rate makes of it. After so much more
/// than between their sending, the link stood still: what came of it is no rate.
const STALL: Duration = Duration::from_millis(40);

/// What a train of datagrams showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Bytes per second that arrived.
    pub(super) received: f64,
    /// Bytes per second that were sent.
    pub(super) sent: f64,
    /// How much longer it took to arrive than to be sent: above 1 a queue grew.
    pub(super) dispersion: f64,
    /// The share that was lost.
    pub(super) lost: f64,
    /// Bytes sent in all.
    pub(super) bytes: u64,
    /// How long it took to arrive, seconds.
    pub(super) length: f64,
    /// Some of it left an empty queue: the source could not give more.
    pub(super) limited: bool,
}

/// The last points of a path.
#[derive(Debug, Default)]
pub(super) struct Train {
    points: VecDeque<Arrival>,
    last: Option<Arrival>,
}

impl Train {
    /// Takes a point, and measures over the last `length` of the receiver's time if there is so much.
    pub(super) fn on_arrival(&mut self, point: Arrival, length: Duration) -> Option<Rates> {
        let length = length.max(Duration::from_millis(1));
        if let Some(last) = self.last {
            if point.received_at <= last.received_at || point.sent <= last.sent {
                return None;
            }
            let received = point.received_at.since(last.received_at);
            if received > point.sent_at.since(last.sent_at) + STALL {
                self.points.clear();
            }
        }
        self.last = Some(point);
        // The newest of those that are old enough begins the train.
        let old = |p: &Arrival| point.received_at.since(p.received_at) >= length;
        while self.points.get(1).is_some_and(old) {
            self.points.pop_front();
        }
        let rates = self
            .points
            .front()
            .filter(|p| old(p))
            .and_then(|first| rates(first, &point));
        let spacing = self
            .points
            .back()
            .is_none_or(|last| point.received_at.since(last.received_at) >= length / 8);
        if spacing {
            if self.points.len() == MOST_POINTS {
                self.points.pop_front();
            }
            self.points.push_back(point);
        }
        rates
    }
}

fn rates(first: &Arrival, last: &Arrival) -> Option<Rates> {
    let received_in = last.received_at.since(first.received_at).as_secs_f64();
    let sent_in = last.sent_at.since(first.sent_at).as_secs_f64();
    if received_in <= 0.0 || sent_in <= 0.0 {
        return None;
    }
    let bytes = last.sent.saturating_sub(first.sent);
    // No more arrives than was sent, whatever a peer says.
    let received = last.received.saturating_sub(first.received).min(bytes);
    Some(Rates {
        received: received as f64 / received_in,
        sent: bytes as f64 / sent_in,
        lost: 1.0 - received as f64 / bytes.max(1) as f64,
        dispersion: received_in / sent_in,
        bytes,
        length: received_in,
        limited: last.limited != first.limited,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Instant;
    use crate::proto::wire::Stamp;

    const TRAIN: Duration = Duration::from_millis(40);

    fn arrival(sent_ms: u64, received_ms: u64, bytes: u64) -> Arrival {
        Arrival {
            sent_at: Instant::from_micros(sent_ms * 1000),
            sent: bytes,
            received_at: Stamp::of(Instant::from_micros(received_ms * 1000)),
            received: bytes,
            limited: 0,
        }
    }

    #[test]
    fn measures_by_both_clocks() {
        let mut train = Train::default();
        let mut last = None;
        // Sent at 1 MB/s, received at half of it.
        for n in 1..=40 {
            last = train.on_arrival(arrival(5 * n, 1000 + 10 * n, 5_000 * n), TRAIN);
        }
        let rates = last.unwrap();
        assert!((rates.received - 500_000.0).abs() < 1.0, "{rates:?}");
        assert!((rates.sent - 1_000_000.0).abs() < 1.0, "{rates:?}");
        assert!((rates.dispersion - 2.0).abs() < 0.001, "{rates:?}");
        assert!(train.points.len() <= MOST_POINTS);
    }

    #[test]
    fn a_link_that_stood_still_starts_again() {
        let mut train = Train::default();
        for n in 1..=20 {
            train.on_arrival(arrival(5 * n, 5 * n, 5_000 * n), TRAIN);
        }
        assert_eq!(
            train.on_arrival(arrival(105, 250, 105_000), TRAIN),
            None,
            "140 ms nothing"
        );
        assert_eq!(train.on_arrival(arrival(110, 255, 110_000), TRAIN), None);
    }

    #[test]
    fn an_older_acknowledgement_is_passed_over() {
        let mut train = Train::default();
        train.on_arrival(arrival(100, 100, 100_000), TRAIN);
        assert_eq!(train.on_arrival(arrival(50, 50, 50_000), TRAIN), None);
        assert_eq!(train.points.len(), 1);
    }
}
