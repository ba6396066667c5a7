//! The TUN of FreeBSD (tun(4)): a clone of /dev/tun, renamed, with the address family in front of
//! every packet (TUNSIFHEAD), for without it there is no IPv6.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::lifecycle::{self, Found, Kernel, kind_of};
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
const SIOCGIFSTATUS: libc::c_ulong = 0xc331_693b;

/// The text of `struct ifstat`, bytes (IFSTATMAX and its NUL, sys/net/if.h).
const STATUS_LEN: usize = 801;

/// The address family before each packet, network order.
const HEAD_LEN: usize = 4;

/// `struct ifreq`: the name, and 16 bytes whose meaning the request says.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    value: [u8; 16],
}

/// `struct ifstat`: the name, and what the driver says of the device.
#[repr(C)]
struct Status {
    name: [u8; 16],
    text: [u8; STATUS_LEN],
}

/// A name as the kernel writes it: an IfName is at most 15 bytes, so the last byte stays the NUL.
fn name_bytes(name: &IfName) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    bytes
}

/// What stands before the NUL.
fn text_of(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl Request {
    fn new(name: &IfName) -> Self {
        Self {
            name: name_bytes(name),
            value: [0; 16],
        }
    }

    fn set_int(&mut self, value: libc::c_int) {
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
    }

    /// ifr_flags is the first short of the value.
    fn flags(&self) -> i16 {
        i16::from_ne_bytes([self.value[0], self.value[1]])
    }
}

/// Makes the device, sets its MTU and brings it up. It has no offloads.
pub(super) fn open(name: &IfName, mtu: Mtu, _: bool, _: bool) -> Result<(File, Offload), TunError> {
    let kernel =
        System::new().map_err(|source| TunError::new(name, "open a control socket", source))?;
    let file = lifecycle::open(&kernel, name, mtu)?;
    Ok((file, Offload::default()))
}

/// Removes the device, which outlives its descriptor, when nobody has it open.
pub(super) fn remove(name: &IfName) -> io::Result<()> {
    lifecycle::remove(&System::new()?, name)
}

/// The kernel, by a socket that takes requests about devices.
struct System(socket2::Socket);

impl System {
    fn new() -> io::Result<Self> {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).map(Self)
    }
}

impl Kernel for System {
    type Device = File;

    fn find(&self, name: &IfName) -> io::Result<Found> {
        let mut flags = Request::new(name);
        match request(&self.0, SIOCGIFFLAGS, &mut flags) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(Found::Nothing),
            result => result?,
        }
        let mut status = Status {
            name: name_bytes(name),
            text: [0; STATUS_LEN],
        };
        let point_to_point = i32::from(flags.flags()) & libc::IFF_POINTOPOINT != 0;
        Ok(match request(&self.0, SIOCGIFSTATUS, &mut status) {
            Ok(()) => kind_of(&text_of(&status.text), point_to_point),
            // No other driver answers this.
            Err(_) => Found::Other,
        })
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/tun")
    }

    fn clones(&self) -> bool {
        // Without the driver there is no such setting, and the hint is another one.
        setting(c"net.link.tun.devfs_cloning") != Some(0)
    }

    fn name_of(&self, device: &File) -> io::Result<IfName> {
        let mut ours = Request {
            name: [0; 16],
            value: [0; 16],
        };
        request(device, TUNGIFNAME, &mut ours)?;
        let refuse = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
        text_of(&ours.name).parse().map_err(refuse)
    }

    fn prepare(&self, device: &File) -> io::Result<()> {
        let mut mode = libc::IFF_POINTOPOINT | libc::IFF_MULTICAST;
        request(device, TUNSIFMODE, &mut mode)?;
        let mut head: libc::c_int = 1;
        request(device, TUNSIFHEAD, &mut head)
    }

    fn rename(&self, from: &IfName, to: &IfName) -> io::Result<()> {
        let mut ours = Request::new(from);
        let text = name_bytes(to);
        let place = text.as_ptr() as usize;
        ours.value[..size_of::<usize>()].copy_from_slice(&place.to_ne_bytes());
        request(&self.0, SIOCSIFNAME, &mut ours)
    }

    fn bring_up(&self, name: &IfName, mtu: Mtu) -> io::Result<()> {
        let mut wanted = Request::new(name);
        wanted.set_int(mtu.bytes().into());
        request(&self.0, SIOCSIFMTU, &mut wanted)?;
        let mut flags = Request::new(name);
        request(&self.0, SIOCGIFFLAGS, &mut flags)?;
        // IFF_UP is the lowest bit.
        let low = flags.flags() | libc::IFF_UP as i16;
        flags.value[..2].copy_from_slice(&low.to_ne_bytes());
        request(&self.0, SIOCSIFFLAGS, &mut flags)
    }

    fn destroy(&self, name: &IfName) -> io::Result<()> {
        match request(&self.0, SIOCIFDESTROY, &mut Request::new(name)) {
            // Gone already is what was asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            result => result,
        }
    }
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

/// A setting of the kernel that is an int (sysctl(3)).
#[expect(unsafe_code, reason = "std has no sysctl")]
fn setting(name: &std::ffi::CStr) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>();
    // SAFETY: the name ends in a NUL, `length` is the size of `value`, both live through the call,
    // and nothing is set.
    let failed = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            std::ptr::from_mut(&mut value).cast(),
            &mut length,
            std::ptr::null(),
            0,
        )
    };
    (failed == 0 && length == size_of::<libc::c_int>()).then_some(value)
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
