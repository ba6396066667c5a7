//! Policy rules over rtnetlink (linux/fib_rules.h). RTM_DELRULE matches loosely, so a rule is
//! deleted by the very message that the kernel gave when it listed it.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleFlags, RuleHeader};

use super::attributes::{Attributes, ip, native, text};
use super::netlink::{Handle, Message};
use super::{family_number, or_none, protocol_number};
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::route::resource::{LocalTable, OUR_PROTOCOL, Rule};

/// FRA_*: what a rule is made of (linux/fib_rules.h).
pub(super) mod fra {
    pub(super) const DST: u16 = 1;
    pub(in super::super) const SRC: u16 = 2;
    pub(super) const IIFNAME: u16 = 3;
    pub(in super::super) const PRIORITY: u16 = 6;
    pub(in super::super) const FWMARK: u16 = 10;
    pub(super) const SUPPRESS_PREFIXLEN: u16 = 14;
    pub(in super::super) const TABLE: u16 = 15;
    pub(in super::super) const FWMASK: u16 = 16;
    pub(super) const OIFNAME: u16 = 17;
    pub(super) const PROTOCOL: u16 = 21;
    pub(super) const IP_PROTO: u16 = 22;
    pub(in super::super) const DPORT_RANGE: u16 = 24;
}

/// A message of a rule.
pub(super) type RuleMessage = Message<RuleHeader>;

/// All rules of a family, as the kernel lists them.
pub(super) async fn list(handle: &Handle, family: Family) -> io::Result<Vec<RuleMessage>> {
    let mut message = RuleMessage::default();
    message.header.family = family_number(family);
    or_none(handle.list(message).await)
}

/// Adds a rule; the kernel refuses an equal one (EEXIST).
pub(super) async fn add(handle: &Handle, message: &RuleMessage) -> io::Result<()> {
    handle.add(message).await
}

/// Deletes the rule that `is_it` accepts, by the kernel's own message.
pub(super) async fn delete(
    handle: &Handle,
    family: Family,
    is_it: impl Fn(&RuleMessage) -> bool,
) -> io::Result<()> {
    let found = list(handle, family).await?.into_iter().find(is_it);
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    handle.delete(&message).await
}

/// The message that adds `rule`, marked as ours.
pub(super) fn encode(rule: &Rule) -> RuleMessage {
    let mut message = look_up(rule.family, rule.pref, rule.table, OUR_PROTOCOL);
    let mut attributes = message.attributes;
    if let Some(from) = rule.from {
        message.header.src_len = from.length();
        attributes = attributes.ip(fra::SRC, from.address());
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.length();
        attributes = attributes.ip(fra::DST, to.address());
    }
    if let Some(iif) = &rule.iif {
        attributes = attributes.text(fra::IIFNAME, iif.as_str());
    }
    if let Some(oif) = &rule.oif {
        attributes = attributes.text(fra::OIFNAME, oif.as_str());
    }
    if let Some((mark, mask)) = rule.mark {
        attributes = attributes
            .native(fra::FWMARK, mark)
            .native(fra::FWMASK, mask);
    }
    if let Some(protocol) = rule.protocol {
        attributes = attributes.bytes(fra::IP_PROTO, &[protocol_number(protocol)]);
    }
    if let Some((start, end)) = rule.ports {
        let range = [start.to_ne_bytes(), end.to_ne_bytes()].concat();
        attributes = attributes.bytes(fra::DPORT_RANGE, &range);
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes = attributes.native(fra::SUPPRESS_PREFIXLEN, length.into());
    }
    message.attributes = attributes;
    message
}

/// The message of the kernel's own rule `from all lookup local` at another preference. It keeps
/// the kernel's protocol, so that it looks untouched once it is back at 0.
pub(super) fn encode_local(local: &LocalTable) -> RuleMessage {
    look_up(
        local.family,
        local.pref,
        TableId::LOCAL,
        u8::from(RouteProtocol::Kernel),
    )
}

fn look_up(family: Family, pref: RulePref, table: TableId, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_number(family);
    message.header.action = RuleAction::ToTable;
    // The header's table has 8 bits; FRA_TABLE has 32 and goes before it.
    message.header.table = u8::try_from(table.0).unwrap_or(0);
    message.attributes = Attributes::new()
        .native(fra::PRIORITY, pref.0)
        .native(fra::TABLE, table.0)
        .bytes(fra::PROTOCOL, &[protocol]);
    message
}

/// What a listed rule is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    /// A rule with our mark.
    Ours(Rule),
    /// `from all lookup local`, without our mark.
    Local(LocalTable),
    /// Somebody else's; or one with our mark that we never make.
    Foreign,
}

/// Reads a listed rule.
pub(super) fn decode(message: &RuleMessage) -> Listed {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Listed::Foreign,
    };
    let everything = if family == Family::V4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let mut rule = Rule {
        family,
        pref: RulePref(0),
        from: None,
        to: None,
        iif: None,
        oif: None,
        mark: None,
        protocol: None,
        ports: None,
        table: TableId(message.header.table.into()),
        suppress_prefix_length: None,
    };
    let mut by = 0;
    let (mut mark, mut mask) = (None, None);
    let (mut from, mut to) = (everything, everything);
    let mut plain = message.header.action == RuleAction::ToTable
        && message.header.tos == 0
        && !message.header.flags.contains(RuleFlags::Invert);
    for (kind, value) in message.attributes.iter() {
        // A rule that says anything else is not the kernel's own.
        let understood = match kind {
            fra::PRIORITY => native(value).map(|pref| rule.pref = RulePref(pref)),
            fra::TABLE => native(value).map(|table| rule.table = TableId(table)),
            fra::PROTOCOL => value.first().map(|number| by = *number),
            fra::SRC => ip(value).map(|address| from = address),
            fra::DST => ip(value).map(|address| to = address),
            fra::IIFNAME => device(value).map(|name| rule.iif = Some(name)),
            fra::OIFNAME => device(value).map(|name| rule.oif = Some(name)),
            fra::FWMARK => native(value).map(|value| mark = Some(value)),
            fra::FWMASK => native(value).map(|value| mask = Some(value)),
            fra::IP_PROTO => protocol(value).map(|protocol| rule.protocol = Some(protocol)),
            fra::DPORT_RANGE => range(value).map(|ports| rule.ports = Some(ports)),
            fra::SUPPRESS_PREFIXLEN => native(value).map(|length| {
                // Always listed: -1 is "does not suppress".
                if length != u32::MAX {
                    rule.suppress_prefix_length = u8::try_from(length).ok();
                }
            }),
            _ => None,
        };
        plain &= understood.is_some();
    }
    rule.from = selector(from, message.header.src_len);
    rule.to = selector(to, message.header.dst_len);
    // A mark of zero is not listed by the kernel, and a mask without a mark is one of zero.
    rule.mark = match (mark, mask) {
        (None, None) => None,
        (mark, mask) => Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX))),
    };
    let narrow = rule.from.is_some()
        || rule.to.is_some()
        || rule.iif.is_some()
        || rule.oif.is_some()
        || rule.mark.is_some()
        || rule.protocol.is_some()
        || rule.ports.is_some()
        || rule.suppress_prefix_length.is_some();
    if by == OUR_PROTOCOL {
        Listed::Ours(rule)
    } else if plain && !narrow && rule.table == TableId::LOCAL {
        Listed::Local(LocalTable {
            family,
            pref: rule.pref,
        })
    } else {
        Listed::Foreign
    }
}

fn selector(address: IpAddr, length: u8) -> Option<Prefix> {
    if length == 0 {
        return None;
    }
    Prefix::new(address, length)
}

fn protocol(value: &[u8]) -> Option<PortProtocol> {
    [PortProtocol::Tcp, PortProtocol::Udp]
        .into_iter()
        .find(|protocol| value == [protocol_number(*protocol)])
}

fn device(value: &[u8]) -> Option<IfName> {
    text(value).parse().ok()
}

/// struct fib_rule_port_range.
fn range(value: &[u8]) -> Option<(u16, u16)> {
    let (start, end) = value.split_first_chunk()?;
    let end = end.first_chunk()?;
    Some((u16::from_ne_bytes(*start), u16::from_ne_bytes(*end)))
}
