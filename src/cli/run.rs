//! `netcombiner run`: a tunnel in the foreground.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Child, ExitCode};

use lexopt::prelude::*;

use super::args::{CliError, config_path, unexpected};
use super::help;
use crate::daemon::{self, Options, level_of, start_log};
use crate::host::RUN_DIRECTORY;

pub(super) const HELP: &str = "\
usage: netcombiner run NAME|FILE [--run-dir DIR] [--log LEVEL] [--force]

Runs a tunnel in the foreground until SIGTERM, SIGINT or `netcombiner down NAME`, and
then gives the host's routing back. SIGHUP reads the configuration again.

  NAME           a tunnel, like nc0: its configuration in the usual place
  FILE           a file: has a / in it or ends in .toml (also: -c FILE)
  --run-dir DIR  where its socket, lock and baseline are kept
  --log LEVEL    off, error, warn, info (default), debug, trace; also NETCOMBINER_LOG
  --force        start although a login session will be cut off

A service manager that sets NOTIFY_SOCKET is told when the tunnel is up.
";

/// The option by which `up` starts its child: it leaves the terminal's session and says on
/// standard output when it is ready, or why it is not.
pub(super) const BACKGROUND: &str = "background";
/// What the child says when it is ready.
pub(super) const READY: &str = "ready\n";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut what: Option<OsString> = None;
    let mut run_dir = PathBuf::from(RUN_DIRECTORY);
    let mut level = None;
    let mut background = false;
    let mut force = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Short('c') | Long("config") if what.is_none() => {
                // What follows -c is a file, whatever it is called.
                let file = PathBuf::from(parser.value()?);
                what = Some(PathBuf::from(".").join(file).into_os_string());
            }
            Long("run-dir") => run_dir = parser.value()?.into(),
            Long("log") => {
                let word = parser.value()?.string()?;
                level = Some(level_of(&word).map_err(CliError::usage)?);
            }
            Long(BACKGROUND) => background = true,
            Long("force") => force = true,
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "run")),
        }
    }
    let word = what.ok_or_else(|| {
        CliError::usage("run what? Write `netcombiner run nc0` or `netcombiner run -c FILE`")
    })?;
    let options = Options {
        config: config_path(&word)?,
        run_dir,
        force,
    };
    if background {
        close_inherited();
        leave_session();
    }
    start_log(level, background).map_err(CliError::usage)?;
    let ready = || {
        if background {
            say(READY);
        }
    };
    match daemon::run(&options, ready) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            if background {
                say(&format!("{error}\n"));
            }
            Err(CliError::failed(error.to_string()))
        }
    }
}

/// Tells the parent; when it has gone, nobody is left to tell.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The end of the terminal's session must not end the tunnel.
#[expect(unsafe_code, reason = "std has no setsid")]
fn leave_session() {
    // SAFETY: setsid touches no memory. It fails only when we lead a session already, which is
    // what is wanted.
    unsafe {
        libc::setsid();
    }
}

/// Closes all descriptors that were inherited, except the standard ones: the lock of a script that calls `up`
/// (flock(1)) would be held as long as the tunnel runs. Called before we open anything.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std closes only what it has opened")]
fn close_inherited() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    let inherited: Vec<libc::c_int> = numbers.filter(|it| *it > libc::STDERR_FILENO).collect();
    for number in inherited {
        // SAFETY: nothing of this process owns it: only the standard descriptors are in use, and the
        // folder's own is closed by now, which is no harm.
        unsafe {
            libc::close(number);
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "std closes only what it has opened")]
fn close_inherited() {
    // SAFETY: nothing of this process owns them: only the standard descriptors are in use.
    unsafe {
        libc::closefrom(libc::STDERR_FILENO + 1);
    }
}

/// Asks a child of ours, not yet waited for, to end.
#[expect(unsafe_code, reason = "std can only kill for good")]
pub(super) fn terminate(child: &Child) {
    if let Ok(process) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill touches no memory. The number is our own child's until it is waited for, so
        // nobody else is hit; that it has ended already is what is wanted.
        unsafe {
            libc::kill(process, libc::SIGTERM);
        }
    }
}
