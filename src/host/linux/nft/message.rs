//! The messages of nf_tables' netlink (linux/netfilter/nfnetlink.h, nf_tables.h).

use super::super::attributes::Attributes;
use super::super::message;

pub(super) use message::{DONE, ERROR, flag, messages};

/// struct nfgenmsg, bytes.
const HEADER: usize = 4;

/// NFNL_MSG_BATCH_BEGIN.
pub(super) const BATCH_BEGIN: u16 = 16;
/// NFNL_MSG_BATCH_END.
pub(super) const BATCH_END: u16 = 17;
/// NFNL_SUBSYS_NFTABLES.
pub(super) const SUBSYSTEM: u16 = 10;
/// NFPROTO_UNSPEC.
pub(super) const FAMILY_ANY: u8 = 0;
/// NFPROTO_INET: IPv4 and IPv6 in one table (Linux 5.2 for NAT).
pub(super) const FAMILY_INET: u8 = 1;

/// NFT_MSG_*: what is asked of nf_tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Verb {
    /// Add a table.
    NewTable = 0,
    /// List a table.
    GetTable = 1,
    /// Delete a table with all in it.
    DeleteTable = 2,
    /// Add a chain.
    NewChain = 3,
    /// List chains.
    GetChain = 4,
    /// Add a rule.
    NewRule = 6,
    /// List rules.
    GetRule = 7,
    /// Add a set or a map.
    NewSet = 9,
    /// List sets and maps.
    GetSet = 10,
    /// Add elements to a set.
    NewSetElement = 12,
    /// List the elements of a set.
    GetSetElement = 13,
}

impl Verb {
    /// The message's type: the subsystem in the upper byte.
    pub(super) fn kind(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Adds one message to a datagram.
pub(super) fn push(
    datagram: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &Attributes,
) {
    let [upper, lower] = resource.to_be_bytes();
    let header = [family, 0, upper, lower]; // NFNETLINK_V0
    message::push(datagram, kind, flags, sequence, [&header, &attributes.0]);
}

/// The attributes of a message's payload, behind the nfgenmsg.
pub(super) fn body(payload: &[u8]) -> &[u8] {
    payload.get(HEADER..).unwrap_or_default()
}
