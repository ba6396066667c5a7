//! nf_tables' expressions: the steps of a rule, on registers (linux/netfilter/nf_tables.h).

use std::net::IpAddr;

use super::super::attributes::Attributes;
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName};

/// NFT_REG_1 and NFT_REG_2: two of the four registers of 16 bytes.
const REGISTER: u32 = 1;
/// See [`REGISTER`].
const SECOND_REGISTER: u32 = 2;
/// NFT_REG_VERDICT.
const VERDICT_REGISTER: u32 = 0;
/// NF_DROP.
const NF_DROP: u32 = 0;
/// NFT_CMP_EQ.
const EQUAL: u32 = 0;
/// NFT_CMP_NEQ.
const DIFFERENT: u32 = 1;
/// NFT_CMP_LTE.
const AT_MOST: u32 = 3;
/// NFT_CMP_GTE.
const AT_LEAST: u32 = 5;
/// NFT_META_MARK.
const META_MARK: u32 = 3;
/// NFT_META_IIFNAME.
const META_IIFNAME: u32 = 6;
/// NFT_META_OIFNAME.
const META_OIFNAME: u32 = 7;
/// NFT_META_NFPROTO.
const META_NFPROTO: u32 = 15;
/// NFT_META_L4PROTO.
const META_L4PROTO: u32 = 16;
/// NFT_CT_STATE.
const CT_STATE: u32 = 0;
/// NFT_CT_MARK.
const CT_MARK: u32 = 3;
/// NF_CT_STATE_BIT(IP_CT_NEW): the first packet of a connection.
const STATE_NEW: u32 = 8;
/// NF_CT_STATE_BIT(IP_CT_ESTABLISHED): either way, after the first answer. Not IP_CT_RELATED.
const STATE_ESTABLISHED: u32 = 2;
/// NFT_PAYLOAD_NETWORK_HEADER.
const NETWORK_HEADER: u32 = 1;
/// NFT_PAYLOAD_TRANSPORT_HEADER.
const TRANSPORT_HEADER: u32 = 2;
/// IFNAMSIZ: device names are compared with their padding, or "nc0" would match "nc01".
const NAME_SIZE: usize = 16;

/// The steps of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expressions(pub(super) Attributes);

/// Which address of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

impl Expressions {
    /// No step yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// NFTA_LIST_ELEM holding NFTA_EXPR_NAME and NFTA_EXPR_DATA.
    fn push(self, name: &str, data: &Attributes) -> Self {
        let expression = Attributes::new().text(1, name).nest(2, data);
        Self(self.0.nest(1, &expression))
    }

    fn load_meta(self, key: u32) -> Self {
        let data = Attributes::new().number(2, key).number(1, REGISTER);
        self.push("meta", &data)
    }

    fn load_ct(self, key: u32) -> Self {
        let data = Attributes::new().number(2, key).number(1, REGISTER);
        self.push("ct", &data)
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, operator)
            .nest(3, &Attributes::new().bytes(1, value));
        self.push("cmp", &data)
    }

    /// register = (register & and) ^ xor; marks are in the host's byte order.
    fn change_bits(self, and: u32, xor: u32) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, 4)
            .nest(4, &Attributes::new().bytes(1, &and.to_ne_bytes()))
            .nest(5, &Attributes::new().bytes(1, &xor.to_ne_bytes()));
        self.push("bitwise", &data)
    }

    fn load_header(self, base: u32, offset: u32, length: u32) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, base)
            .number(3, offset)
            .number(4, length);
        self.push("payload", &data)
    }

    fn put(self, register: u32, value: &[u8]) -> Self {
        let data = Attributes::new()
            .number(1, register)
            .nest(2, &Attributes::new().bytes(1, value));
        self.push("immediate", &data)
    }

    /// Goes on for packets of this family.
    pub(super) fn family(self, family: Family) -> Self {
        self.load_meta(META_NFPROTO)
            .compare(EQUAL, &family_number(family).to_be_bytes()[3..])
    }

    /// Goes on for packets that came in by `device`.
    pub(super) fn comes_by(self, device: &IfName) -> Self {
        self.load_meta(META_IIFNAME)
            .compare(EQUAL, &padded_name(device))
    }

    /// Goes on for packets that leave by `device`.
    pub(super) fn leaves_by(self, device: &IfName) -> Self {
        self.load_meta(META_OIFNAME)
            .compare(EQUAL, &padded_name(device))
    }

    /// Goes on for packets that leave by any device but `device`.
    pub(super) fn leaves_by_another_than(self, device: &IfName) -> Self {
        self.load_meta(META_OIFNAME)
            .compare(DIFFERENT, &padded_name(device))
    }

    /// Goes on for packets with `address` (or, not `is`, with any other) at `end`. Their family
    /// must have been asked for before.
    pub(super) fn address(self, end: End, is: bool, address: IpAddr) -> Self {
        // RFC 791 section 3.1, RFC 8200 section 3.
        let (offset, length) = match (Family::of(address), end) {
            (Family::V4, End::Source) => (12, 4),
            (Family::V4, End::Destination) => (16, 4),
            (Family::V6, End::Source) => (8, 16),
            (Family::V6, End::Destination) => (24, 16),
        };
        self.load_header(NETWORK_HEADER, offset, length)
            .compare(if is { EQUAL } else { DIFFERENT }, &octets(address))
    }

    /// Goes on for TCP.
    pub(super) fn tcp(self) -> Self {
        self.load_meta(META_L4PROTO).compare(EQUAL, &[6])
    }

    /// Goes on for packets to this port.
    pub(super) fn port(self, protocol: PortProtocol, port: u16) -> Self {
        let number = match protocol {
            PortProtocol::Tcp => 6,
            PortProtocol::Udp => 17,
        };
        self.load_meta(META_L4PROTO)
            .compare(EQUAL, &[number])
            .load_header(TRANSPORT_HEADER, 2, 2)
            .compare(EQUAL, &port.to_be_bytes())
    }

    /// Goes on for neighbour discovery, whose hop limit shows that no router forwarded it
    /// (RFC 4861 sections 4 and 6.1). The family must have been asked for before.
    pub(super) fn neighbour_discovery(self) -> Self {
        // Hop limit: RFC 8200 section 3; type: RFC 4443 section 2.1; router solicitation to
        // redirect are 133 to 137.
        self.load_header(NETWORK_HEADER, 7, 1)
            .compare(EQUAL, &[255])
            .load_meta(META_L4PROTO)
            .compare(EQUAL, &[58])
            .load_header(TRANSPORT_HEADER, 0, 1)
            .compare(AT_LEAST, &[133])
            .compare(AT_MOST, &[137])
    }

    /// Goes on for the first packet of a connection.
    pub(super) fn new_connection(self) -> Self {
        self.states(STATE_NEW)
    }

    /// Goes on for every packet of a connection, but not for errors about it.
    pub(super) fn own_packet_of_connection(self) -> Self {
        self.states(STATE_ESTABLISHED | STATE_NEW)
    }

    /// Goes on in one of these states.
    fn states(self, states: u32) -> Self {
        self.load_ct(CT_STATE)
            .change_bits(states, 0)
            .compare(DIFFERENT, &0_u32.to_ne_bytes())
    }

    /// Goes on when the connection has the mark.
    pub(super) fn connection_mark(self, mark: u32, mask: u32) -> Self {
        self.load_ct(CT_MARK)
            .change_bits(mask, 0)
            .compare(EQUAL, &(mark & mask).to_ne_bytes())
    }

    /// Gives the connection the mark, and leaves the bits outside of the mask.
    pub(super) fn mark_connection(self, mark: u32, mask: u32) -> Self {
        let store = Attributes::new().number(2, CT_MARK).number(4, REGISTER);
        self.load_ct(CT_MARK)
            .change_bits(!mask, mark & mask)
            .push("ct", &store)
    }

    /// Gives the packet the mark, and leaves the bits outside of the mask.
    pub(super) fn mark_packet(self, mark: u32, mask: u32) -> Self {
        let store = Attributes::new().number(2, META_MARK).number(3, REGISTER);
        self.load_meta(META_MARK)
            .change_bits(!mask, mark & mask)
            .push("meta", &store)
    }

    /// Ends: the packet is gone.
    pub(super) fn drop(self) -> Self {
        // NFTA_DATA_VERDICT holding NFTA_VERDICT_CODE.
        let verdict = Attributes::new().number(1, NF_DROP);
        let data = Attributes::new()
            .number(1, VERDICT_REGISTER)
            .nest(2, &Attributes::new().nest(2, &verdict));
        self.push("immediate", &data)
    }

    /// Ends: the source becomes `address`.
    pub(super) fn source_nat(self, address: IpAddr) -> Self {
        let nat = Attributes::new()
            .number(1, 0)
            .number(2, family_number(Family::of(address)))
            .number(3, REGISTER);
        self.put(REGISTER, &octets(address)).push("nat", &nat)
    }

    /// Ends: the destination becomes `address` and `port`.
    pub(super) fn destination_nat(self, address: IpAddr, port: u16) -> Self {
        let nat = Attributes::new()
            .number(1, 1)
            .number(2, family_number(Family::of(address)))
            .number(3, REGISTER)
            .number(5, SECOND_REGISTER);
        self.put(REGISTER, &octets(address))
            .put(SECOND_REGISTER, &port.to_be_bytes())
            .push("nat", &nat)
    }
}

/// NFPROTO_IPV4, NFPROTO_IPV6.
fn family_number(family: Family) -> u32 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
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
