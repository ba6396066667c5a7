//! The devices of the host, their addresses and next hops, and who else uses policy routing.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::link::{LinkFlags, LinkHeader};
use rtnetlink::packet_route::route::{RouteFlags, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::RuleAction;

use super::attributes::{attributes, find, ip, native, text};
use super::netlink::{Handle, Message};
use super::routes::{RTA_VIA, RouteMessage};
use super::rules::{Listed, RuleMessage, fra};
use super::{addresses, routes, rules, sysctl};
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::route::insiders::IPSEC;
use crate::route::links::{
    ForeignRoute, ForeignRule, Observed, ObservedLink, device_setting, neighbour_setting,
};
use crate::sorted::{Map, Set, sort_by_key};

/// The settings of a host that routing depends on, beside those of its devices.
const SETTINGS: [&str; 4] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.accept_redirects",
    IPSEC,
];

/// The settings of each device, and of `all` and `default`.
const DEVICE_SETTINGS: [(Family, &str); 7] = [
    (Family::V4, "accept_local"),
    (Family::V4, "arp_announce"),
    (Family::V4, "arp_ignore"),
    (Family::V4, "forwarding"),
    (Family::V4, "rp_filter"),
    (Family::V6, "accept_ra"),
    (Family::V6, "forwarding"),
];

/// The kernel's rules beside `local`: main and default (fib_rules.c).
const KERNEL_PREFS: [u32; 2] = [32766, 32767];

/// A message of a device.
type LinkMessage = Message<LinkHeader>;

/// The devices by index. Read again for each operation: an index may be given to another device.
#[derive(Debug, Default)]
pub(super) struct Names(Map<u32, IfName>);

impl Names {
    /// Reads them.
    pub(super) async fn read(handle: &Handle) -> io::Result<Self> {
        Ok(Self::of(&list(handle).await?))
    }

    fn of(links: &[LinkMessage]) -> Self {
        let named = links.iter().filter_map(|link| {
            let name = link.attributes.find(libc::IFLA_IFNAME)?;
            Some((link.header.index, text(name).parse().ok()?))
        });
        Self(named.collect())
    }

    /// One device, for tests.
    #[cfg(test)]
    pub(super) fn one(index: u32, name: &IfName) -> Self {
        Self(Map::from([(index, name.clone())]))
    }

    /// The device of this index.
    pub(super) fn name(&self, index: u32) -> Option<&IfName> {
        self.0.get(&index)
    }

    /// The index of this device.
    pub(super) fn index(&self, name: &IfName) -> io::Result<u32> {
        self.0
            .iter()
            .find(|(_, other)| *other == name)
            .map(|(index, _)| *index)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }
}

async fn list(handle: &Handle) -> io::Result<Vec<LinkMessage>> {
    handle.list(LinkMessage::default()).await
}

/// The kind of the device of this name, if there is one and it is no TUN.
pub(super) async fn foreign_kind(handle: &Handle, name: &IfName) -> io::Result<Option<String>> {
    let messages = list(handle).await?;
    let names = Names::of(&messages);
    let found = messages
        .iter()
        .find(|message| names.name(message.header.index) == Some(name));
    let kind = found.map(|message| kind(message).unwrap_or("network"));
    Ok(kind.filter(|kind| *kind != "tun").map(str::to_owned))
}

/// What a device that is no hardware says it is: `veth`, `tun`, `wireguard`.
fn kind(message: &LinkMessage) -> Option<&str> {
    let info = message.attributes.find(libc::IFLA_LINKINFO)?;
    find(info, libc::IFLA_INFO_KIND).map(text)
}

/// Sets the tunnel's device up; true when it was down, nothing when it is not there.
pub(super) async fn raise(handle: &Handle, tunnel: &IfName) -> io::Result<Option<bool>> {
    let messages = list(handle).await?;
    let named = |message: &&LinkMessage| {
        message.attributes.find(libc::IFLA_IFNAME).map(text) == Some(tunnel.as_str())
    };
    let Some(device) = messages.iter().find(named) else {
        return Ok(None);
    };
    if device.header.flags.contains(LinkFlags::Up) {
        return Ok(Some(false));
    }
    let mut up = LinkMessage::default();
    up.header.index = device.header.index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    handle.set(&up).await?;
    Ok(Some(true))
}

/// Reads everything that the desired state is made from, without the tunnel's own device.
pub(super) async fn observe(handle: &Handle, tunnel: &IfName) -> io::Result<Observed> {
    let messages = list(handle).await?;
    let names = Names::of(&messages);
    let mut observed = Observed::default();
    for message in &messages {
        let Some(device) = names.name(message.header.index) else {
            continue;
        };
        let flags = message.header.flags;
        if device != tunnel && !flags.contains(LinkFlags::Loopback) {
            observed.links.push(ObservedLink {
                device: device.clone(),
                index: message.header.index,
                kind: kind(message).unwrap_or_default().to_owned(),
                up: flags.contains(LinkFlags::Up | LinkFlags::Running),
                point_to_point: flags.contains(LinkFlags::Pointopoint),
                addresses: Vec::new(),
                flaws: Map::new(),
                gateways: Vec::new(),
                v4_by_v6: Vec::new(),
                advertised: false,
                mtu: message
                    .attributes
                    .find(libc::IFLA_MTU)
                    .and_then(native)
                    .unwrap_or(0),
            });
        }
    }
    for message in addresses::list(handle).await? {
        let Some(address) = addresses::decode(&message, &names) else {
            continue;
        };
        if let Some(link) = link_of(&mut observed, &address.device) {
            let own = address.prefix.address();
            if let Some(flaw) = addresses::flaw(&message) {
                link.flaws.insert(own, flaw);
            }
            link.addresses.push(address.prefix);
        } else if address.device != *tunnel && !address.prefix.address().is_loopback() {
            observed.loopback.push(address.prefix);
        }
    }
    for link in &mut observed.links {
        link.addresses.sort_unstable();
    }
    // Another tunnel's default route in a table of its own (wg-quick's 51820) is no way out: flows
    // would run within it. Who wants that names the device as a link.
    let tunnels = messages
        .iter()
        .filter(|message| matches!(kind(message), Some("wireguard" | "tun")))
        .map(|message| message.header.index)
        .collect();
    for family in [Family::V4, Family::V6] {
        add_routes(
            &mut observed,
            (family, &routes::list(handle, family).await?),
            &names,
            tunnel,
            &tunnels,
        );
        let rules = rules::list(handle, family).await?;
        let foreign = rules.iter().filter_map(|rule| foreign_rule(rule, family));
        observed.foreign_rules.extend(foreign);
    }
    add_settings(&mut observed, tunnel)?;
    Ok(observed)
}

fn link_of<'a>(observed: &'a mut Observed, device: &IfName) -> Option<&'a mut ObservedLink> {
    observed
        .links
        .iter_mut()
        .find(|link| link.device == *device)
}

/// When so many routes of others are listed, networks of table main are left out: a router with a full table
/// of the Internet has a million. Host routes and other tables may stand in our way, and are always listed.
const MOST_ROUTES: usize = 1000;

fn add_routes(
    observed: &mut Observed,
    (family, messages): (Family, &[RouteMessage]),
    names: &Names,
    tunnel: &IfName,
    tunnels: &Set<u32>,
) {
    let mut defaults = Vec::new();
    for message in messages {
        if routes::is_ours(message) || message.header.flags.contains(RouteFlags::Cloned) {
            continue;
        }
        let route = Seen::of(message);
        let Some(destination) = route.destination else {
            continue;
        };
        if destination.is_default() && message.header.kind == RouteType::Unicast {
            // The main table's come first, then the lower metric.
            let rank = (route.table != TableId::MAIN, route.metric);
            let hops = route.hops.iter();
            let hops =
                hops.filter(|(index, _)| route.table == TableId::MAIN || !tunnels.contains(index));
            let is_advertised = message.header.protocol == RouteProtocol::Ra;
            defaults.extend(hops.map(|(index, via)| (rank, *index, *via, is_advertised)));
        }
        let device = route.hops.first().and_then(|(index, _)| names.name(*index));
        let elsewhere = route.table != TableId::MAIN && route.table != TableId::LOCAL;
        let few = observed.foreign_routes.len() < MOST_ROUTES;
        // Networks of devices are known by the devices' addresses.
        let connected = message.header.protocol == RouteProtocol::Kernel;
        let of_main = route.table == TableId::MAIN
            && (destination.is_host() || few && !connected && !destination.is_default());
        if device == Some(tunnel) {
            if route.table == TableId::MAIN && observed.into_tunnel.len() < MOST_ROUTES {
                observed.into_tunnel.push(destination);
            }
        } else if elsewhere || of_main {
            observed.foreign_routes.push(ForeignRoute {
                table: route.table.0,
                destination,
                device: device.map(ToString::to_string),
            });
        }
    }
    sort_by_key(&mut defaults, |(rank, ..)| *rank);
    for (_, index, via, is_advertised) in defaults {
        let Some(device) = names.name(index) else {
            continue;
        };
        let Some(link) = link_of(observed, device) else {
            continue;
        };
        let is_first = link.gateways.is_empty() && link.v4_by_v6.is_empty();
        link.advertised = is_advertised && (is_first || link.advertised);
        let gateways = if Family::of(via) == family {
            &mut link.gateways
        } else {
            &mut link.v4_by_v6
        };
        if !gateways.contains(&via) {
            gateways.push(via);
        }
    }
}

/// What matters here of somebody's route.
struct Seen {
    destination: Option<Prefix>,
    table: TableId,
    metric: u32,
    /// Device and next hop, one or, for a multi-path route, more; the unspecified address stands
    /// for no next hop.
    hops: Vec<(u32, IpAddr)>,
}

impl Seen {
    fn of(message: &RouteMessage) -> Self {
        let family = routes::family_of(message).unwrap_or(Family::V4);
        let nowhere = Prefix::default_of(family).address();
        let mut destination = nowhere;
        let mut seen = Self {
            destination: None,
            table: TableId(message.header.table.into()),
            metric: 0,
            hops: Vec::new(),
        };
        let mut via = nowhere;
        let mut device = None;
        for (kind, value) in message.attributes.iter() {
            let number = native(value).unwrap_or(0);
            match kind {
                libc::RTA_TABLE => seen.table = TableId(number),
                libc::RTA_PRIORITY => seen.metric = number,
                libc::RTA_OIF => device = Some(number),
                libc::RTA_GATEWAY | RTA_VIA => {
                    via = routes::next_hop(kind, value).unwrap_or(nowhere);
                }
                libc::RTA_DST => destination = ip(value).unwrap_or(nowhere),
                libc::RTA_MULTIPATH => seen.hops.extend(hops(value).map(|(device, run)| {
                    let via = attributes(run).find_map(|(kind, it)| routes::next_hop(kind, it));
                    (device, via.unwrap_or(nowhere))
                })),
                _ => {}
            }
        }
        seen.hops.extend(device.map(|device| (device, via)));
        seen.destination = Prefix::new(destination, message.header.destination_prefix_length);
        seen
    }
}

/// Device and attributes of each hop of a multi-path route (linux/rtnetlink.h, struct rtnexthop).
fn hops(mut rest: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let whole = rest.get(..length)?;
        let device = u32::from_ne_bytes(*whole.get(4..)?.first_chunk()?);
        let run = whole.get(8..)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((device, run))
    })
}

fn foreign_rule(message: &RuleMessage, family: Family) -> Option<ForeignRule> {
    if rules::decode(message) != Listed::Foreign {
        return None;
    }
    let mut pref = RulePref(0);
    let mut table = u32::from(message.header.table);
    let (mut mark, mut mask) = (None, u32::MAX);
    for (kind, value) in message.attributes.iter() {
        let number = native(value).unwrap_or(0);
        match kind {
            fra::PRIORITY => pref = RulePref(number),
            fra::TABLE => table = number,
            fra::FWMARK => mark = Some(number),
            fra::FWMASK => mask = number,
            _ => {}
        }
    }
    if KERNEL_PREFS.contains(&pref.0) {
        return None;
    }
    Some(ForeignRule {
        family,
        pref: pref.0,
        table: (message.header.action == RuleAction::ToTable).then_some(table),
        mark: mark.map(|mark| (mark, mask)),
    })
}

fn add_settings(observed: &mut Observed, tunnel: &IfName) -> io::Result<()> {
    let mut keys = SETTINGS.map(str::to_owned).to_vec();
    let devices = observed.links.iter().map(|link| link.device.as_str());
    for device in devices.chain(["all", "default", tunnel.as_str()]) {
        keys.extend(DEVICE_SETTINGS.map(|(family, name)| device_setting(family, device, name)));
        keys.push(neighbour_setting(device, "proxy_delay"));
    }
    for key in keys {
        if let Some(value) = sysctl::read(&key)? {
            observed.settings.insert(key, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::*;

    #[test]
    fn hops_of_a_multi_path_route() {
        let gateway = IpAddr::from([192, 0, 2, 1]);
        // struct rtvia: a family, an address.
        let crossed = IpAddr::from([9; 16]);
        let via = [&[0, 10][..], &[9; 16]].concat();
        let mut bytes = Vec::new();
        for (device, run) in [
            (3_u32, Attributes::new().ip(libc::RTA_GATEWAY, gateway)),
            (4, Attributes::new()),
            (5, Attributes::new().bytes(RTA_VIA, &via)),
        ] {
            let length = u16::try_from(8 + run.0.len()).unwrap();
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&device.to_ne_bytes());
            bytes.extend_from_slice(&run.0);
        }
        let message = RouteMessage {
            attributes: Attributes::new().bytes(libc::RTA_MULTIPATH, &bytes),
            ..RouteMessage::default()
        };
        let hops = Seen::of(&message).hops;
        assert_eq!(
            hops,
            [(3, gateway), (4, IpAddr::from([0; 4])), (5, crossed)]
        );
        for end in 0..8 {
            assert_eq!(super::hops(&bytes[..end]).count(), 0, "{end}");
        }
        // Lengths of nothing must not loop for ever.
        assert_eq!(super::hops(&[0; 64]).count(), 0);
    }
}
