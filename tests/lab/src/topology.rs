//! The dissertation's figure 4.1 with N links, in namespaces:
//!
//! ```text
//! client --veth-- local portal ==N emulated links== internet --veth-- remote portal
//!   (B)     lan              wan0..       link0..       \            (eth0, address B)
//!                                                        \--veth-- server (198.51.100.2)
//! ```
//!
//! Link I is 10.(10+I).0.0/24: the portal's `wanI` has .2, the Internet's `linkI` is the gateway .1.
//! B is 203.0.113.2/24 on the remote portal's `eth0` and 203.0.113.2/32 on the client's.
//! The local portal's `lan` has no address: netcombiner gives it one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;
use std::time::Duration;

use crate::emulator::{Cable, Emulator, Shape};
use crate::error::Error;
use crate::net::{Leftovers, MAKING, Namespace, Netlink, VethEnd, Watch, open_tap};

/// B: what the remote portal and the client both own.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The remote portal's gateway.
pub const PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server on the mock Internet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server's gateway.
pub const SERVER_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// What netcombiner sets on the local portal's `lan`: the client's gateway.
pub const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// The port of the tunnel.
pub const PORT: u16 = 4725;

/// Frames that the kernel may hold for the emulator's thread: 20 ms of a gigabit.
const TAP_QUEUE: u32 = 2000;

/// What one link is like each way.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    /// From the local portal to the Internet.
    pub up: Shape,
    /// From the Internet to the local portal.
    pub down: Shape,
}

impl LinkSpec {
    /// The same both ways: Mbit/s, round trip in ms, a queue of 100 ms but at least 64 KiB.
    pub fn symmetric(mbps: f64, rtt_ms: u64) -> Self {
        let shape = Shape::new(mbps, Duration::from_millis(rtt_ms));
        Self {
            up: shape.clone(),
            down: shape,
        }
    }

    /// No rate, no delay: as fast as the emulator goes. Its queue is never full.
    pub fn unshaped() -> Self {
        Self {
            up: Shape::default(),
            down: Shape::default(),
        }
    }
}

/// What lab to raise.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// The links, `wan0` first.
    pub links: Vec<LinkSpec>,
    /// Decides losses and jitter.
    pub seed: u64,
    /// `rp_filter` of the portals' hosts before netcombiner comes: 0 off, 1 strict, 2 loose.
    pub reverse_path: u8,
}

impl LabSpec {
    /// A lab with these links and a kernel's own settings.
    pub const fn new(links: Vec<LinkSpec>) -> Self {
        Self {
            links,
            seed: 1,
            reverse_path: 0,
        }
    }
}

/// A running lab. Dropped, all of it is gone. Processes that you started in it with
/// [`crate::net::Process::spawn`] must be dropped before.
#[derive(Debug)]
pub struct Lab {
    /// The links' emulator: change a link while it runs, read its counters.
    pub emulator: Emulator,
    /// The client that owns B by the tunnel (`eth0`).
    pub client: Namespace,
    /// The local portal's host (`lan`, `wan0`, ...).
    pub local: Namespace,
    /// The router of the mock Internet (`link0`, ..., `remote`, `server`).
    pub internet: Namespace,
    /// The remote portal's host (`eth0`).
    pub remote: Namespace,
    /// A server on the mock Internet (`eth0`).
    pub server: Namespace,
    links: usize,
    watch: Watch,
}

impl Lab {
    /// Raises a lab.
    pub fn start(spec: &LabSpec) -> Result<Self, Error> {
        let mut watch = Watch::start()?;
        let mut namespace = |name: &str| -> Result<Namespace, Error> {
            let namespace = Namespace::new(name)?;
            watch.add(&namespace)?;
            settings(&namespace, spec.reverse_path)?;
            Ok(namespace)
        };
        let client = namespace("client")?;
        let local = namespace("local")?;
        let internet = namespace("internet")?;
        let remote = namespace("remote")?;
        let server = namespace("server")?;
        internet.set_sysctl("ipv4/ip_forward", "1")?;

        let mut cables = Vec::new();
        for (i, link) in spec.links.iter().enumerate() {
            cables.push(cable(i, link, &local, &internet)?);
        }
        let emulator = Emulator::start(cables, spec.seed)?;
        for i in 0..spec.links.len() {
            furnish_link(i, &local, &internet)?;
        }
        furnish_edges(&client, &local, &internet, &remote, &server)?;
        for namespace in [&client, &local, &internet, &remote, &server] {
            namespace.netlink()?.settle()?;
        }
        let links = spec.links.len();
        Ok(Self {
            emulator,
            client,
            local,
            internet,
            remote,
            server,
            links,
            watch,
        })
    }

    /// How many links there are.
    pub const fn links(&self) -> usize {
        self.links
    }

    /// The name of a link's device on the local portal.
    pub fn wan(link: usize) -> String {
        format!("wan{link}")
    }

    /// The local portal's address on a link, as the lab gave it.
    pub fn wan_address(link: usize) -> Ipv4Addr {
        wan_subnet(link, 2)
    }

    /// The gateway of a link.
    pub fn wan_gateway(link: usize) -> Ipv4Addr {
        wan_subnet(link, 1)
    }

    /// The metric of the local portal's default route over a link.
    pub const fn wan_metric(link: usize) -> u32 {
        100 + link as u32
    }

    /// What a provider does at night: takes a link's addresses (the first octets `from`) and gives
    /// it others (`to`), gateway .1 and portal .2, with the default route. E.g. from `[10, 10, 0]`
    /// to `[10, 77, 0]`.
    pub fn renumber(&self, link: usize, from: [u8; 3], to: [u8; 3]) -> Result<(), Error> {
        let at = |net: [u8; 3], host| Ipv4Addr::new(net[0], net[1], net[2], host);
        let (wan, inner) = (Self::wan(link), format!("link{link}"));
        let mut local = self.local.netlink()?;
        let mut internet = self.internet.netlink()?;
        // With the address go the routes that need it.
        local.remove_address(&wan, IpAddr::V4(at(from, 2)), 24)?;
        internet.remove_address(&inner, IpAddr::V4(at(from, 1)), 24)?;
        address_link(&mut local, &mut internet, link, at(to, 1), at(to, 2))
    }

    /// Takes the default route over a link away, or gives it back.
    pub fn set_default_route(&self, link: usize, present: bool) -> Result<(), Error> {
        let (wan, gateway, metric) = (
            Self::wan(link),
            Self::wan_gateway(link),
            Self::wan_metric(link),
        );
        let mut local = self.local.netlink()?;
        if present {
            local.set_route(DEFAULT, &wan, Some(gateway), metric)
        } else {
            local.remove_route(DEFAULT, &wan, Some(gateway), metric)
        }
    }

    /// Removes the lab and counts what is left of it.
    pub fn stop(self) -> Result<Leftovers, Error> {
        let Self {
            emulator,
            client,
            local,
            internet,
            remote,
            server,
            links: _,
            watch,
        } = self;
        let _no_new_ones = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        drop((emulator, client, local, internet, remote, server));
        watch.leftovers()
    }
}

const DEFAULT: (Ipv4Addr, u8) = (Ipv4Addr::UNSPECIFIED, 0);

fn wan_subnet(link: usize, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10u8.wrapping_add(link as u8), 0, host)
}

/// Locally administered hardware addresses, so that neighbours can be told beforehand.
const fn mac(link: usize, end: u8) -> [u8; 6] {
    [0x02, 0x6e, 0x63, 0, link as u8, end]
}

/// The same kernel settings in each namespace, whatever the root namespace handed down.
pub(crate) fn settings(namespace: &Namespace, reverse_path: u8) -> Result<(), Error> {
    let reverse_path = reverse_path.to_string();
    let needed = [
        ("ipv4/ip_forward", "0"),
        ("ipv4/conf/all/rp_filter", reverse_path.as_str()),
        ("ipv4/conf/default/rp_filter", reverse_path.as_str()),
    ];
    for (key, value) in needed {
        namespace.set_sysctl(key, value)?;
    }
    let wished = [
        // Buffers of up to 16 MiB: the window is never what limits a flow here.
        ("ipv4/tcp_rmem", "4096 131072 16777216"),
        ("ipv4/tcp_wmem", "4096 65536 16777216"),
        // A flow starts without what another learnt.
        ("ipv4/tcp_no_metrics_save", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
        // No link-local addresses, which would come whenever the kernel gets round to it.
        ("ipv6/conf/default/addr_gen_mode", "1"),
    ];
    for (key, value) in wished {
        namespace.try_set_sysctl(key, value)?;
    }
    // Not every kernel has cubic, and a user namespace may not load it.
    let _ = namespace.set_sysctl("ipv4/tcp_congestion_control", "cubic");
    Ok(())
}

fn cable(
    link: usize,
    spec: &LinkSpec,
    local: &Namespace,
    internet: &Namespace,
) -> Result<Cable, Error> {
    Ok(Cable {
        a: open_tap(local, &Lab::wan(link))?,
        b: open_tap(internet, &format!("link{link}"))?,
        up: spec.up.clone(),
        down: spec.down.clone(),
    })
}

fn furnish_link(link: usize, local: &Namespace, internet: &Namespace) -> Result<(), Error> {
    let (mut local, mut internet) = (local.netlink()?, internet.netlink()?);
    let (wan, inner) = (Lab::wan(link), format!("link{link}"));
    local.set_hardware(&wan, mac(link, 2), TAP_QUEUE)?;
    internet.set_hardware(&inner, mac(link, 1), TAP_QUEUE)?;
    local.set_up(&wan)?;
    internet.set_up(&inner)?;
    address_link(
        &mut local,
        &mut internet,
        link,
        Lab::wan_gateway(link),
        Lab::wan_address(link),
    )
}

/// Gives both ends of a link their addresses. The neighbours are told for good: an outage is in
/// the Internet, not on the wire to the first router, so it must not show as a failing ARP.
fn address_link(
    local: &mut Netlink,
    internet: &mut Netlink,
    link: usize,
    gateway: Ipv4Addr,
    portal: Ipv4Addr,
) -> Result<(), Error> {
    let (wan, inner) = (Lab::wan(link), format!("link{link}"));
    local.add_address(&wan, IpAddr::V4(portal), 24)?;
    internet.add_address(&inner, IpAddr::V4(gateway), 24)?;
    local.set_neighbour(&wan, gateway, mac(link, 1))?;
    internet.set_neighbour(&inner, portal, mac(link, 2))?;
    local.set_route(DEFAULT, &wan, Some(gateway), Lab::wan_metric(link))
}

fn furnish_edges(
    client: &Namespace,
    local: &Namespace,
    internet: &Namespace,
    remote: &Namespace,
    server: &Namespace,
) -> Result<(), Error> {
    let end = |namespace, device| VethEnd { namespace, device };
    Netlink::add_veth(end(client, "eth0"), end(local, "lan"))?;
    Netlink::add_veth(end(remote, "eth0"), end(internet, "remote"))?;
    Netlink::add_veth(end(server, "eth0"), end(internet, "server"))?;

    local.netlink()?.set_up("lan")?;
    let mut router = internet.netlink()?;
    for (device, address) in [("remote", PUBLIC_GATEWAY), ("server", SERVER_GATEWAY)] {
        router.add_address(device, IpAddr::V4(address), 24)?;
        router.set_up(device)?;
    }
    for (node, address, gateway) in [
        (remote, PUBLIC, PUBLIC_GATEWAY),
        (server, SERVER, SERVER_GATEWAY),
    ] {
        let mut node = node.netlink()?;
        node.add_address("eth0", IpAddr::V4(address), 24)?;
        node.set_up("eth0")?;
        node.set_route(DEFAULT, "eth0", Some(gateway), 0)?;
    }
    // Dissertation 4.2.3: the gateway on-link by a static route, then the default by it.
    let mut client = client.netlink()?;
    client.add_address("eth0", IpAddr::V4(PUBLIC), 32)?;
    client.set_up("eth0")?;
    client.set_route((CLIENT_GATEWAY, 32), "eth0", None, 0)?;
    client.set_route(DEFAULT, "eth0", Some(CLIENT_GATEWAY), 0)
}
