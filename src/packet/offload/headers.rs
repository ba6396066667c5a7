//! Where the headers of a packet that can be cut stand, and how their fields are read and set.

use super::checksum::Sum;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The extension headers that stand before the transport's and have their length in units of eight
/// bytes: hop-by-hop options, routing, destination options (RFC 8200 section 4).
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// IPv4's header without options, and IPv6's without extensions; bytes.
pub(super) const V4_LEN: usize = 20;
pub(super) const V6_LEN: usize = 40;
/// TCP's header without options, and UDP's; bytes.
pub(super) const TCP_LEN: usize = 20;
pub(super) const UDP_LEN: usize = 8;

/// The field in IPv4's header for its checksum.
const V4_CHECKSUM: usize = 10;
/// More fragments, and the fragment's place (RFC 791 section 3.1).
const FRAGMENT: u16 = 0x3fff;

/// TCP flags in byte 13 of its header.
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const CWR: u8 = 0x80;
}

/// A transport whose payload can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Where the checksum stands in its header.
    pub(super) fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The headers of a whole packet that is no fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) is_v6: bool,
    pub(super) transport: Transport,
    /// Where the transport's header begins.
    pub(super) header: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
}

impl Layout {
    /// Nothing: not a whole TCP or UDP packet of the length that all its headers say.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (is_v6, header, protocol) = match packet.first()? >> 4 {
            4 => {
                let ip: &[u8; V4_LEN] = packet.first_chunk()?;
                let length = usize::from(word(ip, 2));
                if length != packet.len() || word(ip, 6) & FRAGMENT != 0 {
                    return None;
                }
                let header = usize::from(ip[0] & 0x0f) * 4;
                (false, (header >= V4_LEN).then_some(header)?, ip[9])
            }
            6 => {
                let ip: &[u8; V6_LEN] = packet.first_chunk()?;
                if usize::from(word(ip, 4)) + V6_LEN != packet.len() {
                    return None;
                }
                let (header, protocol) = behind_extensions(packet, ip[6])?;
                (true, header, protocol)
            }
            _ => return None,
        };
        let segment = packet.get(header..)?;
        let (transport, length) = match protocol {
            TCP => {
                let tcp: &[u8; TCP_LEN] = segment.first_chunk()?;
                let length = usize::from(tcp[12] >> 4) * 4;
                (Transport::Tcp, (length >= TCP_LEN).then_some(length)?)
            }
            UDP => {
                let udp: &[u8; UDP_LEN] = segment.first_chunk()?;
                let whole = usize::from(word(udp, 4)) == segment.len();
                (Transport::Udp, whole.then_some(UDP_LEN)?)
            }
            _ => return None,
        };
        (length <= segment.len()).then_some(Self {
            is_v6,
            transport,
            header,
            payload: header + length,
        })
    }

    /// True when nothing stands between the first header's fixed part and the transport's.
    pub(super) fn is_plain(&self) -> bool {
        self.header == if self.is_v6 { V6_LEN } else { V4_LEN }
    }

    /// The pseudo-header's sum (RFC 9293 section 3.1, RFC 8200 section 8.1), without the length.
    pub(super) fn pseudo(&self, packet: &[u8]) -> Sum {
        let protocol = match self.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        Sum::default()
            .bytes(addresses(packet, self.is_v6))
            .word(protocol.into())
    }

    /// Where the transport's checksum stands in the packet.
    pub(super) fn checksum_at(&self) -> usize {
        self.header + self.transport.checksum_at()
    }

    /// Writes the packet's length into the headers that say it, and IPv4's checksum.
    pub(super) fn set_length(&self, headers: &mut [u8], length: u16) {
        if self.is_v6 {
            set_word(headers, 4, length - V6_LEN as u16);
        } else {
            set_word(headers, 2, length);
            set_word(headers, V4_CHECKSUM, 0);
            let sum = Sum::default().bytes(&headers[..self.header]).checksum();
            set_word(headers, V4_CHECKSUM, sum);
        }
        if self.transport == Transport::Udp {
            set_word(headers, self.header + 4, length - self.header as u16);
        }
    }

    /// True when the checksums are right, and in the form that is made here: one's complement has
    /// two zeros, and another sender's choice could not be given back. So is UDP's "none" (RFC 768).
    pub(super) fn has_right_checksums(&self, packet: &[u8]) -> bool {
        let is_right = |bytes: &[u8], pseudo: Sum, at: usize, zero: u16| {
            word(bytes, at) != zero && pseudo.bytes(bytes).folded() == 0xffff
        };
        let zero = match self.transport {
            Transport::Tcp => 0xffff,
            Transport::Udp => 0,
        };
        let segment = &packet[self.header..];
        let pseudo = self.pseudo(packet).word(segment.len() as u16);
        let ip = &packet[..self.header];
        (self.is_v6 || is_right(ip, Sum::default(), V4_CHECKSUM, 0xffff))
            && is_right(segment, pseudo, self.transport.checksum_at(), zero)
    }
}

/// Source and destination.
pub(super) fn addresses(packet: &[u8], is_v6: bool) -> &[u8] {
    if is_v6 {
        &packet[8..V6_LEN]
    } else {
        &packet[12..V4_LEN]
    }
}

/// The first header that is no extension: where it stands, and what it is.
fn behind_extensions(packet: &[u8], mut next: u8) -> Option<(usize, u8)> {
    let mut at = V6_LEN;
    while EXTENSIONS.contains(&next) {
        let [following, eights] = *packet.get(at..)?.first_chunk()?;
        next = following;
        at += 8 + 8 * usize::from(eights);
    }
    Some((at, next))
}

/// A number of 16 bits.
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Sets a number of 16 bits.
pub(super) fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A number of 32 bits.
pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

/// Sets a number of 32 bits.
pub(super) fn set_long(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
