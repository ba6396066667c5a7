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

use crate::host::RUN_DIRECTORY;

/// The most that is read of a lock's file, bytes: a number, a cookie and a path (PATH_MAX).
const MOST_BYTES: u64 = 8 << 10;

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
         `netcombiner down {name}{}`)",
        run_dir_option(.run_dir)
    )]
    LeftBehind {
        /// The killed tunnel.
        name: String,
        /// Its run directory, where that is not ours.
        run_dir: Option<PathBuf>,
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

fn run_dir_option(run_dir: &Option<PathBuf>) -> String {
    let words = |it: &PathBuf| format!(" --run-dir {}", it.display());
    run_dir.as_ref().map_or(String::new(), words)
}

fn other(tunnel: &Option<String>, process: &Option<u32>) -> String {
    let name = tunnel.as_deref().unwrap_or("another tunnel");
    format!("{name} is running{}", of(process))
}

/// The locks of a tunnel and of the host, held.
#[derive(Debug)]
pub struct Lock {
    /// Dropped first: the next owner of the tunnel's lock finds the host's free.
    _host: HostLock,
    _tunnel: FileLock,
}

impl Lock {
    /// Takes both, and makes the run directory (0700) where it is missing.
    ///
    /// # Errors
    /// Also when another tunnel was killed here and not cleaned up after: what it borrowed of the
    /// host would be taken for the host's own.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self, LockError> {
        Self::take_of(HostLock::take, run_dir, name)
    }

    fn take_of(
        host: impl FnOnce(&str) -> Result<Option<HostLock>, LockError>,
        run_dir: &Path,
        name: &str,
    ) -> Result<Self, LockError> {
        check_run_dir(run_dir)?;
        let file = |name: &str| run_dir.join(format!("{name}.lock"));
        let tunnel = match FileLock::take(file(name), "")? {
            Ok(lock) => lock,
            Err(process) => {
                let name = name.to_owned();
                return Err(LockError::Taken { name, process });
            }
        };
        let here = std::fs::canonicalize(run_dir).map_err(failed(run_dir))?;
        let Some(mut host) = host(&format!("{}\n{}", cookie(), here.display()))? else {
            let other = others(run_dir, name, "lock").find_map(|other| {
                match FileLock::take(file(&other), "") {
                    Ok(Err(process)) => Some((other, process)),
                    Ok(Ok(_)) | Err(_) => None,
                }
            });
            let (tunnel, process) = other.map_or((None, None), |(name, it)| (Some(name), it));
            return Err(LockError::HostTaken { tunnel, process });
        };
        let baseline = |name: &str| format!("{name}.baseline");
        let elsewhere = host.last_run_dir().filter(|dir| *dir != here);
        let left = elsewhere
            .and_then(|dir| Some((dead(&dir, "")?, Some(dir))))
            .or_else(|| Some((dead(run_dir, name)?, None)));
        if let Some((name, elsewhere)) = left {
            let dir = elsewhere.as_deref().unwrap_or(run_dir);
            host.leave_to(dir.join(baseline(&name)));
            let run_dir = elsewhere;
            return Err(LockError::LeftBehind { name, run_dir });
        }
        host.stays_with(run_dir.join(baseline(name)));
        Ok(Self {
            _host: host,
            _tunnel: tunnel,
        })
    }
}

/// Another tunnel than `name` that was killed and has left a baseline. One whose lock is held runs in another
/// network namespace. What lies in somebody else's directory is not ours.
fn dead(run_dir: &Path, name: &str) -> Option<String> {
    check_owner(run_dir).ok()?;
    let lock = |name: &String| run_dir.join(format!("{name}.lock"));
    others(run_dir, name, "baseline")
        .find(|other| matches!(FileLock::take(lock(other), ""), Ok(Ok(_))))
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

/// The lock of this host, or of this network namespace where there are several: there is one routing
/// in each. Its file lies at one place, whatever the run directory, where only root can make one: a
/// name that others could take first would let any user keep the tunnel down, and `down` from
/// cleaning up.
#[derive(Debug)]
enum HostLock {
    File(FileLock),
    #[cfg(target_os = "linux")]
    Socket(#[expect(dead_code, reason = "held, not used")] std::os::unix::net::UnixDatagram),
}

impl HostLock {
    /// `None`: another process has it. The note says whose it is: see [`Self::last_run_dir`].
    fn take(note: &str) -> Result<Option<Self>, LockError> {
        let directory = Path::new(RUN_DIRECTORY);
        let name = namespace()?;
        match check_run_dir(directory) {
            Ok(()) => Self::file(directory.join(format!("{name}.host")), note),
            #[cfg(target_os = "linux")]
            Err(LockError::Io { .. }) if !is_root_of_the_machine() => Self::socket(&name),
            Err(error) => Err(error),
        }
    }

    fn file(path: PathBuf, note: &str) -> Result<Option<Self>, LockError> {
        Ok(FileLock::take(path, note)?.ok().map(Self::File))
    }

    /// The run directory of the last owner, when it was killed. The kernel reuses the numbers of namespaces,
    /// but not the cookies.
    fn last_run_dir(&self) -> Option<PathBuf> {
        match self {
            Self::File(lock) => {
                let mut lines = lock.left.splitn(3, '\n').skip(1);
                let is_this = lines.next()? == cookie().to_string();
                is_this.then(|| {
                    lines
                        .next()
                        .map(|it| PathBuf::from(it.trim_end_matches('\n')))
                })?
            }
            #[cfg(target_os = "linux")]
            Self::Socket(_) => None,
        }
    }

    /// The lock's file is not removed while this other file is there.
    fn stays_with(&mut self, baseline: PathBuf) {
        match self {
            Self::File(lock) => lock.stays_with = Some(baseline),
            #[cfg(target_os = "linux")]
            Self::Socket(_) => {}
        }
    }

    /// Restores the text of the killed owner, and keeps the file while that one's baseline is there.
    fn leave_to(&mut self, baseline: PathBuf) {
        match self {
            Self::File(lock) => {
                let left = lock.left.clone();
                // When this fails, a later start does not find the baseline.
                let _ = lock.write(&left);
            }
            #[cfg(target_os = "linux")]
            Self::Socket(_) => {}
        }
        self.stays_with(baseline);
    }

    /// In a user namespace whose root cannot write to /run: an abstract socket, of which there is one
    /// a network namespace (unix(7)). No other user gets into that namespace.
    #[cfg(target_os = "linux")]
    fn socket(name: &str) -> Result<Option<Self>, LockError> {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let name = format!("netcombiner/{name}");
        let bind = || UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?);
        match bind() {
            Ok(socket) => Ok(Some(Self::Socket(socket))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(source) => Err(LockError::Io {
                place: format!("@{name}").into(),
                source,
            }),
        }
    }
}

/// A name for this thread's network namespace: `net-4026531840`, after its inode.
#[cfg(target_os = "linux")]
fn namespace() -> Result<String, LockError> {
    let place = Path::new("/proc/thread-self/ns/net");
    let there = std::fs::metadata(place).map_err(failed(place))?;
    Ok(format!("net-{}", there.ino()))
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
fn namespace() -> Result<String, LockError> {
    Ok("the".to_owned())
}

/// Tells this thread's network namespace from earlier ones with the same inode; 0 where the kernel does not
/// say.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor socket2 has SO_NETNS_COOKIE")]
fn cookie() -> u64 {
    /// asm-generic/socket.h and mips' asm/socket.h; since Linux 5.14.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else {
        return 0;
    };
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to the number.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { cookie } else { 0 }
}

#[cfg(not(target_os = "linux"))]
fn cookie() -> u64 {
    0
}

/// True where user ids are the machine's own, not those of a user namespace (user_namespaces(7)).
#[cfg(target_os = "linux")]
fn is_root_of_the_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// A file that is locked. It goes when this is dropped.
#[derive(Debug)]
struct FileLock {
    file: File,
    path: PathBuf,
    /// What the owner before us, which was killed, had written there.
    left: String,
    /// It is not removed while this other file is there.
    stays_with: Option<PathBuf>,
}

impl FileLock {
    /// The inner error: another process has it, and this is its number if it wrote it. Our own is written
    /// there, and the note below.
    fn take(path: PathBuf, note: &str) -> Result<Result<Self, Option<u32>>, LockError> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                // What is no file, a FIFO for one, must not make us wait.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(failed(&path))?;
            if !file.metadata().map_err(failed(&path))?.is_file() {
                let source = io::Error::other("this is no plain file: remove it");
                return Err(LockError::Io {
                    place: path,
                    source,
                });
            }
            let is_ours = lock(&file).map_err(failed(&path))?;
            let mut left = String::new();
            // A file that cannot be read only leaves the number out.
            let _ = (&file).take(MOST_BYTES).read_to_string(&mut left);
            if !is_ours {
                return Ok(Err(left.lines().next().and_then(|it| it.parse().ok())));
            }
            // Its last owner may have removed it between our open and our lock: then the file at
            // the path is another one, or none.
            let ours = file.metadata().map_err(failed(&path))?;
            let is_same = std::fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
            if is_same {
                let stays_with = None;
                let mut held = Self {
                    file,
                    path,
                    left,
                    stays_with,
                };
                let text = format!("{}\n{note}", std::process::id());
                held.write(&text).map_err(failed(&held.path))?;
                return Ok(Ok(held));
            }
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.stays_with.as_ref().is_some_and(|it| it.exists()) {
            return;
        }
        // Removed while it is held, so that nobody else's file is hit.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(place: &Path) -> impl FnOnce(io::Error) -> LockError {
    let place = place.to_owned();
    move |source| LockError::Io { place, source }
}

/// Makes the run directory (0700) where it is missing, and checks that nobody else can write there:
/// he could put a baseline before us, or a link in the place of the log.
///
/// # Errors
/// Where it cannot be made, or is (or is reached by a link that is) somebody else's.
pub fn check_run_dir(run_dir: &Path) -> Result<(), LockError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(run_dir).map_err(failed(run_dir))?;
    check_owner(run_dir).map_err(failed(run_dir))
}

#[expect(unsafe_code, reason = "std has no geteuid")]
fn check_owner(run_dir: &Path) -> io::Result<()> {
    let link = std::fs::symlink_metadata(run_dir)?;
    let there = std::fs::metadata(run_dir)?;
    // SAFETY: the call touches no memory and cannot fail.
    let us = unsafe { libc::geteuid() };
    if link.uid() == us && there.uid() == us && there.mode() & 0o022 == 0 {
        return Ok(());
    }
    let owners = [link.uid(), there.uid()];
    let text = match owners.iter().find(|owner| **owner != us) {
        Some(0) => "it is root's: run this as root".to_owned(),
        Some(other) => {
            format!(
                "others may write there: it belongs to user {other}, take a directory of your own"
            )
        }
        None => "others may write there: take a directory of your own alone (chmod 700)".to_owned(),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
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
    fn host(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("netcombiner-{test}-{}.host", std::process::id()))
    }

    fn take(host: &Path, run_dir: &Path, name: &str) -> Result<Lock, LockError> {
        Lock::take_of(|note| HostLock::file(host.to_owned(), note), run_dir, name)
    }

    fn folder(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("netcombiner-{test}-{}", std::process::id()))
    }

    #[test]
    fn one_holder_who_is_named_and_no_file_afterwards() {
        let (folder, host) = (folder("lock"), host("lock"));
        let held = take(&host, &folder, "nc0").unwrap();
        let refused = take(&host, &folder, "nc0").unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "nc0 is already running as process {} (stop it with `netcombiner down nc0`)",
                std::process::id()
            )
        );
        drop(held);
        drop(take(&host, &folder, "nc0").unwrap());
        // It can only be removed when it is empty.
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn a_second_tunnel_is_refused_wherever_its_run_directory_is() {
        let (near, far, host) = (folder("near"), folder("far"), host("second"));
        let held = take(&host, &near, "nc0").unwrap();
        let process = std::process::id();
        for (run_dir, who) in [
            (&near, format!("nc0 is running as process {process}: ")),
            (&far, "another tunnel is running: ".to_owned()),
        ] {
            let refused = take(&host, run_dir, "nc1").unwrap_err().to_string();
            assert!(refused.starts_with(&who), "{refused}");
            assert!(!run_dir.join("nc1.lock").exists());
        }
        drop(held);
        drop(take(&host, &far, "nc1").unwrap());
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
        let refused = take(&host, &folder, "nc0").unwrap_err().to_string();
        assert!(refused.contains("others may write there"), "{refused}");
        std::fs::set_permissions(&folder, mode(0o755)).unwrap();
        drop(take(&host, &folder, "nc0").unwrap());
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn the_leftovers_of_another_come_first() {
        let (folder, host) = (folder("left"), host("left"));
        let held = take(&host, &folder, "nc0").unwrap();
        std::fs::write(folder.join("nc0.baseline"), "{}").unwrap();
        // In another network namespace it is no leftover.
        drop(take(&host.with_extension("other"), &folder, "nc1").unwrap());
        drop(held);
        let refused = take(&host, &folder, "nc1").unwrap_err();
        assert!(matches!(&refused, LockError::LeftBehind { name, .. } if name == "nc0"));
        assert!(
            refused.to_string().contains("netcombiner down nc0"),
            "{refused}"
        );
        drop(take(&host, &folder, "nc0").unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Field row A5: what a killed tunnel borrowed is on record in its run directory only.
    /// A FIFO is no lock, and nobody waits for it.
    #[test]
    fn a_fifo_is_refused_at_once() {
        let path = folder("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(FileLock::take(path.clone(), "").is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_leftovers_in_another_run_directory_come_first() {
        let (near, far, host) = (folder("left-near"), folder("left-far"), host("elsewhere"));
        let killed = take(&host, &near, "nc0").unwrap();
        std::fs::write(near.join("nc0.baseline"), "{}").unwrap();
        drop(killed);
        // Each time, and under every name.
        for name in ["nc0", "nc1", "nc0"] {
            let refused = take(&host, &far, name).unwrap_err().to_string();
            let line = format!("`netcombiner down nc0 --run-dir {}`", near.display());
            assert!(refused.contains(&line), "{refused}");
            take(&host, &near, "nc1").unwrap_err();
        }
        let cleaned = take(&host, &near, "nc0").unwrap();
        std::fs::remove_file(near.join("nc0.baseline")).unwrap();
        drop(cleaned);
        drop(take(&host, &far, "nc0").unwrap());
        assert!(!host.exists());
        // A note of another namespace, whose number this one was given.
        std::fs::write(near.join("nc0.baseline"), "{}").unwrap();
        let note = format!("7\n{}\n{}", u64::MAX, near.display());
        std::fs::write(&host, note).unwrap();
        drop(take(&host, &far, "nc0").unwrap());
        std::fs::remove_dir_all(&near).unwrap();
        std::fs::remove_dir_all(&far).unwrap();
    }

    /// Field row A8.
    #[test]
    fn a_link_of_somebody_else_is_no_run_directory() {
        let (folder, link) = (folder("linked"), folder("link"));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        check_run_dir(&link).unwrap();
        // Only root can give a link to somebody else.
        if std::os::unix::fs::lchown(&link, Some(65_534), None).is_ok() {
            let refused = check_run_dir(&link).unwrap_err().to_string();
            assert!(refused.contains("others may write there"), "{refused}");
        }
        // Nor is a lock file followed elsewhere.
        let file = folder.join("nc0.lock");
        std::os::unix::fs::symlink(folder.join("victim"), &file).unwrap();
        assert!(FileLock::take(file, "").is_err());
        assert!(!folder.join("victim").exists());
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Field row A5: no other user can take the place, and namespaces have one each.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_host_is_a_network_namespace() {
        let here = namespace().unwrap();
        let there = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map(|()| namespace().unwrap())
        });
        if let Ok(there) = there.join().unwrap() {
            assert_ne!(here, there);
        }
        let socket = format!("test-{}", std::process::id());
        let held = HostLock::socket(&socket).unwrap();
        assert!(held.is_some() && HostLock::socket(&socket).unwrap().is_none());
    }
}
