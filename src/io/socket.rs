//! What UDP and TCP sockets have in common when they are opened: device, source address, buffers.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;

use crate::config::Transport;
use crate::config::units::{Family, IfName};

/// Why a socket could not be opened.
#[derive(Debug, Error)]
#[error("cannot open {transport} {place}: {step}: {source}{hint}")]
pub struct OpenError {
    transport: &'static str,
    place: String,
    step: &'static str,
    source: io::Error,
    hint: Cow<'static, str>,
}

impl OpenError {
    /// True when this system has no such address family at all.
    pub fn is_family_missing(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EAFNOSUPPORT)
            || self.source.kind() == io::ErrorKind::AddrNotAvailable
    }

    /// True when somebody else has the address.
    pub fn is_taken(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EADDRINUSE)
    }

    /// The same, with who has the address.
    pub fn held_by(mut self, who: &str) -> Self {
        self.hint = Cow::Owned(format!(" ({who} has it)"));
        self
    }

    /// A failure after the socket was bound.
    pub(super) fn late(transport: Transport, place: String, source: io::Error) -> Self {
        Self {
            transport: text(transport),
            place,
            step: "set its options",
            source,
            hint: Cow::Borrowed(""),
        }
    }
}

/// Where a link's own socket leaves from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The device it is bound to (Linux: SO_BINDTODEVICE, so no other link is ever used).
    pub device: IfName,
    /// Its source address: one of the device's.
    pub source: IpAddr,
    /// Its source port; `None`: the kernel chooses.
    pub port: Option<u16>,
}

impl Origin {
    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.port.unwrap_or(0))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "from port {port} of {}", self.source)?,
            None => write!(f, "from {}", self.source)?,
        }
        write!(f, " on {}", self.device)
    }
}

/// The address that stands for all of a family.
pub fn any_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A new non-blocking socket, not yet bound.
pub(super) fn create(transport: Transport, family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A socket bound to an address for waiting on.
pub(super) fn bind_listen(transport: Transport, address: SocketAddr) -> Result<Socket, OpenError> {
    let fail = |step, source: io::Error| {
        let hint = match source.raw_os_error() {
            Some(libc::EADDRINUSE) => " (another program or tunnel has it)",
            Some(libc::EADDRNOTAVAIL) => " (no interface of this host has this address)",
            Some(libc::EACCES) => " (run as root, or with CAP_NET_BIND_SERVICE)",
            Some(_) | None => "",
        };
        OpenError {
            transport: text(transport),
            place: address.to_string(),
            step,
            source,
            hint: Cow::Borrowed(hint),
        }
    };
    let socket =
        create(transport, Family::of(address.ip())).map_err(|error| fail("socket", error))?;
    if transport == Transport::Tcp {
        // A port in TIME_WAIT of our own last run is no hindrance.
        socket
            .set_reuse_address(true)
            .map_err(|error| fail("reuse the address", error))?;
    }
    // At boot the address may come later than we (DHCP, duplicate address detection).
    #[cfg(target_os = "linux")]
    match Family::of(address.ip()) {
        Family::V4 => socket.set_freebind_v4(true),
        Family::V6 => socket.set_freebind_v6(true),
    }
    .map_err(|error| fail("bind before the address is there", error))?;
    socket
        .bind(&SockAddr::from(address))
        .map_err(|error| fail("bind", error))?;
    Ok(socket)
}

/// A UDP socket bound to a link, for a question to somebody else than the peer; it does not block.
pub fn question_socket(origin: &Origin) -> Result<std::net::UdpSocket, OpenError> {
    bind_link(Transport::Udp, origin).map(Into::into)
}

/// A socket bound to a link.
pub(super) fn bind_link(transport: Transport, origin: &Origin) -> Result<Socket, OpenError> {
    let fail = |step, source: io::Error| {
        let hint = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => " (run as root, or with CAP_NET_RAW)",
            Some(libc::EADDRINUSE) => " (the link's `port` is taken by another program)",
            Some(_) | None => "",
        };
        OpenError {
            transport: text(transport),
            place: origin.to_string(),
            step,
            source,
            hint: Cow::Borrowed(hint),
        }
    };
    let socket =
        create(transport, Family::of(origin.source)).map_err(|error| fail("socket", error))?;
    #[cfg(target_os = "linux")]
    socket
        .bind_device(Some(origin.device.as_str().as_bytes()))
        .map_err(|error| fail("bind to the device", error))?;
    if transport == Transport::Tcp && origin.port.is_some() {
        socket
            .set_reuse_address(true)
            .map_err(|error| fail("reuse the address", error))?;
    }
    socket
        .bind(&SockAddr::from(origin.address()))
        .map_err(|error| fail("bind", error))?;
    Ok(socket)
}

fn text(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

/// Asks for large kernel buffers: beyond net.core.rmem_max and wmem_max where permitted, else up to it.
pub(super) fn enlarge_buffers(socket: &Socket, bytes: usize) {
    #[cfg(target_os = "linux")]
    if force_buffer(socket, libc::SO_RCVBUFFORCE, bytes)
        && force_buffer(socket, libc::SO_SNDBUFFORCE, bytes)
    {
        return;
    }
    // A smaller buffer only loses more packets in a burst: no reason to stop.
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
}

#[cfg(target_os = "linux")]
fn force_buffer(socket: &Socket, option: libc::c_int, bytes: usize) -> bool {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_number(socket, libc::SOL_SOCKET, option, value).is_ok()
}

/// Sets an option whose value is one number.
#[expect(
    unsafe_code,
    reason = "socket2 has no SO_RCVBUFFORCE, SO_SNDBUFFORCE, IP_MTU_DISCOVER, IP_DONTFRAG"
)]
pub(super) fn set_number(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open, and the pointer and length are those of one c_int that lives
    // through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
