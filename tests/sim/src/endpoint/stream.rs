//! Datagrams at a constant rate: a voice call, a UDP load, a ping.

use std::collections::VecDeque;
use std::time::Duration;

use crate::measure::record::StreamRecord;
use crate::packet::{Body, Datagram, DatagramKind, Host, Inner};

/// What a stream is like.
#[derive(Debug, Clone, Copy)]
pub struct StreamSpec {
    /// Which flow of the run.
    pub flow: u16,
    /// Who sends.
    pub sender: Host,
    /// UDP, or echo requests that are answered.
    pub kind: DatagramKind,
    /// From one datagram to the next.
    pub every: Duration,
    /// Payload, bytes.
    pub len: u16,
    /// The first.
    pub start: Duration,
    /// None at or after this time.
    pub end: Duration,
}

impl StreamSpec {
    /// One direction of a voice call: 64 kbit/s of sound in 50 packets a second (G.711, RFC 3551),
    /// and RTP's header of 12 bytes.
    pub const fn voice(flow: u16, sender: Host, start: Duration, end: Duration) -> Self {
        Self {
            flow,
            sender,
            kind: DatagramKind::Udp,
            every: Duration::from_millis(20),
            len: 160 + 12,
            start,
            end,
        }
    }

    /// A ping of 64 bytes each 100 ms.
    pub const fn ping(flow: u16, start: Duration, end: Duration) -> Self {
        Self {
            flow,
            sender: Host::Client,
            kind: DatagramKind::Request,
            every: Duration::from_millis(100),
            len: 56,
            start,
            end,
        }
    }
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    spec: StreamSpec,
    due: Duration,
    seq: u32,
    outbox: VecDeque<(Host, Inner)>,
    record: StreamRecord,
}

impl Stream {
    /// A stream that has not begun.
    pub fn new(spec: StreamSpec) -> Self {
        Self {
            spec,
            due: spec.start,
            seq: 0,
            outbox: VecDeque::new(),
            record: StreamRecord::default(),
        }
    }

    /// What came of it.
    pub const fn record(&self) -> &StreamRecord {
        &self.record
    }

    /// When the next datagram is due.
    pub fn next(&self) -> Option<Duration> {
        (self.due < self.spec.end).then_some(self.due)
    }

    /// Sends what is due.
    pub fn wake(&mut self, now: Duration) {
        while self.due <= now && self.due < self.spec.end {
            let datagram = Datagram {
                kind: self.spec.kind,
                seq: self.seq,
                sent: u64::try_from(self.due.as_nanos()).unwrap_or(u64::MAX),
                len: self.spec.len,
            };
            self.push(self.spec.sender, datagram);
            self.record.on_sent(self.due);
            self.seq += 1;
            self.due += self.spec.every;
        }
    }

    /// The next packet, and who sends it.
    pub fn poll(&mut self) -> Option<(Host, Inner)> {
        self.outbox.pop_front()
    }

    /// A packet came to the host `at`.
    pub fn arrive(&mut self, now: Duration, at: Host, inner: &Inner) {
        let Body::Datagram(datagram) = inner.body else {
            return;
        };
        if datagram.kind == DatagramKind::Request {
            let reply = Datagram {
                kind: DatagramKind::Reply,
                ..datagram
            };
            self.push(at, reply);
            return;
        }
        let sent = Duration::from_nanos(datagram.sent);
        self.record
            .on_arrival(now, sent, datagram.seq, u64::from(datagram.len));
    }

    fn push(&mut self, host: Host, datagram: Datagram) {
        let inner = Inner {
            flow: self.spec.flow,
            number: datagram.seq as u16,
            body: Body::Datagram(datagram),
        };
        self.outbox.push_back((host, inner));
    }
}
