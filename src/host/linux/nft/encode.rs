//! The model of our table as netlink's attributes: the second rendering beside the text of
//! [`route::lower::nft`](crate::route::lower::nft).

use std::net::IpAddr;

use super::super::attributes::Attributes;
use super::expression::{
    CONNECTION_DESTINATION, CONNECTION_DESTINATION_V6, DECRYPTED, DIRECTION, Expressions, Header,
    IN_NAME, MARK, OUT_NAME, PACKET_MARK, SECOND_REGISTER, SECOND_WORD, STATE, STATUS,
};
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, Prefix};
use crate::route::lower::nft::model::{
    Chain, Element, End, Item, Key, Kind, Part, Set, Target, Way,
};

/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are all 1.
pub(super) const TABLE: u16 = 1;
/// NFTA_CHAIN_NAME.
pub(super) const CHAIN_NAME: u16 = 3;
/// NFTA_CHAIN_HOOK.
pub(super) const CHAIN_HOOK: u16 = 4;
/// NFTA_CHAIN_TYPE.
const CHAIN_TYPE: u16 = 7;
/// NFTA_SET_NAME.
pub(super) const SET_NAME: u16 = 2;
/// NFTA_SET_ID: of a set within a transaction; never listed.
pub(super) const SET_ID: u16 = 10;
/// NFTA_SET_USERDATA: what nft notes there for itself.
const SET_NOTE: u16 = 13;
/// NFT_SET_INTERVAL.
const SET_INTERVAL: u32 = 4;
/// NFT_SET_MAP.
const SET_MAP: u32 = 8;
/// IFNAMSIZ: device names are compared with their padding, or "nc0" would match "nc01".
const NAME_SIZE: usize = 16;
/// IPPROTO_ICMP, IPPROTO_ICMPV6.
const ICMP: [u8; 2] = [1, 58];

/// IPS_ASSURED.
const ASSURED: u32 = 1 << 2;
/// IPS_DST_NAT.
const DST_NAT: u32 = 1 << 5;

/// NFTA_CHAIN_*: everything of a chain but its table.
pub(super) fn chain(chain: &Chain) -> Attributes {
    let place = chain.place;
    let hook = Attributes::new()
        .number(1, place.hook as u32)
        .bytes(2, &place.priority.to_be_bytes());
    let kind = match place.kind {
        Kind::Filter => "filter",
        Kind::Nat => "nat",
    };
    Attributes::new()
        .text(CHAIN_NAME, place.name)
        .nest(CHAIN_HOOK, &hook)
        .text(CHAIN_TYPE, kind)
}

/// NFTA_SET_*: everything of a set but its table and number.
pub(super) fn set(set: &Set) -> Attributes {
    let address = |family| match family {
        Family::V4 => (7, 4),
        Family::V6 => (8, 16),
    };
    // The numbers of the types are nft's own (enum datatypes), by which it prints them. The kernel
    // looks at the lengths alone.
    let (key, length) = match set.key {
        Key::Address(family) => address(family),
        Key::Port => (13, 2),
        Key::Device => (41, 16),
    };
    let target = set.target.map(|target| match target {
        Target::Address(family) => address(family),
        // A concatenation, each part filled up to four bytes.
        Target::Place(family) => {
            let (kind, length) = address(family);
            (kind << 6 | 13, length + 4)
        }
    });
    let mut flags = 0;
    if set.has_ranges() {
        flags |= SET_INTERVAL;
    }
    if target.is_some() {
        flags |= SET_MAP;
    }
    let mut attributes = Attributes::new().text(SET_NAME, &set.name);
    // The kernel does not list the flags of a set that has none.
    if flags != 0 {
        attributes = attributes.number(3, flags);
    }
    attributes = attributes.number(4, key).number(5, length);
    if let Some((kind, length)) = target {
        attributes = attributes.number(6, kind).number(7, length);
    }
    if set.key == Key::Device {
        // NFTNL_UDATA_SET_KEYBYTEORDER and BYTEORDER_HOST_ENDIAN of nft, which else prints each name as "".
        let mut note = vec![0, 4];
        note.extend_from_slice(&1_u32.to_ne_bytes());
        attributes = attributes.bytes(SET_NOTE, &note);
    }
    attributes
}

/// NFTA_SET_ELEM_*: one or two for each element, as a range has a begin and an end of its own.
pub(super) fn elements(set: &Set) -> Vec<Attributes> {
    /// NFT_SET_ELEM_INTERVAL_END.
    const END: u32 = 1;
    let key = |bytes: &[u8]| Attributes::new().nest(1, &Attributes::new().bytes(1, bytes));
    let mut elements = Vec::new();
    for element in &set.elements {
        let (first, after) = ends(&element.item);
        let mut begin = key(&first);
        if let Some(target) = target(set, element) {
            begin = begin.nest(2, &Attributes::new().bytes(1, &target));
        }
        elements.push(begin);
        if let Some(after) = after.filter(|_| set.has_ranges()) {
            elements.push(key(&after).number(3, END));
        }
    }
    elements
}

/// The first key, and the first that is no longer in it; nothing when it reaches to the last.
fn ends(item: &Item) -> (Vec<u8>, Option<Vec<u8>>) {
    match item {
        Item::Network(network) => {
            let free = u32::from(octets(network.address()).len() as u8 * 8 - network.length());
            let (first, after) = match network.network().address() {
                IpAddr::V4(first) => {
                    let step = 1_u32.checked_shl(free);
                    let after = step.and_then(|step| first.to_bits().checked_add(step));
                    (
                        first.octets().to_vec(),
                        after.map(|it| it.to_be_bytes().to_vec()),
                    )
                }
                IpAddr::V6(first) => {
                    let step = 1_u128.checked_shl(free);
                    let after = step.and_then(|step| first.to_bits().checked_add(step));
                    (
                        first.octets().to_vec(),
                        after.map(|it| it.to_be_bytes().to_vec()),
                    )
                }
            };
            (first, after)
        }
        Item::Ports(first, last) => {
            let after = last.checked_add(1);
            let bytes = |port: u16| port.to_be_bytes().to_vec();
            (bytes(*first), after.map(bytes))
        }
        Item::Device(device) => (padded_name(device).to_vec(), None),
    }
}

fn target(set: &Set, element: &Element) -> Option<Vec<u8>> {
    let (address, port) = element.target?;
    let mut bytes = octets(address);
    if let Some(Target::Place(_)) = set.target {
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
    }
    Some(bytes)
}

/// The steps of a rule.
pub(super) fn rule(parts: &[Part]) -> Attributes {
    parts.iter().fold(Expressions::default(), step).steps
}

fn step(so_far: Expressions, part: &Part) -> Expressions {
    match part {
        Part::Device { way, is, device } => {
            so_far.load(name_of(*way)).equals(*is, &padded_name(device))
        }
        Part::DeviceIn { way, is, set } => so_far.load(name_of(*way)).looked_up_in(*is, set),
        Part::Address { end, is, prefix } => network(so_far, *end, *is, prefix),
        Part::AddressIn {
            end,
            is,
            family,
            set,
        } => load_address(so_far, *family, *end).looked_up_in(*is, set),
        Part::Family(family) => so_far.family(*family),
        Part::Protocol { is, number } => so_far.protocol(*is, *number),
        Part::Port {
            protocol,
            end,
            first,
            last,
        } => load_port(so_far, *protocol, *end)
            .lies_within(&first.to_be_bytes(), &last.to_be_bytes()),
        // The flags are byte 13 (RFC 9293 section 3.1): ACK is 0x10, SYN 0x02.
        Part::Syn { is } => so_far
            .protocol(true, super::super::protocol_number(PortProtocol::Tcp))
            .load_header(Header::Transport, 13, 1)
            .change_bits(&[0x12], &[0])
            .equals(*is, &[0x02]),
        Part::Icmp {
            family,
            first,
            last,
        } => so_far
            .protocol(true, ICMP[usize::from(*family == Family::V6)])
            .load_header(Header::Transport, 0, 1)
            .lies_within(&[*first], &[*last]),
        Part::Bytes {
            offset,
            length,
            first,
            last,
        } => so_far
            .load_header(Header::Transport, *offset, *length)
            .lies_within(&last_bytes(*first, *length), &last_bytes(*last, *length)),
        // RFC 8200 section 3.
        Part::HopLimit(limit) => so_far
            .family(Family::V6)
            .load_header(Header::Network, 7, 1)
            .equals(true, &[*limit]),
        Part::ConnectionState(states) => so_far.load(STATE).has_one_of(*states),
        // For a connection of the other family the kernel itself says no (nft_ct_get_eval).
        Part::WasTo(address) => destination(so_far, 0, *address),
        Part::AnswersGoTo(address) => destination(so_far, 1, *address),
        // IP_CT_DIR_ORIGINAL.
        Part::FromOpener => so_far.load(DIRECTION).equals(true, &[0]),
        Part::FromAnswerer => so_far.load(DIRECTION).equals(true, &[1]),
        Part::Decrypted => so_far.load(DECRYPTED).equals(true, &[1]),
        Part::Unassured => so_far.load(STATUS).has_none_of(ASSURED),
        Part::DestinationWasTranslated => so_far.load(STATUS).has_one_of(DST_NAT),
        Part::ConnectionMark { mark, mask } => so_far
            .load(MARK)
            .change_bits(&mask.to_ne_bytes(), &[0; 4])
            .equals(true, &(mark & mask).to_ne_bytes()),
        Part::MarkConnection { mark, mask } => so_far
            .load(MARK)
            .change_bits(&(!mask).to_ne_bytes(), &(mark & mask).to_ne_bytes())
            .store(MARK),
        Part::MarkPacket { mark, mask } => so_far
            .load(PACKET_MARK)
            .change_bits(&(!mask).to_ne_bytes(), &(mark & mask).to_ne_bytes())
            .store(PACKET_MARK),
        Part::Untrack => so_far.push("notrack", &Attributes::new()),
        Part::Counter => so_far.push("counter", &Attributes::new()),
        Part::Accept => so_far.verdict(1),
        Part::Drop => so_far.verdict(0),
        Part::Masquerade => so_far.push("masq", &Attributes::new()),
        Part::SourceNat(to) => so_far.put(*to).translate(0, Family::of(*to), None),
        Part::DestinationNat(to) => so_far.put(*to).translate(1, Family::of(*to), None),
        Part::DestinationNatBy {
            protocol,
            family,
            map,
            with_port,
        } => {
            let port = match family {
                Family::V4 => SECOND_WORD,
                Family::V6 => SECOND_REGISTER,
            };
            load_port(so_far.family(*family), *protocol, End::Destination)
                .look_up(map)
                .translate(1, *family, with_port.then_some(port))
        }
    }
}

/// The last bytes of a number, so many.
fn last_bytes(value: u128, length: u32) -> Vec<u8> {
    let skipped = size_of::<u128>().saturating_sub(length as usize);
    value.to_be_bytes().into_iter().skip(skipped).collect()
}

fn network(so_far: Expressions, end: End, is: bool, prefix: &Prefix) -> Expressions {
    let loaded = load_address(so_far, prefix.family(), end);
    let value = octets(prefix.network().address());
    if prefix.is_host() {
        return loaded.equals(is, &value);
    }
    let left = |index: usize| usize::from(prefix.length()).saturating_sub(index * 8);
    let mask = |index| !(0xff_u8.checked_shr(left(index) as u32).unwrap_or(0));
    let mask: Vec<u8> = (0..value.len()).map(mask).collect();
    loaded
        .change_bits(&mask, &vec![0; mask.len()])
        .equals(is, &value)
}

/// The destination of a connection's packets in one direction: IP_CT_DIR_ORIGINAL or IP_CT_DIR_REPLY.
fn destination(so_far: Expressions, direction: u8, address: IpAddr) -> Expressions {
    let source = match Family::of(address) {
        Family::V4 => CONNECTION_DESTINATION,
        Family::V6 => CONNECTION_DESTINATION_V6,
    };
    let loaded = so_far.load_directed(source, direction);
    loaded.equals(true, &octets(address))
}

fn load_address(so_far: Expressions, family: Family, end: End) -> Expressions {
    // RFC 791 section 3.1, RFC 8200 section 3.
    let (offset, length) = match (family, end) {
        (Family::V4, End::Source) => (12, 4),
        (Family::V4, End::Destination) => (16, 4),
        (Family::V6, End::Source) => (8, 16),
        (Family::V6, End::Destination) => (24, 16),
    };
    so_far
        .family(family)
        .load_header(Header::Network, offset, length)
}

fn load_port(so_far: Expressions, protocol: PortProtocol, end: End) -> Expressions {
    let offset = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    so_far
        .protocol(true, super::super::protocol_number(protocol))
        .load_header(Header::Transport, offset, 2)
}

fn name_of(way: Way) -> super::expression::Source {
    match way {
        Way::In => IN_NAME,
        Way::Out => OUT_NAME,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn padded_name(device: &IfName) -> [u8; NAME_SIZE] {
    let mut padded = [0; NAME_SIZE];
    for (to, from) in padded.iter_mut().zip(device.as_str().bytes()) {
        *to = from;
    }
    padded
}
