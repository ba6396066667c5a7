//! The configuration, valid by construction: a [`Config`] that exists can be run.
//!
//! [`Config::read`] starts in `file.rs`. `schema.rs` lists every key, `reader.rs` asks the TOML for
//! them one by one, and `report.rs` gathers every error of a file, each with its place
//! (`link[1].port: 74523 is not a port (1-65535)`); the other files read one part each.

mod address;
mod class;
mod error;
mod file;
mod forward;
mod keys;
mod link;
mod numbers;
mod places;
mod reader;
mod report;
mod role;
mod schema;
pub(crate) mod suggest;
pub mod units;
mod words;

pub use error::{ConfigError, ConfigErrors};
pub use keys::{KeyFile, Loader};
pub use schema::known_keys;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::packet::Crossing;
use crate::proto::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use units::{Bitrate, Family, IfName, Mtu, Prefix, RulePref, TableId};

/// The port of the flows (dissertation 3.3.1).
pub const DEFAULT_PORT: u16 = 4725;
/// The remote portal's address inside the tunnel (dissertation 3.3.2).
pub const DEFAULT_TUNNEL_REMOTE: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 2);
/// The local portal's address inside the tunnel (dissertation 3.3.1).
pub const DEFAULT_TUNNEL_LOCAL: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 3);
/// The same two for IPv6: unique local addresses (RFC 4193) whose digits spell the IPv4 ones.
pub const DEFAULT_TUNNEL_REMOTE_V6: Ipv6Addr =
    Ipv6Addr::new(0xfd6e, 0x6362, 0x172, 0x19, 0x152, 0, 0, 2);
/// See [`DEFAULT_TUNNEL_REMOTE_V6`].
pub const DEFAULT_TUNNEL_LOCAL_V6: Ipv6Addr =
    Ipv6Addr::new(0xfd6e, 0x6362, 0x172, 0x19, 0x152, 0, 0, 3);

/// Everything the daemon needs to know. Made only by parsing, so it is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The tunnel's device, and the name of the config file: `nc0`.
    pub name: IfName,
    /// What differs between the two portals.
    pub role: Role,
    /// The keys of this portal and of its peer.
    pub keys: Keys,
    /// How the data is protected.
    pub security: Security,
    /// The addresses that are handed to the client: at least one, at most one of a family.
    pub public: PublicAddresses,
    /// The addresses inside the tunnel.
    pub tunnel: TunnelAddresses,
    /// The TUN's MTU at most; nothing: [`Mtu::TUNNEL_DEFAULT`].
    pub mtu: Option<Mtu>,
    /// False: the kernel neither splits nor joins packets for us, neither at the TUN nor at sockets.
    pub offload: bool,
    /// Datagrams on links may say that a full queue can mark them instead of dropping them.
    pub ecn: bool,
    /// Threads that may carry packets: 1 or 2. Nothing: 2 where there is more than one core.
    pub threads: Option<u8>,
    /// Where flows are waited for. May be empty when `remote` is given.
    pub listen: Vec<Listen>,
    /// Where flows are opened to. Either portal may have it.
    pub remote: Option<Endpoint>,
    /// The links that flows leave by; empty: every interface with a default route is one.
    pub links: Vec<Link>,
    /// What is sent on two links at once.
    pub redundant: Vec<Class>,
    /// Networks that may cross the tunnel beside the addresses above.
    pub allow: Vec<Prefix>,
    /// The numbers of tables, rules and marks.
    pub numbers: Numbers,
    /// False: the tunnel gets its addresses, and all else of the host is left alone.
    pub manage_routing: bool,
}

impl Config {
    /// What may cross the tunnel.
    pub fn crossing(&self) -> Crossing {
        Crossing::new(&self.public, &self.tunnel, &self.allow)
    }

    /// True when IPv6 packets may cross the tunnel.
    pub fn carries_v6(&self) -> bool {
        self.public.v6.is_some() || self.allow.iter().any(|it| it.family() == Family::V6)
    }

    /// The hosts that flows are opened to, names and addresses, each once.
    pub fn remote_hosts(&self) -> Vec<String> {
        let named = self.links.iter().filter_map(|link| link.remote.as_ref());
        let hosts = named
            .chain(&self.remote)
            .map(|endpoint| endpoint.host.clone());
        let mut hosts: Vec<String> = hosts.collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

/// The two portals.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// At home, on the router.
    Local(Local),
    /// On the VPS that has the public address.
    Remote(Remote),
}

/// What only the local portal has.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// To whom the public address is handed.
    pub deliver: Deliver,
    /// Ports of this router that can be reached through the tunnel.
    pub keep: Vec<Keep>,
    /// Where the LAN's packets go while the tunnel carries nothing.
    pub without_tunnel: WithoutTunnel,
    /// What becomes of the LAN's IPv6 when the tunnel carries none.
    pub native_ipv6: NativeV6,
}

/// Where the LAN's packets go while the tunnel carries nothing, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum WithoutTunnel {
    /// Nowhere.
    #[default]
    Block,
    /// By the ordinary default route, in clear.
    Direct,
}

/// What becomes of the LAN's IPv6 when the tunnel carries none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum NativeV6 {
    /// It goes around the tunnel, by the links.
    #[default]
    Allow,
    /// It does not leave by a link.
    Block,
}

/// What only the remote portal has.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// Ports that stay on this host; those of `listen` always do, and are not repeated here.
    pub keep: Vec<Keep>,
}

/// To whom the local portal hands the public address.
#[derive(Debug, Clone, PartialEq)]
pub enum Deliver {
    /// A machine behind `device` owns the address and has `gateway` as its gateway.
    Client {
        /// The device towards the client.
        device: IfName,
        /// The address of this router on that device (IPv4), and by which the client leaves.
        gateway: Ipv4Addr,
    },
    /// This router holds the address; who is behind one of `devices` shares it.
    Nat {
        /// The devices towards the LANs: at least one, each once.
        devices: Vec<IfName>,
        /// Ports handed to machines of the LAN.
        forwards: Vec<Forward>,
    },
    /// The administrator routes.
    Nothing,
}

/// What is handed on to a machine of the LAN: `tcp:443 -> 192.168.1.20:443`,
/// `tcp,udp:8000-8100 -> 192.168.1.20`, `default -> 192.168.1.20`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// What of the public address.
    pub taken: Taken,
    /// The machine of the LAN.
    pub to: IpAddr,
}

/// What of the public address is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// Ports.
    Ports {
        /// Those of TCP.
        tcp: bool,
        /// Those of UDP.
        udp: bool,
        /// The first one.
        first: u16,
        /// The last one, not below the first.
        last: u16,
        /// What the first one is at the machine; the others follow it.
        to_first: u16,
    },
    /// All that nothing else takes, except ICMP.
    Rest,
}

/// A port that stays on the remote portal's host: `tcp:22`, `udp:60000-61000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keep {
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

/// Kinds of packets: `udp:5060`, `tcp:20-22`, `dscp:ef`, `icmp`, `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Every packet.
    All,
    /// ICMP and ICMPv6.
    Icmp,
    /// Those with this code point, below 64 (RFC 2474).
    Dscp(u8),
    /// Those from or to one of these ports.
    Ports {
        /// TCP or UDP.
        protocol: PortProtocol,
        /// The first port.
        first: u16,
        /// The last port, not below the first.
        last: u16,
    },
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What carries a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Our own datagrams in UDP.
    Udp,
    /// The same datagrams as records in a TCP connection.
    Tcp,
}

/// Where flows are waited for: `udp:4725`, `tcp:[2001:db8::1]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// UDP or TCP.
    pub transport: Transport,
    /// One address, or all.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// The other portal: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// One Internet link.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// What the user calls it; the device's name by default. Unique.
    pub name: String,
    /// The device it leaves by. Unique with its transport and port.
    pub device: IfName,
    /// UDP or TCP.
    pub transport: Transport,
    /// The local port to leave from; nothing: the kernel chooses.
    pub port: Option<u16>,
    /// Another place of the remote portal for this link alone; nothing: `remote`.
    pub remote: Option<Endpoint>,
    /// The next hop; nothing: read from the kernel's routes.
    pub gateway: Option<IpAddr>,
    /// Which of its device's addresses it may use as source. Without it, the one that the kernel would choose.
    pub source: Option<Prefix>,
    /// The tier: a higher one is used only when no lower one is usable.
    pub metric: u8,
    /// A cap on what is sent, never needed.
    pub rate_up: Option<Bitrate>,
    /// A cap on what is received, never needed (the peer is told).
    pub rate_down: Option<Bitrate>,
    /// The congestion controller.
    pub congestion: Congestion,
}

impl Link {
    /// A link by this device, all else as when it is left out.
    pub fn by(device: IfName) -> Self {
        Self {
            name: device.to_string(),
            device,
            transport: Transport::Udp,
            port: None,
            remote: None,
            gateway: None,
            source: None,
            metric: 0,
            rate_up: None,
            rate_down: None,
            congestion: Congestion::default(),
        }
    }
}

/// The congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Congestion {
    /// Delay-target rate control (PROTOCOL.md 3.2).
    #[default]
    Dtrc,
    /// New Reno (RFC 6582, RFC 9002 section 7), the dissertation's.
    NewReno,
    /// No control: send at `rate_up`.
    Fixed,
}

/// How data is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Security {
    /// Sealed by an AEAD.
    Encrypt,
    /// In clear, with a keyed BLAKE2s tag (dissertation 3.1.5).
    Authenticate,
    /// In clear, no tag: only inside another VPN. Control stays sealed.
    None,
}

/// The keys of a tunnel. Their `Debug` never shows a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Keys {
    /// This portal's.
    pub private: PrivateKey,
    /// The peer's.
    pub peer: PublicKey,
    /// One more secret shared by both, against a future break of the curve.
    pub preshared: Option<PresharedKey>,
}

/// The addresses that are handed to the client; at least one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicAddresses {
    /// The IPv4 one.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 one.
    pub v6: Option<Ipv6Addr>,
}

impl PublicAddresses {
    /// All of them, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.v6.map(IpAddr::V6))
    }
}

/// The addresses inside the tunnel. IPv6 ones are used only when a public IPv6 address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelAddresses {
    /// The local portal's.
    pub local: Ipv4Addr,
    /// The remote portal's.
    pub remote: Ipv4Addr,
    /// The local portal's for IPv6.
    pub local_v6: Ipv6Addr,
    /// The remote portal's for IPv6.
    pub remote_v6: Ipv6Addr,
}

impl Default for TunnelAddresses {
    fn default() -> Self {
        Self {
            local: DEFAULT_TUNNEL_LOCAL,
            remote: DEFAULT_TUNNEL_REMOTE,
            local_v6: DEFAULT_TUNNEL_LOCAL_V6,
            remote_v6: DEFAULT_TUNNEL_REMOTE_V6,
        }
    }
}

/// The numbers of everything of ours in the kernel's policy routing (PLATFORMS.md 1.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The first of the three tables and preferences 19, 20, 21 (dissertation 3.3).
    pub table_base: TableId,
    /// The preference of what stays on the remote portal's host: 1 (dissertation 3.3.1).
    pub keep_pref: RulePref,
    /// The preference of the links' own rules: 10, above 19-21.
    pub link_pref: RulePref,
    /// The first of the links' own tables: 28260, which nobody else takes.
    pub link_table_base: TableId,
    /// The mark of connections born on the remote portal's host, and its mask: in the top byte,
    /// which mwan3, pbr and tailscale leave alone.
    pub mark: u32,
    /// The mask of `mark`.
    pub mark_mask: u32,
}

impl Numbers {
    /// The mark of the client's connections on the remote portal's host: the lowest bit of the
    /// mask that `mark` leaves. Nothing when it leaves none.
    pub fn client_mark(&self) -> Option<u32> {
        let left = self.mark_mask & !self.mark;
        (left != 0).then(|| left & left.wrapping_neg())
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            table_base: TableId(19),
            keep_pref: RulePref(1),
            link_pref: RulePref(10),
            link_table_base: TableId(28260),
            mark: 0x0100_0000,
            mark_mask: 0x0f00_0000,
        }
    }
}

/// A file of the configuration that holds a secret and that others may read, or another thing worth
/// a word but no refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, or the key of the configuration.
    pub place: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// The default place of a tunnel's configuration.
pub fn default_path(name: &IfName) -> PathBuf {
    let folder = if cfg!(target_os = "freebsd") {
        "/usr/local/etc/netcombiner"
    } else {
        "/etc/netcombiner"
    };
    PathBuf::from(folder).join(format!("{name}.toml"))
}
