//! One daemon a tunnel: a lock on `RUN_DIR/NAME.lock` that dies with the process.

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

/// The lock, held. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a tunnel, and makes the run directory (0700) where it is missing.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self, LockError> {
        let fail = |place: &Path| {
            let place = place.to_owned();
            move |source| LockError::Io { place, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)
            .map_err(fail(run_dir))?;
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

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held, so that nobody else's file is hit.
        let _ = std::fs::remove_file(&self.path);
    }
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

    #[test]
    fn one_holder_who_is_named_and_no_file_afterwards() {
        let folder = std::env::temp_dir().join(format!("netcombiner-lock-{}", std::process::id()));
        let held = Lock::take(&folder, "nc0").unwrap();
        let other = Lock::take(&folder, "nc1").unwrap();
        let refused = Lock::take(&folder, "nc0").unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "nc0 is already running as process {} (stop it with `netcombiner down nc0`)",
                std::process::id()
            )
        );
        drop(held);
        drop(Lock::take(&folder, "nc0").unwrap());
        drop(other);
        // It can only be removed when it is empty.
        std::fs::remove_dir(&folder).unwrap();
    }
}
