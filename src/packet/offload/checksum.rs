//! The Internet checksum (RFC 1071).

/// A one's complement sum of 16-bit words, not yet folded. It is kept in the machine's own byte
/// order, in which it comes out right as well (RFC 1071 section 2B), so no word is ever swapped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

/// Bytes summed in one step: eight independent lanes of four, which compilers make vectors of.
const BLOCK: usize = 32;

impl Sum {
    /// Adds bytes that begin at an even place of what is summed. Only the last may be odd in number.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // A lane grows by less than 2^32 a block: no packet makes it overflow.
        let mut lanes = [0_u64; BLOCK / 4];
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (words, last) = rest.as_chunks::<2>();
        let rest: u64 = words
            .iter()
            .chain(last.first().map(|&byte| [byte, 0]).as_ref())
            .map(|&word| u64::from(u16::from_ne_bytes(word)))
            .sum();
        Self(self.0 + lanes.iter().sum::<u64>() + rest)
    }

    /// Adds a word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Takes a word away that was added.
    #[must_use]
    pub fn without(self, word: u16) -> Self {
        self.word(!word)
    }

    /// The sum in 16 bits.
    pub fn folded(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        for _ in 0..3 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// What goes into the checksum's field.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The same for UDP, where zero says that there is none (RFC 768).
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the book, a word at a time.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for word in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                word[0],
                word.get(1).copied().unwrap_or(0),
            ]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
        assert_eq!(Sum::default().bytes(&bytes).checksum(), 0x220d);
    }

    #[test]
    fn carries_are_folded_to_the_end() {
        assert_eq!(Sum::default().bytes(&[0xff; 65_536]).folded(), 0xffff);
        assert_eq!(Sum::default().bytes(&[0xff; 2]).checksum(), 0);
        assert_eq!(Sum::default().bytes(&[0xff; 2]).udp_checksum(), 0xffff);
        assert_eq!(Sum(u64::MAX).folded(), 0xffff);
        assert_eq!(Sum::default().checksum(), 0xffff);
    }

    proptest! {
        #[test]
        fn it_is_the_plain_sum(
            first in prop::collection::vec(any::<u8>(), 0..300),
            second in prop::collection::vec(any::<u8>(), 0..300),
            word: u16,
        ) {
            let even = first.len() / 2 * 2;
            let mut all = first[..even].to_vec();
            all.extend(word.to_be_bytes());
            all.extend(&second);
            let sum = Sum::default().bytes(&first[..even]).word(word).bytes(&second);
            prop_assert_eq!(sum.folded(), plain(&all));
            // Zero has two forms in one's complement.
            let without = sum.word(7).without(7).folded();
            prop_assert!(without == sum.folded() || without == 0xffff && sum.folded() == 0);
        }
    }
}
