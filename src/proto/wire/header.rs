//! The clear header of every datagram: eight bytes, authenticated with the frames behind it.

use super::{HEADER_LEN, Kind, ReceiverIndex};

/// The clear header of a sealed or bare datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The first byte.
    pub kind: Kind,
    /// Whose datagram this is.
    pub index: ReceiverIndex,
    /// The low 32 bits of the packet number.
    pub number: u32,
}

impl Header {
    /// The header at the start of a datagram, or nothing when it is short or of no known kind.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = datagram.first_chunk()?;
        let [kind, a, b, c, n0, n1, n2, n3] = *bytes;
        Some(Self {
            kind: Kind::from_byte(kind)?,
            index: ReceiverIndex::new([a, b, c]),
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }

    /// The eight bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [a, b, c] = self.index.bytes();
        let [n0, n1, n2, n3] = self.number.to_be_bytes();
        [self.kind as u8, a, b, c, n0, n1, n2, n3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let header = Header {
            kind: Kind::Sealed,
            index: ReceiverIndex::new([1, 2, 3]),
            number: 0xdead_beef,
        };
        let bytes = header.encode();
        assert_eq!(bytes, [0x40, 1, 2, 3, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(Header::parse(&bytes[..7]), None);
        assert_eq!(Header::parse(&[0x41; 8]), None);
    }
}
