//! One TCP flow as fast as it goes for a time: goodput, its course and its longest silence.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::connection::{Connection, Ends};
use super::tcp_info::TcpInfo;
use crate::clock::Clock;
use crate::error::{Context, Error};

/// A flow on its way.
#[derive(Debug)]
pub struct Flow {
    duration: Duration,
    clock: Clock,
    stop: Arc<AtomicBool>,
    received: Arc<Mutex<u64>>,
    sender: Option<JoinHandle<TcpInfo>>,
    receiver: Option<JoinHandle<FlowReport>>,
}

/// What a flow's receiver saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowReport {
    /// Payload bytes received.
    pub bytes: u64,
    /// From the connection on.
    pub duration: Duration,
    /// Payload bytes in each [`FlowReport::STEP`], from the connection on.
    pub series: Vec<u64>,
    /// The longest time without a byte, from the connection to the end.
    pub longest_gap: Duration,
    /// When that began, from the connection on.
    pub gap_began: Duration,
    /// What the sender's kernel said at the end; its `out_of_order` is the receiver's.
    pub tcp: TcpInfo,
}

/// The name of its two threads, by which their time is found in `/proc`.
pub(crate) const FLOW_THREAD: &str = "flow";

/// How long a blocked read or write looks at nothing else.
const PATIENCE: Duration = Duration::from_millis(10);

impl Flow {
    /// Connects, and starts to send for `duration`.
    pub fn start(connection: &Connection<'_>, duration: Duration) -> Result<Self, Error> {
        let ends = connection.open()?;
        Self::run(ends, duration, Clock::start())
    }

    /// Makes all these connections, and then starts to send over all at once.
    pub fn start_all(
        connections: &[Connection<'_>],
        duration: Duration,
    ) -> Result<Vec<Self>, Error> {
        let ends = connections.iter().map(Connection::open);
        let ends = ends.collect::<Result<Vec<_>, _>>()?;
        let clock = Clock::start();
        ends.into_iter()
            .map(|ends| Self::run(ends, duration, clock))
            .collect()
    }

    fn run(ends: Ends, duration: Duration, clock: Clock) -> Result<Self, Error> {
        for end in [&ends.sender, &ends.receiver] {
            end.set_read_timeout(Some(PATIENCE))
                .context("cannot set a time-out")?;
            end.set_write_timeout(Some(PATIENCE))
                .context("cannot set a time-out")?;
            // At the end what still waits is thrown away, so that it is in nobody's way.
            SockRef::from(end)
                .set_linger(Some(Duration::ZERO))
                .context("cannot set linger")?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(Mutex::new(0));
        let thread = || std::thread::Builder::new().name(FLOW_THREAD.into());
        let sender = thread().spawn({
            let stop = Arc::clone(&stop);
            move || send(ends.sender, clock, duration, &stop)
        });
        let receiver = thread().spawn({
            let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
            move || {
                let report = receive(ends.receiver, clock, duration, &stop, &received);
                stop.store(true, Ordering::Relaxed);
                report
            }
        });
        let what = "cannot start a thread of a flow";
        let (sender, receiver) = (sender.context(what)?, receiver.context(what)?);
        let (sender, receiver) = (Some(sender), Some(receiver));
        Ok(Self {
            duration,
            clock,
            stop,
            received,
            sender,
            receiver,
        })
    }

    /// Payload bytes received so far.
    pub fn received(&self) -> u64 {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the connection.
    pub fn elapsed(&self) -> Duration {
        self.clock.read()
    }

    /// Whether its time is over.
    pub fn ended(&self) -> bool {
        self.elapsed() >= self.duration || self.stop.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<FlowReport, Error> {
        let receiver = self.receiver.take().map(JoinHandle::join);
        let sender = self.sender.take().map(JoinHandle::join);
        let (Some(Ok(mut report)), Some(Ok(sent))) = (receiver, sender) else {
            return Err(Error::failed("a thread of a flow panicked"));
        };
        report.tcp = TcpInfo {
            out_of_order: report.tcp.out_of_order,
            ..sent
        };
        Ok(report)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.receiver.take().map(JoinHandle::join);
        let _ = self.sender.take().map(JoinHandle::join);
    }
}

impl FlowReport {
    /// Length of one step of the series.
    pub const STEP: Duration = Duration::from_millis(50);

    /// Mbit/s of payload over the whole time.
    pub fn mbps(&self) -> f64 {
        self.mbps_between(Duration::ZERO, self.duration)
    }

    /// Mbit/s of payload without the first `skipped` (the slow start).
    pub fn mbps_after(&self, skipped: Duration) -> f64 {
        self.mbps_between(skipped, self.duration)
    }

    /// Mbit/s of payload from one time to another, both rounded down to a step.
    pub fn mbps_between(&self, from: Duration, to: Duration) -> f64 {
        let step = |at: Duration| (at.as_micros() / Self::STEP.as_micros()) as usize;
        let (from, to) = (step(from), step(to).min(self.series.len()));
        let bytes: u64 = self.series.get(from..to).unwrap_or_default().iter().sum();
        let seconds = Self::STEP.as_secs_f64() * to.saturating_sub(from).max(1) as f64;
        bytes as f64 * 8.0 / 1e6 / seconds
    }

    fn add(&mut self, at: Duration, bytes: usize) {
        let step = (at.as_micros() / Self::STEP.as_micros()) as usize;
        if self.series.len() <= step {
            self.series.resize(step + 1, 0);
        }
        self.series[step] += bytes as u64;
        self.bytes += bytes as u64;
    }
}

fn send(mut stream: TcpStream, clock: Clock, duration: Duration, stop: &AtomicBool) -> TcpInfo {
    let chunk = vec![0x5a; 65_536];
    while clock.read() < duration && !stop.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if is_patience(error.kind()) => {}
            // The receiver's series says when that was.
            Err(_) => return TcpInfo::of(&stream),
        }
    }
    let info = TcpInfo::of(&stream);
    // The receiver decides when it is over; it must not read an end before.
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PATIENCE);
    }
    info
}

fn receive(
    mut stream: TcpStream,
    clock: Clock,
    duration: Duration,
    stop: &AtomicBool,
    received: &Mutex<u64>,
) -> FlowReport {
    let mut report = FlowReport::default();
    let mut buffer = vec![0; 262_144];
    let mut last = Duration::ZERO;
    loop {
        let result = stream.read(&mut buffer);
        let now = clock.read().min(duration);
        if now - last > report.longest_gap {
            report.longest_gap = now - last;
            report.gap_began = last;
        }
        if now == duration || stop.load(Ordering::Relaxed) {
            report.duration = now;
            report.tcp = TcpInfo::of(&stream);
            report.add(now.saturating_sub(Duration::from_micros(1)), 0);
            return report;
        }
        match result {
            Ok(bytes) if bytes > 0 => {
                report.add(now, bytes);
                last = now;
                *received.lock().unwrap_or_else(PoisonError::into_inner) = report.bytes;
            }
            Err(error) if is_patience(error.kind()) => {}
            // A broken connection is a silence up to the end.
            Ok(_) | Err(_) => std::thread::sleep(PATIENCE),
        }
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_of_a_series() {
        let mut report = FlowReport {
            duration: Duration::from_secs(2),
            ..FlowReport::default()
        };
        for i in 0..40 {
            // Nothing in the first second, then 12500 bytes each 50 ms: 2 Mbit/s.
            report.add(FlowReport::STEP * i, if i < 20 { 0 } else { 12_500 });
        }
        assert_eq!(report.mbps(), 1.0);
        assert_eq!(report.mbps_after(Duration::from_secs(1)), 2.0);
        assert_eq!(
            report.mbps_between(Duration::ZERO, Duration::from_secs(1)),
            0.0
        );
    }
}
