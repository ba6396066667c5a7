//! The TUN of Linux (/dev/net/tun), made by the `tun` crate.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use super::TunError;
use crate::config::units::{IfName, Mtu};

/// Packets that the kernel keeps for us while the loop is busy; the driver's 500 is a burst of
/// 7 ms at 1 Gbit/s.
const QUEUE_LENGTH: libc::c_int = 1000;

/// Makes the device, sets its MTU and queue and brings it up.
pub(super) fn open(name: &IfName, mtu: Mtu) -> Result<File, TunError> {
    let mut settings = tun::Configuration::default();
    settings
        .tun_name(name.as_str())
        .mtu(mtu.bytes())
        .layer(tun::Layer::L3)
        .up();
    let device = tun::create(&settings).map_err(|error| {
        let source = if let tun::Error::Io(source) = error {
            source
        } else {
            io::Error::other(error.to_string())
        };
        TunError::new(name, "create", source)
    })?;
    device
        .set_nonblock()
        .map_err(|source| TunError::new(name, "set non-blocking", source))?;
    // A shorter queue only drops earlier.
    let _ = set_queue_length(name);
    Ok(own(device))
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
    // SAFETY: an ifreq of zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An IfName is at most 15 bytes, so the last byte stays the NUL.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
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
