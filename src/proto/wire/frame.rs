//! The frames inside a datagram (PROTOCOL.md 2.1), read and written.
//!
//! ```text
//! DATA      1 B: 0x80 | ORDERED 0x40 | WAIT 0x20 | SETTLED 0x10 | LENGTH 0x04
//!           [2 B length, when a frame follows]
//!           ordered: 1 B bucket, 3 B sequence in the bucket, 1 B path mask; the IP packet
//!           WAIT: a missing earlier packet of the bucket is worth the wait for its repair
//!           SETTLED: every earlier one was acknowledged or given up when this was sent
//! PADDING   0x00, to the end
//! ACK       0x01, path 1 B, largest 4 B, receive time of the largest 3 B, bytes received 4 B,
//!           ECT(0) 2 B, CE 2 B, ranges 1 B: first range 2 B (packets below the largest that came too),
//!           then (missing 2 B, came 2 B) each
//! PING      0x03
//! CHALLENGE 0x04, 8 B           RESPONSE  0x05, 8 B
//! STATUS    0x06, path 1 B, metric 1 B, rate cap 4 B (kbit/s, 0: none): what the opener of a path
//!           tells of it
//! CLOSE     0x07
//! FORWARD   0x08, bucket 1 B, sequence 3 B: this packet was given up, do not wait for it
//!           (RFC 3758's FORWARD-TSN for one packet)
//! PARITY    0x09, back 1 B, span 1 B, index 1 B, the sum to the end: of the symbols of `span` datagrams, the
//!           first of which is `back` before this one (`proto::parity`)
//! ```

use super::stamp::Stamp;
use super::{PacketNumber, PathId};
use crate::proto::parity::Parity;
use crate::proto::recovery::Ranges;

const DATA: u8 = 0x80;
const ORDERED: u8 = 0x40;
const WAIT: u8 = 0x20;
const SETTLED: u8 = 0x10;
const LENGTH: u8 = 0x04;
const PADDING: u8 = 0x00;
const ACK: u8 = 0x01;
const PING: u8 = 0x03;
const CHALLENGE: u8 = 0x04;
const RESPONSE: u8 = 0x05;
const STATUS: u8 = 0x06;
const CLOSE: u8 = 0x07;
const FORWARD: u8 = 0x08;
const PARITY: u8 = 0x09;

/// Bytes before the sum in a PARITY frame.
pub const PARITY_OVERHEAD: usize = 4;
/// Bytes before the IP packet in an ordered DATA frame without length.
pub const DATA_OVERHEAD: usize = 6;
/// Bytes of a FORWARD frame.
pub const FORWARD_LEN: usize = 5;
/// The most ranges of one ACK frame: 32 gaps in flight are a burst of loss that the controller has
/// heard of anyway.
pub const MOST_RANGES: usize = 32;
/// Bytes of an ACK frame with this many ranges behind the first.
pub const fn ack_len(gaps: usize) -> usize {
    20 + 4 * gaps
}

/// Where a packet stands among its flow's: an order domain and a sequence in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The order domain.
    pub bucket: Bucket,
    /// The packet's place.
    pub sequence: Sequence,
    /// The paths that may still hold an earlier packet of this bucket.
    pub mask: u8,
    /// A missing earlier packet is worth the wait for its repair.
    pub wait: bool,
    /// Every earlier packet was acknowledged or given up when this one was sent.
    pub settled: bool,
}

/// An order domain: the flows of one hash value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u8);

/// A packet's place in its bucket, 24 bits, wrapping: 8 M packets either way, 90 s at 1 Gbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sequence(u32);

impl Sequence {
    /// The sequence of these low 24 bits.
    pub fn new(number: u32) -> Self {
        Self(number & 0xff_ffff)
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// The one so far behind.
    #[must_use]
    pub fn back(self, by: u32) -> Self {
        Self::new(self.0.wrapping_sub(by))
    }

    /// How far this one is ahead of `other`; negative when behind.
    pub fn ahead_of(self, other: Self) -> i32 {
        // Sign-extend the 24-bit difference.
        ((self.0.wrapping_sub(other.0) << 8) as i32) >> 8
    }
}

/// How many datagrams of a path came with which mark in their IP header so far (RFC 9000 section
/// 19.3.2), modulo 2^16: between two acknowledgements a few dozen come, and no more than 65,536 are
/// under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// As ECT(0), as they were sent.
    pub ect0: u16,
    /// As CE, marked on the way.
    pub ce: u16,
}

/// An acknowledgement of one path's packets, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckFrame<'a> {
    /// Whose packets.
    pub path: PathId,
    /// Low 32 bits of the largest packet number received.
    pub largest: u32,
    /// When that one came, by the receiver's clock, low 24 bits.
    pub received_at: [u8; 3],
    /// Bytes received on the path so far, modulo 2^32.
    pub bytes: u32,
    /// What their IP headers said of congestion.
    pub ecn: EcnCounts,
    ranges: &'a [u8],
}

impl AckFrame<'_> {
    /// The ranges (first, last), newest first, given the whole number of the largest. Ends at the
    /// first range that would lie below zero.
    pub fn ranges(
        &self,
        largest: PacketNumber,
    ) -> impl Iterator<Item = (PacketNumber, PacketNumber)> + '_ {
        let pairs = self.ranges.as_chunks::<2>().0;
        let mut numbers = pairs
            .iter()
            .map(|pair| u64::from(u16::from_be_bytes(*pair)));
        let mut last = Some(largest.0);
        let mut gap = Some(0);
        std::iter::from_fn(move || {
            let top = last?.checked_sub(gap?)?;
            let low = top.checked_sub(numbers.next()?)?;
            gap = numbers.next();
            // A gap of n packets: the next range ends n + 1 below this one's first.
            last = low.checked_sub(1);
            Some((PacketNumber(low), PacketNumber(top)))
        })
    }
}

/// One frame, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An IP packet.
    Data {
        /// Its place in its flow.
        order: Option<Order>,
        /// The packet.
        packet: &'a [u8],
    },
    /// What arrived.
    Ack(AckFrame<'a>),
    /// "Acknowledge this."
    Ping,
    /// "Prove that you are there."
    Challenge([u8; 8]),
    /// The proof.
    Response([u8; 8]),
    /// What the opener of a path tells of it.
    Status {
        /// Which path.
        path: PathId,
        /// Its tier.
        metric: u8,
        /// A cap on what the reader of this sends, kbit/s; zero: none.
        rate_cap: u32,
    },
    /// The peer goes.
    Close,
    /// A packet was given up.
    Forward {
        /// Its order domain.
        bucket: Bucket,
        /// Its place.
        sequence: Sequence,
    },
    /// What brings lost datagrams back.
    Parity(Parity<'a>),
}

/// A datagram whose frames do not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The frames of a datagram's body (behind the send time).
#[derive(Debug, Clone)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// The frames in these bytes.
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn path(&mut self) -> Result<PathId, Malformed> {
        let [byte] = self.take()?;
        PathId::new(byte).ok_or(Malformed)
    }

    fn data(&mut self, kind: u8) -> Result<Frame<'a>, Malformed> {
        if kind & !(DATA | ORDERED | WAIT | SETTLED | LENGTH) != 0 {
            return Err(Malformed);
        }
        let length = if kind & LENGTH != 0 {
            Some(u16::from_be_bytes(self.take()?))
        } else {
            None
        };
        let order = if kind & ORDERED != 0 {
            let [bucket, a, b, c, mask] = self.take()?;
            Some(Order {
                bucket: Bucket(bucket),
                sequence: Sequence(u32::from_be_bytes([0, a, b, c])),
                mask,
                wait: kind & WAIT != 0,
                settled: kind & SETTLED != 0,
            })
        } else if kind & (WAIT | SETTLED) != 0 {
            return Err(Malformed);
        } else {
            None
        };
        let packet = self.take_slice(length.map_or(self.0.len(), usize::from))?;
        if packet.is_empty() {
            return Err(Malformed);
        }
        Ok(Frame::Data { order, packet })
    }

    fn ack(&mut self) -> Result<Frame<'a>, Malformed> {
        let path = self.path()?;
        let largest = u32::from_be_bytes(self.take()?);
        let received_at = self.take()?;
        let bytes = u32::from_be_bytes(self.take()?);
        let ecn = EcnCounts {
            ect0: u16::from_be_bytes(self.take()?),
            ce: u16::from_be_bytes(self.take()?),
        };
        let [gaps] = self.take()?;
        if usize::from(gaps) > MOST_RANGES {
            return Err(Malformed);
        }
        let ranges = self.take_slice(2 + 4 * usize::from(gaps))?;
        Ok(Frame::Ack(AckFrame {
            path,
            largest,
            received_at,
            bytes,
            ecn,
            ranges,
        }))
    }

    fn frame(&mut self, kind: u8) -> Result<Option<Frame<'a>>, Malformed> {
        Ok(Some(match kind {
            DATA.. => self.data(kind)?,
            PADDING => {
                self.0 = &[];
                return Ok(None);
            }
            ACK => self.ack()?,
            PING => Frame::Ping,
            CHALLENGE => Frame::Challenge(self.take()?),
            RESPONSE => Frame::Response(self.take()?),
            STATUS => {
                let path = self.path()?;
                let [metric] = self.take()?;
                Frame::Status {
                    path,
                    metric,
                    rate_cap: u32::from_be_bytes(self.take()?),
                }
            }
            CLOSE => Frame::Close,
            FORWARD => {
                let [bucket, a, b, c] = self.take()?;
                Frame::Forward {
                    bucket: Bucket(bucket),
                    sequence: Sequence(u32::from_be_bytes([0, a, b, c])),
                }
            }
            PARITY => {
                let [back, span, index] = self.take()?;
                let sum = self.take_slice(self.0.len())?;
                Frame::Parity(Parity {
                    back,
                    span,
                    index,
                    sum,
                })
            }
            _ => return Err(Malformed),
        }))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.0.split_first()?;
        self.0 = rest;
        let frame = self.frame(kind).transpose();
        if matches!(frame, Some(Err(_))) {
            self.0 = &[];
        }
        frame
    }
}

/// Appends a DATA frame; `last` leaves the length out, so no frame may follow.
pub fn put_data(out: &mut Vec<u8>, order: Option<Order>, packet: &[u8], last: bool) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let place = order.map_or(0, |order| {
        ORDERED | flag(order.wait, WAIT) | flag(order.settled, SETTLED)
    });
    out.push(DATA | place | flag(!last, LENGTH));
    if !last {
        out.extend_from_slice(&(packet.len() as u16).to_be_bytes());
    }
    if let Some(order) = order {
        let [_, a, b, c] = order.sequence.0.to_be_bytes();
        out.extend_from_slice(&[order.bucket.0, a, b, c, order.mask]);
    }
    out.extend_from_slice(packet);
}

/// What an ACK frame says besides its ranges.
#[derive(Debug, Clone, Copy)]
pub struct AckHead {
    /// Whose packets.
    pub path: PathId,
    /// When the largest came, by our clock.
    pub received_at: Stamp,
    /// Bytes received on the path so far.
    pub bytes: u32,
    /// What their IP headers said of congestion.
    pub ecn: EcnCounts,
}

/// Appends an ACK frame with as many ranges as fit in `room` bytes; false when not even one does or
/// there is nothing to acknowledge.
pub fn put_ack(out: &mut Vec<u8>, head: AckHead, ranges: &Ranges, room: usize) -> bool {
    let mut newest_first = ranges.iter_newest_first();
    let Some((low, largest)) = newest_first.next() else {
        return false;
    };
    if room < ack_len(0) {
        return false;
    }
    let most = MOST_RANGES.min((room - ack_len(0)) / 4);
    out.push(ACK);
    out.push(head.path.byte());
    out.extend_from_slice(&largest.truncated().to_be_bytes());
    out.extend_from_slice(&head.received_at.encode());
    out.extend_from_slice(&head.bytes.to_be_bytes());
    out.extend_from_slice(&head.ecn.ect0.to_be_bytes());
    out.extend_from_slice(&head.ecn.ce.to_be_bytes());
    let count_at = out.len();
    out.push(0);
    // A range longer than a 16-bit length can say is told in part: the older part was told before.
    let length = |low: PacketNumber, high: PacketNumber| u16::try_from(high.0 - low.0).ok();
    let Some(first) = length(low, largest) else {
        out.extend_from_slice(&u16::MAX.to_be_bytes());
        return true;
    };
    out.extend_from_slice(&first.to_be_bytes());
    let mut below = low;
    let mut count = 0u8;
    for (low, high) in newest_first.take(most) {
        let (Ok(gap), Some(came)) = (u16::try_from(below.0 - high.0 - 1), length(low, high)) else {
            break;
        };
        out.extend_from_slice(&gap.to_be_bytes());
        out.extend_from_slice(&came.to_be_bytes());
        below = low;
        count += 1;
    }
    out[count_at] = count;
    true
}

/// Appends a PING frame.
pub fn put_ping(out: &mut Vec<u8>) {
    out.push(PING);
}

/// Appends a CHALLENGE frame.
pub fn put_challenge(out: &mut Vec<u8>, token: [u8; 8]) {
    out.push(CHALLENGE);
    out.extend_from_slice(&token);
}

/// Appends a RESPONSE frame.
pub fn put_response(out: &mut Vec<u8>, token: [u8; 8]) {
    out.push(RESPONSE);
    out.extend_from_slice(&token);
}

/// Appends a STATUS frame.
pub fn put_status(out: &mut Vec<u8>, path: PathId, metric: u8, rate_cap: u32) {
    out.extend_from_slice(&[STATUS, path.byte(), metric]);
    out.extend_from_slice(&rate_cap.to_be_bytes());
}

/// Appends a CLOSE frame.
pub fn put_close(out: &mut Vec<u8>) {
    out.push(CLOSE);
}

/// Appends a FORWARD frame.
pub fn put_forward(out: &mut Vec<u8>, bucket: Bucket, sequence: Sequence) {
    let [_, a, b, c] = sequence.0.to_be_bytes();
    out.extend_from_slice(&[FORWARD, bucket.0, a, b, c]);
}

/// Appends a PARITY frame; none may follow.
pub fn put_parity(out: &mut Vec<u8>, parity: Parity<'_>) {
    out.extend_from_slice(&[PARITY, parity.back, parity.span, parity.index]);
    out.extend_from_slice(parity.sum);
}

/// Pads with zeros up to `length` bytes in all.
pub fn pad(out: &mut Vec<u8>, length: usize) {
    if out.len() < length {
        out.resize(length, PADDING);
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
