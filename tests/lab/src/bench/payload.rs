//! How much of what the links carry is the flow's own: TCP payload of a full packet, by the bytes
//! of that packet on the wire with all headers, ours too.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::course::Course;
use crate::error::{Context, Error};
use crate::net::Namespace;
use crate::topology::PORT;

/// What a full packet of a flow is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    /// TCP payload bytes in it, as the sender's kernel says.
    pub(super) segment: u32,
    /// Bytes of the IP packet that carries it over a link, the most common size seen there.
    pub(super) wire: usize,
}

impl Payload {
    /// The one by the other.
    pub(super) fn fraction(self) -> f64 {
        f64::from(self.segment) / self.wire as f64
    }
}

/// Of a raw flow over a link: no tunnel, IPv4 and TCP with timestamps at an MTU of 1500.
pub(super) const RAW: Payload = Payload {
    segment: 1448,
    wire: 1500,
};

/// Packets smaller than this are not full ones, at any MTU that IPv6 allows (RFC 8200, section 5).
const FULL: usize = 1000;

/// As many sizes tell which is the common one.
const ENOUGH: u32 = 500;

/// Looks at the sizes of the tunnel's datagrams on the links.
#[derive(Debug)]
struct Sizes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<usize, u32>>,
}

impl Sizes {
    /// Looks in the namespace of the local portal.
    fn start(local: &Namespace) -> Result<Self, Error> {
        // ETH_P_ALL of linux/if_ether.h, in the order of the network; a datagram socket gives the
        // packet without the header of its link.
        let every = Protocol::from(i32::from(3_u16.to_be()));
        let mut socket = local
            .run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(every)))?
            .context("cannot look at the packets of the links")?;
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .context("cannot set a time-out")?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut sizes = BTreeMap::new();
            let mut seen = 0;
            let mut packet = [0; 2048];
            while seen < ENOUGH && !flag.load(Ordering::Relaxed) {
                let Ok(size) = socket.read(&mut packet) else {
                    continue;
                };
                if size >= FULL && of_the_tunnel(&packet[..size]) {
                    *sizes.entry(size).or_insert(0) += 1;
                    seen += 1;
                }
            }
            sizes
        });
        Ok(Self { stop, thread })
    }

    /// The most common size of a full datagram; nothing when there were none.
    fn finish(self) -> Option<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let sizes = self.thread.join().ok()?;
        let most = sizes.into_iter().max_by_key(|(_, count)| *count)?;
        Some(most.0)
    }
}

/// Runs a measurement over UDP; where the fraction is not known yet, it is learnt from it.
pub(super) fn learn(
    payload: &mut Option<Payload>,
    local: &Namespace,
    measure: impl FnOnce() -> Result<Course, Error>,
) -> Result<Course, Error> {
    if payload.is_some() {
        return measure();
    }
    let sizes = Sizes::start(local)?;
    let course = measure()?;
    if let (Some(wire), Some(flow)) = (sizes.finish(), course.flows.first()) {
        let segment = flow.tcp.segment;
        *payload = Some(Payload { segment, wire });
    }
    Ok(course)
}

/// Whether a packet is UDP over IPv4 from or to the tunnel's port.
fn of_the_tunnel(packet: &[u8]) -> bool {
    const UDP: u8 = 17;
    let Some(first) = packet.first() else {
        return false;
    };
    let ports = packet.get(usize::from(first & 15) * 4..).unwrap_or(&[]);
    first >> 4 == 4
        && packet.get(9) == Some(&UDP)
        && (ports.get(..2) == Some(&PORT.to_be_bytes())
            || ports.get(2..4) == Some(&PORT.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnels_own_datagrams() {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[22..24].copy_from_slice(&PORT.to_be_bytes());
        assert!(of_the_tunnel(&packet));
        packet[9] = 6;
        assert!(!of_the_tunnel(&packet));
        assert!(!of_the_tunnel(&[]) && !of_the_tunnel(&[0x4f, 0]));
        let payload = Payload {
            segment: 1348,
            wire: 1461,
        };
        assert!((payload.fraction() - 0.9227).abs() < 1e-4);
    }
}
