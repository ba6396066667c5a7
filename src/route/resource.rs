//! The words of routing as state: everything of a host that this program ever sets.

use std::net::IpAddr;

use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::config::{Forward, Keep, PortProtocol};
use crate::sorted::Set;

use super::border::Border;

/// Marks what is ours in the kernel: rtm_protocol of routes and FRA_PROTOCOL of rules. Nobody in
/// iproute2's rt_protos uses 98 (PLATFORMS.md 1.8).
pub const OUR_PROTOCOL: u8 = 98;

/// The metric of a route that every other one goes before (Documentation/networking/vrf.rst of the
/// kernel, which says why this number: routing daemons read it as "worse than all of ours").
pub const LAST_METRIC: u32 = 4_278_198_272;

/// One thing of the host's state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A kernel setting (sysctl); borrowed: its value before goes to the baseline.
    Setting(Setting),
    /// An address of a device.
    Address(Address),
    /// An address that a device answers for in place of another.
    Neighbour(ProxyNeighbour),
    /// A route.
    Route(Route),
    /// One table of the packet filter, whole: marks and NAT.
    Filter(Filter),
    /// A policy rule.
    Rule(Rule),
    /// Where the rule `from all lookup local` of a family stands; borrowed: the kernel's is 0.
    LocalTable(LocalTable),
}

/// A kernel setting: `net.ipv4.ip_forward` = `1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Its name, with dots; a `.` inside a device's name is written `/`, as sysctl(8) does.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// A setting of this name and value.
    pub fn new(key: impl Into<String>, value: impl ToString) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
        }
    }
}

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub device: IfName,
    /// The address and its prefix length.
    pub prefix: Prefix,
    /// The other end, on a point-to-point device.
    pub peer: Option<IpAddr>,
}

/// An address that a device answers ARP or neighbour solicitations for although it is routed to
/// another device; ours are marked with [`OUR_PROTOCOL`] (NDA_PROTOCOL, since Linux 5.0).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyNeighbour {
    /// The device that is asked.
    pub device: IfName,
    /// The address that is asked for.
    pub address: IpAddr,
}

/// A route; ours are marked with [`OUR_PROTOCOL`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The table it stands in.
    pub table: TableId,
    /// Where it leads; its host bits are zero.
    pub destination: Prefix,
    /// The next hop; `None`: the destination is on the device's link. An IPv4 route can have an
    /// IPv6 next hop (RFC 8950).
    pub via: Option<IpAddr>,
    /// The device; `None`: what goes there is refused (`unreachable`).
    pub device: Option<IfName>,
    /// The source address that the host's own packets get.
    pub source: Option<IpAddr>,
    /// The next hop is reachable although no prefix of the device holds it (`onlink`).
    pub onlink: bool,
    /// Of several routes to one destination the lowest counts; 0: this system's default.
    pub metric: u32,
}

/// A policy rule that ends in a look-up; ours are marked with [`OUR_PROTOCOL`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its preference.
    pub pref: RulePref,
    /// Packets from here; nothing: from all.
    pub from: Option<Prefix>,
    /// Packets to there.
    pub to: Option<Prefix>,
    /// Packets that came in by this device.
    pub iif: Option<IfName>,
    /// Packets of sockets bound to this device.
    pub oif: Option<IfName>,
    /// Packets with this mark (value, mask).
    pub mark: Option<(u32, u32)>,
    /// Packets of this protocol.
    pub protocol: Option<PortProtocol>,
    /// Packets to these ports (first, last).
    pub ports: Option<(u16, u16)>,
    /// The table that is asked.
    pub table: TableId,
    /// Answers of this prefix length or shorter do not count (`suppress_prefixlength`).
    pub suppress_prefix_length: Option<u8>,
}

impl Rule {
    /// A rule for every packet of a family.
    pub fn new(family: Family, pref: RulePref, table: TableId) -> Self {
        Self {
            family,
            pref,
            from: None,
            to: None,
            iif: None,
            oif: None,
            mark: None,
            protocol: None,
            ports: None,
            table,
            suppress_prefix_length: None,
        }
    }
}

impl Route {
    /// A route to a destination on the device's own link.
    pub fn direct(table: TableId, destination: Prefix, device: &IfName) -> Self {
        Self {
            table,
            destination,
            via: None,
            device: Some(device.clone()),
            source: None,
            onlink: false,
            metric: 0,
        }
    }

    /// The last word of a table: what finds no other route to this destination goes nowhere.
    /// Without it the look-up would go on to the next rule, and the packet out in clear.
    pub fn unreachable(table: TableId, destination: Prefix) -> Self {
        Self {
            table,
            destination,
            via: None,
            device: None,
            source: None,
            onlink: false,
            metric: LAST_METRIC,
        }
    }
}

/// Where the rule `from all lookup local` stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTable {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its preference.
    pub pref: RulePref,
}

/// One table of the packet filter, replaced whole and at once: nftables' `inet netcombiner-nc0`
/// (one a tunnel), pf's anchor `netcombiner/nc0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// The tunnel's device, which names the table.
    pub tunnel: IfName,
    /// What it does.
    pub clauses: Set<FilterClause>,
}

/// One thing the packet filter does for us. In the order of the rules within a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilterClause {
    /// The client cannot speak for the host: what it sends from ports that are the host's alone, or
    /// on a connection of the host's, is dropped. Else it could put packets into the host's
    /// sessions, or fill the tracking of connections so that new ones to them fail.
    GuardOwn {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
        /// The ports.
        ports: Vec<Keep>,
        /// The mark of the host's own.
        mark: u32,
        /// Its mask.
        mask: u32,
    },
    /// What the client begins from a kept port that its system may choose for any socket: the
    /// connection gets `mark`, and answers, before they are routed, too. It is gone with the state.
    ///
    /// A new TCP connection to such a port is the host's, whatever the client sent before. Stands
    /// before [`HoldClient`](Self::HoldClient), which would drop it.
    ClientAnswers {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
        /// The ports.
        ports: Vec<Keep>,
        /// The mark of the client's.
        mark: u32,
        /// The mark of the host's own.
        own: u32,
        /// The mask of both.
        mask: u32,
    },
    /// TCP connections that go through the tunnel get `mark` on the connection, and their packets
    /// never reach this host itself. They come here only while the tunnel is gone, when the host
    /// would answer them with resets; so they wait for the tunnel to return.
    ///
    /// Stands before [`MarkOwn`](Self::MarkOwn), which would make one still unanswered the host's.
    HoldClient {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
        /// The mark; not that of the host's own.
        mark: u32,
        /// Its mask, shared with the mark of the host's own.
        mask: u32,
    },
    /// Connections to these ports of this host are not tracked: they need none of our marks, and a
    /// full table of connections cannot refuse them. What the network answers to them, such as a path
    /// that takes smaller packets alone, has the mark of the host's own by what it cites.
    Untracked {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
        /// The ports.
        ports: Vec<Keep>,
        /// The mark.
        mark: u32,
        /// Its mask.
        mask: u32,
    },
    /// Connections born on this host from `address` get `mark` on the connection, and packets of
    /// the answer get it back before they are routed.
    MarkOwn {
        /// The public address.
        address: IpAddr,
        /// The mark.
        mark: u32,
        /// Its mask.
        mask: u32,
    },
    /// What comes from the tunnel from `address` leaves with that source, whatever the host's other
    /// rules translate: the first chain of NAT that decides is the only one.
    PublicSource {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
    },
    /// What goes to the other portal itself has our address on the tunnel as source.
    ///
    /// Stands before [`SourceNat`](Self::SourceNat).
    PortalSource {
        /// The tunnel's device.
        device: IfName,
        /// Our address on the tunnel.
        own: IpAddr,
        /// The other portal's.
        peer: IpAddr,
    },
    /// Connections to the kept ports get `mark` on the connection: so the ICMP errors about them
    /// (path MTU) are this host's too.
    MarkKept {
        /// The public address.
        address: IpAddr,
        /// The ports.
        ports: Vec<Keep>,
        /// The mark.
        mark: u32,
        /// Its mask.
        mask: u32,
    },
    /// Connections of the client's that this host answers are its own.
    Reclaim {
        /// The public address.
        address: IpAddr,
        /// The mark of the client's.
        client: u32,
        /// The mark of the host's own.
        mark: u32,
        /// The mask of both.
        mask: u32,
    },
    /// What leaves by the tunnel from another address than `address` gets that source.
    SourceNat {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
    },
    /// Ports of the public address are handed on to machines of the LAN, for the LAN itself and for
    /// this host too: then both ends may be on one LAN, and the answers have to come back here.
    Forwards {
        /// The tunnel's device.
        device: IfName,
        /// The LAN's devices.
        lans: Vec<IfName>,
        /// The public address.
        address: IpAddr,
        /// The ports and their targets, of the address's family.
        forwards: Vec<Forward>,
        /// Marks connections that go back to the LAN they come from.
        mark: u32,
        /// Its mask.
        mask: u32,
    },
    /// What the LAN and this host send to the public address, and no forward takes, goes to the
    /// other portal, which holds the address: to what it keeps.
    ///
    /// Stands behind [`Forwards`](Self::Forwards).
    Services {
        /// The LAN's devices.
        lans: Vec<IfName>,
        /// The public address.
        address: IpAddr,
        /// The other portal's address on the tunnel.
        peer: IpAddr,
    },
    /// What comes from the other portal's address on the tunnel to ours, at a kept port, goes to
    /// the public address: programs that listen there alone hear it too.
    KeptServices {
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
        /// Our address on the tunnel.
        own: IpAddr,
        /// The other portal's.
        peer: IpAddr,
        /// The kept ports.
        ports: Vec<Keep>,
    },
    /// What the client sends leaves by the tunnel or not at all: while the tunnel is gone it would
    /// follow the default route, in clear.
    KeepInside {
        /// The client's device.
        client: IfName,
        /// The tunnel's device.
        device: IfName,
        /// The public address.
        address: IpAddr,
    },
    /// Who may pass the tunnel, and where what comes out of it may go. Its verdicts are final, so it
    /// stands behind what marks connections.
    Border(Box<Border>),
}

/// All that this program wants of a host, or found of its own on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    resources: Set<Resource>,
}

impl HostState {
    /// A host on which nothing is ours.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one resource.
    pub fn insert(&mut self, resource: Resource) {
        self.resources.insert(resource);
    }

    /// True when this very resource is part of it.
    pub fn contains(&self, resource: &Resource) -> bool {
        self.resources.contains(resource)
    }

    /// The resources, in order of kind.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter()
    }

    /// How many resources.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// True when nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

impl FromIterator<Resource> for HostState {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        Self {
            resources: resources.into_iter().collect(),
        }
    }
}
