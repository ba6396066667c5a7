//! The controller over one link, in virtual time: a greedy source, a FIFO queue, acknowledgements
//! each 5 ms.

use std::collections::VecDeque;

use super::*;
use crate::proto::congestion::{Arrival, Pacer};
use crate::proto::wire::Stamp;

const MS: Duration = Duration::from_millis(1);

struct Link {
    /// Bytes per second.
    rate: u64,
    delay: Duration,
    /// Each datagram takes up to so much longer; none overtakes another.
    jitter: Duration,
    /// Bytes that may wait.
    buffer: u64,
    /// One in so many is lost; zero: none.
    loss: u64,
    /// Tokens of a policer: bytes per second, or none.
    policed: Option<u64>,
    /// What waits longer is marked.
    step: Option<Duration>,
    /// Everything is.
    marks_all: bool,
}

struct Run {
    now: Instant,
    link: Link,
    controller: Dtrc,
    pacer: Pacer,
    free: Instant,
    tokens: f64,
    sent: u64,
    in_flight: u64,
    received: u64,
    count: u64,
    /// When the last one arrives.
    last: Instant,
    /// The source has no more than this, bytes; none: no end.
    offered: Option<u64>,
    /// How often it had no more.
    limited: u64,
    /// Arrival time, datagram's sending time, sum sent; none: lost.
    flying: VecDeque<(Instant, Instant, u64, bool, bool)>,
    acks: VecDeque<(Instant, Arrival)>,
    next_ack: Instant,
    newest: Option<Arrival>,
    /// The longest queue, of each step.
    queue: Duration,
    /// Marks reach the controller.
    hears: bool,
    marked: u64,
    /// Marked, of all that came since the last acknowledgement.
    news: (u64, u64),
    told: VecDeque<(u64, u64)>,
}

const BYTES: u64 = 1433;

impl Run {
    fn new(link: Link) -> Self {
        Self {
            now: Instant::from_micros(5_000_000),
            link,
            controller: Dtrc::default(),
            pacer: Pacer::default(),
            free: Instant::default(),
            tokens: 30_000.0,
            sent: 0,
            in_flight: 0,
            received: 0,
            count: 0,
            last: Instant::default(),
            offered: None,
            limited: 0,
            flying: VecDeque::new(),
            acks: VecDeque::new(),
            next_ack: Instant::default(),
            newest: None,
            queue: Duration::ZERO,
            hears: true,
            marked: 0,
            news: (0, 0),
            told: VecDeque::new(),
        }
    }

    fn send(&mut self) {
        let rtt = 2 * self.link.delay;
        let rate = self.controller.pacing_rate(Some(rtt)).unwrap();
        while self.in_flight + BYTES <= self.controller.window()
            && self.offered.is_none_or(|offered| self.sent < offered)
            && self.pacer.ready(self.now, rate)
        {
            self.pacer.on_sent(BYTES);
            self.sent += BYTES;
            self.in_flight += BYTES;
            self.count += 1;
            self.limited += u64::from(self.offered == Some(self.sent));
            let start = self.free.max(self.now);
            let waiting = start.since(self.now);
            let full = waiting.as_micros() as u64 * self.link.rate / 1_000_000 > self.link.buffer;
            let policed = self.link.policed.is_some() && {
                let pass = self.tokens >= BYTES as f64;
                self.tokens -= if pass { BYTES as f64 } else { 0.0 };
                !pass
            };
            let unlucky = self.link.loss > 0 && self.count.is_multiple_of(self.link.loss);
            let lost = full || policed || unlucky;
            if !full && !policed {
                self.free = start + Duration::from_micros(BYTES * 1_000_000 / self.link.rate);
                self.queue = self.queue.max(waiting);
            }
            let late = self.link.jitter * (self.count * 37 % 101) as u32 / 100;
            let arrival = (self.free.max(self.now) + self.link.delay + late).max(self.last);
            self.last = arrival;
            let marked = self.link.marks_all || self.link.step.is_some_and(|step| waiting > step);
            self.marked += u64::from(marked && !lost);
            self.flying
                .push_back((arrival, self.now, self.sent, lost, marked));
        }
    }

    /// Runs for a while; megabits per second that arrived, and the longest queue.
    fn run(&mut self, time: Duration) -> (f64, Duration) {
        let (begin, received) = (self.now, self.received);
        self.queue = Duration::ZERO;
        while self.now.since(begin) < time {
            self.now += Duration::from_micros(200);
            if let Some(rate) = self.link.policed {
                self.tokens = (self.tokens + rate as f64 * 0.0002).min(30_000.0);
            }
            while let Some((at, sent_at, sent, lost, marked)) = self.flying.front().copied()
                && at <= self.now
            {
                self.flying.pop_front();
                self.in_flight -= BYTES;
                if lost {
                    continue;
                }
                self.received += BYTES;
                self.news.0 += u64::from(marked);
                self.news.1 += 1;
                self.newest = Some(Arrival {
                    sent_at,
                    sent,
                    received_at: Stamp::of(at),
                    received: self.received,
                    limited: self.limited,
                });
            }
            if self.now >= self.next_ack
                && let Some(arrival) = self.newest.take()
            {
                self.next_ack = self.now + 5 * MS;
                self.acks.push_back((self.now + self.link.delay, arrival));
                self.told.push_back(std::mem::take(&mut self.news));
            }
            while let Some((at, arrival)) = self.acks.front().copied()
                && at <= self.now
            {
                self.acks.pop_front();
                let rtt = self.now.since(arrival.sent_at);
                self.controller.on_ack(&AckEvent {
                    now: self.now,
                    bytes: BYTES,
                    newest_sent: arrival.sent_at,
                    in_flight_before: self.in_flight,
                    srtt: rtt,
                    min_rtt: 2 * self.link.delay,
                    arrival: Some(arrival),
                });
                let (marked, of) = self.told.pop_front().unwrap_or_default();
                if marked > 0 && self.hears {
                    self.controller.on_ce(&CeEvent {
                        now: self.now,
                        marked,
                        of,
                        newest_sent: arrival.sent_at,
                    });
                }
            }
            self.send();
        }
        let bytes = self.received - received;
        (bytes as f64 * 8.0 / 1e6 / time.as_secs_f64(), self.queue)
    }
}

fn link(mbit: u64, rtt: u64) -> Link {
    let rate = mbit * 125_000;
    Link {
        rate,
        delay: Duration::from_millis(rtt) / 2,
        jitter: Duration::ZERO,
        buffer: (rate / 10).max(64 << 10),
        loss: 0,
        policed: None,
        step: None,
        marks_all: false,
    }
}

#[test]
fn fills_a_link_and_keeps_its_queue_short() {
    for (mbit, rtt) in [(50, 20), (12, 20), (300, 10), (100, 40), (3, 60), (30, 600)] {
        let mut run = Run::new(link(mbit, rtt));
        run.run(Duration::from_secs(if rtt > 100 { 8 } else { 3 }));
        let (rate, queue) = run.run(Duration::from_secs(10));
        let share = rate / mbit as f64;
        let least = if rtt > 100 { 0.96 } else { 0.975 };
        assert!(share > least, "{mbit} Mbit/s, {rtt} ms: {share:.3}");
        let most = Duration::from_millis(if mbit < 10 || rtt > 100 { 30 } else { 16 });
        assert!(queue < most, "{mbit} Mbit/s, {rtt} ms: {queue:?}");
    }
}

#[test]
fn is_quick_to_begin() {
    let mut run = Run::new(link(50, 20));
    run.run(300 * MS);
    let (rate, _) = run.run(200 * MS);
    assert!(rate > 45.0, "{rate}");
}

#[test]
fn random_loss_is_no_congestion() {
    for one_in in [200, 50, 10, 5] {
        let mut run = Run::new(link(50, 20));
        run.link.loss = one_in;
        run.run(Duration::from_secs(10));
        let (rate, _) = run.run(Duration::from_secs(10));
        let passes = 50.0 * (1.0 - 1.0 / one_in as f64);
        assert!(
            rate > 0.93 * passes,
            "1 in {one_in}: {rate:.1} of {passes:.1}"
        );
    }
}

#[test]
fn follows_the_rate_of_the_link() {
    let mut run = Run::new(link(50, 20));
    run.run(Duration::from_secs(5));
    run.link.rate /= 2;
    run.run(Duration::from_secs(1));
    let (rate, queue) = run.run(Duration::from_secs(2));
    assert!(rate > 24.2, "{rate}");
    assert!(queue < 25 * MS, "{queue:?}");
    run.link.rate *= 4;
    run.run(Duration::from_secs(1));
    let (rate, queue) = run.run(Duration::from_secs(2));
    assert!(rate > 96.0, "{rate}");
    assert!(queue < 20 * MS, "{queue:?}");
}

#[test]
fn a_longer_way_is_no_queue() {
    let mut run = Run::new(link(50, 20));
    run.run(Duration::from_secs(5));
    run.link.delay += 12 * MS;
    run.run(Duration::from_secs(2));
    let (rate, queue) = run.run(Duration::from_secs(5));
    assert!(rate > 48.0, "{rate}");
    assert!(queue < 20 * MS, "{queue:?}");
}

/// Field row E: the jitter of a link, which an idle path's probes and then a full one meet, is no queue.
#[test]
fn jitter_is_no_queue() {
    for (mbit, rtt, jitter) in [(80, 60, 80), (40, 300, 30)] {
        let mut run = Run::new(link(mbit, rtt));
        run.link.jitter = jitter * MS;
        for _ in 0..30 {
            run.offered = Some(run.sent + BYTES);
            run.run(200 * MS);
        }
        run.offered = None;
        run.run(Duration::from_secs(5));
        let (rate, _) = run.run(Duration::from_secs(10));
        assert!(rate > 0.9 * mbit as f64, "{rate} of {mbit} Mbit/s");
    }
}

/// Field row E: while a path is idle, its search does not end because others fill the link for a while.
#[test]
fn probes_end_no_search() {
    let mut run = Run::new(link(80, 60));
    for n in 0..50 {
        if n == 25 {
            run.link.delay += 240 * MS;
        }
        run.offered = Some(run.sent + BYTES);
        run.run(200 * MS);
    }
    assert!(run.controller.is_searching());
}

#[test]
fn a_policer_is_respected() {
    let mut run = Run::new(link(100, 20));
    run.link.policed = Some(40 * 125_000);
    run.run(Duration::from_secs(10));
    let before = (run.sent, run.received);
    let (rate, _) = run.run(Duration::from_secs(20));
    let lost = 1.0 - (run.received - before.1) as f64 / (run.sent - before.0) as f64;
    assert!(rate > 37.0, "{rate}");
    assert!(lost < 0.05, "{lost}");
}

#[test]
fn a_shallow_buffer_is_enough() {
    let mut run = Run::new(link(50, 20));
    run.link.buffer = 50 * 125_000 / 100; // 10 ms
    run.run(Duration::from_secs(3));
    let (rate, _) = run.run(Duration::from_secs(10));
    assert!(rate > 48.5, "{rate}");
}

/// A queue that marks what waits longer than 5 ms, or 1 ms. Marks become fewer, and the link stays full.
#[test]
fn marks_shorten_the_queue_and_leave_the_link_full() {
    for (mbit, rtt, step) in [
        (50, 20, 1),
        (50, 20, 5),
        (12, 20, 5),
        (100, 40, 1),
        (30, 60, 1),
    ] {
        let run = |hears| {
            let mut run = Run::new(link(mbit, rtt));
            run.link.step = Some(step * MS);
            run.hears = hears;
            run.run(Duration::from_secs(3));
            let (before, sent) = (run.marked, run.sent);
            let (rate, _) = run.run(Duration::from_secs(10));
            let share = (run.marked - before) as f64 * BYTES as f64 / (run.sent - sent) as f64;
            (rate / mbit as f64, share)
        };
        let ((deaf, deaf_marked), (rate, marked)) = (run(false), run(true));
        let said = format!(
            "{mbit} Mbit/s, {rtt} ms: {rate:.3} of {deaf:.3}, {marked:.3} of {deaf_marked:.3}"
        );
        // Measured: 0.987 at least, and 0.50 of the marks at most.
        assert!(rate > 0.97, "{said}");
        assert!(marked < 0.55 * deaf_marked, "{said}");
    }
}

/// Until a network that marks everything is found out, it costs a part of the rate.
#[test]
fn a_network_that_marks_everything_costs_little_for_a_while() {
    let mut run = Run::new(link(50, 20));
    run.run(Duration::from_secs(5));
    run.link.marks_all = true;
    let (rate, _) = run.run(350 * MS);
    assert!(rate > 40.0, "{rate}");
    run.link.marks_all = false;
    run.run(500 * MS);
    let (rate, _) = run.run(Duration::from_secs(1));
    assert!(rate > 48.0, "{rate}");
}
