//! The TUN of FreeBSD (tun(4)): a clone of /dev/tun, renamed, with the address family in front of
//! every packet (TUNSIFHEAD), for without it there is no IPv6.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::{Offload, TunError};
use crate::config::units::{IfName, Mtu};

// sys/net/if_tun.h and sys/sys/sockio.h; `struct ifreq` is 32 bytes on every architecture.
const TUNGIFNAME: libc::c_ulong = 0x4020_745d;
const TUNSIFMODE: libc::c_ulong = 0x8004_745e;
const TUNSIFHEAD: libc::c_ulong = 0x8004_7460;
const SIOCSIFFLAGS: libc::c_ulong = 0x8020_6910;
const SIOCGIFFLAGS: libc::c_ulong = 0xc020_6911;
const SIOCSIFNAME: libc::c_ulong = 0x8020_6928;
const SIOCSIFMTU: libc::c_ulong = 0x8020_6934;
const SIOCIFDESTROY: libc::c_ulong = 0x8020_6979;

/// The address family before each packet, network order.
const HEAD_LEN: usize = 4;

/// `struct ifreq`: the name, and 16 bytes whose meaning the request says.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    value: [u8; 16],
}

impl Request {
    fn new(name: &IfName) -> Self {
        let mut request = Self {
            name: [0; 16],
            value: [0; 16],
        };
        // An IfName is at most 15 bytes, so the last byte stays the NUL.
        request.name[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        request
    }

    fn set_int(&mut self, value: libc::c_int) {
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
    }
}

/// Makes the device, sets its MTU and brings it up. It has no offloads.
pub(super) fn open(name: &IfName, mtu: Mtu, _: bool, _: bool) -> Result<(File, Offload), TunError> {
    let fail = |step| move |source| TunError::new(name, step, source);
    let control = control().map_err(fail("open a control socket"))?;
    // One that a killed instance of ours left behind stays until it is destroyed; one that a
    // living program has open is busy, and then the rename below fails.
    let _ = request(&control, SIOCIFDESTROY, &mut Request::new(name));

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/tun")
        .map_err(fail("open /dev/tun"))?;
    let mut mode = libc::IFF_POINTOPOINT | libc::IFF_MULTICAST;
    request(&file, TUNSIFMODE, &mut mode).map_err(fail("make it point-to-point"))?;
    let mut head: libc::c_int = 1;
    request(&file, TUNSIFHEAD, &mut head).map_err(fail("ask for address families"))?;

    let mut ours = Request::new(name);
    request(&file, TUNGIFNAME, &mut ours).map_err(fail("read its name"))?;
    let renamed = rename(&control, &mut ours, name);
    if let Err(source) = renamed {
        let _ = request(&control, SIOCIFDESTROY, &mut ours);
        return Err(TunError::new(name, "rename", source));
    }
    configure(&control, name, mtu).map_err(|source| {
        destroy(name);
        TunError::new(name, "set its MTU and bring it up", source)
    })?;
    Ok((file, Offload::default()))
}

fn rename(control: &socket2::Socket, ours: &mut Request, name: &IfName) -> io::Result<()> {
    let mut text = [0u8; 16];
    text[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    let place = text.as_ptr() as usize;
    ours.value[..size_of::<usize>()].copy_from_slice(&place.to_ne_bytes());
    request(control, SIOCSIFNAME, ours)
}

fn configure(control: &socket2::Socket, name: &IfName, mtu: Mtu) -> io::Result<()> {
    let mut wanted = Request::new(name);
    wanted.set_int(mtu.bytes().into());
    request(control, SIOCSIFMTU, &mut wanted)?;
    let mut flags = Request::new(name);
    request(control, SIOCGIFFLAGS, &mut flags)?;
    // ifr_flags is the first short of the value; IFF_UP is its lowest bit.
    let low = i16::from_ne_bytes([flags.value[0], flags.value[1]]) | libc::IFF_UP as i16;
    flags.value[..2].copy_from_slice(&low.to_ne_bytes());
    request(control, SIOCSIFFLAGS, &mut flags)
}

/// Removes the device: closing its descriptor alone leaves it there.
pub(super) fn destroy(name: &IfName) {
    if let Ok(control) = control() {
        // Gone already is what was asked for.
        let _ = request(&control, SIOCIFDESTROY, &mut Request::new(name));
    }
}

fn control() -> io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
}

#[expect(unsafe_code, reason = "std has no ioctl")]
fn request<T>(on: &impl AsRawFd, number: libc::c_ulong, value: &mut T) -> io::Result<()> {
    // SAFETY: the descriptor is open; every request above is called with the type its number is
    // made of, which lives through the call, as does the name that SIOCSIFNAME points to.
    if unsafe { libc::ioctl(on.as_raw_fd(), number, std::ptr::from_mut(value)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads one packet, without its head.
pub(super) fn read(mut file: &File, packet: &mut [u8]) -> io::Result<usize> {
    let mut head = [0; HEAD_LEN];
    let length = file.read_vectored(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(packet)])?;
    Ok(length.saturating_sub(HEAD_LEN))
}

/// Writes one packet behind the head that its version asks for. Nothing is joined here: it is the
/// first part.
pub(super) fn write(mut file: &File, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let packet: &[u8] = parts.first().map_or(&[], |part| part);
    let family = match packet.first().map(|first| first >> 4) {
        Some(4) => libc::AF_INET,
        Some(6) => libc::AF_INET6,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let head = (family as u32).to_be_bytes();
    // A packet is written whole or not at all.
    file.write_vectored(&[IoSlice::new(&head), IoSlice::new(packet)])
        .map(|_| ())
}
