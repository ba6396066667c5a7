//! `netcombiner up`, and `netcombiner NAME` as in the dissertation (3.1.3): a tunnel in the
//! background.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use lexopt::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::args::{CliError, config_path, unexpected};
use super::help;
use super::run::{BACKGROUND, READY, terminate};
use crate::config::Config;
use crate::control::{self, Request};
use crate::daemon::{check_run_dir, level_of, taken};
use crate::host::listeners::sockets;
use crate::host::{RUN_DIRECTORY, filter_notices};
use crate::io::clock;

pub(super) const HELP: &str = "\
usage: netcombiner up NAME|FILE [--run-dir DIR] [--log LEVEL] [--force]
       netcombiner NAME

Starts a tunnel in the background. Returns 0 when its device is up and the routing is
set up; prints the reason and returns 1 when that fails, and the host is as before.
The daemon's log is RUN_DIR/NAME.log.

  NAME           a tunnel, like nc0: its configuration in the usual place
  FILE           a file: has a / in it or ends in .toml
  --run-dir DIR  where its socket, lock, baseline and log are kept
  --log LEVEL    off, error, warn, info (default), debug, trace
  --force        start although a login session will be cut off
";

/// Setting up the routing takes well below a second; a daemon that is not ready by then hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Giving the host back takes less.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// A log that is longer than this at the start becomes NAME.log.1, bytes: weeks of a quiet tunnel.
const MOST_OLD_LOG: u64 = 256 * 1024;

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut what: Option<OsString> = None;
    let mut run_dir = PathBuf::from(RUN_DIRECTORY);
    let mut level = None;
    let mut force = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Long("run-dir") => run_dir = parser.value()?.into(),
            Long("log") => {
                let word = parser.value()?.string()?;
                level_of(&word).map_err(CliError::usage)?;
                level = Some(word);
            }
            Long("force") => force = true,
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "up")),
        }
    }
    let word = what.ok_or_else(|| {
        CliError::usage("up what? Write `netcombiner up nc0` or `netcombiner up FILE`")
    })?;
    bring_up(&word, &run_dir, level.as_deref(), force)
}

/// `netcombiner NAME`.
pub(crate) fn start(name: &str) -> Result<ExitCode, CliError> {
    bring_up(OsStr::new(name), Path::new(RUN_DIRECTORY), None, false)
}

fn bring_up(
    word: &OsStr,
    run_dir: &Path,
    level: Option<&str>,
    force: bool,
) -> Result<ExitCode, CliError> {
    let path = config_path(word)?;
    // Errors of the file are told here, where they are read; the child reads it again.
    let (config, warnings) =
        Config::read(&path).map_err(|errors| CliError::failed(errors.to_string()))?;
    for warning in warnings {
        log_to_stderr(&format!("warning: {warning}"));
    }
    for notice in filter_notices(Some(&config)) {
        log_to_stderr(&format!("warning: {notice}"));
    }
    if !config.listen.is_empty() {
        for warning in taken(&config, &sockets()) {
            log_to_stderr(&format!("warning: {warning}"));
        }
    }
    let name = config.name.as_str();
    check_run_dir(run_dir).map_err(|error| CliError::failed(error.to_string()))?;
    let log = run_dir.join(format!("{name}.log"));
    let mut child = spawn(&path, run_dir, level, force, &log)
        .map_err(|error| CliError::failed(format!("cannot start the daemon: {error}")))?;
    let mut pipe = child
        .stdout
        .take()
        .ok_or_else(|| CliError::failed("cannot hear the daemon"))?;

    match hear(&mut pipe, PATIENCE) {
        Some(text) if text == READY => Ok(ExitCode::SUCCESS),
        Some(text) if text.trim().is_empty() => {
            let status = child
                .wait()
                .map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(CliError::failed(format!(
                "the daemon ended without a word ({status}); see {}",
                log.display()
            )))
        }
        Some(text) => {
            // Its child is done: it has said why.
            let _ = child.wait();
            Err(CliError::failed(text.trim_end()))
        }
        None => {
            // Asked to end, it gives back what it has set up; killed, it would not.
            let _ = control::ask(&control::socket_path(run_dir, name), Request::Down);
            let end = match end(&mut child, END_PATIENCE) {
                true => "was stopped".to_owned(),
                false => format!("does not stop: process {} still lives", child.id()),
            };
            Err(CliError::failed(format!(
                "{name} is not up after {} s and {end}; see {}",
                PATIENCE.as_secs(),
                log.display()
            )))
        }
    }
}

/// What the daemon says until it is ready or has ended; nothing when it takes too long for that.
fn hear(pipe: &mut ChildStdout, patience: Duration) -> Option<String> {
    let end = clock::now() + patience;
    let mut text = String::new();
    let mut bytes = [0; 512];
    while text != READY {
        let left = end.saturating_duration_since(clock::now());
        let left = Timespec::try_from(left).ok()?;
        let mut polled = [PollFd::new(pipe, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => break,
        }
        match pipe.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&bytes[..length])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Some(text)
}

/// Ends a child that has not said whether it is up: perhaps before it could hear us on its socket.
/// False: it lives on.
fn end(child: &mut Child, patience: Duration) -> bool {
    terminate(child);
    let mut left = patience;
    while !left.is_zero() {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        let pause = left.min(Duration::from_millis(50));
        std::thread::sleep(pause);
        left -= pause;
    }
    false
}

fn spawn(
    config: &Path,
    run_dir: &Path,
    level: Option<&str>,
    force: bool,
    log: &Path,
) -> io::Result<Child> {
    if std::fs::symlink_metadata(log).is_ok_and(|it| it.len() > MOST_OLD_LOG) {
        let mut old = log.as_os_str().to_owned();
        old.push(".1");
        std::fs::rename(log, old)?;
    }
    let log: File = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["run", &format!("--{BACKGROUND}"), "--run-dir"])
        .arg(std::path::absolute(run_dir)?)
        .arg("-c")
        .arg(std::path::absolute(config)?)
        // So that no file system stays in use.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    if let Some(level) = level {
        command.args(["--log", level]);
    }
    if force {
        command.arg("--force");
    }
    command.spawn()
}

fn log_to_stderr(text: &str) {
    use std::io::Write as _;
    // There is no other place to complain.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_heard_until_it_is_ready_has_ended_or_takes_too_long() {
        let heard = |script, patience| {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", script]).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            let heard = hear(child.stdout.as_mut().unwrap(), patience);
            child.kill().unwrap();
            child.wait().unwrap();
            heard
        };
        let long = Duration::from_secs(60);
        let ready = format!("printf '%s' '{READY}'; exec sleep 60");
        assert_eq!(heard(&ready, long).as_deref(), Some(READY));
        assert_eq!(
            heard("echo no device", long).as_deref(),
            Some("no device\n")
        );
        assert_eq!(heard("exec sleep 60", Duration::from_millis(20)), None);
    }

    #[test]
    fn a_child_that_hangs_is_ended_and_a_deaf_one_is_told_of() {
        let child = |script| Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut obedient = child("exec sleep 60");
        assert!(end(&mut obedient, Duration::from_secs(10)));
        let mut deaf = child("trap '' TERM; sleep 2; exit 0");
        // Time for the trap.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!end(&mut deaf, Duration::from_millis(100)));
        deaf.kill().unwrap();
        deaf.wait().unwrap();
    }
}
