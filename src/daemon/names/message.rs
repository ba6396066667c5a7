//! DNS messages (RFC 1035), as much as one question and its answer need. What comes is anybody's: lengths
//! are checked, pointers lead backwards only, and nothing is kept beyond a few addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The header's length, bytes.
const HEADER: usize = 12;
/// The longest name in text (RFC 1035 2.3.4: 255 bytes on the wire).
const LONGEST_NAME: usize = 253;
/// The longest label.
const LONGEST_LABEL: usize = 63;
/// Records that are looked at.
const MOST_RECORDS: usize = 64;
/// Aliases that are followed.
const MOST_ALIASES: usize = 8;
/// Addresses that are kept of one answer.
pub(super) const MOST_ADDRESSES: usize = 16;
/// The class of the Internet.
const INTERNET: u16 = 1;
/// A name that stands for another (CNAME).
const ALIAS: u16 = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// The question for a name's addresses; nothing when it is no name for DNS.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_NAME {
        return None;
    }
    let mut message = id.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=LONGEST_LABEL).contains(&label.len()) || !label.is_ascii() {
            return None;
        }
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
}

/// The addresses that a message gives to this very question, perhaps none; nothing when it answers
/// another one, or not at all.
pub(super) fn answer(id: u16, name: &str, kind: Kind, bytes: &[u8]) -> Option<Vec<IpAddr>> {
    let number = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let flags = number(2)?;
    let (is_answer, opcode, code) = (flags >> 15 == 1, flags >> 11 & 15, flags & 15);
    if number(0)? != id || !is_answer || opcode != 0 || number(4)? != 1 {
        return None;
    }
    let wanted = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (asked, at) = read_name(bytes, HEADER)?;
    if asked != wanted || number(at)? != kind as u16 || number(at + 2)? != INTERNET {
        return None;
    }
    // 3: there is no such name, which is an answer. Others are the server's trouble.
    if code != 0 {
        return (code == 3).then(Vec::new);
    }
    let mut records = Vec::new();
    let mut at = at + 4;
    for _ in 0..usize::from(number(6)?).min(MOST_RECORDS) {
        let Some((record, end)) = read_record(bytes, at) else {
            // Cut short: what came whole counts.
            break;
        };
        records.push(record);
        at = end;
    }
    let mut owner = wanted;
    for _ in 0..MOST_ALIASES {
        let alias = records
            .iter()
            .find(|it| it.kind == ALIAS && it.owner == owner);
        match alias.and_then(|alias| read_name(bytes, alias.data.0)) {
            Some((next, _)) => owner = next,
            None => break,
        }
    }
    let of_owner = records
        .iter()
        .filter(|it| it.kind == kind as u16 && it.owner == owner);
    let addresses = of_owner.filter_map(|it| address(kind, bytes.get(it.data.0..it.data.1)?));
    Some(addresses.take(MOST_ADDRESSES).collect())
}

struct Record {
    owner: String,
    kind: u16,
    /// Where its data begins and ends.
    data: (usize, usize),
}

fn read_record(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let (owner, at) = read_name(bytes, at)?;
    let fixed: &[u8; 10] = bytes.get(at..)?.first_chunk()?;
    let [k0, k1, c0, c1, _, _, _, _, l0, l1] = *fixed;
    let start = at + fixed.len();
    let end = start + usize::from(u16::from_be_bytes([l0, l1]));
    if end > bytes.len() {
        return None;
    }
    let is_internet = u16::from_be_bytes([c0, c1]) == INTERNET;
    let kind = if is_internet {
        u16::from_be_bytes([k0, k1])
    } else {
        0
    };
    let data = (start, end);
    Some((Record { owner, kind, data }, end))
}

/// A name in small letters, and where what follows it begins.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut end, mut before) = (start, None, start);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=LONGEST_LABEL => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if name.len() + 1 + length > LONGEST_NAME + 1 || !label.is_ascii() {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(
                    label
                        .iter()
                        .map(|byte| char::from(byte.to_ascii_lowercase())),
                );
                at += 1 + length;
            }
            // A pointer. Each leads further back than the last, so there is an end.
            0xc0.. => {
                let to = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                end.get_or_insert(at + 2);
                if to >= before {
                    return None;
                }
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
}

/// The address in a record's data.
fn address(kind: Kind, data: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = match kind {
        Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
        Kind::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
    };
    is_of_another_host(&address).then_some(address)
}

/// True for an address that another host may have, wherever it is.
pub(super) fn is_of_another_host(address: &IpAddr) -> bool {
    match address {
        // This network, the loopback, multicast, reserved ones and the broadcast address.
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => {
            let nobody = v6.is_unspecified() || v6.is_loopback() || v6.is_multicast();
            !nobody && v6.to_ipv4_mapped().is_none() && !v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The answer to a question: each record has an owner (a place in the message), a kind and data.
    fn reply(question: &[u8], records: &[(usize, u16, Vec<u8>)]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        message[7] = records.len() as u8;
        for (owner, kind, data) in records {
            message.extend((0xc000 | *owner as u16).to_be_bytes());
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        message
    }

    #[test]
    fn a_question_in_bytes() {
        let bytes = question(0x1234, "vps.example", Kind::Aaaa).unwrap();
        let wanted = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03vps\x07example\x00\x00\x1c\x00\x01";
        assert_eq!(bytes, wanted);
        for bad in [
            "",
            ".",
            "a..b",
            &"x".repeat(64),
            &"x.".repeat(200),
            "b\u{fc}cher.example",
        ] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
    }

    #[test]
    fn addresses_and_aliases() {
        let asked = question(7, "VPS.example.", Kind::A).unwrap();
        let mut records = vec![(12, 1, vec![203, 0, 113, 2]), (12, 1, vec![127, 0, 0, 1])];
        let got = answer(7, "vps.example", Kind::A, &reply(&asked, &records));
        assert_eq!(got.unwrap(), [IpAddr::from([203, 0, 113, 2])]);
        // Of somebody else: a record that was not asked for.
        records[0].0 = 16;
        let got = answer(7, "vps.example", Kind::A, &reply(&asked, &records));
        assert!(got.unwrap().is_empty());
        // An alias: `a.example`, whose tail is that of the question, and its address.
        let alias = vec![1, b'a', 0xc0, 16];
        let at = asked.len() + 12;
        let records = [(at, 1, vec![203, 0, 113, 9]), (12, 5, alias)];
        let turned = [records[1].clone(), records[0].clone()];
        let got = answer(7, "vps.example", Kind::A, &reply(&asked, &turned));
        assert_eq!(got.unwrap(), [IpAddr::from([203, 0, 113, 9])]);
    }

    #[test]
    fn of_a_long_answer_the_first_addresses_are_kept() {
        let asked = question(7, "vps.example", Kind::A).unwrap();
        let records: Vec<_> = (0..60).map(|n| (12, 1, vec![203, 0, 113, n])).collect();
        let got = answer(7, "vps.example", Kind::A, &reply(&asked, &records)).unwrap();
        let first: Vec<IpAddr> = (0..16).map(|n| IpAddr::from([203, 0, 113, n])).collect();
        assert_eq!(got, first);
    }

    #[test]
    fn answers_to_something_else_are_none() {
        let asked = question(7, "vps.example", Kind::A).unwrap();
        let good = reply(&asked, &[(12, 1, vec![203, 0, 113, 2])]);
        assert!(answer(7, "vps.example", Kind::A, &good).is_some());
        assert!(answer(8, "vps.example", Kind::A, &good).is_none());
        assert!(answer(7, "vps.exampl", Kind::A, &good).is_none());
        assert!(answer(7, "vps.example", Kind::Aaaa, &good).is_none());
        assert!(answer(7, "vps.example", Kind::A, &asked).is_none());
        let mut refused = good.clone();
        refused[3] = 5;
        assert!(answer(7, "vps.example", Kind::A, &refused).is_none());
        refused[3] = 3;
        assert_eq!(
            answer(7, "vps.example", Kind::A, &refused),
            Some(Vec::new())
        );
        // A name that points at itself, and one that points forward.
        for to in [12, 200] {
            let mut looping = good.clone();
            looping[12..14].copy_from_slice(&[0xc0, to]);
            assert!(answer(7, "vps.example", Kind::A, &looping).is_none());
        }
    }

    proptest! {
        /// Field row C5: whatever comes, nothing panics, and what is given can be an address.
        #[test]
        fn nonsense_is_harmless(
            noise in proptest::collection::vec(any::<u8>(), 0..400),
            places in proptest::collection::vec((0usize..120, any::<u8>()), 0..12),
            end in 0usize..200,
        ) {
            let _ = answer(7, "vps.example", Kind::A, &noise);
            let asked = question(7, "vps.example", Kind::Aaaa).unwrap();
            let mut bytes = reply(&asked, &[(12, 5, vec![1, b'a', 0xc0, 16]), (12, 28, vec![32; 16]), (12, 28, vec![32; 16])]);
            for (place, byte) in places {
                if let Some(at) = bytes.get_mut(place) {
                    *at = byte;
                }
            }
            bytes.truncate(end);
            if let Some(found) = answer(7, "vps.example", Kind::Aaaa, &bytes) {
                prop_assert!(found.len() <= MOST_ADDRESSES);
                prop_assert!(found.iter().all(|it| !it.is_unspecified() && !it.is_loopback()));
            }
        }
    }
}
