//! "Packet too big": what a router says to the sender of a packet that the next link does not take
//! (RFC 1191, RFC 8201).
//!
//! It is sent in the name of the packet's own destination. The sender looks at the packet that is
//! quoted in it and at nothing else, and from this address it comes where the connection's own packets
//! come: through the same filters, the same reverse-path check and the same address translation, on a
//! TUN that may have no address at all.

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The header before the quoted packet in both versions.
const HEADER: usize = 8;
/// Bytes of an answer at most: 576 for IPv4 (RFC 1812 section 4.3.2.3), IPv6's least MTU (RFC 4443
/// section 2.4 c).
const MOST_V4: usize = 576;
const MOST_V6: usize = 1280;
/// ICMPv6's redirect is not answered either (RFC 4443 section 2.4 e.2).
const REDIRECT_V6: u8 = 137;
/// Extension headers that are passed over in search of ICMPv6: more are not met.
const MOST_EXTENSIONS: usize = 8;

/// True for a packet that a router may cut into fragments: IPv4 without DF.
pub fn may_be_cut(packet: &[u8]) -> bool {
    packet
        .first_chunk::<20>()
        .is_some_and(|header| header[0] >> 4 == 4 && header[6] & 0x40 == 0)
}

/// Appends the answer "packets up to `mtu` bytes only" to a packet; false, and nothing is appended,
/// where none may be given (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e): to errors, to what went
/// to or came from many, and to fragments that do not show what they are part of.
pub fn packet_too_big(packet: &[u8], mtu: u16, out: &mut Vec<u8>) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => too_big_v4(packet, mtu, out),
        Some(6) => too_big_v6(packet, mtu, out),
        Some(_) | None => false,
    }
}

fn too_big_v4(packet: &[u8], mtu: u16, out: &mut Vec<u8>) -> bool {
    let Some(header) = packet.first_chunk::<20>() else {
        return false;
    };
    let length = usize::from(header[0] & 0x0f) * 4;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let (source, destination) = (&header[12..16], &header[16..20]);
    // Loopback, "this network", multicast and broadcast.
    let one = |address: &[u8]| !matches!(address[0], 0 | 127 | 224..);
    if length < 20 || later_fragment || !one(source) || !one(destination) {
        return false;
    }
    // Echo, timestamp, information and mask, question and answer; all else is an error, or may be one.
    let is_question = |kind: Option<&u8>| matches!(kind, Some(0 | 8 | 13..=18));
    if header[9] == ICMP && !is_question(packet.get(length)) {
        return false;
    }
    let quoted = &packet[..packet.len().min(MOST_V4 - 20 - HEADER)];
    let total = (20 + HEADER + quoted.len()) as u16;
    let start = out.len();
    // Precedence "internetwork control" (RFC 1812 section 4.3.2.5).
    out.extend_from_slice(&[0x45, 0xc0]);
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 64, ICMP, 0, 0]);
    out.extend_from_slice(destination);
    out.extend_from_slice(source);
    set_checksum(&mut out[start..], 10, 0);
    let icmp = out.len();
    // Destination unreachable: fragmentation needed (RFC 792), the MTU in the last two bytes.
    out.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
    out.extend_from_slice(&mtu.to_be_bytes());
    out.extend_from_slice(quoted);
    set_checksum(&mut out[icmp..], 2, 0);
    true
}

fn too_big_v6(packet: &[u8], mtu: u16, out: &mut Vec<u8>) -> bool {
    let Some(header) = packet.first_chunk::<40>() else {
        return false;
    };
    let (source, destination) = (&header[8..24], &header[24..40]);
    // Unspecified, loopback and multicast; an answer from a multicast address cannot be.
    let one = |address: &[u8]| address[0] != 0xff && address[..15] != [0; 15];
    if !one(source) || !one(destination) || may_be_error_v6(packet) {
        return false;
    }
    let quoted = &packet[..packet.len().min(MOST_V6 - 40 - HEADER)];
    let length = (HEADER + quoted.len()) as u16;
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[ICMPV6, 64]);
    let addresses = out.len();
    out.extend_from_slice(destination);
    out.extend_from_slice(source);
    let icmp = out.len();
    out.extend_from_slice(&[2, 0, 0, 0]);
    out.extend_from_slice(&u32::from(mtu).to_be_bytes());
    out.extend_from_slice(quoted);
    // With the pseudo-header (RFC 8200 section 8.1).
    let pseudo = u32::from(length) + u32::from(ICMPV6);
    let pseudo = pseudo + sum(&out[addresses..icmp]);
    set_checksum(&mut out[icmp..], 2, pseudo);
    true
}

/// True for an ICMPv6 error, and for what hides whether it is one.
fn may_be_error_v6(packet: &[u8]) -> bool {
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..MOST_EXTENSIONS {
        let Some(rest) = packet.get(at..) else {
            return true;
        };
        match (next, rest) {
            (ICMPV6, rest) => {
                return rest
                    .first()
                    .is_none_or(|kind| *kind < 128 || *kind == REDIRECT_V6);
            }
            // Hop-by-hop, routing, destination options (RFC 8200 section 4).
            (0 | 43 | 60, [following, length, ..]) => {
                next = *following;
                at += (usize::from(*length) + 1) * 8;
            }
            // A fragment; a later one does not show its beginning.
            (44, [following, _, high, low, ..]) => {
                if u16::from_be_bytes([*high, *low]) >> 3 != 0 {
                    return *following == ICMPV6;
                }
                next = *following;
                at += 8;
            }
            // Authentication (RFC 4302 section 2.2).
            (51, [following, length, ..]) => {
                next = *following;
                at += (usize::from(*length) + 2) * 4;
            }
            (0 | 43 | 44 | 51 | 60, _) => return true,
            _ => return false,
        }
    }
    true
}

/// The sum of all 16-bit words (RFC 1071), not folded: 64 KiB do not overflow it.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let whole: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    whole + rest.first().map_or(0, |last| u32::from(*last) << 8)
}

/// Writes the checksum over `bytes`, and over what sums up to `more`.
fn set_checksum(bytes: &mut [u8], at: usize, more: u32) {
    let sum = sum(bytes) + more;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    bytes[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, flags: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(flags.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 203, 0, 113, 2, 198, 51, 100, 1]);
        packet.resize(length, 8);
        packet
    }

    fn v6(next: u8, length: usize) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(((length - 40) as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend([0x20; 16]);
        packet.extend([0x30; 16]);
        packet.resize(length, 200);
        packet
    }

    fn answer(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        packet_too_big(packet, mtu, &mut out).then_some(out)
    }

    /// All words, and the carries, make ones (RFC 1071).
    fn adds_up(mut sum: u64) -> bool {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }

    fn words(bytes: &[u8]) -> u64 {
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u64::from(*b));
        bytes.chunks(2).map(word).sum()
    }

    #[test]
    fn only_what_has_no_df_may_be_cut() {
        assert!(may_be_cut(&v4(17, 0, 1400)));
        assert!(!may_be_cut(&v4(17, 0x4000, 1400)));
        assert!(!may_be_cut(&v6(17, 1400)));
        assert!(!may_be_cut(&[]));
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let changed = |mut packet: Vec<u8>, at: usize, byte: u8| {
            packet[at] = byte;
            packet
        };
        for packet in [
            Vec::new(),
            vec![0x45; 19],
            vec![0x60; 39],
            vec![0x50; 60],
            changed(v4(6, 0x4000, 1400), 0, 0x44),
            v4(6, 0x00b9, 1400),
            changed(v4(6, 0, 1400), 16, 224),
            changed(v4(6, 0, 1400), 16, 255),
            changed(v4(6, 0, 1400), 12, 0),
            changed(v4(1, 0, 1400), 20, 3),
            changed(v4(1, 0, 1400), 20, 11),
            v4(1, 0, 20),
            changed(v6(17, 1400), 24, 0xff),
            changed(v6(17, 1400), 8, 0xff),
            changed(v6(58, 1400), 40, 1),
            v6(58, 40),
            // An error behind a hop-by-hop header, and a later fragment of ICMPv6.
            changed(changed(changed(v6(0, 1400), 40, 58), 41, 0), 48, 2),
            changed(v6(44, 1400), 40, 58),
        ] {
            assert_eq!(answer(&packet, 1280), None, "{packet:02x?}");
        }
        // Pings are.
        assert!(answer(&changed(v4(1, 0, 1400), 20, 8), 1280).is_some());
        assert!(answer(&changed(v6(58, 1400), 40, 128), 1280).is_some());
    }

    proptest! {
        #[test]
        fn an_answer_quotes_the_packet_and_adds_up(
            six: bool,
            length in 48_usize..9000,
            mtu in 68_u16..9000,
            noise in prop::collection::vec(any::<u8>(), 64),
        ) {
            let mut packet = if six { v6(6, length) } else { v4(6, 0x4000, length) };
            let header = if six { 40 } else { 20 };
            for (to, from) in packet[header..].iter_mut().zip(noise) {
                *to = from;
            }
            let answer = answer(&packet, mtu).unwrap();
            let (most, addresses) = if six { (MOST_V6, 8) } else { (MOST_V4, 12) };
            prop_assert!(answer.len() <= most);
            prop_assert!(crate::packet::ip::is_packet(&answer));
            let quoted = &answer[header + HEADER..];
            prop_assert_eq!(quoted, &packet[..quoted.len()]);
            prop_assert!(quoted.len() == packet.len() || answer.len() == most);
            // From the destination, to the source.
            let half = (header - addresses) / 2;
            prop_assert_eq!(&answer[addresses..][..half], &packet[addresses + half..header]);
            prop_assert_eq!(&answer[addresses + half..header], &packet[addresses..][..half]);
            let said = &answer[header + 6..header + 8];
            prop_assert_eq!(said, &mtu.to_be_bytes()[..]);
            let icmp = words(&answer[header..]);
            if six {
                let length = (answer.len() - 40) as u64;
                prop_assert!(adds_up(icmp + words(&answer[8..40]) + length + 58));
                prop_assert_eq!(&answer[40..42], &[2, 0][..]);
            } else {
                prop_assert!(adds_up(icmp) && adds_up(words(&answer[..20])));
                prop_assert_eq!(&answer[20..22], &[3, 4][..]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_no_answer_is_answered(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            version in prop::sample::select(vec![0x45_u8, 0x46, 0x60]),
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            if let Some(answered) = answer(&bytes, 1280) {
                prop_assert_eq!(answer(&answered, 1280), None);
            }
        }
    }
}
