//! nf_tables' expressions: the steps of a rule, on registers (linux/netfilter/nf_tables.h).

use std::net::IpAddr;

use super::super::attributes::Attributes;
use crate::config::units::Family;

/// NFT_REG_1: the first of four registers of 16 bytes.
pub(super) const REGISTER: u32 = 1;
/// NFT_REG_2.
pub(super) const SECOND_REGISTER: u32 = 2;
/// NFT_REG32_01: the second 4 bytes of [`REGISTER`].
pub(super) const SECOND_WORD: u32 = 9;
/// NFT_REG_VERDICT.
const VERDICT_REGISTER: u32 = 0;
/// NFT_CMP_EQ.
const EQUAL: u32 = 0;
/// NFT_CMP_NEQ.
const DIFFERENT: u32 = 1;
/// NFT_CMP_LTE.
const AT_MOST: u32 = 3;
/// NFT_CMP_GTE.
const AT_LEAST: u32 = 5;
/// NFT_META_NFPROTO.
const META_NFPROTO: u32 = 15;
/// NFT_META_L4PROTO.
const META_L4PROTO: u32 = 16;
/// NFT_LOOKUP_F_INV.
const LOOKUP_INVERTED: u32 = 1;

/// What is loaded of a packet's metadata or its connection, and written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    name: &'static str,
    key: u32,
    /// NFTA_META_SREG or NFTA_CT_SREG.
    store: u16,
}

/// The packet's mark: NFT_META_MARK.
pub(super) const PACKET_MARK: Source = meta(3);
/// NFT_META_IIFNAME.
pub(super) const IN_NAME: Source = meta(6);
/// NFT_META_OIFNAME.
pub(super) const OUT_NAME: Source = meta(7);
/// NFT_META_SECPATH: one byte.
pub(super) const DECRYPTED: Source = meta(25);
/// NFT_CT_STATE.
pub(super) const STATE: Source = connection(0);
/// NFT_CT_DST_IP.
pub(super) const CONNECTION_DESTINATION: Source = connection(20);
/// NFT_CT_DST_IP6.
pub(super) const CONNECTION_DESTINATION_V6: Source = connection(22);
/// NFT_CT_DIRECTION: one byte.
pub(super) const DIRECTION: Source = connection(1);
/// NFT_CT_STATUS.
pub(super) const STATUS: Source = connection(2);
/// NFT_CT_MARK.
pub(super) const MARK: Source = connection(3);

const fn meta(key: u32) -> Source {
    Source {
        name: "meta",
        key,
        store: 3,
    }
}

const fn connection(key: u32) -> Source {
    Source {
        name: "ct",
        key,
        store: 4,
    }
}

/// Which header of a packet: NFT_PAYLOAD_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// IP.
    Network = 1,
    /// What is in it.
    Transport = 2,
}

/// The steps of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expressions {
    /// The steps, as attributes.
    pub(super) steps: Attributes,
    /// What is known by a step before.
    family: Option<Family>,
    protocol: Option<u8>,
}

impl Expressions {
    /// NFTA_LIST_ELEM holding NFTA_EXPR_NAME and NFTA_EXPR_DATA.
    pub(super) fn push(mut self, name: &str, data: &Attributes) -> Self {
        let expression = Attributes::new().text(1, name).nest(2, data);
        self.steps = self.steps.nest(1, &expression);
        self
    }

    /// Loads into the register.
    pub(super) fn load(self, source: Source) -> Self {
        let data = Attributes::new().number(2, source.key).number(1, REGISTER);
        self.push(source.name, &data)
    }

    /// Loads what belongs to one direction of the connection (NFTA_CT_DIRECTION).
    pub(super) fn load_directed(self, source: Source, direction: u8) -> Self {
        let data = Attributes::new()
            .number(2, source.key)
            .number(1, REGISTER)
            .bytes(3, &[direction]);
        self.push(source.name, &data)
    }

    /// Writes the register there.
    pub(super) fn store(self, source: Source) -> Self {
        let data = Attributes::new()
            .number(2, source.key)
            .number(source.store, REGISTER);
        self.push(source.name, &data)
    }

    /// Loads a piece of a header.
    pub(super) fn load_header(self, header: Header, offset: u32, length: u32) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, header as u32)
            .number(3, offset)
            .number(4, length);
        self.push("payload", &data)
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, operator)
            .nest(3, &Attributes::new().bytes(1, value));
        self.push("cmp", &data)
    }

    /// Goes on when the register holds `value`, or when it does not.
    pub(super) fn equals(self, is: bool, value: &[u8]) -> Self {
        self.compare(if is { EQUAL } else { DIFFERENT }, value)
    }

    /// Goes on when the register lies between these.
    pub(super) fn lies_within(self, first: &[u8], last: &[u8]) -> Self {
        if first == last {
            return self.equals(true, first);
        }
        self.compare(AT_LEAST, first).compare(AT_MOST, last)
    }

    /// register = (register & and) ^ xor.
    pub(super) fn change_bits(self, and: &[u8], xor: &[u8]) -> Self {
        let length = u32::try_from(and.len()).unwrap_or_default();
        let data = Attributes::new()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, length)
            .nest(4, &Attributes::new().bytes(1, and))
            .nest(5, &Attributes::new().bytes(1, xor));
        self.push("bitwise", &data)
    }

    /// Goes on when one of these bits is set.
    pub(super) fn has_one_of(self, bits: u32) -> Self {
        let zero = 0_u32.to_ne_bytes();
        self.change_bits(&bits.to_ne_bytes(), &zero)
            .equals(false, &zero)
    }

    /// Goes on when none of these bits is set.
    pub(super) fn has_none_of(self, bits: u32) -> Self {
        let zero = 0_u32.to_ne_bytes();
        self.change_bits(&bits.to_ne_bytes(), &zero)
            .equals(true, &zero)
    }

    /// Goes on when the register is in a set, or when it is not.
    pub(super) fn looked_up_in(self, is: bool, set: &str) -> Self {
        let mut data = Attributes::new().text(1, set).number(2, REGISTER);
        if !is {
            data = data.number(5, LOOKUP_INVERTED);
        }
        self.push("lookup", &data)
    }

    /// Goes on when the register is in a map, with what that leads to in the register.
    pub(super) fn look_up(self, map: &str) -> Self {
        let data = Attributes::new()
            .text(1, map)
            .number(2, REGISTER)
            .number(3, REGISTER);
        self.push("lookup", &data)
    }

    /// Goes on for packets of this family.
    pub(super) fn family(mut self, family: Family) -> Self {
        if self.family.replace(family) == Some(family) {
            return self;
        }
        self.load(meta(META_NFPROTO))
            .equals(true, &[family_number(family)])
    }

    /// Goes on for this protocol (IPPROTO_*), or for all others.
    pub(super) fn protocol(mut self, is: bool, number: u8) -> Self {
        if is && self.protocol.replace(number) == Some(number) {
            return self;
        }
        self.load(meta(META_L4PROTO)).equals(is, &[number])
    }

    /// Ends with this verdict: NF_DROP is 0, NF_ACCEPT 1.
    pub(super) fn verdict(self, code: u32) -> Self {
        // NFTA_DATA_VERDICT holding NFTA_VERDICT_CODE.
        let verdict = Attributes::new().number(1, code);
        let data = Attributes::new()
            .number(1, VERDICT_REGISTER)
            .nest(2, &Attributes::new().nest(2, &verdict));
        self.push("immediate", &data)
    }

    /// Puts an address into the register.
    pub(super) fn put(self, address: IpAddr) -> Self {
        let data = Attributes::new()
            .number(1, REGISTER)
            .nest(2, &Attributes::new().ip(1, address));
        self.push("immediate", &data)
    }

    /// Ends: the address in the register becomes the source (NFT_NAT_SNAT, 0) or the destination
    /// (NFT_NAT_DNAT, 1), and with it the port in that other register.
    pub(super) fn translate(self, kind: u32, family: Family, port: Option<u32>) -> Self {
        let mut nat = Attributes::new()
            .number(1, kind)
            .number(2, u32::from(family_number(family)))
            .number(3, REGISTER);
        if let Some(register) = port {
            nat = nat.number(5, register);
        }
        self.push("nat", &nat)
    }
}

/// NFPROTO_IPV4, NFPROTO_IPV6.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
