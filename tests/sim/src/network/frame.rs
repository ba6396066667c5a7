//! What a link carries, and what it takes on the wire: like the lab's, a link counts IP packets.

use netcombiner::packet::ecn::Codepoint;
use netcombiner_lab::emulator::link::Packet;

use crate::packet::Inner;

/// Bytes of the IPv4 and the UDP header of a datagram.
pub const IP_UDP: usize = 20 + 8;

/// One frame on a link.
#[derive(Debug)]
pub enum Frame {
    /// A datagram between the portals, and what its IP header says of congestion.
    Datagram(Vec<u8>, Codepoint),
    /// A packet of a flow beside the tunnel.
    Bare(Inner),
}

impl Packet for Frame {
    fn size(&self) -> usize {
        match self {
            Self::Datagram(bytes, _) => bytes.len() + IP_UDP,
            Self::Bare(inner) => inner.len(),
        }
    }

    fn codepoint(&self) -> Codepoint {
        match self {
            Self::Datagram(_, codepoint) => *codepoint,
            // The foreign flows' TCP has no ECN.
            Self::Bare(_) => Codepoint::NotCapable,
        }
    }

    fn mark(&mut self) -> bool {
        match self {
            Self::Datagram(_, codepoint) if *codepoint != Codepoint::NotCapable => {
                *codepoint = Codepoint::Experienced;
                true
            }
            Self::Datagram(..) | Self::Bare(_) => false,
        }
    }
}
