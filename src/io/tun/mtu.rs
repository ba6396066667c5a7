//! The MTU of a device that is there.

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

use crate::config::units::{IfName, Mtu};

#[cfg(target_os = "linux")]
const SIOCGIFMTU: libc::c_ulong = 0x8921;
#[cfg(target_os = "linux")]
const SIOCSIFMTU: libc::c_ulong = 0x8922;
// sys/sys/sockio.h.
#[cfg(target_os = "freebsd")]
const SIOCGIFMTU: libc::c_ulong = 0xc020_6933;
#[cfg(target_os = "freebsd")]
const SIOCSIFMTU: libc::c_ulong = 0x8020_6934;

/// Makes a device's MTU this one; true when it was another.
pub fn follow(name: &IfName, mtu: Mtu) -> io::Result<bool> {
    let control = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut device = Request::new(name);
    device.ask(&control, SIOCGIFMTU)?;
    if device.mtu() == libc::c_int::from(mtu.bytes()) {
        return Ok(false);
    }
    device.set_mtu(mtu);
    device.ask(&control, SIOCSIFMTU)?;
    Ok(true)
}

/// `struct ifreq`: the name, and the largest of what a request may say (24 bytes on 64-bit Linux, 16
/// elsewhere), here an int.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn new(name: &IfName) -> Self {
        let mut request = Self {
            name: [0; 16],
            value: [0; 24],
        };
        // An IfName is at most 15 bytes, so the last byte stays the NUL.
        request.name[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        request
    }

    fn mtu(&self) -> libc::c_int {
        libc::c_int::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }

    fn set_mtu(&mut self, mtu: Mtu) {
        let value = libc::c_int::from(mtu.bytes());
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
    }

    #[expect(unsafe_code, reason = "std has no ioctl")]
    fn ask(&mut self, on: &Socket, number: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the request, no shorter than the kernel's `struct ifreq`,
        // lives through the call.
        let done = unsafe { libc::ioctl(on.as_raw_fd(), number as _, std::ptr::from_mut(self)) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Needs root; without it only the refusal is looked at.
    #[test]
    fn a_device_follows() {
        let thread = std::thread::spawn(|| {
            let mtu = |bytes| Mtu::new(bytes).unwrap();
            let none: IfName = "nc-none".parse().unwrap();
            assert!(follow(&none, mtu(1400)).is_err());
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let lo: IfName = "lo".parse().unwrap();
            assert!(follow(&lo, mtu(1400)).unwrap());
            assert!(!follow(&lo, mtu(1400)).unwrap());
            assert!(follow(&lo, mtu(1280)).unwrap());
        });
        thread.join().unwrap();
    }
}
