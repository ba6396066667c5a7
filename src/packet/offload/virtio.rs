//! The header in front of every packet of a TUN with IFF_VNET_HDR: `struct virtio_net_hdr` of
//! Linux's include/uapi/linux/virtio_net.h.

/// Its length, bytes; the device is told so (TUNSETVNETHDRSZ). The longer form only adds a count of
/// merged buffers, which a TUN does not have.
pub const VIRTIO_HEADER_LEN: usize = 10;

/// The checksum field holds the pseudo-header's sum and is to be completed.
const NEEDS_CHECKSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Beside a TCP kind: the first segment says that the sender has slowed down (CWR, RFC 3168).
const GSO_ECN: u8 = 0x80;

/// What the segments of a super-packet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP in IPv4.
    TcpV4,
    /// TCP in IPv6.
    TcpV6,
    /// UDP datagrams, in either.
    Udp,
}

/// How a packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Into what.
    pub kind: SegmentKind,
    /// A segment's payload, bytes; the last may have less.
    pub size: u16,
}

/// A checksum that is to be completed: the sum of all from `start` on goes to `start + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the summed part begins, bytes from the packet's begin.
    pub start: u16,
    /// Where the field stands in that part, bytes.
    pub offset: u16,
}

/// What is said of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Nothing: the checksum is whole.
    pub checksum: Option<PartialChecksum>,
    /// Nothing: it is one packet.
    pub segmentation: Option<Segmentation>,
    /// The length of all headers, bytes: a hint. Zero with one packet.
    pub headers: u16,
}

impl VirtioHeader {
    /// Reads one. Nothing: its kind is not known.
    ///
    /// The numbers are in the machine's byte order: a TUN has another one only when asked for it
    /// (TUNSETVNETLE, TUNSETVNETBE), and we do not ask.
    pub fn parse(bytes: &[u8; VIRTIO_HEADER_LEN]) -> Option<Self> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let [flags, kind, ..] = *bytes;
        let size = number(4);
        let kind = match kind & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP_V4 => Some(SegmentKind::TcpV4),
            GSO_TCP_V6 => Some(SegmentKind::TcpV6),
            GSO_UDP_L4 => Some(SegmentKind::Udp),
            _ => return None,
        };
        Some(Self {
            checksum: (flags & NEEDS_CHECKSUM != 0).then(|| PartialChecksum {
                start: number(6),
                offset: number(8),
            }),
            segmentation: kind.map(|kind| Segmentation { kind, size }),
            headers: number(2),
        })
    }

    /// Writes it. ECN is never said: what we join has no CWR.
    pub fn to_bytes(self) -> [u8; VIRTIO_HEADER_LEN] {
        let mut bytes = [0; VIRTIO_HEADER_LEN];
        let mut put = |at: usize, value: u16| {
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        };
        put(2, self.headers);
        if let Some(Segmentation { size, .. }) = self.segmentation {
            put(4, size);
        }
        if let Some(PartialChecksum { start, offset }) = self.checksum {
            put(6, start);
            put(8, offset);
            bytes[0] = NEEDS_CHECKSUM;
        }
        bytes[1] = match self.segmentation.map(|it| it.kind) {
            None => GSO_NONE,
            Some(SegmentKind::TcpV4) => GSO_TCP_V4,
            Some(SegmentKind::TcpV6) => GSO_TCP_V6,
            Some(SegmentKind::Udp) => GSO_UDP_L4,
        };
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for kind in [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp] {
            let header = VirtioHeader {
                checksum: Some(PartialChecksum {
                    start: 20,
                    offset: 16,
                }),
                segmentation: Some(Segmentation { kind, size: 1348 }),
                headers: 52,
            };
            assert_eq!(VirtioHeader::parse(&header.to_bytes()), Some(header));
        }
        let none = VirtioHeader::default();
        assert_eq!(none.to_bytes(), [0; VIRTIO_HEADER_LEN]);
        assert_eq!(VirtioHeader::parse(&[0; VIRTIO_HEADER_LEN]), Some(none));
    }

    #[test]
    fn as_the_kernel_writes_it() {
        let mut bytes = [1, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, value) in [(2, 52_u16), (4, 1348), (6, 20), (8, 16)] {
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        let header = VirtioHeader::parse(&bytes).unwrap();
        assert_eq!(
            header.segmentation,
            Some(Segmentation {
                kind: SegmentKind::TcpV4,
                size: 1348
            })
        );
        assert_eq!(header.checksum.unwrap().start, 20);
        // "The checksum was verified" is no order to us.
        assert_eq!(
            VirtioHeader::parse(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Some(VirtioHeader::default())
        );
        // UFO was never offered.
        assert_eq!(VirtioHeader::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
