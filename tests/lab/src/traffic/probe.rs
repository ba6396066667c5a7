//! Probes at a steady pace that somebody answers: ICMP echo or UDP.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::quantiles::Quantiles;
use crate::clock::Clock;
use crate::error::{Context, Error};
use crate::net::Namespace;

/// Probes on their way.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    state: Arc<Mutex<Probes>>,
    thread: Option<JoinHandle<()>>,
}

/// What became of the probes.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// How many were sent.
    pub sent: u32,
    /// How many were answered (in time).
    pub answered: u32,
    /// The fastest answer.
    pub min: Duration,
    /// The slowest.
    pub max: Duration,
    /// Each round trip, in the order of the answers.
    pub trips: Vec<Duration>,
    /// The last round trip.
    pub last: Option<Duration>,
    /// Most probes in a row that were sent without any answer in between.
    pub longest_silence: u32,
    silence: u32,
}

/// How probes look and how their answers are told from other packets.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// With this identifier.
    Icmp(u16),
    Udp,
}

/// Bytes of a probe's own data: the number, and filling up to the usual 56 bytes of ping.
const DATA: usize = 56;

/// How long the answers to the last probes are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl Probe {
    /// Sends an ICMP echo every `interval`, at most `count`.
    pub fn ping(
        namespace: &Namespace,
        to: Ipv4Addr,
        interval: Duration,
        count: u32,
    ) -> Result<Self, Error> {
        Self::ping_by(namespace, to, None, interval, count)
    }

    /// The same with the socket bound to a device.
    pub fn ping_by(
        namespace: &Namespace,
        to: Ipv4Addr,
        device: Option<&str>,
        interval: Duration,
        count: u32,
    ) -> Result<Self, Error> {
        let open = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.bind_device(device.map(str::as_bytes))?;
            socket.connect(&SocketAddr::from((to, 0)).into())?;
            Ok(socket)
        };
        let what = format!("ping from {} to {to}", namespace.name());
        let socket = namespace.run(open)?.context(what)?;
        // A raw socket sees the answers to every process: each probe has a number of its own, which
        // is a connection of its own to those who track them.
        static PROBES: AtomicU32 = AtomicU32::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let id = number ^ std::process::id().rotate_left(7);
        Ok(Self::start(socket, Kind::Icmp(id as u16), interval, count))
    }

    /// Sends a UDP datagram to an echo service every `interval`, at most `count`.
    pub fn udp(
        namespace: &Namespace,
        to: SocketAddr,
        interval: Duration,
        count: u32,
    ) -> Result<Self, Error> {
        let open = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.connect(&to.into())?;
            Ok(socket)
        };
        let what = format!("UDP from {} to {to}", namespace.name());
        let socket = namespace.run(open)?.context(what)?;
        Ok(Self::start(socket, Kind::Udp, interval, count))
    }

    fn start(socket: Socket, kind: Kind, interval: Duration, count: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Mutex::new(Probes::default()));
        let thread = std::thread::spawn({
            let (stop, state) = (Arc::clone(&stop), Arc::clone(&state));
            move || probe(socket, kind, interval, count, &stop, &state)
        });
        Self {
            stop,
            state,
            thread: Some(thread),
        }
    }

    /// What is known so far.
    pub fn so_far(&self) -> Probes {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends no more, waits for the last answers (at most a second).
    pub fn stop(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all are sent and answered, or the last ones are a second old.
    pub fn finish(mut self) -> Probes {
        let _ = self.thread.take().map(JoinHandle::join);
        self.so_far()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Probes {
    /// Mean round trip of the answered.
    pub fn mean(&self) -> Duration {
        self.trips.iter().sum::<Duration>() / self.answered.max(1)
    }

    /// The median round trip of the answered; zero when there are none.
    pub fn median(&self) -> Duration {
        Quantiles::of(self.trips.clone()).at(0.5)
    }

    /// How many were not answered.
    pub const fn lost(&self) -> u32 {
        self.sent - self.answered
    }

    fn sent_one(&mut self) {
        self.sent += 1;
        self.silence += 1;
    }

    fn answered_one(&mut self, trip: Duration) {
        self.min = if self.answered == 0 {
            trip
        } else {
            self.min.min(trip)
        };
        self.max = self.max.max(trip);
        self.trips.push(trip);
        self.answered += 1;
        self.last = Some(trip);
        // The probe that is just answered was not silent.
        self.longest_silence = self.longest_silence.max(self.silence.saturating_sub(1));
        self.silence = 0;
    }
}

fn probe(
    mut socket: Socket,
    kind: Kind,
    interval: Duration,
    count: u32,
    stop: &AtomicBool,
    state: &Mutex<Probes>,
) {
    let clock = Clock::start();
    let mut open: BTreeMap<u32, Duration> = BTreeMap::new();
    let mut number = 0;
    let mut end = None;
    let mut buffer = [0; 2048];
    let tell = |change: &dyn Fn(&mut Probes)| {
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
    };
    loop {
        let now = clock.read();
        let due = interval * number;
        let sending = number < count && !stop.load(Ordering::Relaxed);
        if sending && now >= due {
            open.insert(number, now);
            tell(&Probes::sent_one);
            // A network that is unreachable just now answers nothing: lost.
            let _ = socket.send(&kind.message(number));
            number += 1;
            continue;
        }
        if !sending {
            let end = *end.get_or_insert(now + LAST_ANSWERS);
            if open.is_empty() || now >= end {
                tell(&|probes| probes.longest_silence = probes.longest_silence.max(probes.silence));
                return;
            }
        }
        // Short enough to see the stop flag, never zero (which would mean for ever).
        let wait = if sending {
            due - now
        } else {
            Duration::from_millis(20)
        };
        let wait = wait.clamp(Duration::from_micros(100), Duration::from_millis(50));
        let _ = socket.set_read_timeout(Some(wait));
        let Ok(length) = socket.read(&mut buffer) else {
            continue;
        };
        let now = clock.read();
        if let Some(sent) = kind
            .answer(&buffer[..length])
            .and_then(|number| open.remove(&number))
        {
            tell(&|probes| probes.answered_one(now - sent));
        }
    }
}

impl Kind {
    fn message(self, number: u32) -> Vec<u8> {
        let mut data = number.to_be_bytes().to_vec();
        data.resize(DATA, 0xa5);
        let Self::Icmp(id) = self else { return data };
        // RFC 792: echo request, code, checksum, identifier, sequence number.
        let mut message = vec![8, 0, 0, 0];
        message.extend(id.to_be_bytes());
        message.extend((number as u16).to_be_bytes());
        message.extend(data);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// The number of the probe that a packet answers.
    fn answer(self, packet: &[u8]) -> Option<u32> {
        let data = match self {
            Self::Udp => packet,
            Self::Icmp(id) => {
                // A raw socket gives the IPv4 header too; its length is in words.
                let message = packet.get(usize::from(packet.first()? & 15) * 4..)?;
                let reply = message.first() == Some(&0) && message.get(4..6)? == id.to_be_bytes();
                if !reply || checksum(message) != 0 {
                    return None;
                }
                message.get(8..)?
            }
        };
        Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?))
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_is_whole_and_no_answer() {
        let message = Kind::Icmp(77).message(5);
        assert_eq!(checksum(&message), 0);
        let mut reply = vec![0x45; 20];
        reply.extend(&message);
        assert_eq!(Kind::Icmp(77).answer(&reply), None, "a request is no reply");
        reply[20] = 0;
        reply[22..24].fill(0);
        let sum = checksum(&reply[20..]);
        reply[22..24].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Kind::Icmp(77).answer(&reply), Some(5));
        assert_eq!(Kind::Icmp(78).answer(&reply), None);
        assert_eq!(Kind::Icmp(77).answer(&reply[..24]), None);
    }
}
