//! How FreeBSD's device comes and goes, over a trait, so that the order of the calls is tested on
//! every system.
//!
//! SIOCIFDESTROY waits in the kernel, without an end and deaf to signals, until the last descriptor
//! of the device is closed: one that is open here must be closed first. And a device that merely
//! has our name is not ours: whatever is no TUN, or open in another process, is left alone.

use std::io;

use super::TunError;
use crate::config::units::{IfName, Mtu};

/// What has a name on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A device that is no TUN: a bridge, a network card, a TAP.
    Other,
    /// A TUN that a process has open.
    Open(String),
    /// A TUN that nobody has open: a killed daemon's.
    Closed,
}

/// The calls of the kernel that are needed.
pub(super) trait Kernel {
    /// An open device; its descriptor is closed when this is dropped.
    type Device;

    fn find(&self, name: &IfName) -> io::Result<Found>;
    fn open(&self) -> io::Result<Self::Device>;
    /// False: the kernel makes no device when /dev/tun is opened.
    fn clones(&self) -> bool;
    fn name_of(&self, device: &Self::Device) -> io::Result<IfName>;
    /// Makes it point-to-point, with the address family in front of each packet.
    fn prepare(&self, device: &Self::Device) -> io::Result<()>;
    fn rename(&self, from: &IfName, to: &IfName) -> io::Result<()>;
    fn bring_up(&self, name: &IfName, mtu: Mtu) -> io::Result<()>;
    /// Never returns while the device is open.
    fn destroy(&self, name: &IfName) -> io::Result<()>;
}

/// What is said of a name that is taken.
const OTHER_KIND: &str =
    "another device of this host has this name, and is left alone; rename the tunnel";

/// Makes the device, sets its MTU and brings it up.
pub(super) fn open<K: Kernel>(kernel: &K, name: &IfName, mtu: Mtu) -> Result<K::Device, TunError> {
    let fail = |step| move |source| TunError::new(name, step, source);
    match kernel.find(name).map_err(fail("look for the name"))? {
        Found::Nothing => {}
        Found::Other => return Err(fail("take the name")(io::Error::other(OTHER_KIND))),
        Found::Open(process) => return Err(fail("take the name")(is_open(&process))),
        Found::Closed => kernel.destroy(name).map_err(fail("remove the old one"))?,
    }
    let device = kernel.open().map_err(|source| {
        let error = TunError::new(name, "open /dev/tun", source);
        if kernel.clones() {
            error
        } else {
            error.with_hint(" (run `sysctl net.link.tun.devfs_cloning=1`)")
        }
    })?;
    let first = kernel.name_of(&device).map_err(fail("read its name"))?;
    let mut current = &first;
    let mut set_up = || {
        kernel
            .prepare(&device)
            .map_err(fail("make it point-to-point"))?;
        kernel.rename(&first, name).map_err(fail("rename it"))?;
        current = name;
        kernel
            .bring_up(name, mtu)
            .map_err(fail("set its MTU and bring it up"))
    };
    match set_up() {
        Ok(()) => Ok(device),
        Err(error) => {
            drop(device);
            // The error at hand says more than one of this.
            let _ = remove(kernel, current);
            Err(error)
        }
    }
}

/// Removes a device of ours that nobody has open any more. What is no TUN is left alone.
pub(super) fn remove<K: Kernel>(kernel: &K, name: &IfName) -> io::Result<()> {
    match kernel.find(name)? {
        Found::Nothing | Found::Other => Ok(()),
        Found::Open(process) => Err(is_open(&process)),
        Found::Closed => kernel.destroy(name),
    }
}

fn is_open(process: &str) -> io::Error {
    io::Error::other(format!("process {process} has it open"))
}

/// What the driver says of a device of its own (SIOCGIFSTATUS): `\tOpened by PID 1438\n`, or
/// nothing. A TAP has the same driver, but is not point-to-point.
pub(super) fn kind_of(status: &str, point_to_point: bool) -> Found {
    if !point_to_point {
        return Found::Other;
    }
    match status.split_whitespace().next_back() {
        Some(process) => Found::Open(process.to_owned()),
        None => Found::Closed,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;

    /// A kernel that records what it is asked, and whose destroy never returns (here: panics) while
    /// the device is open, as FreeBSD's does.
    #[derive(Default)]
    struct Recording {
        devices: Rc<RefCell<BTreeMap<String, Found>>>,
        calls: RefCell<Vec<String>>,
        failing: &'static str,
        no_cloning: bool,
    }

    struct Descriptor(Rc<RefCell<BTreeMap<String, Found>>>);

    impl Drop for Descriptor {
        fn drop(&mut self) {
            for found in self.0.borrow_mut().values_mut() {
                if *found == Found::Open("us".to_owned()) {
                    *found = Found::Closed;
                }
            }
        }
    }

    impl Recording {
        fn with(name: &str, found: Found) -> Self {
            let kernel = Self::default();
            kernel.devices.borrow_mut().insert(name.to_owned(), found);
            kernel
        }

        fn failing_at(call: &'static str) -> Self {
            Self {
                failing: call,
                ..Self::default()
            }
        }

        fn call(&self, name: &'static str) -> io::Result<()> {
            self.calls.borrow_mut().push(name.to_owned());
            if self.failing == name {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            Ok(())
        }

        fn found(&self, name: &IfName) -> Found {
            let devices = self.devices.borrow();
            devices
                .get(name.as_str())
                .cloned()
                .unwrap_or(Found::Nothing)
        }
    }

    impl Kernel for Recording {
        type Device = Descriptor;

        fn find(&self, name: &IfName) -> io::Result<Found> {
            Ok(self.found(name))
        }

        fn open(&self) -> io::Result<Descriptor> {
            self.call("open")?;
            let open = Found::Open("us".to_owned());
            self.devices.borrow_mut().insert("tun0".to_owned(), open);
            Ok(Descriptor(Rc::clone(&self.devices)))
        }

        fn clones(&self) -> bool {
            !self.no_cloning
        }

        fn name_of(&self, _: &Descriptor) -> io::Result<IfName> {
            "tun0".parse().map_err(io::Error::other)
        }

        fn prepare(&self, _: &Descriptor) -> io::Result<()> {
            self.call("prepare")
        }

        fn rename(&self, from: &IfName, to: &IfName) -> io::Result<()> {
            self.call("rename")?;
            let mut devices = self.devices.borrow_mut();
            let device = devices.remove(from.as_str());
            devices.insert(to.as_str().to_owned(), device.unwrap_or(Found::Other));
            Ok(())
        }

        fn bring_up(&self, _: &IfName, _: Mtu) -> io::Result<()> {
            self.call("bring up")
        }

        fn destroy(&self, name: &IfName) -> io::Result<()> {
            let found = self.found(name);
            assert_eq!(found, Found::Closed, "destroying {name} hangs or hurts");
            self.devices.borrow_mut().remove(name.as_str());
            self.call("destroy")
        }
    }

    fn nc0() -> IfName {
        "nc0".parse().unwrap()
    }

    fn start(kernel: &Recording) -> Result<Descriptor, TunError> {
        open(kernel, &nc0(), Mtu::TUNNEL_DEFAULT)
    }

    /// Field row F1: the descriptor is closed before the device is destroyed.
    #[test]
    fn it_is_closed_before_it_is_destroyed() {
        let kernel = Recording::default();
        let device = start(&kernel).unwrap();
        assert_eq!(kernel.found(&nc0()), Found::Open("us".to_owned()));
        let error = remove(&kernel, &nc0()).unwrap_err();
        assert!(error.to_string().contains("has it open"), "{error}");
        drop(device);
        remove(&kernel, &nc0()).unwrap();
        assert_eq!(kernel.found(&nc0()), Found::Nothing);
        // There is nothing to remove, which is as well.
        remove(&kernel, &nc0()).unwrap();
    }

    /// Field row F1: so it is wherever opening fails, and nothing stays behind.
    #[test]
    fn a_failed_open_leaves_no_device() {
        for step in ["open", "prepare", "rename", "bring up"] {
            let kernel = Recording::failing_at(step);
            assert!(start(&kernel).is_err(), "{step}");
            let left = kernel.devices.borrow();
            assert!(left.is_empty(), "{step}: {left:?}");
        }
    }

    /// Field row F5: what is not ours is neither destroyed nor waited for.
    #[test]
    fn what_others_have_is_left_alone() {
        for found in [Found::Other, Found::Open("77".to_owned())] {
            let kernel = Recording::with("nc0", found.clone());
            let error = start(&kernel).err().unwrap().to_string();
            let word = match found {
                Found::Open(_) => "process 77",
                Found::Nothing | Found::Other | Found::Closed => "another device",
            };
            assert!(error.contains(word), "{error}");
            let _ = remove(&kernel, &nc0());
            assert_eq!(kernel.found(&nc0()), found);
            assert!(kernel.calls.borrow().is_empty());
        }
    }

    #[test]
    fn a_killed_daemons_device_makes_room() {
        let kernel = Recording::with("nc0", Found::Closed);
        let _device = start(&kernel).unwrap();
        let calls = kernel.calls.borrow();
        assert_eq!(*calls, ["destroy", "open", "prepare", "rename", "bring up"]);
    }

    /// Field row F10: the hint names the sysctl when it is the reason.
    #[test]
    fn the_hint_names_what_is_lacking() {
        let kernel = Recording::failing_at("open");
        let error = start(&kernel).err().unwrap().to_string();
        assert!(error.contains("if_tuntap"), "{error}");
        let kernel = Recording {
            no_cloning: true,
            ..Recording::failing_at("open")
        };
        let error = start(&kernel).err().unwrap().to_string();
        let hint = "sysctl net.link.tun.devfs_cloning=1";
        assert!(error.contains(hint), "{error}");
    }

    #[test]
    fn the_drivers_status_is_read() {
        let open = kind_of("\tOpened by PID 1438\n", true);
        assert_eq!(open, Found::Open("1438".to_owned()));
        assert_eq!(kind_of("", true), Found::Closed);
        assert_eq!(kind_of("", false), Found::Other);
    }
}
