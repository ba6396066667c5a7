//! The TUN device: whole IP packets to and from the kernel.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
mod mtu;

pub use mtu::follow as follow_mtu;

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use thiserror::Error;

use crate::config::units::{IfName, Mtu};

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
            Some(libc::EBUSY) => " (another program has a device of this name)",
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
}

/// An open TUN device: up, non-blocking, without addresses. It is gone when this is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    #[cfg_attr(
        target_os = "linux",
        expect(dead_code, reason = "FreeBSD's device outlives its descriptor")
    )]
    name: IfName,
}

impl Tun {
    /// Makes the device, sets its MTU and brings it up.
    pub fn open(name: &IfName, mtu: Mtu) -> Result<Self, TunError> {
        Ok(Self {
            file: system::open(name, mtu)?,
            name: name.clone(),
        })
    }

    /// Removes a device that a killed daemon left behind. On Linux it went with the daemon.
    pub fn remove_left_behind(name: &IfName) {
        #[cfg(target_os = "freebsd")]
        system::destroy(name);
        #[cfg(target_os = "linux")]
        let _ = name;
    }

    /// Reads one packet. `WouldBlock`: none is there.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        #[cfg(target_os = "freebsd")]
        return system::read(&self.file, packet);
        #[cfg(target_os = "linux")]
        (&self.file).read(packet)
    }

    /// Writes one packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        #[cfg(target_os = "freebsd")]
        return system::write(&self.file, packet);
        #[cfg(target_os = "linux")]
        (&self.file).write(packet).map(|_| ())
    }
}

#[cfg(target_os = "freebsd")]
impl Drop for Tun {
    fn drop(&mut self) {
        system::destroy(&self.name);
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
