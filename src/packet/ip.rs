//! Is it an IP packet at all?

/// True when the bytes are one IP packet, whole, and of the length that its header says.
pub fn is_packet(bytes: &[u8]) -> bool {
    match bytes {
        [first, ..] if first >> 4 == 4 => bytes.first_chunk::<20>().is_some_and(|header| {
            let header_len = usize::from(header[0] & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            header_len >= 20 && total >= header_len && total == bytes.len()
        }),
        [first, ..] if first >> 4 == 6 => bytes.first_chunk::<40>().is_some_and(|header| {
            usize::from(u16::from_be_bytes([header[4], header[5]])) + 40 == bytes.len()
        }),
        _ => false,
    }
}

/// True when an IP packet carries TCP; behind IPv6 extension headers it is not looked for.
pub fn is_tcp(packet: &[u8]) -> bool {
    const TCP: u8 = 6;
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9) == Some(&TCP),
        Some(6) => packet.get(6) == Some(&TCP),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_must_be_the_one_it_says() {
        let mut v4 = [0; 28];
        v4[0] = 0x45;
        v4[3] = 28;
        assert!(is_packet(&v4));
        assert!(!is_packet(&v4[..27]));
        v4[0] = 0x44;
        assert!(!is_packet(&v4));
        let mut v6 = [0; 44];
        v6[0] = 0x60;
        v6[5] = 4;
        assert!(is_packet(&v6));
        assert!(!is_packet(&v6[..43]));
        assert!(!is_packet(&[]));
        assert!(!is_packet(&[0x50; 60]));
        assert!(!is_tcp(&v4) && !is_tcp(&v6) && !is_tcp(&[]));
        v4[9] = 6;
        v6[6] = 6;
        assert!(is_tcp(&v4) && is_tcp(&v6));
    }
}
