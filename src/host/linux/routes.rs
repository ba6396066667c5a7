//! Routes over rtnetlink (RFC 3549 section 3.1; linux/rtnetlink.h), and the look-up that
//! [`Operation::Verify`](crate::route::Operation::Verify) asks for.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteFlags, RouteHeader, RouteProtocol, RouteScope, RouteType,
};

use super::attributes::{Attributes, ip, native};
use super::links::Names;
use super::netlink::{Handle, Message};
use super::{family_number, or_none, protocol_number};
use crate::config::units::{Family, Prefix, TableId};
use crate::route::operation::Lookup;
use crate::route::resource::{OUR_PROTOCOL, Route};

/// RTA_VIA, which libc lacks for MIPS.
pub(super) const RTA_VIA: u16 = 18;
/// RTA_DPORT.
const RTA_DPORT: u16 = 29;
/// What IPv6 gives a route that comes without a metric (linux/ipv6_route.h, IP6_RT_PRIO_USER).
const V6_METRIC: u32 = 1024;
/// RTA_IP_PROTO.
const RTA_IP_PROTO: u16 = 27;

/// A message of a route.
pub(super) type RouteMessage = Message<RouteHeader>;

/// All routes of a family in all tables, as the kernel lists them.
pub(super) async fn list(handle: &Handle, family: Family) -> io::Result<Vec<RouteMessage>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family);
    or_none(handle.list(message).await)
}

/// IPv4 or IPv6; nothing for other families.
pub(super) fn family_of(message: &RouteMessage) -> Option<Family> {
    match message.header.address_family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

/// True for a route with our mark.
pub(super) fn is_ours(message: &RouteMessage) -> bool {
    u8::from(message.header.protocol) == OUR_PROTOCOL
}

/// Those of them that are ours; the kernel leaves out the others where it can (Linux 4.20).
pub(super) async fn list_ours(handle: &Handle, family: Family) -> io::Result<Vec<RouteMessage>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family);
    message.header.protocol = RouteProtocol::from(OUR_PROTOCOL);
    let mut listed = or_none(handle.list(message).await)?;
    listed.retain(is_ours);
    Ok(listed)
}

/// Adds a route; the kernel refuses a second one to the same destination (EEXIST).
pub(super) async fn add(handle: &Handle, message: &RouteMessage) -> io::Result<()> {
    handle.add(message).await
}

/// Puts a route in the place of the one to the same destination in the same table, in one step.
///
/// IPv6 looks for the next hop by the rules, so a rule that leads to this very table finds the old
/// default route and refuses the new one (ip6_route_check_nh); there the old one has to go first.
pub(super) async fn replace(handle: &Handle, names: &Names, route: &Route) -> io::Result<()> {
    let message = encode(route, names)?;
    let result = handle.replace(&message).await;
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EHOSTUNREACH);
    if route.destination.family() == Family::V4 || !result.as_ref().is_err_and(refused) {
        return result;
    }
    for old in list_ours(handle, Family::V6).await? {
        let place = decode(&old, names).map(|old| (old.table, old.destination, old.metric));
        if place == Some((route.table, route.destination, route.metric)) {
            handle.delete(&old).await?;
        }
    }
    add(handle, &message).await
}

/// Deletes a route of ours, by the kernel's own message.
pub(super) async fn delete(handle: &Handle, names: &Names, route: &Route) -> io::Result<()> {
    let listed = list_ours(handle, route.destination.family()).await?;
    let found = listed
        .into_iter()
        .find(|message| decode(message, names).as_ref() == Some(route));
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    handle.delete(&message).await
}

/// The message that adds `route`, marked as ours.
pub(super) fn encode(route: &Route, names: &Names) -> io::Result<RouteMessage> {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_number(route.destination.family());
    header.destination_prefix_length = route.destination.length();
    header.protocol = RouteProtocol::from(OUR_PROTOCOL);
    header.kind = match route.device {
        Some(_) => RouteType::Unicast,
        None => RouteType::Unreachable,
    };
    let family = route.destination.family();
    // IPv4 refuses a next hop on a link-scope route and a wide scope without one; IPv6 has none.
    header.scope = if route.device.is_some() && route.via.is_none() && family == Family::V4 {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    header.table = u8::try_from(route.table.0).unwrap_or(0);
    if route.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    let mut attributes = Attributes::new().native(libc::RTA_TABLE, route.table.0);
    if let Some(device) = &route.device {
        attributes = attributes.native(libc::RTA_OIF, names.index(device)?);
    }
    if !route.destination.is_default() {
        attributes = attributes.ip(libc::RTA_DST, route.destination.address());
    }
    match route.via {
        Some(via) if Family::of(via) != family => {
            attributes = attributes.bytes(RTA_VIA, &rtvia(via));
        }
        Some(via) => attributes = attributes.ip(libc::RTA_GATEWAY, via),
        None => {}
    }
    if let Some(source) = route.source {
        attributes = attributes.ip(libc::RTA_PREFSRC, source);
    }
    if route.metric != 0 {
        attributes = attributes.native(libc::RTA_PRIORITY, route.metric);
    }
    message.attributes = attributes;
    Ok(message)
}

/// A next hop of the other family (linux/rtnetlink.h, struct rtvia).
fn rtvia(via: IpAddr) -> Vec<u8> {
    let family = u16::from(u8::from(family_number(Family::of(via))));
    let mut bytes = family.to_ne_bytes().to_vec();
    match via {
        IpAddr::V4(via) => bytes.extend_from_slice(&via.octets()),
        IpAddr::V6(via) => bytes.extend_from_slice(&via.octets()),
    }
    bytes
}

/// The next hop that an attribute names, of the route's own family or of the other.
pub(super) fn next_hop(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => ip(value),
        // Its length says the family as well.
        RTA_VIA => ip(value.get(2..)?),
        _ => None,
    }
}

/// Reads a listed unicast route with one next hop, or an unreachable one; nothing for any other.
pub(super) fn decode(message: &RouteMessage, names: &Names) -> Option<Route> {
    let family = family_of(message)?;
    let refused = message.header.kind == RouteType::Unreachable;
    if message.header.kind != RouteType::Unicast && !refused {
        return None;
    }
    let mut destination = Prefix::default_of(family).address();
    let mut table = TableId(message.header.table.into());
    let (mut via, mut device, mut source, mut metric) = (None, None, None, 0);
    for (kind, value) in message.attributes.iter() {
        match kind {
            libc::RTA_TABLE => table = TableId(native(value)?),
            libc::RTA_DST => destination = ip(value)?,
            libc::RTA_GATEWAY | RTA_VIA => via = Some(next_hop(kind, value)?),
            libc::RTA_PRIORITY => metric = native(value)?,
            libc::RTA_PREFSRC => source = Some(ip(value)?),
            libc::RTA_OIF => device = names.name(native(value)?).cloned(),
            _ => {}
        }
    }
    if family == Family::V6 && metric == V6_METRIC {
        metric = 0;
    }
    Some(Route {
        table,
        destination: Prefix::new(destination, message.header.destination_prefix_length)?,
        via,
        // IPv6 shows an unreachable route by the loopback.
        device: if refused { None } else { Some(device?) },
        source,
        metric,
        onlink: message.header.flags.contains(RouteFlags::Onlink),
    })
}

/// True for a route of any kind and table that leads to `destination` by the device of this index.
pub(super) fn leads(message: &RouteMessage, destination: Prefix, index: u32) -> bool {
    let attributes = &message.attributes;
    message.header.destination_prefix_length == destination.length()
        && attributes.find(libc::RTA_DST).and_then(ip) == Some(destination.address())
        && attributes.find(libc::RTA_OIF).and_then(native) == Some(index)
}

/// Asks the kernel how it would route a packet: the table that answers, and the kind of route.
pub(super) async fn look_up(
    handle: &Handle,
    names: &Names,
    lookup: &Lookup,
) -> io::Result<(TableId, RouteType)> {
    let answer = handle.ask(question(names, lookup)?).await?;
    let table = answer.attributes.find(libc::RTA_TABLE).and_then(native);
    let table = TableId(table.unwrap_or(answer.header.table.into()));
    Ok((table, answer.header.kind))
}

/// The message that asks it.
pub(super) fn question(names: &Names, lookup: &Lookup) -> io::Result<RouteMessage> {
    let family = Family::of(lookup.to);
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family);
    message.header.destination_prefix_length = Prefix::host(lookup.to).length();
    // Without this flag IPv4 says "main" or "local" by the route's kind alone; IPv6 always says the
    // table, and refuses the flag.
    if family == Family::V4 {
        message.header.flags = RouteFlags::LookupTable;
    }
    let mut attributes = Attributes::new().ip(libc::RTA_DST, lookup.to);
    if let Some(iif) = &lookup.iif {
        // A packet that comes in has a source: any unicast one will do, and the kernel refuses
        // the unspecified address as martian.
        let source: IpAddr = match family {
            Family::V4 => IpAddr::from([192, 0, 2, 1]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        };
        message.header.source_prefix_length = Prefix::host(source).length();
        attributes = attributes
            .native(libc::RTA_IIF, names.index(iif)?)
            .ip(libc::RTA_SRC, source);
    }
    if let Some((protocol, port)) = lookup.port {
        attributes = attributes
            .bytes(RTA_IP_PROTO, &[protocol_number(protocol)])
            .bytes(RTA_DPORT, &port.to_be_bytes());
    }
    message.attributes = attributes;
    Ok(message)
}
