//! From a super-packet to its packets, as the kernel's own segmentation makes them.

use thiserror::Error;

use super::LONGEST;
use super::checksum::Sum;
use super::headers::{Layout, Transport, flag, long, set_long, set_word, word};
use super::virtio::{PartialChecksum, SegmentKind, Segmentation, VirtioHeader};

/// Why something from the TUN is no packet. The kernel's word is taken for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SplitError {
    /// The header in front is short or unknown.
    #[error("the virtio header is short or of an unknown kind")]
    Header,
    /// The checksum's place is not in the packet.
    #[error("the checksum to be completed lies outside of the packet")]
    Checksum,
    /// The packet is not what the header says.
    #[error("the super-packet is not of the kind that is said")]
    Kind,
    /// A segment would have no payload, or would be longer than any packet.
    #[error("the segments' size cannot be")]
    Size,
}

/// The packets of a super-packet, made one by one.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    cut: Cut,
    /// What was made already: packets, and payload bytes.
    made: usize,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    /// One packet; where its checksum's part begins, and where the field is in the packet.
    Whole(Option<(usize, usize)>),
    /// Segments.
    Segments {
        layout: Layout,
        size: usize,
        /// The pseudo-header's sum without the length. Nothing: datagrams without checksums.
        pseudo: Option<Sum>,
    },
}

impl<'a> Segments<'a> {
    /// Of a packet and the header in front of it.
    ///
    /// # Errors
    /// When the two do not fit.
    pub fn new(header: &VirtioHeader, packet: &'a [u8]) -> Result<Self, SplitError> {
        let checksum = header
            .checksum
            .map(|PartialChecksum { start, offset }| {
                let start = usize::from(start);
                let at = start + usize::from(offset);
                let fits = at + 2 <= packet.len();
                fits.then_some((start, at)).ok_or(SplitError::Checksum)
            })
            .transpose()?;
        let cut = match header.segmentation {
            None => Cut::Whole(checksum),
            Some(segmentation) => cut(segmentation, checksum, packet)?,
        };
        Ok(Self {
            packet,
            cut,
            made: 0,
            taken: 0,
        })
    }

    /// How many packets are still to be made.
    pub fn remaining(&self) -> usize {
        match self.cut {
            Cut::Whole(_) => 1 - self.made,
            Cut::Segments { layout, size, .. } => {
                (self.packet.len() - layout.payload - self.taken).div_ceil(size)
            }
        }
    }

    /// Writes the next packet into an empty buffer. False: there is none.
    pub fn write_next(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.remaining() == 0 {
            return false;
        }
        match self.cut {
            Cut::Whole(checksum) => {
                buffer.extend_from_slice(self.packet);
                if let Some((start, at)) = checksum {
                    complete(buffer, start, at);
                }
            }
            Cut::Segments {
                layout,
                size,
                pseudo,
            } => {
                let (headers, payload) = self.packet.split_at(layout.payload);
                let payload = &payload[self.taken..];
                let payload = &payload[..size.min(payload.len())];
                buffer.extend_from_slice(headers);
                buffer.extend_from_slice(payload);
                self.set_headers(&layout, buffer);
                if let Some(pseudo) = pseudo {
                    set_checksum(&layout, pseudo, buffer);
                }
                self.taken += payload.len();
            }
        }
        self.made += 1;
        true
    }

    /// All that differs from segment to segment, but the transport's checksum.
    fn set_headers(&self, layout: &Layout, segment: &mut [u8]) {
        if !layout.is_v6 {
            let id = word(self.packet, 4).wrapping_add(self.made as u16);
            set_word(segment, 4, id);
        }
        // `new` has seen that a whole segment is no longer than a packet can be.
        layout.set_length(segment, segment.len() as u16);
        if layout.transport == Transport::Tcp {
            let tcp = &mut segment[layout.header..];
            let sequence = long(tcp, 4).wrapping_add(self.taken as u32);
            set_long(tcp, 4, sequence);
            if self.made > 0 {
                tcp[13] &= !flag::CWR;
            }
            if self.remaining() > 1 {
                tcp[13] &= !(flag::FIN | flag::PSH);
            }
        }
    }
}

fn cut(
    segmentation: Segmentation,
    checksum: Option<(usize, usize)>,
    packet: &[u8],
) -> Result<Cut, SplitError> {
    let layout = Layout::of(packet).ok_or(SplitError::Kind)?;
    let is_kind = match segmentation.kind {
        SegmentKind::TcpV4 => layout.transport == Transport::Tcp && !layout.is_v6,
        SegmentKind::TcpV6 => layout.transport == Transport::Tcp && layout.is_v6,
        SegmentKind::Udp => layout.transport == Transport::Udp,
    };
    if !is_kind {
        return Err(SplitError::Kind);
    }
    let size = usize::from(segmentation.size);
    let payload = packet.len() - layout.payload;
    if size == 0 || payload == 0 || layout.payload + size.min(payload) > LONGEST {
        return Err(SplitError::Size);
    }
    let at = layout.checksum_at();
    let pseudo = match checksum {
        // What the kernel began is the sum with the whole length.
        Some(place) if place == (layout.header, at) => {
            let whole = (packet.len() - layout.header) as u16;
            Some(Sum::default().word(word(packet, at)).without(whole))
        }
        Some(_) => return Err(SplitError::Checksum),
        None if layout.transport == Transport::Udp && word(packet, at) == 0 => None,
        None => Some(layout.pseudo(packet)),
    };
    Ok(Cut::Segments {
        layout,
        size,
        pseudo,
    })
}

fn set_checksum(layout: &Layout, pseudo: Sum, segment: &mut [u8]) {
    let at = layout.checksum_at();
    set_word(segment, at, 0);
    let transport = &segment[layout.header..];
    let sum = pseudo.word(transport.len() as u16).bytes(transport);
    let sum = match layout.transport {
        Transport::Tcp => sum.checksum(),
        Transport::Udp => sum.udp_checksum(),
    };
    set_word(segment, at, sum);
}

/// Completes a checksum: the field holds the sum of what is not in the packet.
fn complete(packet: &mut [u8], start: usize, at: usize) {
    let sum = Sum::default().bytes(&packet[start..]);
    let sum = if at - start == Transport::Tcp.checksum_at() {
        sum.checksum()
    } else {
        // For all others than UDP both zeros are the same.
        sum.udp_checksum()
    };
    set_word(packet, at, sum);
}
