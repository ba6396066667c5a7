//! Congestion marks in the IP header (RFC 3168).

/// The two bits in the second byte of IPv4's traffic class, or in the first two bytes of IPv6.
const NOT_CAPABLE: u8 = 0b00;
const EXPERIENCED: u8 = 0b11;

/// What the two bits say (RFC 3168 section 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Codepoint {
    /// Not-ECT: a full queue drops it.
    #[default]
    NotCapable,
    /// ECT(0): a full queue may mark it instead.
    Capable,
    /// ECT(1): the same, from a sender of low-latency traffic (RFC 9331).
    CapableOne,
    /// CE: a queue on the way marked it.
    Experienced,
}

impl Codepoint {
    /// The codepoint of the two bits.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & EXPERIENCED {
            NOT_CAPABLE => Self::NotCapable,
            0b10 => Self::Capable,
            0b01 => Self::CapableOne,
            _ => Self::Experienced,
        }
    }
}

/// What an IP packet says.
pub fn read(packet: &[u8]) -> Codepoint {
    let bits = match packet {
        [first, second, ..] if first >> 4 == 4 => *second,
        [first, second, ..] if first >> 4 == 6 => second >> 4,
        _ => NOT_CAPABLE,
    };
    Codepoint::from_bits(bits)
}

/// Marks a packet whose ends can read it; false when they cannot, or when it is too short. The
/// checksum of IPv4 follows (RFC 1624).
pub fn mark(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => mark_v4(packet),
        Some(6) => mark_v6(packet),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<20>() else {
        return false;
    };
    if header[1] & EXPERIENCED == NOT_CAPABLE {
        return false;
    }
    let before = u16::from_be_bytes([header[0], header[1]]);
    header[1] |= EXPERIENCED;
    let after = u16::from_be_bytes([header[0], header[1]]);
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [high, low] = (!(sum as u16)).to_be_bytes();
    (header[10], header[11]) = (high, low);
    true
}

fn mark_v6(packet: &mut [u8]) -> bool {
    // Version, then eight bits of traffic class, across the first two bytes.
    let Some(second) = packet.get_mut(1) else {
        return false;
    };
    let mask = EXPERIENCED << 4;
    if *second & mask == NOT_CAPABLE {
        return false;
    }
    *second |= mask;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(header: &[u8]) -> u16 {
        let mut sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn marks_and_keeps_the_checksum_right() {
        for ect in [1, 2, 3] {
            for id in [0u8, 1, 0xfe, 0xff] {
                let mut header = [
                    0x45, ect, 5, 0x78, id, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
                ];
                let checksum = (!sum(&header)).to_be_bytes();
                header[10..12].copy_from_slice(&checksum);
                assert_eq!(read(&header), Codepoint::from_bits(ect));
                assert!(mark(&mut header));
                assert_eq!(header[1], 3);
                assert_eq!(read(&header), Codepoint::Experienced);
                assert_eq!(sum(&header), 0xffff, "{ect} {id}");
            }
        }
    }

    #[test]
    fn leaves_alone_what_cannot_be_marked() {
        let mut plain = [0x45; 20];
        plain[1] = 0xb8;
        let before = plain;
        assert!(!mark(&mut plain));
        assert_eq!(plain, before);
        assert!(!mark(&mut []));
        assert!(!mark(&mut [0x45, 2]));
        assert!(!mark(&mut [0x60]));
        assert_eq!(read(&plain), Codepoint::NotCapable);
        let mut v6 = [0x60, 0x20, 0, 0];
        assert_eq!(read(&v6), Codepoint::Capable);
        assert!(mark(&mut v6));
        assert_eq!(v6, [0x60, 0x30, 0, 0]);
    }
}
