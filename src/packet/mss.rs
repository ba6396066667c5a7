//! TCP's maximum segment size, held to what the tunnel carries.
//!
//! The ends of a connection learn the tunnel's smaller MTU by ICMP alone, and many a firewall
//! drops that (RFC 2923 section 2.1): the connection opens, and its first full packet falls into a
//! black hole. So the size that each end announces in its SYN is lowered on the way. Done here and
//! not by the packet filter: it is the same on every system, needs no filter, and holds in
//! `deliver = "none"` too, where the host's routing is not ours.

/// The TCP protocol (IANA).
const TCP: u8 = 6;
/// Bytes of a TCP header without options (RFC 9293 section 3.1).
const TCP_HEADER: usize = 20;
/// Where the checksum stands in it.
const CHECKSUM: usize = 16;
/// The flag that opens a connection, in byte 13.
const SYN: u8 = 0x02;

/// Lowers the maximum segment size of a TCP SYN to what fits into packets of `mtu` bytes without
/// options: 40 less for IPv4, 60 less for IPv6 (RFC 6691 section 2). Every other packet stays as it
/// is: also a SYN without the option, whose default of 536 or 1220 bytes always fits, and one behind
/// IPv6 extension headers. The TCP checksum must be the whole one.
pub fn clamp(packet: &mut [u8], mtu: u16) {
    let Some((header, largest)) = segment(packet, mtu) else {
        return;
    };
    let tcp = &mut packet[header..];
    let Some(at) = option(tcp) else {
        return;
    };
    let announced = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if announced <= largest {
        return;
    }
    tcp[at..at + 2].copy_from_slice(&largest.to_be_bytes());
    let sum = u16::from_be_bytes([tcp[CHECKSUM], tcp[CHECKSUM + 1]]);
    // At an odd place the two bytes belong to two words of the sum, the other way round.
    let word = |value: u16| {
        if at % 2 == 0 {
            value
        } else {
            value.swap_bytes()
        }
    };
    let sum = updated(sum, word(announced), word(largest));
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where the TCP header of a packet begins, and the largest segment that fits.
fn segment(packet: &[u8], mtu: u16) -> Option<(usize, u16)> {
    let (header, protocol) = match packet.first()? >> 4 {
        4 => {
            let ip: &[u8; 20] = packet.first_chunk()?;
            let later_fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0;
            if later_fragment {
                return None;
            }
            // The size counts the header without its options.
            (usize::from(ip[0] & 0x0f) * 4, ip[9])
        }
        6 => (40, *packet.get(6)?),
        _ => return None,
    };
    let bare = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let tcp = packet.get(header..)?;
    let is_syn = protocol == TCP && header >= bare && tcp.len() >= TCP_HEADER && tcp[13] & SYN != 0;
    let overhead = u16::try_from(bare + TCP_HEADER).ok()?;
    is_syn.then(|| (header, mtu.saturating_sub(overhead)))
}

/// Where the value of the option "maximum segment size" stands in a TCP header (RFC 9293 section
/// 3.2: kind 2, length 4).
fn option(tcp: &[u8]) -> Option<usize> {
    let end = usize::from(tcp[12] >> 4) * 4;
    let options = tcp.get(TCP_HEADER..end)?;
    let mut at = 0;
    loop {
        match *options.get(at)? {
            0 => return None,
            1 => at += 1,
            kind => {
                let length = usize::from(*options.get(at + 1)?);
                if kind == 2 && length == 4 && at + 4 <= options.len() {
                    return Some(TCP_HEADER + at + 2);
                }
                if length < 2 {
                    return None;
                }
                at += length;
            }
        }
    }
}

/// The checksum after one of its words has changed (RFC 1624 section 3, equation 3).
fn updated(sum: u16, old: u16, new: u16) -> u16 {
    let mut folded = u32::from(!sum) + u32::from(!old) + u32::from(new);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The TCP checksum by the book: the pseudo-header, then all words (RFC 9293 section 3.1).
    fn sums_up(packet: &[u8]) -> bool {
        let (addresses, tcp) = if packet[0] >> 4 == 4 {
            let header = usize::from(packet[0] & 0x0f) * 4;
            (&packet[12..20], &packet[header..])
        } else {
            (&packet[8..40], &packet[40..])
        };
        let mut sum = u32::from(TCP) + tcp.len() as u32;
        for word in addresses.chunks(2).chain(tcp.chunks(2)) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }

    /// A TCP packet with these options and payload, and a right checksum.
    fn packet(v6: bool, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = vec![0x9c, 0x40, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8];
        tcp.push((((TCP_HEADER + options.len()) / 4) << 4) as u8);
        tcp.extend([flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend(&options);
        tcp.extend(payload);
        let mut packet = if v6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, TCP, 64];
            ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
            ip.extend([0x20; 16]);
            ip.extend([0x30; 16]);
            ip
        } else {
            let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, TCP, 0, 0];
            ip[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
            ip.extend([203, 0, 113, 2, 198, 51, 100, 1]);
            ip
        };
        let header = packet.len();
        packet.extend(tcp);
        for sum in 0..=u16::MAX {
            packet[header + CHECKSUM..header + CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
            if sums_up(&packet) {
                break;
            }
        }
        packet
    }

    fn announced(packet: &[u8]) -> u16 {
        let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let at = header + option(&packet[header..]).unwrap();
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    #[test]
    fn a_syn_announces_what_fits() {
        for (v6, most) in [(false, 1380), (true, 1360)] {
            // As Linux sends it, and at an odd place.
            for options in [&[2, 4, 5, 180, 4, 2, 8, 10][..], &[1, 2, 4, 5, 180]] {
                for flags in [SYN, SYN | 0x10] {
                    let mut packet = packet(v6, flags, options, b"odd");
                    clamp(&mut packet, 1420);
                    assert_eq!(announced(&packet), most);
                    assert!(sums_up(&packet));
                }
            }
        }
    }

    #[test]
    fn all_else_stays() {
        let mut later_fragment = packet(false, SYN, &[2, 4, 5, 180], &[]);
        later_fragment[7] = 1;
        let mut udp = packet(false, SYN, &[2, 4, 5, 180], &[]);
        udp[9] = 17;
        for before in [
            packet(false, 0x10, &[2, 4, 5, 180], &[]),
            packet(false, SYN, &[2, 4, 4, 0], &[]),
            packet(true, SYN, &[1, 1, 4, 2], &[]),
            packet(false, SYN, &[], &[2, 4, 5, 180]),
            packet(false, SYN, &[3, 0, 2, 4, 5, 180], &[]),
            packet(false, SYN, &[0, 2, 4, 5, 180], &[]),
            later_fragment,
            udp,
        ] {
            let mut after = before.clone();
            clamp(&mut after, 1420);
            assert_eq!(after, before);
        }
    }

    proptest! {
        #[test]
        fn the_checksum_stays_right(
            v6: bool,
            value: u16,
            mtu in 576_u16..=9000,
            nops in 0_usize..8,
            payload in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut options = vec![1; nops];
            options.extend([2, 4]);
            options.extend(value.to_be_bytes());
            let mut packet = packet(v6, SYN, &options, &payload);
            clamp(&mut packet, mtu);
            let most = mtu - if v6 { 60 } else { 40 };
            prop_assert_eq!(announced(&packet), value.min(most));
            prop_assert!(sums_up(&packet));
        }

        #[test]
        fn no_bytes_make_it_panic_and_few_are_changed(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            version in prop::sample::select(vec![0x45_u8, 0x46, 0x60]),
            mtu: u16,
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            for place in [6, 9] {
                if let Some(protocol) = bytes.get_mut(place) {
                    *protocol = if place == 6 && version != 0x60 { 0 } else { TCP };
                }
            }
            let mut after = bytes.clone();
            clamp(&mut after, mtu);
            let changed = after.iter().zip(&bytes).filter(|(a, b)| a != b).count();
            prop_assert!(changed <= 4);
        }
    }
}
