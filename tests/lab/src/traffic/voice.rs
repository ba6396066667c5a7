//! A voice call: 64 kbit/s each way over UDP, as G.711 in RTP is sent, with the one-way delay of
//! every packet.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::quantiles::Quantiles;
use crate::clock::Clock;
use crate::error::{Context, Error};
use crate::net::{Namespace, priority};

/// A packet each 20 ms (RFC 3551, section 4.2: the default of audio).
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

/// 20 ms of 64 kbit/s and the header of RTP.
const PACKET: usize = 160 + 12;

/// What is later than this after the end counts as lost.
const LAST: Duration = Duration::from_millis(500);

/// How long a receiver looks at nothing else.
const PATIENCE: Duration = Duration::from_millis(20);

/// A call on its way. Its threads have the emulator's priority where they may: they need next to no
/// time, and their own waiting for a core must not show as the network's delay.
#[derive(Debug)]
pub struct Voice {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// When it was sent.
    pub at: Duration,
    /// How long it took; nothing: lost.
    pub delay: Option<Duration>,
}

/// A call's two ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoiceReport {
    /// What the client heard.
    pub down: Vec<Said>,
    /// What the server heard.
    pub up: Vec<Said>,
}

/// Figures of a stretch of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Packets sent.
    pub sent: usize,
    /// Packets that never came.
    pub lost: usize,
    /// One-way delays of those that came.
    pub delay: Quantiles,
}

enum Outcome {
    /// When each packet was sent, down and up.
    Sent([Vec<Duration>; 2]),
    /// The number of each packet, and when it came.
    Received(Vec<(usize, Duration)>),
}

impl Voice {
    /// Calls between `client` and `server`, at these addresses. Times are readings of `clock`.
    pub fn start(
        client: (&Namespace, Ipv4Addr),
        server: (&Namespace, Ipv4Addr),
        clock: Clock,
    ) -> Result<Self, Error> {
        let bind = |(namespace, address): (&Namespace, Ipv4Addr)| -> Result<UdpSocket, Error> {
            let what = format!("voice at {address} in {}", namespace.name());
            let socket = namespace
                .run(|| UdpSocket::bind((address, 0)))?
                .context(&what)?;
            socket.set_read_timeout(Some(PATIENCE)).context(&what)?;
            Ok(socket)
        };
        let (client, server) = (bind(client)?, bind(server)?);
        let address = |socket: &UdpSocket| -> Result<SocketAddr, Error> {
            socket.local_addr().context("the address of a call")
        };
        let (at_client, at_server) = (address(&client)?, address(&server)?);
        client.connect(at_server).context("cannot call")?;
        server.connect(at_client).context("cannot call back")?;
        let share = |socket: &UdpSocket| socket.try_clone().context("cannot share a socket");
        let senders = [share(&server)?, share(&client)?];
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for socket in [client, server] {
            let stop = Arc::clone(&stop);
            threads.push(spawn(move || receive(&socket, clock, &stop))?);
        }
        let flag = Arc::clone(&stop);
        threads.push(spawn(move || send(&senders, clock, &flag))?);
        Ok(Self { stop, threads })
    }

    /// Ends it, and waits for what is on its way.
    pub fn finish(mut self) -> Result<VoiceReport, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = [Vec::new(), Vec::new()];
        let mut received = Vec::new();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Outcome::Sent(at)) => sent = at,
                Ok(Outcome::Received(packets)) => received.push(packets),
                Err(_) => return Err(Error::failed("a thread of a call panicked")),
            }
        }
        let mut ways = sent.into_iter().zip(received).map(|(sent, received)| {
            let mut said: Vec<Said> = sent
                .into_iter()
                .map(|at| Said { at, delay: None })
                .collect();
            for (number, at) in received {
                if let Some(said) = said.get_mut(number) {
                    // A copy does not make it later.
                    said.delay.get_or_insert(at.saturating_sub(said.at));
                }
            }
            said
        });
        Ok(VoiceReport {
            down: ways.next().unwrap_or_default(),
            up: ways.next().unwrap_or_default(),
        })
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Heard {
    /// Of what was said from one time to another.
    pub fn between(said: &[Said], from: Duration, to: Duration) -> Self {
        let said = said.iter().filter(|said| (from..to).contains(&said.at));
        let delays: Vec<_> = said.clone().filter_map(|said| said.delay).collect();
        let sent = said.count();
        Self {
            sent,
            lost: sent - delays.len(),
            delay: Quantiles::of(delays),
        }
    }

    /// Share of the packets that never came, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }
}

fn spawn(f: impl FnOnce() -> Outcome + Send + 'static) -> Result<JoinHandle<Outcome>, Error> {
    std::thread::Builder::new()
        .name("voice".into())
        .spawn(move || {
            priority::realtime();
            f()
        })
        .context("cannot start a thread of a call")
}

fn send(sockets: &[UdpSocket; 2], clock: Clock, stop: &AtomicBool) -> Outcome {
    let mut sent = [Vec::new(), Vec::new()];
    let start = clock.read();
    let mut packet = [0x55; PACKET];
    for number in 0_u32.. {
        // The two ways speak in turn: their packets do not meet at one instant.
        for (way, socket) in sockets.iter().enumerate() {
            let due = start + INTERVAL * number + INTERVAL / 2 * way as u32;
            std::thread::sleep(due.saturating_sub(clock.read()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            packet[..4].copy_from_slice(&number.to_be_bytes());
            sent[way].push(clock.read());
            // What the kernel does not take is lost.
            let _ = socket.send(&packet);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Outcome::Sent(sent)
}

fn receive(socket: &UdpSocket, clock: Clock, stop: &AtomicBool) -> Outcome {
    let mut packets = Vec::new();
    let mut buffer = [0; 2048];
    let mut end = None;
    loop {
        let result = socket.recv(&mut buffer);
        let now = clock.read();
        if let Ok(PACKET) = result {
            let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            packets.push((number as usize, now));
        }
        if stop.load(Ordering::Relaxed) && now >= *end.get_or_insert(now + LAST) {
            return Outcome::Received(packets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_counts_what_was_said_in_it() {
        let ms = Duration::from_millis;
        let said: Vec<Said> = (0..100)
            .map(|i| Said {
                at: INTERVAL * i,
                delay: (i % 10 != 0).then_some(ms(10)),
            })
            .collect();
        let heard = Heard::between(&said, ms(1000), ms(2000));
        assert_eq!((heard.sent, heard.lost), (50, 5));
        assert_eq!(heard.delay.at(0.5), ms(10));
        assert!((heard.loss() - 0.1).abs() < 1e-9);
        assert_eq!(Heard::between(&said, ms(5000), ms(6000)).loss(), 0.0);
    }

    #[test]
    fn a_call_in_one_namespace_takes_no_time() {
        // Entering a namespace takes root, even the one we are in: tests/all sees to it.
        let here = Namespace::current("here").unwrap();
        let end = (&here, Ipv4Addr::LOCALHOST);
        let voice = Voice::start(end, end, Clock::start()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let report = voice.finish().unwrap();
        for way in [&report.down, &report.up] {
            let heard = Heard::between(way, Duration::ZERO, Duration::MAX);
            assert!(heard.sent >= 10 && heard.lost == 0, "{heard:?}");
        }
    }
}
