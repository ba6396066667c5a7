//! One connection: a handshake, a sender that never runs dry, a receiver that reads at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::ack::Acknowledgement;
use super::bbr::Bbr;
use super::control::{Controller, State, Window};
use super::cubic::Cubic;
use super::receiver::{Answer, Receiver};
use super::reno::Reno;
use super::rtt::RTO_INITIAL;
use super::sender::{Sender, SenderCount};
use crate::measure::record::FlowRecord;
use crate::packet::{Body, Host, Inner, Segment};

/// The sequence number of the first byte, behind the SYN.
const FIRST: u32 = 1;
/// The window of a SYN, bytes (Linux: tcp_rmem's default, without what the buffers take).
const SYN_WINDOW: u32 = 64_240;
/// Bytes of the timestamps option, which every segment carries.
const TIMESTAMPS: u16 = 12;

/// The congestion control of an inner flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 9438.
    Cubic,
    /// RFC 5681.
    Reno,
    /// Version 1.
    Bbr,
}

impl Algorithm {
    fn controller(self, seed: u64) -> Box<dyn Controller> {
        match self {
            Self::Cubic => Box::<Cubic>::default(),
            Self::Reno => Box::new(Reno),
            Self::Bbr => Box::new(Bbr::new(seed)),
        }
    }
}

/// What a connection is like.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionSpec {
    /// Which flow of the run.
    pub flow: u16,
    /// Who sends the data; the client opens the connection in any case.
    pub sender: Host,
    /// The sender's congestion control.
    pub algorithm: Algorithm,
    /// The segment size that both hosts announce, bytes without options.
    pub segment_size: u16,
    /// When the client opens it.
    pub start: Duration,
    /// Decides what is random in it.
    pub seed: u64,
}

/// A connection, both ends.
#[derive(Debug)]
pub struct Connection {
    spec: ConnectionSpec,
    /// When the client sends its SYN again; nothing once it is answered.
    syn_due: Option<Duration>,
    syn_backoff: Duration,
    syn_sent: Duration,
    /// When the server sends its SYN again; nothing before the first, and once it is answered.
    answer_due: Option<Duration>,
    answered: bool,
    sender: Option<Sender>,
    receiver: Receiver,
    /// Payload bytes of a full segment.
    size: u32,
    /// The round trip as the receiver knows it.
    receiver_rtt: Duration,
    /// The newest stamp that each end saw, to be echoed: client, server.
    peer_stamp: [u32; 2],
    numbers: [u16; 2],
    outbox: VecDeque<(Host, Inner)>,
    record: FlowRecord,
}

fn stamp(now: Duration) -> u32 {
    (now.as_micros() as u32).max(1)
}

impl Connection {
    /// A connection that is opened at the time it says.
    pub fn new(spec: ConnectionSpec) -> Self {
        Self {
            spec,
            syn_due: Some(spec.start),
            syn_backoff: RTO_INITIAL,
            syn_sent: spec.start,
            answer_due: None,
            answered: false,
            sender: None,
            receiver: Receiver::default(),
            size: u32::from(spec.segment_size - TIMESTAMPS),
            receiver_rtt: Duration::ZERO,
            peer_stamp: [0; 2],
            numbers: [0; 2],
            outbox: VecDeque::new(),
            record: FlowRecord::new(spec.start),
        }
    }

    /// What its receiver and its sender saw.
    pub const fn record(&self) -> &FlowRecord {
        &self.record
    }

    /// What the sender did, once the connection is open.
    pub fn count(&self) -> SenderCount {
        self.sender.as_ref().map(Sender::count).unwrap_or_default()
    }

    /// The sender's window and state, once the connection is open.
    pub fn window(&self) -> Option<(Window, State)> {
        self.sender
            .as_ref()
            .map(|sender| (sender.window(), sender.state()))
    }

    /// When [`Connection::wake`] has something to do.
    pub fn next(&self) -> Option<Duration> {
        let sender = self.sender.as_ref().and_then(Sender::next);
        [
            self.syn_due,
            self.answer_due,
            sender,
            self.receiver.next_timer(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next packet, and who sends it.
    pub fn poll(&mut self) -> Option<(Host, Inner)> {
        self.outbox.pop_front()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) {
        if self.syn_due.is_some_and(|at| at <= now) {
            self.syn_sent = now;
            self.syn_due = Some(now + self.syn_backoff);
            self.syn_backoff *= 2;
            self.send_syn(now, Host::Client);
        }
        if self.answer_due.is_some_and(|at| at <= now) {
            self.answer_due = Some(now + RTO_INITIAL);
            self.send_syn(now, Host::Server);
        }
        if let Some(answer) = self.receiver.wake(now, self.size) {
            self.acknowledge(now, answer);
        }
        if let Some(sender) = &mut self.sender {
            sender.wake(now);
            self.transmit(now);
        }
    }

    /// A packet came to the host `at`.
    pub fn arrive(&mut self, now: Duration, at: Host, inner: &Inner) {
        let Body::Tcp(segment) = inner.body else {
            return;
        };
        if segment.syn.is_some() {
            self.on_syn(now, at, &segment);
            return;
        }
        if at == Host::Server && !self.answered {
            self.answered = true;
            self.answer_due = None;
            let rtt = now.saturating_sub(self.syn_sent);
            self.open(now, Host::Server, rtt);
        }
        if at == self.spec.sender {
            self.on_acknowledgement(now, &segment);
        } else if segment.len > 0 {
            self.on_data(now, inner.number, &segment);
        }
    }

    fn on_syn(&mut self, now: Duration, at: Host, segment: &Segment) {
        self.peer_stamp[at as usize] = segment.stamp;
        let announced = segment.syn.unwrap_or(self.spec.segment_size);
        self.size = self.size.min(u32::from(announced - TIMESTAMPS));
        match at {
            Host::Server if !self.answered => {
                self.answer_due = Some(now + RTO_INITIAL);
                self.syn_sent = now;
                self.send_syn(now, Host::Server);
            }
            Host::Server => {}
            Host::Client => {
                if self.syn_due.take().is_some() {
                    let rtt = now.saturating_sub(self.syn_sent);
                    self.open(now, Host::Client, rtt);
                }
                let answer = self.receiver.answer(self.size);
                let mut segment = self.blank(now, Host::Client);
                segment.ack = FIRST;
                segment.window = answer.room;
                self.push(Host::Client, segment);
                self.transmit(now);
            }
        }
    }

    /// The handshake is done at one end.
    fn open(&mut self, now: Duration, at: Host, rtt: Duration) {
        if at == self.spec.sender {
            let controller = self.spec.algorithm.controller(self.spec.seed);
            let mut sender = Sender::new(controller, self.size, SYN_WINDOW);
            sender.on_handshake(rtt);
            self.sender = Some(sender);
            self.record.on_open(now, self.size);
            self.transmit(now);
        } else {
            self.receiver_rtt = rtt;
        }
    }

    fn on_data(&mut self, now: Duration, number: u16, segment: &Segment) {
        let index = self.unwrap(self.receiver.next, segment.seq);
        let before = self.receiver.next;
        self.record.on_segment(number);
        let answer =
            self.receiver
                .on_segment(now, index, (segment.stamp, self.size), self.receiver_rtt);
        let echoed = now.saturating_sub(Duration::from_micros(u64::from(segment.echo)));
        if segment.echo > 0 {
            // Which packet it answers is unsure when that waited: the least is right.
            self.receiver_rtt = if self.receiver_rtt.is_zero() {
                echoed
            } else {
                (self.receiver_rtt * 7 + echoed) / 8
            };
        }
        let delivered = (self.receiver.next - before) * u64::from(self.size);
        self.record.on_delivered(now, delivered);
        if let Some(answer) = answer {
            self.acknowledge(now, answer);
        }
    }

    fn on_acknowledgement(&mut self, now: Duration, segment: &Segment) {
        self.peer_stamp[self.spec.sender as usize] = segment.stamp;
        let Some(una) = self.sender.as_ref().map(Sender::una) else {
            return;
        };
        let next = self.unwrap(una, segment.ack);
        let mut ack = Acknowledgement {
            next,
            echo: Duration::from_micros(u64::from(segment.echo)),
            limit: next + u64::from(segment.window / self.size),
            ..Acknowledgement::default()
        };
        for (i, (from, to)) in segment.sacks[..segment.sack_count].iter().enumerate() {
            let range = (self.unwrap(una, *from), self.unwrap(una, *to));
            let within = |other: &(u32, u32)| {
                let other = (self.unwrap(una, other.0), self.unwrap(una, other.1));
                other.0 <= range.0 && range.1 <= other.1
            };
            let second = segment.sacks[..segment.sack_count].get(1);
            if i == 0 && (range.1 <= next || second.is_some_and(within)) {
                ack.duplicate = Some(range);
            } else {
                ack.sacks.push(range);
            }
        }
        if let Some(sender) = &mut self.sender {
            if let Some(rtt) = sender.on_ack(now, &ack) {
                self.record.on_rtt(now, rtt);
            }
            self.transmit(now);
        }
    }

    fn transmit(&mut self, now: Duration) {
        let host = self.spec.sender;
        loop {
            let Some(sending) = self.sender.as_mut().and_then(|sender| sender.poll(now)) else {
                return;
            };
            let mut segment = self.blank(now, host);
            segment.seq = self.wrap(sending.number);
            segment.ack = FIRST;
            segment.len = self.size as u16;
            segment.window = SYN_WINDOW;
            self.push(host, segment);
        }
    }

    fn acknowledge(&mut self, now: Duration, answer: Answer) {
        let host = self.spec.sender.other();
        let mut segment = self.blank(now, host);
        segment.seq = FIRST;
        segment.ack = self.wrap(answer.next);
        segment.window = answer.room;
        segment.echo = answer.echo;
        segment.sack_count = answer.sack_count;
        for (i, (from, to)) in answer.sacks[..answer.sack_count].iter().enumerate() {
            segment.sacks[i] = (self.wrap(*from), self.wrap(*to));
        }
        self.push(host, segment);
    }

    fn send_syn(&mut self, now: Duration, host: Host) {
        let mut segment = self.blank(now, host);
        segment.syn = Some(self.spec.segment_size);
        segment.window = SYN_WINDOW;
        segment.ack = match host {
            Host::Client => 0,
            Host::Server => FIRST,
        };
        self.push(host, segment);
    }

    fn blank(&self, now: Duration, host: Host) -> Segment {
        Segment {
            stamp: stamp(now),
            echo: self.peer_stamp[host as usize],
            ..Segment::default()
        }
    }

    fn push(&mut self, host: Host, segment: Segment) {
        let number = &mut self.numbers[host as usize];
        let inner = Inner {
            flow: self.spec.flow,
            number: *number,
            body: Body::Tcp(segment),
        };
        *number = number.wrapping_add(1);
        self.outbox.push_back((host, inner));
    }

    const fn wrap(&self, number: u64) -> u32 {
        ((number * self.size as u64) as u32).wrapping_add(FIRST)
    }

    /// The segment whose sequence number this is, the nearest to `near`.
    fn unwrap(&self, near: u64, sequence: u32) -> u64 {
        let distance = sequence.wrapping_sub(self.wrap(near)) as i32;
        near.saturating_add_signed(i64::from(distance) / i64::from(self.size))
    }
}
