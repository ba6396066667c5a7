//! The inner packets, as the endpoints think of them and as real bytes.
//!
//! Endpoints and plain wires hand on the small [`Inner`]; at a portal it becomes the bytes of an
//! IPv4 packet, so that the tunnel hashes, clamps and carries what it would carry in earnest.
//! Payloads are zeros. Checksums are zero too: the tunnel reads none.

/// Bytes of an IPv4 header without options (RFC 791).
const IP: usize = 20;
/// Bytes of a TCP header without options (RFC 9293 section 3.1).
const TCP: usize = 20;
/// Bytes of a UDP header (RFC 768), and of an ICMP echo's (RFC 792).
const UDP: usize = 8;
/// Bytes of the timestamps option and the two that align it (RFC 7323 appendix A).
const TIMESTAMPS: usize = 12;
/// Bytes of the segment size option (RFC 9293 section 3.2).
const SEGMENT_SIZE: usize = 4;
/// The shift of the window field (RFC 7323 section 2.2): 16 bits hold 8 MiB.
const WINDOW_SHIFT: u32 = 7;
/// Blocks of a selective acknowledgement that fit beside timestamps (RFC 2018 section 3).
pub const MOST_SACKS: usize = 3;

/// The host at one end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Behind the local portal.
    Client,
    /// Somewhere behind the remote portal.
    Server,
}

impl Host {
    /// The one at the other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The addresses of the lab.
    const fn address(self) -> [u8; 4] {
        match self {
            Self::Client => [203, 0, 113, 2],
            Self::Server => [198, 51, 100, 2],
        }
    }
}

/// One inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Which flow of the run.
    pub flow: u16,
    /// Counts the packets that this end of the flow sent: the identification field.
    pub number: u16,
    /// What is in it.
    pub body: Body,
}

/// What an inner packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A segment of a TCP connection.
    Tcp(Segment),
    /// A datagram of a stream, or an echo.
    Datagram(Datagram),
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Next byte expected.
    pub ack: u32,
    /// Opens the connection; with it goes the segment size.
    pub syn: Option<u16>,
    /// The receive window, bytes.
    pub window: u32,
    /// The sender's time stamp, microseconds.
    pub stamp: u32,
    /// The peer's time stamp that this answers.
    pub echo: u32,
    /// Ranges received beyond `ack`, or a first range that came twice (RFC 2883).
    pub sacks: [(u32, u32); MOST_SACKS],
    /// How many of them there are.
    pub sack_count: usize,
    /// Payload, bytes.
    pub len: u16,
}

/// A UDP datagram of a stream, or an ICMP echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// UDP, an echo request or its reply.
    pub kind: DatagramKind,
    /// Its place in the stream.
    pub seq: u32,
    /// When it was sent, nanoseconds from the start of the run.
    pub sent: u64,
    /// Payload, bytes; at least the 12 that hold the two above.
    pub len: u16,
}

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// UDP.
    Udp,
    /// An ICMP echo request.
    Request,
    /// The answer to it.
    Reply,
}

/// The TCP protocol, UDP and ICMP (IANA).
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP: u8 = 1;
/// The client's port of flow 0; the server's port.
const CLIENT_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 5201;
/// Flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Segment {
    fn options(&self) -> usize {
        let size = if self.syn.is_some() { SEGMENT_SIZE } else { 0 };
        let sacks = if self.sack_count > 0 {
            4 + 8 * self.sack_count
        } else {
            0
        };
        TIMESTAMPS + size + sacks
    }
}

impl Inner {
    /// Bytes of the IP packet.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Tcp(segment) => IP + TCP + segment.options() + usize::from(segment.len),
            Body::Datagram(datagram) => IP + UDP + usize::from(datagram.len),
        }
    }

    /// Never: there is always a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the IP packet that `from` sends.
    pub fn encode(&self, from: Host, out: &mut Vec<u8>) {
        let len = self.len();
        let protocol = match &self.body {
            Body::Tcp(_) => PROTOCOL_TCP,
            Body::Datagram(datagram) if datagram.kind == DatagramKind::Udp => PROTOCOL_UDP,
            Body::Datagram(_) => PROTOCOL_ICMP,
        };
        out.clear();
        out.extend([0x45, 0]);
        out.extend((len as u16).to_be_bytes());
        out.extend(self.number.to_be_bytes());
        out.extend([0x40, 0, 64, protocol, 0, 0]);
        out.extend(from.address());
        out.extend(from.other().address());
        let client = CLIENT_PORT + self.flow;
        let (source, destination) = match from {
            Host::Client => (client, SERVER_PORT),
            Host::Server => (SERVER_PORT, client),
        };
        match &self.body {
            Body::Tcp(segment) => {
                out.extend(source.to_be_bytes());
                out.extend(destination.to_be_bytes());
                encode_segment(segment, out);
            }
            Body::Datagram(datagram) => {
                match datagram.kind {
                    DatagramKind::Udp => {
                        out.extend(source.to_be_bytes());
                        out.extend(destination.to_be_bytes());
                        out.extend((UDP as u16 + datagram.len).to_be_bytes());
                        out.extend([0, 0]);
                    }
                    DatagramKind::Request | DatagramKind::Reply => {
                        let request = datagram.kind == DatagramKind::Request;
                        out.extend([if request { 8 } else { 0 }, 0, 0, 0]);
                        out.extend(self.flow.to_be_bytes());
                        out.extend((datagram.seq as u16).to_be_bytes());
                    }
                }
                out.extend(datagram.seq.to_be_bytes());
                out.extend(datagram.sent.to_be_bytes());
            }
        }
        out.resize(len, 0);
    }

    /// Reads a packet that [`Inner::encode`] wrote; nothing when it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, rest) = bytes.split_first_chunk::<IP>()?;
        let number = u16::from_be_bytes([ip[4], ip[5]]);
        let from_client = ip[12..16] == Host::Client.address();
        let u16_at = |at: usize| {
            rest.get(at..at + 2)
                .map(|two| u16::from_be_bytes([two[0], two[1]]))
        };
        let by_port = || u16_at(if from_client { 0 } else { 2 })?.checked_sub(CLIENT_PORT);
        let (flow, body) = match ip[9] {
            PROTOCOL_TCP => (by_port()?, Body::Tcp(decode_segment(rest)?)),
            PROTOCOL_UDP | PROTOCOL_ICMP => {
                let (flow, kind) = match (ip[9], *rest.first()?) {
                    (PROTOCOL_UDP, _) => (by_port()?, DatagramKind::Udp),
                    (_, 8) => (u16_at(4)?, DatagramKind::Request),
                    _ => (u16_at(4)?, DatagramKind::Reply),
                };
                let seq = rest.get(UDP..)?.first_chunk::<4>()?;
                let sent = rest.get(UDP + 4..)?.first_chunk::<8>()?;
                let datagram = Datagram {
                    kind,
                    seq: u32::from_be_bytes(*seq),
                    sent: u64::from_be_bytes(*sent),
                    len: (rest.len() - UDP) as u16,
                };
                (flow, Body::Datagram(datagram))
            }
            _ => return None,
        };
        Some(Self { flow, number, body })
    }
}

/// The TCP header behind the ports.
fn encode_segment(segment: &Segment, out: &mut Vec<u8>) {
    let words = (TCP + segment.options()) / 4;
    let flags = match (segment.syn, segment.ack) {
        (None, _) => ACK,
        (Some(_), 0) => SYN,
        (Some(_), _) => SYN | ACK,
    };
    out.extend(segment.seq.to_be_bytes());
    out.extend(segment.ack.to_be_bytes());
    out.extend([(words << 4) as u8, flags]);
    out.extend(((segment.window >> WINDOW_SHIFT).min(0xffff) as u16).to_be_bytes());
    out.extend([0; 4]);
    if let Some(size) = segment.syn {
        out.extend([2, 4]);
        out.extend(size.to_be_bytes());
    }
    out.extend([1, 1, 8, 10]);
    out.extend(segment.stamp.to_be_bytes());
    out.extend(segment.echo.to_be_bytes());
    if segment.sack_count > 0 {
        out.extend([1, 1, 5, (2 + 8 * segment.sack_count) as u8]);
        for (from, to) in &segment.sacks[..segment.sack_count] {
            out.extend(from.to_be_bytes());
            out.extend(to.to_be_bytes());
        }
    }
}

fn decode_segment(tcp: &[u8]) -> Option<Segment> {
    let header = tcp.first_chunk::<TCP>()?;
    let u32_at = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 4)
            .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
    };
    let end = usize::from(header[12] >> 4) * 4;
    let mut options = tcp.get(TCP..end)?;
    let mut segment = Segment {
        seq: u32_at(header, 4)?,
        ack: u32_at(header, 8)?,
        window: u32::from(u16::from_be_bytes([header[14], header[15]])) << WINDOW_SHIFT,
        len: (tcp.len() - end) as u16,
        ..Segment::default()
    };
    while let [kind, rest @ ..] = options {
        if *kind == 1 {
            options = rest;
            continue;
        }
        let len = usize::from(*rest.first()?);
        let value = options.get(2..len)?;
        match kind {
            2 => segment.syn = Some(u16::from_be_bytes([*value.first()?, *value.get(1)?])),
            8 => (segment.stamp, segment.echo) = (u32_at(value, 0)?, u32_at(value, 4)?),
            5 => {
                segment.sack_count = (value.len() / 8).min(MOST_SACKS);
                for (i, block) in value.chunks(8).take(MOST_SACKS).enumerate() {
                    segment.sacks[i] = (u32_at(block, 0)?, u32_at(block, 4)?);
                }
            }
            _ => return None,
        }
        options = &options[len..];
    }
    Some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let segment = Segment {
            seq: 7,
            ack: 9,
            window: 6 << 20,
            stamp: 11,
            echo: 12,
            sacks: [(1, 2), (3, 4), (5, 6)],
            sack_count: 3,
            len: 1348,
            ..Segment::default()
        };
        let syn = Segment {
            syn: Some(1360),
            sack_count: 0,
            sacks: Default::default(),
            len: 0,
            ..segment
        };
        let datagram = |kind| {
            Body::Datagram(Datagram {
                kind,
                seq: 3,
                sent: 1 << 40,
                len: 172,
            })
        };
        for body in [
            Body::Tcp(segment),
            Body::Tcp(syn),
            datagram(DatagramKind::Udp),
            datagram(DatagramKind::Request),
            datagram(DatagramKind::Reply),
        ] {
            for from in [Host::Client, Host::Server] {
                let inner = Inner {
                    flow: 3,
                    number: 65_000,
                    body,
                };
                let mut bytes = Vec::new();
                inner.encode(from, &mut bytes);
                assert_eq!(bytes.len(), inner.len());
                assert_eq!(Inner::decode(&bytes), Some(inner));
            }
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        let inner = Inner {
            flow: 0,
            number: 0,
            body: Body::Tcp(Segment::default()),
        };
        let mut bytes = Vec::new();
        inner.encode(Host::Client, &mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Inner::decode(&bytes[..len]), None);
        }
    }
}
