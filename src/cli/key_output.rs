//! Secrets on standard output and in files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

/// A secret as it is written: base64 and a newline.
pub(super) fn line_of(mut secret: Zeroizing<String>) -> Zeroizing<String> {
    secret.push('\n');
    secret
}

/// Prints a secret, and warns when it goes into a file that others can read.
pub(super) fn print(secret: Zeroizing<String>) -> io::Result<()> {
    if stdout_is_open_to_others()? {
        writeln!(
            io::stderr().lock(),
            "netcombiner: warning: others can read the file that this secret is written to: \
             chmod 600 it, and write `umask 077` before the next"
        )?;
    }
    let mut out = io::stdout().lock();
    out.write_all(line_of(secret).as_bytes())?;
    out.flush()
}

#[cfg(unix)]
fn stdout_is_open_to_others() -> io::Result<bool> {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;
    // Read or write for the group or for all.
    const OTHERS: u32 = 0o066;
    let about = File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()?;
    Ok(about.is_file() && about.permissions().mode() & OTHERS != 0)
}

#[cfg(not(unix))]
fn stdout_is_open_to_others() -> io::Result<bool> {
    Ok(false)
}

/// Makes a file that only its owner can read, and refuses when there is one already.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}
