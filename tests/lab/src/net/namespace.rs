//! A network namespace held by a file descriptor.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Error};

/// A network namespace of ours, or the one we were started in.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: Arc<str>,
    file: Arc<File>,
}

/// Of the calling thread, whatever its process' other threads are in.
const OWN: &str = "/proc/thread-self/ns/net";

/// Held while a namespace is made, and while somebody looks whether one is gone: the kernel uses
/// their numbers again.
pub(crate) static MAKING: Mutex<()> = Mutex::new(());

impl Namespace {
    /// A new, empty namespace with its loopback up. The name is only for messages.
    pub fn new(name: &str) -> Result<Self, Error> {
        let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let file = in_thread(|| -> Result<File, Error> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace (it takes root or a user namespace)")?;
            File::open(OWN).context(format!("cannot open {OWN}"))
        })?;
        drop(making);
        let namespace = Self {
            name: name.into(),
            file: Arc::new(file),
        };
        let mut netlink = namespace.netlink()?;
        netlink.set_up("lo")?;
        // Duplicate address detection would hold every IPv6 address back for a second.
        for key in ["ipv6/conf/default/accept_dad", "ipv6/conf/all/accept_dad"] {
            namespace.try_set_sysctl(key, "0")?;
        }
        Ok(namespace)
    }

    /// The namespace of the calling thread.
    pub fn current(name: &str) -> Result<Self, Error> {
        let file = File::open(OWN).context(format!("cannot open {OWN}"))?;
        Ok(Self {
            name: name.into(),
            file: Arc::new(file),
        })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number of it (an inode of nsfs); used again for others once it is gone.
    pub fn inode(&self) -> Result<u64, Error> {
        Ok(self
            .file
            .metadata()
            .context("cannot look at a namespace")?
            .ino())
    }

    /// A path that other tools take for it (`nsenter --net=PATH`) while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.raw_fd())
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `f` in a thread inside the namespace. Sockets that it opens stay in the namespace and
    /// may be used from any thread. A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        in_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context(format!("cannot enter the namespace {}", self.name))?;
            Ok(f())
        })
    }

    /// A netlink socket of the namespace.
    pub fn netlink(&self) -> Result<super::Netlink, Error> {
        self.run(super::Netlink::open)?
    }

    /// Reads `net/KEY`, e.g. `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str) -> Result<String, Error> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::read_to_string(&path))?
            .map(|value| value.trim().to_owned())
            .context(format!("{}: cannot read {path}", self.name))
    }

    /// Writes `net/KEY`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value))?
            .context(format!("{}: cannot write {value:?} to {path}", self.name))
    }

    /// The same, but content when this kernel does not have the key.
    pub fn try_set_sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        if fs::exists(format!("/proc/sys/net/{key}")).unwrap_or(false) {
            self.set_sysctl(key, value)
        } else {
            Ok(())
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `f` in a thread of its own, which takes its namespace with it when it ends.
fn in_thread<T: Send>(f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("in namespace".into())
            .spawn_scoped(scope, f)
            .context("cannot start a thread")?
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
