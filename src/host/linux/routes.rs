//! Routes over rtnetlink (RFC 3549 section 3.1; linux/rtnetlink.h), and the look-up that
//! [`Operation::Verify`](crate::route::Operation::Verify) asks for.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::links::Names;
use super::{or_none, to_io};
use crate::config::PortProtocol;
use crate::config::units::{Family, Prefix, TableId};
use crate::route::operation::Lookup;
use crate::route::resource::{OUR_PROTOCOL, Route};

/// All unicast routes of a family in all tables, as the kernel lists them.
pub(super) async fn list(handle: &Handle, family: Family) -> io::Result<Vec<RouteMessage>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family);
    let listed = handle.route().get(message).execute().try_collect().await;
    or_none(listed.map_err(to_io))
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

/// Adds a route; the kernel refuses a second one to the same destination (EEXIST).
pub(super) async fn add(handle: &Handle, message: RouteMessage) -> io::Result<()> {
    handle.route().add(message).execute().await.map_err(to_io)
}

/// Puts a route in the place of the one to the same destination in the same table, in one step.
///
/// IPv6 looks for the next hop by the rules, so a rule that leads to this very table finds the old
/// default route and refuses the new one (ip6_route_check_nh); there the old one has to go first.
pub(super) async fn replace(handle: &Handle, names: &Names, route: &Route) -> io::Result<()> {
    let message = encode(route, names.index(&route.device)?);
    let request = handle.route().add(message.clone()).replace();
    let result = request.execute().await.map_err(to_io);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EHOSTUNREACH);
    if route.destination.family() == Family::V4 || !result.as_ref().is_err_and(refused) {
        return result;
    }
    for old in list(handle, Family::V6).await? {
        let place = decode(&old, names).map(|old| (old.table, old.destination));
        if is_ours(&old) && place == Some((route.table, route.destination)) {
            handle.route().del(old).execute().await.map_err(to_io)?;
        }
    }
    add(handle, message).await
}

/// Deletes a route of ours, by the kernel's own message.
pub(super) async fn delete(handle: &Handle, names: &Names, route: &Route) -> io::Result<()> {
    let listed = list(handle, route.destination.family()).await?;
    let found = listed
        .into_iter()
        .find(|message| is_ours(message) && decode(message, names).as_ref() == Some(route));
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    handle.route().del(message).execute().await.map_err(to_io)
}

/// The message that adds `route` by the device with this index, marked as ours.
pub(super) fn encode(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_number(route.destination.family());
    header.destination_prefix_length = route.destination.length();
    header.protocol = RouteProtocol::from(OUR_PROTOCOL);
    header.kind = RouteType::Unicast;
    // IPv4 refuses a next hop on a link-scope route and a wide scope without one; IPv6 has none.
    header.scope = if route.via.is_none() && route.destination.family() == Family::V4 {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    header.table = u8::try_from(route.table.0).unwrap_or(0);
    if route.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    message.attributes = vec![
        RouteAttribute::Table(route.table.0),
        RouteAttribute::Oif(index),
    ];
    if !route.destination.is_default() {
        message.attributes.push(RouteAttribute::Destination(
            route.destination.address().into(),
        ));
    }
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
    }
    message
}

/// Reads a listed unicast route with one next hop; nothing for any other.
pub(super) fn decode(message: &RouteMessage, names: &Names) -> Option<Route> {
    let family = family_of(message)?;
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = Prefix::default_of(family).address();
    let mut table = TableId(message.header.table.into());
    let (mut via, mut device, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = TableId(*number),
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => via = Some(ip(address)?),
            RouteAttribute::PrefSource(address) => source = Some(ip(address)?),
            RouteAttribute::Oif(index) => device = names.name(*index).cloned(),
            _ => {}
        }
    }
    Some(Route {
        table,
        destination: Prefix::new(destination, message.header.destination_prefix_length)?,
        via,
        device: device?,
        source,
        onlink: message.header.flags.contains(RouteFlags::Onlink),
    })
}

/// True for a route of any kind and table that leads to `destination` by the device of this index.
pub(super) fn leads(message: &RouteMessage, destination: Prefix, index: u32) -> bool {
    let attributes = &message.attributes;
    let to = RouteAttribute::Destination(destination.address().into());
    message.header.destination_prefix_length == destination.length()
        && attributes.contains(&to)
        && attributes.contains(&RouteAttribute::Oif(index))
}

/// Asks the kernel how it would route a packet: the table that answers, and the kind of route.
pub(super) async fn look_up(
    handle: &Handle,
    names: &Names,
    lookup: &Lookup,
) -> io::Result<(TableId, RouteType)> {
    let family = Family::of(lookup.to);
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family);
    message.header.destination_prefix_length = Prefix::host(lookup.to).length();
    // Without this flag the kernel says "main" or "local" by the route's kind alone.
    message.header.flags = RouteFlags::LookupTable;
    message.attributes = vec![RouteAttribute::Destination(lookup.to.into())];
    if let Some(iif) = &lookup.iif {
        let index = names.index(iif)?;
        message.attributes.push(RouteAttribute::Iif(index));
        // A packet that comes in has a source: any unicast one will do, and the kernel refuses
        // the unspecified address as martian.
        let source: IpAddr = match family {
            Family::V4 => IpAddr::from([192, 0, 2, 1]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        };
        message.header.source_prefix_length = Prefix::host(source).length();
        message
            .attributes
            .push(RouteAttribute::Source(source.into()));
    }
    if let Some((protocol, port)) = lookup.port {
        message.attributes.push(RouteAttribute::IpProto(
            u8::try_from(match protocol {
                PortProtocol::Tcp => libc::IPPROTO_TCP,
                PortProtocol::Udp => libc::IPPROTO_UDP,
            })
            .unwrap_or_default(),
        ));
        message.attributes.push(RouteAttribute::Dport(port));
    }
    let answers: Vec<RouteMessage> = handle
        .route()
        .get(message)
        .execute()
        .try_collect()
        .await
        .map_err(to_io)?;
    let answer = answers
        .first()
        .ok_or_else(|| io::Error::other("the kernel gave no answer"))?;
    let mut table = TableId(answer.header.table.into());
    for attribute in &answer.attributes {
        if let RouteAttribute::Table(number) = attribute {
            table = TableId(*number);
        }
    }
    Ok((table, answer.header.kind))
}

fn family_number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// An address of a route message as an IP address; nothing for MPLS and the like.
pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
