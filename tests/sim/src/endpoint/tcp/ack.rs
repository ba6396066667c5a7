//! What an acknowledgement does to the sender.

use std::time::Duration;

use super::control::{Ack, State};
use super::recovery::News;
use super::sender::Sender;

/// An acknowledgement in segments.
#[derive(Debug, Clone, Default)]
pub struct Acknowledgement {
    /// The next segment that the peer expects.
    pub next: u64,
    /// Ranges beyond.
    pub sacks: Vec<(u64, u64)>,
    /// A range that came twice.
    pub duplicate: Option<(u64, u64)>,
    /// When the segment that caused it was sent.
    pub echo: Duration,
    /// Segments below this the peer has room for.
    pub limit: u64,
}

impl Sender {
    /// An acknowledgement came. Returns the round trip it measured.
    pub fn on_ack(&mut self, now: Duration, ack: &Acknowledgement) -> Option<Duration> {
        let prior_una = self.board.una;
        if ack.next > self.board.next() {
            return None;
        }
        self.limit = self.limit.max(ack.limit);
        let prior_in_flight = self.board.in_flight();
        let prior_sacked = self.board.highest_sacked();
        let mut news = News {
            advanced: ack.next > prior_una,
            delayed: self.resend_stamp.is_some_and(|stamp| ack.echo < stamp),
            ..News::default()
        };
        if let Some((from, to)) = ack.duplicate {
            self.on_duplicate(prior_una, to, (to - from) as u32);
        }
        let (rtt, out_of_order) = self.deliver(now, ack, prior_sacked, &mut news);
        if let Some(number) = out_of_order
            && (self.state != State::Loss || self.undo.is_some())
        {
            self.note_reordering_below(number, prior_sacked);
        }
        if let Some(rtt) = rtt {
            self.rtt.on_sample(rtt);
        }
        let rate = self.sampler.take(now, self.rtt.least());
        self.rack.adapt(
            rate.map(|rate| rate.prior_delivered),
            self.sampler.delivered,
        );
        if self.probe_high.is_some_and(|high| ack.next >= high) {
            self.probe_high = None;
        }
        let summary = Ack {
            now,
            delivered: news.delivered,
            lost: 0,
            una: self.board.una,
            next: self.board.next(),
            in_flight: self.board.in_flight(),
            prior_in_flight,
            rtt,
            srtt: self.rtt.smoothed(),
            window_limited: self.window_limited,
            state: self.state,
            rate,
            total_delivered: self.sampler.delivered,
            size: self.size,
        };
        self.controller.on_rtt(&summary, &mut self.window);
        if news.advanced || rtt.is_some() {
            let recent = !news.advanced;
            self.arm(now, recent);
        }
        let dubious = self.state != State::Open
            || self.board.sacked_out > 0
            || !news.advanced
            || ack.duplicate.is_some();
        if dubious {
            self.alert(now, prior_una, &mut news);
        }
        let summary = Ack {
            lost: news.lost,
            in_flight: self.board.in_flight(),
            state: self.state,
            ..summary
        };
        if self.controller.owns_window() {
            self.controller.on_ack(&summary, &mut self.window);
        } else if self.reduction.is_some() {
            self.reduce(&news);
        } else if (self.reordering > 3 && news.delivered > 0) || news.advanced {
            self.controller.on_ack(&summary, &mut self.window);
        }
        self.window_limited = false;
        if self.board.out() == 0 {
            self.timer = None;
        }
        rtt
    }

    /// Works the numbers in. Returns the round trip, and the first segment that came out of order.
    fn deliver(
        &mut self,
        now: Duration,
        ack: &Acknowledgement,
        prior_sacked: Option<u64>,
        news: &mut News,
    ) -> (Option<Duration>, Option<u64>) {
        let least = self.rtt.least();
        let (rack, sampler, high) = (&mut self.rack, &mut self.sampler, self.high);
        let mut newest: Option<Duration> = None;
        let mut out_of_order: Option<u64> = None;
        let mut each = |number: u64, flying: &super::board::Flying| {
            if flying.sacked {
                return;
            }
            news.delivered += 1;
            let ambiguous = flying.ever_resent && now.saturating_sub(flying.sent) < least;
            rack.on_delivered(now, flying.sent, number, ambiguous);
            sampler.on_delivered(now, flying.sent, flying.snapshot);
            if flying.ever_resent {
                return;
            }
            newest = newest.max(Some(flying.sent));
            news.original |= number < high && flying.lost;
            if prior_sacked.is_some_and(|highest| number < highest) {
                out_of_order = Some(out_of_order.map_or(number, |known| known.min(number)));
            }
        };
        for (from, to) in &ack.sacks {
            self.board.sack(*from, *to, &mut each);
        }
        self.board.acknowledge(ack.next, &mut each);
        (newest.map(|sent| now.saturating_sub(sent)), out_of_order)
    }

    fn note_reordering_below(&mut self, number: u64, highest: Option<u64>) {
        let Some(distance) = highest.and_then(|highest| highest.checked_sub(number)) else {
            return;
        };
        self.rack.reordering_seen = true;
        // The kernel's limit (tcp_max_reordering).
        self.reordering = self.reordering.max(distance.min(300) as u32);
    }
}
