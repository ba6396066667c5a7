//! What only a neighbour on a link may say to a host, said through the tunnel: nothing is believed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use netcombiner_lab::prelude::*;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::crossing::refused;
use super::support::kernel::sh;
use super::support::{LOCAL, Outcome, REMOTE, Setup, case};

/// The prefix that is advertised.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);
const LIAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A router advertisement (RFC 4861 sections 4.2 and 4.6.2): a default router of high preference, and a
/// prefix for addresses.
fn advertisement() -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(PREFIX.octets());
    bytes
}

/// Sends advertisements by the tunnel's device, as its host can.
fn advertise(host: &Namespace) -> Outcome {
    // Where the device has no IPv6, somebody switches it on.
    host.set_sysctl("ipv6/conf/nc0/disable_ipv6", "0")?;
    sh(host, &format!("ip -6 address add {LIAR}/64 dev nc0 nodad"))?;
    let line = sh(host, "ip -o link show nc0")?;
    let index: u32 = line.split(':').next().unwrap_or_default().parse()?;
    let socket = host.run(|| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(index)?;
        socket.bind(&SocketAddr::from(SocketAddrV6::new(LIAR, 0, 0, index)).into())?;
        Ok(socket)
    })??;
    let to = SockAddr::from(SocketAddr::from(SocketAddrV6::new(EVERYBODY, 0, 0, index)));
    for _ in 0..5 {
        socket.send_to(&advertisement(), &to)?;
    }
    Ok(())
}

/// Sends redirects (RFC 792): the way to the server is by the other portal.
fn redirect(host: &Namespace, from: Ipv4Addr, to: Ipv4Addr) -> Outcome {
    let mut icmp = vec![5, 1, 0, 0];
    icmp.extend(from.octets());
    icmp.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    icmp.extend(to.octets());
    icmp.extend(SERVER.octets());
    icmp.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    let sum: u32 = icmp
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let socket = host.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))??;
    for _ in 0..5 {
        socket.send_to(&icmp, &SocketAddr::from((to, 0)).into())?;
    }
    Ok(())
}

/// What a host believes: addresses, ways and what it learned of them.
fn beliefs(host: &Namespace) -> Result<String, Error> {
    let mut text = String::new();
    for line in [
        "ip -6 address show dev nc0",
        "ip -6 route show table all",
        "ip route get 198.51.100.2",
        "ip route show cache",
        "ip -6 route show cache",
    ] {
        text += &sh(host, line)?;
    }
    Ok(text)
}

/// Field row A3: one advertisement sent into the tunnel gave the other host a prefix and a default route;
/// where the tunnel carries no IPv6, and where it does.
#[test]
fn neither_advertisements_nor_redirects_are_believed() {
    let inner = |side| match side {
        Side::Local => LOCAL,
        Side::Remote => REMOTE,
    };
    for more in ["", "allow = [\"2001:db8:900d::/48\"]"] {
        for (liar, victim) in [(Side::Remote, Side::Local), (Side::Local, Side::Remote)] {
            let mut setup = Setup::default();
            setup.options.local = more.into();
            setup.options.remote = more.into();
            case(setup, |case| -> Outcome {
                let lab = &case.lab;
                for host in [&lab.local, &lab.remote] {
                    // As every distribution has it, and worse.
                    host.set_sysctl("ipv6/conf/default/accept_ra", "2")?;
                    host.set_sysctl("ipv4/conf/default/accept_redirects", "1")?;
                    host.set_sysctl("ipv4/conf/all/accept_redirects", "1")?;
                }
                let _portals = case.up()?;
                let before = beliefs(lab.host(victim))?;
                let said = refused(case, liar, "not_allowed_out")?;
                advertise(lab.host(liar))?;
                redirect(lab.host(liar), inner(liar), inner(victim))?;
                assert_eq!(case.pings(&lab.client, SERVER)?, 20);
                assert_eq!(beliefs(lab.host(victim))?, before, "{victim:?} {more}");
                // All ten were said, and maybe what the kernel says of its own.
                assert!(
                    refused(case, liar, "not_allowed_out")? >= said + 10,
                    "{liar:?} {more}"
                );
                Ok(())
            });
        }
    }
}
