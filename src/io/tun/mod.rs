//! The TUN device: IP packets to and from the kernel, many at once where it has offloads.

mod buffer;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(any(target_os = "freebsd", test))]
mod lifecycle;
#[cfg(target_os = "linux")]
mod linux;
mod mtu;

pub use mtu::follow as follow_mtu;

use std::fs::File;
use std::io::{self, IoSlice};
#[cfg(target_os = "linux")]
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use thiserror::Error;

use crate::config::units::{IfName, Mtu};
use crate::packet::offload::{Group, Kinds, MOST_SEGMENTS, VirtioHeader};

pub use buffer::TunBuffer;

#[cfg(target_os = "freebsd")]
use freebsd as system;
#[cfg(target_os = "linux")]
use linux as system;

/// Why the TUN could not be made.
#[derive(Debug, Error)]
#[error("cannot make the device {name}: {step}: {source}{hint}")]
pub struct TunError {
    name: IfName,
    step: &'static str,
    source: io::Error,
    hint: &'static str,
}

impl TunError {
    fn new(name: &IfName, step: &'static str, source: io::Error) -> Self {
        let hint = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => " (run as root, or with CAP_NET_ADMIN)",
            Some(libc::EBUSY) => " (another program has a device of this name: rename the tunnel)",
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                " (the kernel has no TUN: load the module `tun` or `if_tuntap`)"
            }
            _ => "",
        };
        Self {
            name: name.clone(),
            step,
            source,
            hint,
        }
    }

    #[cfg(any(target_os = "freebsd", test))]
    fn with_hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }
}

/// What the device does for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// Every packet has a virtio header in front of it.
    pub header: bool,
    /// It gives TCP segments in one piece (TSO), and packets without their checksum.
    pub tcp: bool,
    /// It gives and takes UDP datagrams in one piece (USO).
    pub udp: bool,
}

/// An open TUN device: up, non-blocking, without addresses. On Linux it is gone when this is
/// dropped; FreeBSD's outlives its descriptor, and is gone after [`Tun::remove`].
#[derive(Debug)]
pub struct Tun {
    file: File,
    offload: Offload,
}

impl Tun {
    /// Makes the device, sets its MTU and brings it up; with the offloads that the kernel has, when
    /// they are wanted, and with IPv6 only when the tunnel carries it.
    pub fn open(
        name: &IfName,
        mtu: Mtu,
        offload_wanted: bool,
        carries_v6: bool,
    ) -> Result<Self, TunError> {
        let (file, offload) = system::open(name, mtu, offload_wanted, carries_v6)?;
        Ok(Self { file, offload })
    }

    /// Removes a device of ours after it was closed, by us or by the end of a killed daemon. On
    /// Linux it went with its descriptor. Never waits: one that is still open stays.
    ///
    /// # Errors
    /// When the device is still open somewhere, or the kernel refuses.
    pub fn remove(name: &IfName) -> io::Result<()> {
        #[cfg(target_os = "freebsd")]
        return system::remove(name);
        #[cfg(target_os = "linux")]
        {
            let _ = name;
            Ok(())
        }
    }

    /// What it does for us.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// What it takes in one piece. TCP it takes with the header alone: Linux has split there what
    /// comes from a TUN for as long as there was a header.
    pub fn joins(&self) -> Kinds {
        Kinds {
            tcp: self.offload.header,
            udp: self.offload.udp,
        }
    }

    /// Reads one packet or super-packet. `WouldBlock`: none is there.
    pub fn receive(&self, into: &mut TunBuffer) -> io::Result<()> {
        into.fill(self.offload.header, |bytes| {
            #[cfg(target_os = "freebsd")]
            return system::read(&self.file, bytes);
            #[cfg(target_os = "linux")]
            (&self.file).read(bytes)
        })
    }

    /// Writes one packet or super-packet, whole or not at all.
    pub fn send(&self, group: &Group<'_>) -> io::Result<()> {
        self.write(group.header(), group.parts())
    }

    /// Writes one packet.
    pub fn send_packet(&self, packet: &[u8]) -> io::Result<()> {
        self.write(VirtioHeader::default(), std::iter::once(packet))
    }

    fn write<'a>(
        &self,
        header: VirtioHeader,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let header = header.to_bytes();
        let mut slices = [IoSlice::new(&[]); MOST_SEGMENTS + 1];
        let mut filled = 0;
        if self.offload.header {
            slices[0] = IoSlice::new(&header);
            filled = 1;
        }
        for (slice, part) in slices[filled..].iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        #[cfg(target_os = "freebsd")]
        return system::write(&self.file, &slices[..filled]);
        #[cfg(target_os = "linux")]
        (&self.file).write_vectored(&slices[..filled]).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
