//! Policy rules over rtnetlink (linux/fib_rules.h). RTM_DELRULE matches loosely, so a rule is
//! deleted by the very message that the kernel gave when it listed it.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use rtnetlink::{Handle, IpVersion};

use super::{or_none, to_io};
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::route::resource::{LocalTable, OUR_PROTOCOL, Rule};

/// All rules of a family, as the kernel lists them.
pub(super) async fn list(handle: &Handle, family: Family) -> io::Result<Vec<RuleMessage>> {
    let version = match family {
        Family::V4 => IpVersion::V4,
        Family::V6 => IpVersion::V6,
    };
    let listed = handle.rule().get(version).execute().try_collect().await;
    or_none(listed.map_err(to_io))
}

/// Adds a rule; the kernel refuses an equal one (EEXIST).
pub(super) async fn add(handle: &Handle, message: RuleMessage) -> io::Result<()> {
    let mut request = handle.rule().add();
    *request.message_mut() = message;
    request.execute().await.map_err(to_io)
}

/// Deletes the rule that `is_it` accepts, by the kernel's own message.
pub(super) async fn delete(
    handle: &Handle,
    family: Family,
    is_it: impl Fn(&RuleMessage) -> bool,
) -> io::Result<()> {
    let found = list(handle, family).await?.into_iter().find(is_it);
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    handle.rule().del(message).execute().await.map_err(to_io)
}

/// The message that adds `rule`, marked as ours.
pub(super) fn encode(rule: &Rule) -> RuleMessage {
    let mut message = look_up(rule.family, rule.pref, rule.table, OUR_PROTOCOL);
    let attributes = &mut message.attributes;
    if let Some(from) = rule.from {
        message.header.src_len = from.length();
        attributes.push(RuleAttribute::Source(from.address()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.length();
        attributes.push(RuleAttribute::Destination(to.address()));
    }
    if let Some(iif) = &rule.iif {
        attributes.push(RuleAttribute::Iifname(iif.to_string()));
    }
    if let Some(oif) = &rule.oif {
        attributes.push(RuleAttribute::Oifname(oif.to_string()));
    }
    if let Some((mark, mask)) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark));
        attributes.push(RuleAttribute::FwMask(mask));
    }
    if let Some(protocol) = rule.protocol {
        attributes.push(RuleAttribute::IpProtocol(match protocol {
            PortProtocol::Tcp => IpProtocol::Tcp,
            PortProtocol::Udp => IpProtocol::Udp,
        }));
    }
    if let Some((start, end)) = rule.ports {
        attributes.push(RuleAttribute::DestinationPortRange(RulePortRange {
            start,
            end,
        }));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(length.into()));
    }
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
    message.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    // The header's table has 8 bits; FRA_TABLE has 32 and goes before it.
    message.header.table = u8::try_from(table.0).unwrap_or(0);
    message.attributes = vec![
        RuleAttribute::Priority(pref.0),
        RuleAttribute::Table(table.0),
        RuleAttribute::Protocol(protocol.into()),
    ];
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
    let mut protocol = 0;
    let (mut mark, mut mask) = (None, u32::MAX);
    let (mut from, mut to) = (everything, everything);
    let mut plain = message.header.action == RuleAction::ToTable
        && message.header.tos == 0
        && !message.header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(pref) => rule.pref = RulePref(*pref),
            RuleAttribute::Table(table) => rule.table = TableId(*table),
            RuleAttribute::Protocol(p) => protocol = u8::from(*p),
            RuleAttribute::Source(address) => from = *address,
            RuleAttribute::Destination(address) => to = *address,
            RuleAttribute::Iifname(name) => {
                rule.iif = name.parse().ok();
                plain &= rule.iif.is_some();
            }
            RuleAttribute::Oifname(name) => {
                rule.oif = name.parse::<IfName>().ok();
                plain &= rule.oif.is_some();
            }
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::IpProtocol(IpProtocol::Tcp) => rule.protocol = Some(PortProtocol::Tcp),
            RuleAttribute::IpProtocol(IpProtocol::Udp) => rule.protocol = Some(PortProtocol::Udp),
            RuleAttribute::DestinationPortRange(ports) => {
                rule.ports = Some((ports.start, ports.end));
            }
            // Always listed: -1 is "does not suppress".
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppress_prefix_length = u8::try_from(*length).ok();
            }
            _ => plain = false,
        }
    }
    rule.from = selector(from, message.header.src_len);
    rule.to = selector(to, message.header.dst_len);
    // A mark of zero with mask zero matches everything and is not listed by the kernel.
    rule.mark = mark.map(|mark| (mark, mask));
    let narrow = rule.from.is_some()
        || rule.to.is_some()
        || rule.iif.is_some()
        || rule.oif.is_some()
        || rule.mark.is_some()
        || rule.protocol.is_some()
        || rule.ports.is_some()
        || rule.suppress_prefix_length.is_some();
    if protocol == OUR_PROTOCOL {
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
