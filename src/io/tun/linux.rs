//! The TUN of Linux (/dev/net/tun), made by the `tun` crate.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use tun::AbstractDevice as _;

use super::{Offload, TunError};
use crate::config::units::{IfName, Mtu};
use crate::packet::offload::virtio::VIRTIO_HEADER_LEN;

/// Packets that the kernel keeps for us while the loop is busy; the driver's 500 is a burst of
/// 7 ms at 1 Gbit/s.
const QUEUE_LENGTH: libc::c_int = 1000;

/// What is asked of the kernel, best first: it refuses what it does not know, as a whole. Segments
/// of datagrams came with Linux 6.2; ECN with TCP is no choice, for all kernels have it.
const LEVELS: [(libc::c_uint, Offload); 3] = {
    const TSO: libc::c_uint =
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const USO: libc::c_uint = TSO | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    [
        (USO, offload(true, true)),
        (TSO, offload(true, false)),
        (0, offload(false, false)),
    ]
};

const fn offload(tcp: bool, udp: bool) -> Offload {
    Offload {
        header: true,
        tcp,
        udp,
    }
}

/// Makes the device, sets its MTU and queue and brings it up; with its offloads, when they are
/// wanted and as far as the kernel has them.
pub(super) fn open(
    name: &IfName,
    mtu: Mtu,
    offload_wanted: bool,
    carries_v6: bool,
) -> Result<(File, Offload), TunError> {
    if offload_wanted && let Ok(opened) = with_header(name, mtu, carries_v6) {
        return Ok(opened);
    }
    create(name, mtu, false, carries_v6).map(|file| (file, Offload::default()))
}

fn with_header(name: &IfName, mtu: Mtu, carries_v6: bool) -> Result<(File, Offload), TunError> {
    let file = create(name, mtu, true, carries_v6)?;
    let length = VIRTIO_HEADER_LEN as libc::c_int;
    set_header_length(&file, length)
        .map_err(|source| TunError::new(name, "set its header", source))?;
    let set = |flags| set_offload(&file, flags);
    let taken = LEVELS.into_iter().find(|&(flags, _)| set(flags).is_ok());
    let offload = taken.map_or(offload(false, false), |(_, offload)| offload);
    Ok((file, offload))
}

fn create(name: &IfName, mtu: Mtu, header: bool, carries_v6: bool) -> Result<File, TunError> {
    let fail = |step| {
        move |error| {
            let source = if let tun::Error::Io(source) = error {
                source
            } else {
                io::Error::other(error.to_string())
            };
            TunError::new(name, step, source)
        }
    };
    let file = new_device(name, header).map_err(|source| TunError::new(name, "create", source))?;
    let mut settings = tun::Configuration::default();
    settings.tun_name(name.as_str()).raw_fd(file.into_raw_fd());
    let mut device = tun::create(&settings).map_err(fail("create"))?;
    device.set_mtu(mtu.bytes()).map_err(fail("set its MTU"))?;
    silence(name, carries_v6);
    device.enabled(true).map_err(fail("bring up"))?;
    // A shorter queue only drops earlier.
    let _ = set_queue_length(name);
    Ok(own(device))
}

/// Makes a TUN that was not there: one of this name is somebody else's, for ours goes with its
/// descriptor. The `tun` crate would take it over, its owner and its settings included.
#[expect(unsafe_code, reason = "the tun crate does not have IFF_TUN_EXCL")]
fn new_device(name: &IfName, header: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    if header {
        flags |= libc::IFF_VNET_HDR;
    }
    let mut request = request(name);
    // All of them are within the 16 bits of ifr_flags.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and the request lives through the call, which writes within it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A request about this device, with nothing asked yet.
#[expect(unsafe_code, reason = "libc's ifreq has no default")]
fn request(name: &IfName) -> libc::ifreq {
    // SAFETY: an ifreq of zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An IfName is at most 15 bytes, so the last byte stays the NUL.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// The kernel does nothing of its own on the device, before it is up: it takes no router's
/// advertisement or redirect, has no link-local address, and without IPv6 inside the tunnel none at
/// all. What comes out of the tunnel is the peer's, and configures nothing here.
///
/// A kernel without one of these settings has nothing to switch off. Where they cannot be written (a
/// container), the tunnel still drops what they are about (`packet::crossing`).
fn silence(name: &IfName, carries_v6: bool) {
    let disable = if carries_v6 { "0" } else { "1" };
    for (key, value) in [
        ("ipv6/conf/{}/accept_ra", "0"),
        ("ipv6/conf/{}/autoconf", "0"),
        ("ipv6/conf/{}/accept_redirects", "0"),
        // IN6_ADDR_GEN_MODE_NONE.
        ("ipv6/conf/{}/addr_gen_mode", "1"),
        ("ipv6/conf/{}/disable_ipv6", disable),
        ("ipv4/conf/{}/accept_redirects", "0"),
        ("ipv4/conf/{}/send_redirects", "0"),
        ("ipv4/conf/{}/accept_source_route", "0"),
    ] {
        let file = format!("/proc/sys/net/{}", key.replace("{}", name.as_str()));
        let _ = std::fs::write(file, value);
    }
}

#[expect(
    unsafe_code,
    reason = "the tun crate gives its descriptor up as a number"
)]
fn own(device: tun::Device) -> File {
    // SAFETY: `into_raw_fd` gives the descriptor away, open and owned by nobody else.
    File::from(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
}

#[expect(unsafe_code, reason = "neither std nor socket2 has SIOCSIFTXQLEN")]
fn set_queue_length(name: &IfName) -> io::Result<()> {
    let control = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut request = request(name);
    // The kernel reads ifr_qlen, which shares its place with ifru_metric (both int).
    request.ifr_ifru.ifru_metric = QUEUE_LENGTH;
    // SAFETY: the descriptor is open and the request lives through the call, which only reads it.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::SIOCSIFTXQLEN as _,
            &raw const request,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the tun crate does not have TUNSETVNETHDRSZ")]
fn set_header_length(tun: &File, length: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open and the number lives through the call, which only reads it.
    let result = unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETVNETHDRSZ as _,
            &raw const length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the tun crate does not have TUNSETOFFLOAD")]
fn set_offload(tun: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open; the argument is the flags themselves, as wide as a pointer.
    let result = unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETOFFLOAD as _,
            libc::c_ulong::from(flags),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
