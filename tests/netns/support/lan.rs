//! A LAN of two machines behind the router: the lab's client, and a neighbour of it.

use std::net::{IpAddr, Ipv4Addr};

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;

use super::kernel::sh;

/// The device of the router that both machines are behind.
pub(crate) const BRIDGE: &str = "br-lan";

/// Puts the client and a new machine behind one bridge of the router. The machine has `address`,
/// the bridge `router`, of one network of 24 bits.
pub(crate) fn bridged(lab: &Lab, router: Ipv4Addr, address: Ipv4Addr) -> Result<Namespace, Error> {
    let neighbour = Namespace::new("neighbour")?;
    let end = |namespace, device| VethEnd { namespace, device };
    Netlink::add_veth(end(&neighbour, "eth0"), end(&lab.local, "lan2"))?;
    sh(&lab.local, &format!("ip link add {BRIDGE} type bridge"))?;
    for port in ["lan", "lan2"] {
        sh(
            &lab.local,
            &format!("ip link set {port} up master {BRIDGE}"),
        )?;
    }
    sh(&lab.local, &format!("ip link set {BRIDGE} up"))?;
    // As on routers: else what a bridge passes on is filtered twice. Not every kernel has it.
    let _ = sh(
        &lab.local,
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
    );
    let mut own = lab.local.netlink()?;
    own.add_address(BRIDGE, IpAddr::V4(router), 24)?;
    let mut machine = neighbour.netlink()?;
    machine.add_address("eth0", IpAddr::V4(address), 24)?;
    machine.set_up("eth0")?;
    machine.set_up("lo")?;
    machine.set_route((Ipv4Addr::UNSPECIFIED, 0), "eth0", Some(router), 0)?;
    Ok(neighbour)
}

/// The client becomes a machine of a private network behind the router.
pub(crate) fn client_into(lab: &Lab, router: Ipv4Addr, address: Ipv4Addr) -> Result<(), Error> {
    let mut client = lab.client.netlink()?;
    client.remove_address("eth0", PUBLIC.into(), 32)?;
    client.add_address("eth0", address.into(), 24)?;
    client.set_route((Ipv4Addr::UNSPECIFIED, 0), "eth0", Some(router), 0)
}
