//! TAP devices: what the kernel takes for an Ethernet card, we read and write as a file.
#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::Namespace;
use crate::error::{Context, Error};

mod request {
    nix::ioctl_write_ptr_bad!(
        /// `TUNSETIFF` of `linux/if_tun.h`.
        set_interface,
        libc::TUNSETIFF,
        libc::ifreq
    );
}

/// Makes the TAP device `name` in a namespace; it lives as long as the file is open. Reads and
/// writes are nonblocking, each one whole Ethernet frame.
pub fn open_tap(namespace: &Namespace, name: &str) -> Result<File, Error> {
    // The device is made in the namespace in which the file was opened.
    namespace.run(|| open_here(name))?
}

fn open_here(name: &str) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    if name.len() >= libc::IFNAMSIZ {
        return Err(Error::failed(format!(
            "{name:?} is too long for the name of a device"
        )));
    }
    // SAFETY: ifreq is plain old data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes only this ifreq.
    unsafe { request::set_interface(file.as_raw_fd(), &raw const request) }
        .context(format!("cannot make the TAP device {name}"))?;
    Ok(file)
}
