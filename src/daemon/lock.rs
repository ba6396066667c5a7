//! One daemon a tunnel and one tunnel a host: a lock on `RUN_DIR/NAME.lock` and one of the whole
//! host. Both die with the process.
//!
//! Rules and routes carry one mark for all tunnels (protocol 98), and there is one table local and
//! one `ip_forward`: two tunnels would take each other's work for leftovers.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the lock was not to be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{name} is already running{} (stop it with `netcombiner down {name}`)", of(.process))]
    Taken {
        /// The tunnel.
        name: String,
        /// The process, if it wrote its number.
        process: Option<u32>,
    },
    /// Another tunnel has the host.
    #[error(
        "{}: this host has room for one tunnel (for a second one, use a network namespace)",
        other(.tunnel, .process)
    )]
    HostTaken {
        /// The other tunnel, when it runs in the same run directory.
        tunnel: Option<String>,
        /// Its process, if it wrote its number.
        process: Option<u32>,
    },
    /// A killed tunnel has left the host as it had made it.
    #[error(
        "{name} was killed and has left its routing and settings on this host (take them away with \
         `netcombiner down {name}`)"
    )]
    LeftBehind {
        /// The killed tunnel.
        name: String,
    },
    /// The run directory or the file is unusable.
    #[error("{place}: {source}")]
    Io {
        /// The file or folder.
        place: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

fn of(process: &Option<u32>) -> String {
    process.map_or(String::new(), |process| format!(" as process {process}"))
}

fn other(tunnel: &Option<String>, process: &Option<u32>) -> String {
    let name = tunnel.as_deref().unwrap_or("another tunnel");
    format!("{name} is running{}", of(process))
}

/// The locks of a tunnel and of the host, held.
#[derive(Debug)]
pub struct Lock {
    /// Dropped first: whoever has the tunnel's lock finds the host's free.
    _host: host::HostLock,
    _tunnel: FileLock,
}

impl Lock {
    /// Takes both, and makes the run directory (0700) where it is missing.
    ///
    /// # Errors
    /// Also when another tunnel was killed here and not cleaned up after: what it borrowed of the
    /// host would be taken for the host's own.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self, LockError> {
        Self::take_of(host::NAME, run_dir, name)
    }

    fn take_of(host: &str, run_dir: &Path, name: &str) -> Result<Self, LockError> {
        let tunnel = FileLock::take(run_dir, name)?;
        let Some(host) = host::HostLock::take(host)? else {
            let other = others(run_dir, name, "lock").find_map(|other| {
                match FileLock::take(run_dir, &other) {
                    Err(LockError::Taken { name, process }) => Some((name, process)),
                    Ok(_) | Err(_) => None,
                }
            });
            let (tunnel, process) = other.map_or((None, None), |(name, it)| (Some(name), it));
            return Err(LockError::HostTaken { tunnel, process });
        };
        // One that lives all the same does so in another network namespace.
        let dead = |other: &String| FileLock::take(run_dir, other).is_ok();
        match others(run_dir, name, "baseline.json").find(dead) {
            Some(name) => Err(LockError::LeftBehind { name }),
            None => Ok(Self {
                _host: host,
                _tunnel: tunnel,
            }),
        }
    }
}

/// The names of the other tunnels that have a file of this kind in the run directory.
fn others(run_dir: &Path, name: &str, kind: &str) -> impl Iterator<Item = String> {
    let files = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let ending = format!(".{kind}");
    files
        .filter_map(move |file| {
            let file = file.file_name().into_string().ok()?;
            file.strip_suffix(&ending).map(str::to_owned)
        })
        .filter(move |other| other != name)
}

/// Linux: an abstract socket, of which there is one a network namespace (unix(7)), as there is one
/// routing; whatever the run directory.
#[cfg(target_os = "linux")]
mod host {
    use std::io;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::LockError;

    pub(super) const NAME: &str = "netcombiner/host";

    #[derive(Debug)]
    pub(super) struct HostLock(#[expect(dead_code, reason = "held, not used")] UnixDatagram);

    impl HostLock {
        /// Nothing: another process has it.
        pub(super) fn take(name: &str) -> Result<Option<Self>, LockError> {
            let bind = || UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?);
            match bind() {
                Ok(socket) => Ok(Some(Self(socket))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
                Err(source) => Err(LockError::Io {
                    place: format!("@{name}").into(),
                    source,
                }),
            }
        }
    }
}

/// A lock file at one place, whatever the run directory.
#[cfg(not(target_os = "linux"))]
mod host {
    use std::path::Path;

    use super::{FileLock, LockError};
    use crate::host::RUN_DIRECTORY;

    /// No device has this name, nor a tunnel.
    pub(super) const NAME: &str = "the/host";

    #[derive(Debug)]
    pub(super) struct HostLock(#[expect(dead_code, reason = "held, not used")] FileLock);

    impl HostLock {
        /// Nothing: another process has it.
        pub(super) fn take(name: &str) -> Result<Option<Self>, LockError> {
            match FileLock::take(Path::new(RUN_DIRECTORY), &name.replace('/', " ")) {
                Ok(lock) => Ok(Some(Self(lock))),
                Err(LockError::Taken { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
    }
}

/// The lock of a tunnel. Its file goes when this is dropped.
#[derive(Debug)]
struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    fn take(run_dir: &Path, name: &str) -> Result<Self, LockError> {
        let fail = |place: &Path| {
            let place = place.to_owned();
            move |source| LockError::Io { place, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)
            .map_err(fail(run_dir))?;
        check_owner(run_dir).map_err(fail(run_dir))?;
        let path = run_dir.join(format!("{name}.lock"));
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(fail(&path))?;
            if !lock(&file).map_err(fail(&path))? {
                let mut text = String::new();
                // A file that cannot be read only leaves the number out.
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Taken {
                    name: name.to_owned(),
                    process: text.trim().parse().ok(),
                });
            }
            // Its last owner may have removed it between our open and our lock: then the file at
            // the path is another one, or none.
            let ours = file.metadata().map_err(fail(&path))?;
            let is_same = std::fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
            if is_same {
                let mut held = Self { file, path };
                held.write_process().map_err(fail(&held.path))?;
                return Ok(held);
            }
        }
    }

    fn write_process(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed while it is held, so that nobody else's file is hit.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who may write there can put a baseline before us, or a socket that is not ours.
#[expect(unsafe_code, reason = "std has no geteuid")]
fn check_owner(run_dir: &Path) -> io::Result<()> {
    let there = std::fs::metadata(run_dir)?;
    // SAFETY: the call touches no memory and cannot fail.
    let us = unsafe { libc::geteuid() };
    if there.uid() == us && there.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "others may write there: take a directory of your own alone (chmod 700)",
    ))
}

/// Locks without waiting; false: another process has it.
#[expect(unsafe_code, reason = "std's File::try_lock needs Rust 1.89")]
fn lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open; the call touches no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Ok(false);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's lock of this test alone.
    fn host(test: &str) -> String {
        format!("netcombiner/{test}/{}", std::process::id())
    }

    fn folder(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("netcombiner-{test}-{}", std::process::id()))
    }

    #[test]
    fn one_holder_who_is_named_and_no_file_afterwards() {
        let (folder, host) = (folder("lock"), host("lock"));
        let held = Lock::take_of(&host, &folder, "nc0").unwrap();
        let refused = Lock::take_of(&host, &folder, "nc0").unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "nc0 is already running as process {} (stop it with `netcombiner down nc0`)",
                std::process::id()
            )
        );
        drop(held);
        drop(Lock::take_of(&host, &folder, "nc0").unwrap());
        // It can only be removed when it is empty.
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn a_second_tunnel_is_refused_wherever_its_run_directory_is() {
        let (near, far, host) = (folder("near"), folder("far"), host("second"));
        let held = Lock::take_of(&host, &near, "nc0").unwrap();
        let process = std::process::id();
        for (run_dir, who) in [
            (&near, format!("nc0 is running as process {process}: ")),
            (&far, "another tunnel is running: ".to_owned()),
        ] {
            let refused = Lock::take_of(&host, run_dir, "nc1")
                .unwrap_err()
                .to_string();
            assert!(refused.starts_with(&who), "{refused}");
            assert!(!run_dir.join("nc1.lock").exists());
        }
        drop(held);
        drop(Lock::take_of(&host, &far, "nc1").unwrap());
        std::fs::remove_dir(&near).unwrap();
        std::fs::remove_dir(&far).unwrap();
    }

    #[test]
    fn a_run_directory_of_everybody_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, host) = (folder("open"), host("open"));
        std::fs::create_dir(&folder).unwrap();
        let mode = |bits| std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(&folder, mode(0o777)).unwrap();
        let refused = Lock::take_of(&host, &folder, "nc0")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("others may write there"), "{refused}");
        std::fs::set_permissions(&folder, mode(0o755)).unwrap();
        drop(Lock::take_of(&host, &folder, "nc0").unwrap());
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn the_leftovers_of_another_come_first() {
        let (folder, host) = (folder("left"), host("left"));
        let held = Lock::take_of(&host, &folder, "nc0").unwrap();
        std::fs::write(folder.join("nc0.baseline.json"), "{}").unwrap();
        // In another network namespace it is no leftover.
        drop(Lock::take_of(&format!("{host}2"), &folder, "nc1").unwrap());
        drop(held);
        let refused = Lock::take_of(&host, &folder, "nc1").unwrap_err();
        assert!(matches!(&refused, LockError::LeftBehind { name } if name == "nc0"));
        assert!(
            refused.to_string().contains("netcombiner down nc0"),
            "{refused}"
        );
        drop(Lock::take_of(&host, &folder, "nc0").unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
