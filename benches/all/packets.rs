//! Packets and randomness for the benches.

use netcombiner::packet::Packet;
use netcombiner::packet::offload::virtio::{SegmentKind, Segmentation};
use netcombiner::packet::offload::{Segments, VirtioHeader};
use netcombiner::proto::Entropy;

/// Packets in a batch: as many full datagrams as one GSO call takes.
pub(crate) const BATCH: usize = 45;
/// An inner packet, bytes: the tunnel's usual MTU.
pub(crate) const LENGTH: usize = 1400;
/// The headers of a TCP segment with timestamps in IPv4, bytes.
pub(crate) const HEADERS: usize = 52;

/// Deterministic bytes (SplitMix64).
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
    }
}

/// A TCP super-packet of so many full segments, as a TUN with offloads gives it, and what stands in
/// front of it.
pub(crate) fn super_packet(segments: usize) -> (VirtioHeader, Vec<u8>) {
    let size = LENGTH - HEADERS;
    let mut packet = vec![
        // IPv4: not to be fragmented, TCP.
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        // Ports 40,000 and 443, sequence, acknowledgement, 32 bytes of header, ACK, a window.
        0x9c, 0x40, 0x01, 0xbb, 0, 0, 1, 0, 0, 0, 2, 0, 0x80, 0x10, 1, 0xf5, 0, 0, 0, 0,
        // Two fillers, timestamps.
        1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2,
    ];
    packet.resize(HEADERS + segments * size, 0xa5);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let header = VirtioHeader {
        checksum: None,
        segmentation: Some(Segmentation {
            kind: SegmentKind::TcpV4,
            size: size as u16,
        }),
        headers: HEADERS as u16,
    };
    (header, packet)
}

/// The packets of a super-packet: consecutive full segments of one flow.
pub(crate) fn segments(count: usize) -> Vec<Packet> {
    let (header, whole) = super_packet(count);
    let mut segments = Segments::new(&header, &whole).expect("a super-packet");
    let mut packets = Vec::new();
    loop {
        let mut packet = Packet::default();
        if !segments.write_next(packet.buffer()) {
            break packets;
        }
        packets.push(packet);
    }
}
