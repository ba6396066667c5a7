//! Whether the datagrams of a socket may be cut into fragments: DF in IPv4, the sender's kernel in IPv6.
//!
//! Whole, the kernel goes by the device's MTU alone and believes no ICMP about the path: the tunnel
//! probes it itself (RFC 8899). Cut, it heeds what ICMP said, and makes fragments; in IPv6 they are of
//! 1,280 bytes, for nobody else will cut them.

use std::io;

use socket2::Socket;

use super::socket::set_number;
use crate::config::units::Family;

/// Fragments that every IPv6 link takes, bytes (RFC 8200 section 5).
#[cfg(target_os = "linux")]
const LEAST_V6: libc::c_int = 1280;

/// Lets them be cut, or not.
pub(super) fn set(socket: &Socket, family: Family, cuts: bool) -> io::Result<()> {
    match family {
        Family::V4 => set_v4(socket, cuts),
        Family::V6 => set_v6(socket, cuts),
    }
}

#[cfg(target_os = "linux")]
fn set_v4(socket: &Socket, cuts: bool) -> io::Result<()> {
    let value = if cuts {
        libc::IP_PMTUDISC_DONT
    } else {
        libc::IP_PMTUDISC_PROBE
    };
    set_number(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

#[cfg(target_os = "linux")]
fn set_v6(socket: &Socket, cuts: bool) -> io::Result<()> {
    let (discover, whole, longest) = if cuts {
        (libc::IPV6_PMTUDISC_DONT, 0, LEAST_V6)
    } else {
        (libc::IPV6_PMTUDISC_PROBE, 1, 0)
    };
    let level = libc::IPPROTO_IPV6;
    set_number(socket, level, libc::IPV6_DONTFRAG, whole)?;
    set_number(socket, level, libc::IPV6_MTU, longest)?;
    set_number(socket, level, libc::IPV6_MTU_DISCOVER, discover)
}

#[cfg(target_os = "freebsd")]
fn set_v4(socket: &Socket, cuts: bool) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_IP, libc::IP_DONTFRAG, (!cuts).into())
}

#[cfg(target_os = "freebsd")]
fn set_v6(socket: &Socket, cuts: bool) -> io::Result<()> {
    // RFC 3542 section 11.1: 1 cuts at the least MTU, 0 at what is known of the path.
    const IPV6_USE_MIN_MTU: libc::c_int = 42;
    let level = libc::IPPROTO_IPV6;
    set_number(socket, level, libc::IPV6_DONTFRAG, (!cuts).into())?;
    set_number(socket, level, IPV6_USE_MIN_MTU, cuts.into())
}
