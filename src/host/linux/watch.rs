//! The kernel's notices of changes: multicast of rtnetlink (linux/rtnetlink.h, RTNLGRP_*) and of
//! nf_tables (linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};

use super::attributes::{attributes, find, native, text};
use super::message::{self, messages};
use super::netlink::{Message, poll_receive};
use super::routes;
use crate::config::units::{IfName, TableId};
use crate::plain::plain;
use crate::route::lower::nft::table_name;

/// Everything that our state and the links are made of: RTNLGRP_LINK, the addresses, routes and
/// rules of both families, and what they call "netconf": forwarding and `rp_filter` of devices.
const GROUPS: [u32; 9] = [1, 5, 9, 7, 11, 8, 19, 24, 25];

/// NFNLGRP_NFTABLES.
const NFTABLES: u32 = 7;

/// NFNL_SUBSYS_NFTABLES, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// NFT_MSG_NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE and DELRULE: what may forward, drop or
/// translate packets. The elements of others' sets change all day.
const STRUCTURE: [u16; 6] = [0, 2, 3, 5, 6, 8];
/// NFT_MSG_NEWGEN: the end of a transaction, with NFTA_GEN_PROC_PID and NFTA_GEN_PROC_NAME.
const NEW_GENERATION: u16 = 15;

/// The sockets that hear of changes.
pub(super) struct Watch {
    sockets: Vec<TokioSocket>,
    /// What was read last.
    buffer: Vec<u8>,
    /// Our table of nf_tables.
    table: String,
    /// Who made the last change, as far as it was said.
    last: Changer,
}

/// Who made a change.
#[derive(Debug, Default)]
enum Changer {
    #[default]
    Unknown,
    /// A socket's number, which is that of its process where it is the process's first.
    Port(u32),
    Name(String),
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes; from now on no change is missed, only repeated.
    pub(super) fn open() -> io::Result<Self> {
        let mut watch = Self {
            sockets: Vec::new(),
            buffer: Vec::new(),
            table: String::new(),
            last: Changer::Unknown,
        };
        watch.subscribe(NETLINK_ROUTE, &GROUPS)?;
        // A kernel without nf_tables has no such notices, and an old one not for everybody.
        if let Err(error) = watch.subscribe(NETLINK_NETFILTER, &[NFTABLES]) {
            log::debug!("no notices of nf_tables: {error}");
        }
        Ok(watch)
    }

    fn subscribe(&mut self, protocol: isize, groups: &[u32]) -> io::Result<()> {
        let mut notices = TokioSocket::new(protocol)?;
        let socket = notices.socket_mut();
        let groups = groups.iter().fold(0, |all, group| all | 1 << (group - 1));
        socket.bind(&SocketAddr::new(0, groups))?;
        // What is dropped because the buffer is full was followed by a look at everything: ours,
        // once the buffer is read.
        socket.set_no_enobufs(true)?;
        self.sockets.push(notices);
        Ok(())
    }

    /// Whose table of nf_tables is ours.
    pub(super) fn set_tunnel(&mut self, tunnel: &IfName) {
        if self.table.is_empty() {
            self.table = table_name(tunnel);
        }
    }

    /// Waits for a change that may matter, then takes all that are waiting with it.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut changed = false;
        for place in 0..self.sockets.len() {
            while let Some(socket) = self.sockets.get(place)
                && let Poll::Ready(read) = poll_receive(socket, &mut buffer, context)
            {
                if let Err(error) = read {
                    return Poll::Ready(Err(error));
                }
                for message in messages(&buffer) {
                    changed |= self.matters(&message);
                }
            }
        }
        self.buffer = buffer;
        if changed {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// True when the host is to be looked at because of this notice.
    fn matters(&mut self, message: &message::Message<'_>) -> bool {
        if message.kind < message::FIRST {
            return true;
        }
        if message.kind >> 8 == SUBSYSTEM {
            return self.of_nftables(message);
        }
        let port = message.port;
        if port != 0 && port != std::process::id() {
            self.last = Changer::Port(port);
        }
        match message.kind {
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => is_of_interest(message.payload),
            _ => true,
        }
    }

    fn of_nftables(&mut self, message: &message::Message<'_>) -> bool {
        // struct nfgenmsg comes first.
        let run = message.payload.get(4..).unwrap_or_default();
        let verb = message.kind & 0xff;
        if verb == NEW_GENERATION {
            let by_us = find(run, 2) == Some(&std::process::id().to_be_bytes());
            if let Some(name) = find(run, 3).filter(|_| !by_us) {
                self.last = Changer::Name(text(name).to_owned());
            }
            return false;
        }
        // The name of the table is the first attribute of them all.
        STRUCTURE.contains(&verb) || find(run, 1).map(text) == Some(&self.table)
    }

    /// Who made the last change, as far as that was said.
    pub(super) fn last_to_change(&self) -> Option<String> {
        match &self.last {
            Changer::Unknown => None,
            Changer::Name(name) => Some(plain(name)),
            Changer::Port(port) => {
                let name = std::fs::read_to_string(format!("/proc/{port}/comm")).ok()?;
                Some(format!("{} (process {port})", plain(name.trim())))
            }
        }
    }
}

/// True for a route that our state or the links depend on: ours, default routes, and what stands
/// outside of table main or leads to a single host. All others, of which a router that speaks BGP
/// changes hundreds a second, are nobody's business here.
fn is_of_interest(bytes: &[u8]) -> bool {
    let Some(message) = Message::<RouteHeader>::parse(bytes) else {
        return true;
    };
    let table = attributes(&message.attributes.0)
        .find_map(|(kind, value)| native(value).filter(|_| kind == libc::RTA_TABLE))
        .unwrap_or(message.header.table.into());
    let length = message.header.destination_prefix_length;
    let host = if message.header.address_family == super::AddressFamily::Inet {
        32
    } else {
        128
    };
    routes::is_ours(&message)
        || length == 0
        || length == host
        || ![TableId::MAIN.0, TableId::LOCAL.0].contains(&table)
}

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::super::links::Names;
    use super::*;
    use crate::config::units::Prefix;
    use crate::route::resource::Route;

    fn watch() -> Watch {
        Watch {
            sockets: Vec::new(),
            buffer: Vec::new(),
            table: "netcombiner-nc0".to_owned(),
            last: Changer::Unknown,
        }
    }

    fn matters(watch: &mut Watch, kind: u16, bytes: &[u8]) -> bool {
        let mut datagram = Vec::new();
        message::push(&mut datagram, kind, 0, 0, [bytes, &[]]);
        messages(&datagram).any(|message| watch.matters(&message))
    }

    /// Field row C9: routes of others that are no way out are not worth a look.
    #[test]
    fn routes_of_interest() {
        let device: IfName = "wan0".parse().unwrap();
        let names = Names::one(7, &device);
        let of_interest = |table, destination: &str, protocol: u8| {
            let destination: Prefix = destination.parse().unwrap();
            let route = Route::direct(TableId(table), destination, &device);
            let mut message = routes::encode(&route, &names).unwrap();
            message.header.protocol = protocol.into();
            matters(&mut watch(), libc::RTM_NEWROUTE, &message.to_bytes())
        };
        assert!(!of_interest(254, "198.51.100.0/24", 186));
        assert!(!of_interest(254, "2001:db8::/32", 186));
        assert!(of_interest(254, "198.51.100.0/24", 98));
        assert!(of_interest(254, "0.0.0.0/0", 186));
        assert!(of_interest(254, "::/0", 9));
        assert!(of_interest(254, "192.0.2.1/32", 4));
        assert!(of_interest(70_000, "198.51.100.0/24", 186));
    }

    /// Field row B6.
    #[test]
    fn notices_of_nf_tables() {
        let mut watch = watch();
        let mut matters = |verb: u16, attributes: Attributes| {
            let mut bytes = vec![1, 0, 0, 0];
            bytes.extend_from_slice(&attributes.0);
            matters(&mut watch, SUBSYSTEM << 8 | verb, &bytes)
        };
        let table = |name| Attributes::new().text(1, name);
        // Any structure; elements of our sets only.
        for verb in STRUCTURE {
            assert!(matters(verb, table("fw4")));
        }
        assert!(!matters(12, table("fw4")));
        assert!(matters(14, table("netcombiner-nc0")));
        let ended = Attributes::new().number(2, 1).text(3, "firewalld");
        assert!(!matters(NEW_GENERATION, ended));
        assert_eq!(watch.last_to_change().as_deref(), Some("firewalld"));
    }
}
