//! A table of nf_tables as data: sets, chains and rules, in the words of nft(8).

use std::net::IpAddr;

use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, Prefix};

/// One table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains, in the order in which a packet meets them.
    pub chains: Vec<Chain>,
}

impl Table {
    /// A table with nothing in it.
    pub fn new(name: String) -> Self {
        Self {
            name,
            sets: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Adds a rule at the end of a chain, and the chain when it is the first.
    pub fn rule(&mut self, place: Place, rule: impl Into<Rule>) {
        let at = match self
            .chains
            .binary_search_by_key(&place, |chain| chain.place)
        {
            Ok(at) => at,
            Err(at) => {
                let rules = Vec::new();
                self.chains.insert(at, Chain { place, rules });
                at
            }
        };
        if let Some(chain) = self.chains.get_mut(at) {
            chain.rules.push(rule.into());
        }
    }
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it hangs.
    pub place: Place,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a chain hangs in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The hook.
    pub hook: Hook,
    /// Among the chains of the hook: the lower, the earlier (NF_IP_PRI_*). Connection tracking is
    /// at -200.
    pub priority: i32,
    /// What its rules may do.
    pub kind: Kind,
    /// The chain's name.
    pub name: &'static str,
}

/// NF_INET_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// Every packet that comes in, before it is routed.
    Prerouting = 0,
    /// What this host takes.
    Input = 1,
    /// What it passes on.
    Forward = 2,
    /// What it sends itself.
    Output = 3,
    /// Every packet that leaves, after it was routed.
    Postrouting = 4,
}

/// A chain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Marks and verdicts.
    Filter,
    /// Translation: asked for the first packet of a connection only.
    Nat,
}

/// A rule: its parts from left to right. The first match that fails ends it.
pub type Rule = Vec<Part>;

/// A match or a statement. Those with `is` take what is unlike when that is false (`!=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `iifname "nc0"`, `oifname != "nc0"`.
    Device {
        /// In or out.
        way: Way,
        /// Or not.
        is: bool,
        /// The device.
        device: IfName,
    },
    /// `iifname @lan`.
    DeviceIn {
        /// In or out.
        way: Way,
        /// Or not.
        is: bool,
        /// A set of devices.
        set: String,
    },
    /// `ip saddr 192.0.2.1`, `ip6 daddr != 2001:db8::/32`.
    Address {
        /// Source or destination.
        end: End,
        /// Or not; packets of the other family match in neither case.
        is: bool,
        /// The address or the network.
        prefix: Prefix,
    },
    /// `ip saddr @allow`.
    AddressIn {
        /// Source or destination.
        end: End,
        /// Or not; packets of the other family match in neither case.
        is: bool,
        /// The family of the set.
        family: Family,
        /// A set of addresses.
        set: String,
    },
    /// `meta nfproto ipv6`.
    Family(Family),
    /// `meta l4proto tcp`.
    Protocol {
        /// Or not.
        is: bool,
        /// IPPROTO_*.
        number: u8,
    },
    /// `tcp dport 22`, `udp sport 60000-61000`.
    Port {
        /// TCP or UDP.
        protocol: PortProtocol,
        /// Source or destination.
        end: End,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// `tcp flags & (syn | ack) == syn`: the first packet of a connection.
    Syn {
        /// Or not.
        is: bool,
    },
    /// `icmpv6 type 133-137`.
    Icmp {
        /// ICMP or ICMPv6.
        family: Family,
        /// The first type.
        first: u8,
        /// The last type.
        last: u8,
    },
    /// `@th,136,8 0x6`: bytes counted from the transport header.
    Bytes {
        /// The first of them.
        offset: u32,
        /// How many.
        length: u32,
        /// Their least value.
        first: u128,
        /// Their greatest value.
        last: u128,
    },
    /// `ip6 hoplimit 255`.
    HopLimit(u8),
    /// `ct state established,new`: one of [`state`].
    ConnectionState(u32),
    /// `ct original ip daddr 192.0.2.1`: where the connection's first packet went, before any
    /// translation.
    WasTo(IpAddr),
    /// `ct reply ip daddr 192.0.2.1`: where the connection's answers go, before any translation.
    AnswersGoTo(IpAddr),
    /// `ct direction original`: from the end that opened the connection.
    FromOpener,
    /// `ct direction reply`: from the other end.
    FromAnswerer,
    /// `meta ipsec exists`: it came encrypted (IPsec), and by the device that had the encrypted packet.
    Decrypted,
    /// `ct status & assured == 0`: the two ends have not spoken to each other for long.
    Unassured,
    /// `ct status dnat`: the connection's destination was translated.
    DestinationWasTranslated,
    /// `ct mark & 0x0f000000 == 0x01000000`.
    ConnectionMark {
        /// The bits.
        mark: u32,
        /// Which bits count.
        mask: u32,
    },
    /// `ct mark set ..`: the connection gets these bits.
    MarkConnection {
        /// The bits.
        mark: u32,
        /// Which bits are written.
        mask: u32,
    },
    /// `meta mark set ..`: the packet gets these bits.
    MarkPacket {
        /// The bits.
        mark: u32,
        /// Which bits are written.
        mask: u32,
    },
    /// `notrack`, before connection tracking.
    Untrack,
    /// `counter`.
    Counter,
    /// `accept`: nothing more in this chain.
    Accept,
    /// `drop`.
    Drop,
    /// `masquerade`.
    Masquerade,
    /// `snat ip to 192.0.2.1`.
    SourceNat(IpAddr),
    /// `dnat ip to 192.168.1.20`.
    DestinationNat(IpAddr),
    /// `dnat ip to tcp dport map @forward_tcp4`. A port that is not in the map is no match.
    DestinationNatBy {
        /// TCP or UDP.
        protocol: PortProtocol,
        /// The family of the map's addresses.
        family: Family,
        /// A map from ports to addresses, or to addresses and ports.
        map: String,
        /// The map has ports.
        with_port: bool,
    },
}

/// In or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The device that the packet came in by.
    In,
    /// The device that it leaves by.
    Out,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h, to be joined by `|`.
pub mod state {
    /// Belongs to no connection.
    pub const INVALID: u32 = 1;
    /// Either way, after the first answer.
    pub const ESTABLISHED: u32 = 2;
    /// An error about a connection, or its second channel.
    pub const RELATED: u32 = 4;
    /// The first packet of a connection.
    pub const NEW: u32 = 8;
    /// Not tracked at all.
    pub const UNTRACKED: u32 = 64;
}

/// A set, or a map when its elements have targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub key: Key,
    /// What its elements lead to.
    pub target: Option<Target>,
    /// Its elements. Those of addresses and of ports do not overlap.
    pub elements: Vec<Element>,
}

impl Set {
    /// A set of devices.
    pub fn devices<'a>(name: &str, devices: impl IntoIterator<Item = &'a IfName>) -> Self {
        let elements = devices.into_iter().map(|device| Element {
            item: Item::Device(device.clone()),
            target: None,
        });
        Self {
            name: name.to_owned(),
            key: Key::Device,
            target: None,
            elements: elements.collect(),
        }
    }

    /// A set of networks of one family. Those within others are left out: nf_tables refuses them.
    pub fn networks(name: &str, family: Family, networks: &[Prefix]) -> Self {
        let mut networks: Vec<_> = networks
            .iter()
            .filter(|network| network.family() == family)
            .map(Prefix::network)
            .collect();
        networks.sort_unstable();
        networks.dedup();
        let within = |inner: &Prefix| {
            let holds = |outer: &&Prefix| {
                outer.length() < inner.length() && outer.contains(inner.address())
            };
            networks.iter().any(|outer| holds(&outer))
        };
        let elements = networks.iter().filter(|it| !within(it)).map(|it| Element {
            item: Item::Network(*it),
            target: None,
        });
        Self {
            name: name.to_owned(),
            key: Key::Address(family),
            target: None,
            elements: elements.collect(),
        }
    }

    /// Whether its elements may be ranges. Device names have none, and a map that leads to ports
    /// has one for each of its own.
    pub fn has_ranges(&self) -> bool {
        self.key != Key::Device && !matches!(self.target, Some(Target::Place(_)))
    }
}

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Networks and addresses.
    Address(Family),
    /// Ports.
    Port,
    /// Names of devices.
    Device,
}

/// What the elements of a map lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(Family),
    /// An address and a port.
    Place(Family),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What is looked for.
    pub item: Item,
    /// Where it leads, in a map: the port only when the map has ports.
    pub target: Option<(IpAddr, u16)>,
}

/// A key, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A network or an address.
    Network(Prefix),
    /// From the first to the last port.
    Ports(u16, u16),
    /// A device.
    Device(IfName),
}
