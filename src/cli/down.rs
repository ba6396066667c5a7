//! `netcombiner down`: stops a tunnel, or cleans up after one that was killed.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

use super::args::{CliError, unexpected};
use super::help;
use crate::config::units::IfName;
use crate::control::{self, Answer, AskError, Request};
use crate::daemon::{Lock, LockError};
use crate::host::{self, Outcome, RUN_DIRECTORY, Reconciler};
use crate::io::Tun;

pub(super) const HELP: &str = "\
usage: netcombiner down NAME|FILE [--run-dir DIR]

Stops a tunnel and waits until it is really gone and the host's routing is as it was
before. When its daemon was killed, takes away what it left behind; needs no
configuration for that.

  NAME           a tunnel, like nc0
  FILE           its configuration: the file's name without .toml is the tunnel's
  --run-dir DIR  where its socket, lock and baseline are kept
";

/// Giving the host back takes well below a second, unless its kernel is very busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a daemon that has let its own lock go may still hold the host's: it dies meanwhile.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// How often it is looked whether the daemon has gone.
const LOOK: Duration = Duration::from_millis(25);

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut what: Option<OsString> = None;
    let mut run_dir = PathBuf::from(RUN_DIRECTORY);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Long("run-dir") => run_dir = parser.value()?.into(),
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "down")),
        }
    }
    let word = what.ok_or_else(|| CliError::usage("down what? Write `netcombiner down nc0`"))?;
    let name = tunnel_name(&word)?;
    match control::ask(
        &control::socket_path(&run_dir, name.as_str()),
        Request::Down,
    ) {
        Ok(Answer::Error(reason)) => log::debug!("{reason}"),
        Ok(Answer::Stopping | Answer::Text(_)) => {}
        // Killed, or so early or late in its life that it has no socket or no time to answer: the
        // lock knows.
        Err(AskError::NotRunning | AskError::Broken(_)) => {}
        Err(error @ AskError::NotPermitted) => {
            return Err(CliError::failed(format!("{name}: {error}")));
        }
    }
    let lock = wait_for_lock(&run_dir, &name)?;
    let cleaned = clean(&run_dir, &name);
    drop(lock);
    let cleaned = cleaned.map_err(|error| CliError::failed(format!("{name}: {error}")))?;
    if !cleaned.executed.is_empty() {
        let mut out = io::stdout().lock();
        writeln!(out, "{name}: took away what a killed daemon left behind:")?;
        for operation in &cleaned.executed {
            writeln!(out, "  {operation}")?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tunnel_name(word: &OsString) -> Result<IfName, CliError> {
    let text = word.to_string_lossy();
    let is_file = text.contains('/') || text.ends_with(".toml");
    let name = if is_file {
        Path::new(word)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default()
    } else {
        text.into_owned()
    };
    name.parse()
        .map_err(|error| CliError::usage(format!("{error}")))
}

/// Waits until no daemon of this tunnel lives, and keeps others from starting.
fn wait_for_lock(run_dir: &Path, name: &IfName) -> Result<Lock, CliError> {
    let mut waited = Duration::ZERO;
    loop {
        match Lock::take(run_dir, name.as_str()) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Taken { process, .. }) if waited >= PATIENCE => {
                let process = process.map_or(String::new(), |it| format!(" (process {it})"));
                return Err(CliError::failed(format!(
                    "{name}: its daemon{process} still lives after {} s; see its log, or kill it \
                     and say `netcombiner down {name}` again",
                    PATIENCE.as_secs()
                )));
            }
            Err(error @ LockError::HostTaken { .. }) if waited >= LAST_BREATH => {
                return Err(CliError::failed(format!(
                    "{name} is not running; nothing was touched, since {error}"
                )));
            }
            Err(LockError::Taken { .. } | LockError::HostTaken { .. }) => {
                std::thread::sleep(LOOK);
                waited += LOOK;
            }
            Err(error @ (LockError::Io { .. } | LockError::LeftBehind { .. })) => {
                return Err(CliError::failed(format!("{name}: {error}")));
            }
        }
    }
}

/// Takes away all that carries the tunnel's mark and gives back what the baseline says.
fn clean(run_dir: &Path, name: &IfName) -> Result<Outcome, Box<dyn std::error::Error>> {
    // A socket file without a daemon is a leftover too.
    match std::fs::remove_file(control::socket_path(run_dir, name.as_str())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut system = host::System::open()?;
        if let Some(kind) = system.foreign_device(name).await? {
            return Err(format!(
                "it is a {kind} device of this host and no tunnel of netcombiner; nothing was touched"
            )
            .into());
        }
        let mut reconciler = Reconciler::open(system, name, run_dir)?;
        let stopped = reconciler.stop().await;
        // Whatever could not be given back, the device goes.
        let removed = Tun::remove(name);
        let outcome = stopped?;
        removed.map_err(|error| format!("its device stays: {error}"))?;
        Ok(outcome)
    })
}
