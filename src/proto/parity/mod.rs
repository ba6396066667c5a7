//! Parity: what brings lost datagrams back without a round trip.
//!
//! Over a long way each loss blocks a flow for the round trip that its repair takes. Where a path has a long
//! round trip and loses something, its datagrams with data are put into groups, and parities follow each
//! group: any `n` of them bring back any `n` datagrams of the group. Nothing else changes: what came back is
//! not acknowledged, so the sender sees every loss, and repairs it.
//!
//! A datagram's symbol is the length of its frames in two bytes, its frames, and zeros. That of a datagram
//! without data, or with frames longer than `MOST_SYMBOL`, is all zeros.
//!
//! Each parity costs the sender 0.6 microseconds a datagram of its group, and the receiver as much where it
//! brings something back (AMD EPYC, 1,400 bytes; `cargo bench -- parity`).

mod code;
mod cover;
mod store;

pub use cover::Cover;
pub use store::Store;

use super::wire::PacketNumber;

/// Parities of one group at most: 64 datagrams of a path that loses 3 % need so many.
const MOST_PARITIES: usize = 8;
/// Packet numbers that one group spans at most. Those of datagrams without data, like acknowledgements,
/// count too: there are about as many of them.
const MOST_SPAN: u8 = 160;
/// Bytes of a datagram's frames at most: what an Ethernet carries, and a little. A receiver keeps 256 of
/// them for a path, so that is 512 kB.
const MOST_SYMBOL: usize = 2048;
/// Bytes before the frames in a symbol: their length.
const LENGTH: usize = 2;

/// A parity, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parity<'a> {
    /// How far the group's first datagram is behind this one.
    pub back: u8,
    /// Packet numbers of the group.
    pub span: u8,
    /// Which of the group's parities.
    pub index: u8,
    /// The sum of its symbols.
    pub sum: &'a [u8],
}

impl Parity<'_> {
    /// The number of the group's first datagram, if that can be.
    fn first(&self, number: PacketNumber) -> Option<u64> {
        let fits = (1..=MOST_SPAN).contains(&self.span)
            && self.span <= self.back
            && usize::from(self.index) < MOST_PARITIES
            && (LENGTH + 1..=LENGTH + MOST_SYMBOL).contains(&self.sum.len());
        number.0.checked_sub(u64::from(self.back)).filter(|_| fits)
    }
}

#[cfg(test)]
mod tests;
