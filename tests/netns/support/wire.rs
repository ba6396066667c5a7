//! The wire in the mock Internet: who listens there, and who forges.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use netcombiner::packet::ecn::{self, Codepoint};
use netcombiner_lab::error::Context;
use netcombiner_lab::prelude::*;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A UDP datagram of the tunnel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Datagram {
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
    /// What its IP header says of congestion.
    pub(crate) codepoint: Codepoint,
    pub(crate) payload: Vec<u8>,
}

/// Copies the datagrams of the tunnel that pass through a namespace.
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Datagram>>>,
    thread: Option<JoinHandle<()>>,
}

/// `ETH_P_IP` of linux/if_ether.h, as the kernel wants it: big endian.
const IP_FRAMES: i32 = (libc::ETH_P_IP as u16).to_be() as i32;

impl Tap {
    /// Begins.
    pub(crate) fn start(namespace: &Namespace) -> Result<Self, Error> {
        let open = || -> std::io::Result<Socket> {
            // "Cooked": without the Ethernet header.
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(IP_FRAMES.into()))?;
            socket.set_recv_buffer_size(4 << 20)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        };
        let mut socket = namespace.run(open)?.context("a packet socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(length) = std::io::Read::read(&mut socket, &mut buffer)
                        && let Some(datagram) = parse(&buffer[..length])
                    {
                        seen.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(datagram);
                    }
                }
            }
        });
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// Ends, and gives what was seen: each datagram once.
    pub(crate) fn finish(mut self) -> Vec<Datagram> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A packet socket sees it come in and go out.
        let mut once = Vec::new();
        for datagram in seen.drain(..) {
            if !once.contains(&datagram) {
                once.push(datagram);
            }
        }
        once
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A whole UDP datagram to or from the tunnel's port.
fn parse(packet: &[u8]) -> Option<Datagram> {
    let header = usize::from(packet.first()? & 15) * 4;
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let (from, to) = (address(12)?, address(16)?);
    let udp = packet.get(header..)?;
    if packet.get(9) != Some(&17) {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    let (source, target, length) = (number(0)?, number(2)?, number(4)?);
    let payload = udp.get(8..usize::from(length))?.to_vec();
    (source == PORT || target == PORT).then_some(Datagram {
        from: (from, source),
        to: (to, target),
        codepoint: ecn::read(packet),
        payload,
    })
}

/// Somebody who can send any packet.
pub(crate) struct Forger(Socket);

impl Forger {
    /// In a namespace.
    pub(crate) fn start(namespace: &Namespace) -> Result<Self, Error> {
        // IPPROTO_RAW: we write the IP header ourselves (raw(7)).
        let open = || {
            Socket::new(
                Domain::IPV4,
                Type::RAW,
                Some(Protocol::from(libc::IPPROTO_RAW)),
            )
        };
        Ok(Self(namespace.run(open)?.context("a raw socket")?))
    }

    /// Sends a datagram as if it came from `datagram.from`. One that the kernel refuses is lost.
    pub(crate) fn send(&self, datagram: &Datagram) {
        let length = 28 + datagram.payload.len();
        let bits = match datagram.codepoint {
            Codepoint::NotCapable => 0b00,
            Codepoint::CapableOne => 0b01,
            Codepoint::Capable => 0b10,
            Codepoint::Experienced => 0b11,
        };
        let mut packet = vec![0x45, bits];
        packet.extend((length as u16).to_be_bytes());
        // Identification and fragments zero, 64 hops, UDP; the kernel fills in the checksum.
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(datagram.from.0.octets());
        packet.extend(datagram.to.0.octets());
        packet.extend(datagram.from.1.to_be_bytes());
        packet.extend(datagram.to.1.to_be_bytes());
        packet.extend((length as u16 - 20).to_be_bytes());
        // No UDP checksum (RFC 768).
        packet.extend([0, 0]);
        packet.extend(&datagram.payload);
        let to = SockAddr::from(std::net::SocketAddr::from(datagram.to));
        let _ = self.0.send_to(&packet, &to);
    }
}
