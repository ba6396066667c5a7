//! The few netlink requests that furnish a namespace, over one blocking socket. No `ip` is needed.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Namespace;
use crate::clock::now;
use crate::error::{Context, Error};

/// Devices that have no carrier by then never will.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub device: &'a str,
}

/// A netlink socket of one namespace, whichever thread uses it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Netlink {
    /// A socket of the namespace of the calling thread; see also [`Namespace::netlink`].
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().context("cannot open a netlink socket")?,
            sequence: 0,
        })
    }

    /// Makes a veth pair.
    pub fn add_veth(a: VethEnd<'_>, b: VethEnd<'_>) -> Result<(), Error> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(b.device.into()));
        peer.attributes
            .push(LinkAttribute::NetNsFd(b.namespace.raw_fd()));
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(a.device.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        a.namespace
            .netlink()?
            .change(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .context(format!(
                "cannot make the veth pair {} - {}",
                a.device, b.device
            ))
    }

    /// The index of a device.
    pub fn index(&mut self, device: &str) -> Result<u32, Error> {
        let named = |link: &LinkMessage| {
            link.attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::IfName(name) if name == device))
        };
        let links = self.links()?;
        links
            .iter()
            .find(|link| named(link))
            .map(|link| link.header.index)
            .ok_or_else(|| Error::failed(format!("there is no device {device}")))
    }

    /// Brings a device up.
    pub fn set_up(&mut self, device: &str) -> Result<(), Error> {
        self.set_flag(device, LinkFlags::Up)
    }

    /// Takes a device down.
    pub fn set_down(&mut self, device: &str) -> Result<(), Error> {
        self.set_flag(device, LinkFlags::empty())
    }

    fn set_flag(&mut self, device: &str, flags: LinkFlags) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(device)?;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .context(format!("cannot bring {device} up or down"))
    }

    /// Removes a device.
    pub fn delete(&mut self, device: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(device)?;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
            .context(format!("cannot remove {device}"))
    }

    /// Sets the hardware address and the length of the sending queue (packets) of a device.
    pub fn set_hardware(&mut self, device: &str, mac: [u8; 6], queue: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(device)?;
        message
            .attributes
            .push(LinkAttribute::Address(mac.to_vec()));
        message.attributes.push(LinkAttribute::TxQueueLen(queue));
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .context(format!("cannot set the hardware address of {device}"))
    }

    /// Sets the MTU of a device, bytes.
    pub fn set_mtu(&mut self, device: &str, mtu: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(device)?;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .context(format!("cannot set the MTU of {device}"))
    }

    /// The MTU of a device, bytes.
    pub fn mtu(&mut self, device: &str) -> Result<u32, Error> {
        let index = self.index(device)?;
        let links = self.links()?;
        let link = links.iter().find(|link| link.header.index == index);
        let mtu = link.and_then(|link| {
            link.attributes.iter().find_map(|a| {
                if let LinkAttribute::Mtu(mtu) = a {
                    Some(*mtu)
                } else {
                    None
                }
            })
        });
        mtu.ok_or_else(|| Error::failed(format!("{device} has no MTU")))
    }

    /// Gives a device an address.
    pub fn add_address(&mut self, device: &str, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let message = self.address(device, address, prefix)?;
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .context(format!(
            "cannot give {device} the address {address}/{prefix}"
        ))
    }

    /// Takes an address from a device.
    pub fn remove_address(
        &mut self,
        device: &str,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Error> {
        let message = self.address(device, address, prefix)?;
        self.change(RouteNetlinkMessage::DelAddress(message), 0)
            .context(format!(
                "cannot take the address {address}/{prefix} from {device}"
            ))
    }

    fn address(
        &mut self,
        device: &str,
        address: IpAddr,
        prefix: u8,
    ) -> Result<AddressMessage, Error> {
        let mut message = AddressMessage::default();
        message.header.index = self.index(device)?;
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        Ok(message)
    }

    /// Adds or replaces an IPv4 route of the main table: to a prefix (`0.0.0.0/0` is the default
    /// route), over a device, by a gateway or directly, with a metric (0 is the kernel's default).
    pub fn set_route(
        &mut self,
        to: (Ipv4Addr, u8),
        device: &str,
        gateway: Option<Ipv4Addr>,
        metric: u32,
    ) -> Result<(), Error> {
        let message = self.route(to, device, gateway, metric)?;
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .context(format!(
            "cannot set the route to {}/{} dev {device}",
            to.0, to.1
        ))
    }

    /// Removes such a route.
    pub fn remove_route(
        &mut self,
        to: (Ipv4Addr, u8),
        device: &str,
        gateway: Option<Ipv4Addr>,
        metric: u32,
    ) -> Result<(), Error> {
        let message = self.route(to, device, gateway, metric)?;
        self.change(RouteNetlinkMessage::DelRoute(message), 0)
            .context(format!(
                "cannot remove the route to {}/{} dev {device}",
                to.0, to.1
            ))
    }

    fn route(
        &mut self,
        to: (Ipv4Addr, u8),
        device: &str,
        gateway: Option<Ipv4Addr>,
        metric: u32,
    ) -> Result<RouteMessage, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = to.1;
        message.header.table = libc::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message
            .attributes
            .push(RouteAttribute::Oif(self.index(device)?));
        if to.1 > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::Inet(to.0)));
        }
        if let Some(gateway) = gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        }
        if metric > 0 {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        Ok(message)
    }

    /// Tells for good which hardware address an IPv4 neighbour has.
    pub fn set_neighbour(&mut self, device: &str, ip: Ipv4Addr, mac: [u8; 6]) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = self.index(device)?;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .context(format!("cannot set the neighbour {ip} of {device}"))
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|m| {
                if let RouteNetlinkMessage::NewLink(m) = m {
                    Some(m)
                } else {
                    None
                }
            })
            .collect())
    }

    /// Waits until the kernel has noticed the carrier of every device that is up, and has done all
    /// that follows (IPv6 routes for instance): from then on nothing changes by itself.
    pub fn settle(&mut self) -> Result<(), Error> {
        let start = now();
        // Devices without a notion of a carrier say "unknown".
        let ready = [State::Up, State::Unknown].map(LinkAttribute::OperState);
        let waits = |link: &LinkMessage| {
            link.header.flags.contains(LinkFlags::Up)
                && !ready.iter().any(|state| link.attributes.contains(state))
        };
        while self.links()?.iter().any(waits) && start.elapsed() < SETTLE_LIMIT {
            std::thread::sleep(Duration::from_millis(2));
        }
        // The kernel notices a carrier under the same lock under which it takes a request.
        self.set_up("lo")
    }

    /// Asks for all of a kind.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.request(message, NLM_F_DUMP)
            .context("cannot list by netlink")
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags).map(|_| ())
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Messages are aligned to four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel's answer was cut short"));
                    }
                    NetlinkPayload::Noop | _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
