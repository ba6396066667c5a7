//! The numbers of the protocol as types; none of them is ever a bare integer.

use std::fmt;

use super::MAX_PATHS;

/// Which path of a tunnel, below [`MAX_PATHS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(u8);

impl PathId {
    /// A path's id, or nothing when it is out of range.
    pub fn new(id: u8) -> Option<Self> {
        (usize::from(id) < MAX_PATHS).then_some(Self(id))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_PATHS as u8).map(Self)
    }

    /// As an index of a table of paths.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// As the byte on the wire.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// The path's bit in a mask of paths.
    pub fn bit(self) -> u8 {
        1 << self.0
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A packet number: one 64-bit counter per path and direction, 32 bits of it on the wire. It never
/// starts again while a key lives, so it is the nonce too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// The low 32 bits, as sent.
    pub fn truncated(self) -> u32 {
        self.0 as u32
    }

    /// The number nearest to `expected` (the next one awaited) that has these low 32 bits
    /// (RFC 9000 appendix A.3, with a window of 2^32).
    pub fn expand(truncated: u32, expected: Self) -> Self {
        let ahead = truncated.wrapping_sub(expected.0 as u32) as i32;
        match expected.0.checked_add_signed(i64::from(ahead)) {
            Some(number) => Self(number),
            // Below zero: it can only be meant ahead.
            None => Self(expected.0 + u64::from(ahead as u32)),
        }
    }

    /// The next number.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for PacketNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a path and a key to the receiver: 24 bits, unlinkable between paths and epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverIndex([u8; 3]);

impl ReceiverIndex {
    /// An index of these bytes.
    pub fn new(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// The bytes, as sent.
    pub fn bytes(self) -> [u8; 3] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expand_is_the_nearest() {
        for (truncated, expected, full) in [
            (0, 0, 0),
            (5, 0, 5),
            (0xffff_ffff, 0, 0xffff_ffff),
            (0, 0xffff_ffff, 0x1_0000_0000),
            (0xffff_ffff, 0x1_0000_0000, 0xffff_ffff),
            (7, 0x5_0000_0009, 0x5_0000_0007),
            (0x8000_0000, 0x1_0000_0000, 0x8000_0000),
        ] {
            assert_eq!(
                PacketNumber::expand(truncated, PacketNumber(expected)),
                PacketNumber(full)
            );
        }
    }
}
