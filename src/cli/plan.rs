//! `netcombiner plan`: exactly the operations that would run, as the commands that do the same.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;

use super::args::{CliError, config_path, unexpected};
use super::help;
use crate::config::{Config, Warning};
use crate::host::{self, HostError, Reconciler};
use crate::route::lower::{freebsd, linux};
use crate::route::{HostState, Observed, conflicts, desired, diff};

pub(super) const HELP: &str = "\
usage: netcombiner plan NAME|FILE [--links FILE] [--os linux|freebsd] [--down] [--json]
                        [--run-dir DIR]

Prints the operations that would bring this host's routing to what the configuration
asks for, in order, as the commands that do the same. Changes nothing.

  --links FILE   a description of a host's links (JSON or TOML) instead of this host:
                 what would run on a host like that on which nothing of ours is
  --os SYSTEM    linux or freebsd (default: this system)
  --down         what `down` would run instead
  --json         as JSON
  --run-dir DIR  where a running daemon keeps what this host was like before
";

/// The system that is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Netlink, nftables, /proc/sys.
    Linux,
    /// ifconfig(8), route(8), pf.
    FreeBsd,
}

/// What is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// For this system.
    pub system: System,
    /// The way back.
    pub down: bool,
    /// As JSON.
    pub json: bool,
}

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let (mut what, mut links) = (None, None);
    let mut run_dir = PathBuf::from(host::RUN_DIRECTORY);
    let mut wish = Wish {
        system: System::here(),
        down: false,
        json: false,
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Long("links") => links = Some(PathBuf::from(parser.value()?)),
            Long("os") => wish.system = System::named(&parser.value()?.string()?)?,
            Long("down") => wish.down = true,
            Long("json") => wish.json = true,
            Long("run-dir") => run_dir = parser.value()?.into(),
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "plan")),
        }
    }
    let word = what.ok_or_else(|| {
        CliError::usage("plan what? Write `netcombiner plan nc0` or `netcombiner plan FILE`")
    })?;
    let (config, warnings) = Config::read(&config_path(&word)?)
        .map_err(|errors| CliError::failed(errors.to_string()))?;
    let mut out = io::stdout().lock();
    match links {
        Some(path) => {
            let observed = described(&path)?;
            warn(warnings, &config, &observed)?;
            write(&mut out, &config, &observed, wish)?;
        }
        None => {
            let (observed, operations) = look(&config, &run_dir, wish.down)?;
            warn(warnings, &config, &observed)?;
            if wish.system == System::here() {
                print(&mut out, &operations, wish.json)?;
            } else {
                write(&mut out, &config, &observed, wish)?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn warn(mut warnings: Vec<Warning>, config: &Config, observed: &Observed) -> io::Result<()> {
    warnings.extend(conflicts(config, observed));
    for warning in warnings {
        writeln!(io::stderr().lock(), "warning: {warning}")?;
    }
    Ok(())
}

impl System {
    /// The one this program runs on.
    pub fn here() -> Self {
        if cfg!(target_os = "freebsd") {
            Self::FreeBsd
        } else {
            Self::Linux
        }
    }

    fn named(word: &str) -> Result<Self, CliError> {
        match word {
            "linux" => Ok(Self::Linux),
            "freebsd" => Ok(Self::FreeBsd),
            other => Err(CliError::usage(format!(
                "{other:?} is no system that is planned for (linux or freebsd)"
            ))),
        }
    }
}

/// A host that a file describes.
fn described(path: &Path) -> Result<Observed, CliError> {
    let failed = |why: String| CliError::failed(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Observed::parse(&text).map_err(|error| failed(error.to_string()))
}

/// This host: its links, and what would run on it by the daemon's own code.
fn look(
    config: &Config,
    run_dir: &Path,
    down: bool,
) -> Result<(Observed, Vec<String>), CliError> {
    let ask = async || -> Result<_, HostError> {
        let mut reconciler = Reconciler::open(host::System::open()?, &config.name, run_dir)?;
        let mut observed = reconciler.links().await?;
        observed.remotes = remotes(config);
        let wanted = if down {
            HostState::new()
        } else {
            desired(config, &observed)
        };
        let steps = reconciler.plan(&wanted).await?;
        Ok((observed, steps.iter().map(ToString::to_string).collect()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(ask())
        .map_err(|error| CliError::failed(format!("cannot look at this host: {error}")))
}

/// The addresses of the remote portal's names, as the daemon will find them.
fn remotes(config: &Config) -> Vec<IpAddr> {
    let links = config.links.iter().filter_map(|link| link.remote.as_ref());
    let mut found: Vec<IpAddr> = links
        .chain(&config.remote)
        .filter_map(|remote| (remote.host.as_str(), remote.port).to_socket_addrs().ok())
        .flatten()
        .map(|address| address.ip())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Prints the plan for a host that looks like `observed`: from its baseline to what is desired, or
/// back again.
///
/// # Errors
/// When `out` fails.
pub fn write(
    out: &mut dyn Write,
    config: &Config,
    observed: &Observed,
    wish: Wish,
) -> io::Result<()> {
    let operations: Vec<String> = match wish.system {
        System::Linux => on_linux(config, observed, wish.down),
        System::FreeBsd => {
            let commands = if wish.down {
                freebsd::down(config, observed)
            } else {
                freebsd::up(config, observed)
            };
            commands.iter().map(ToString::to_string).collect()
        }
    };
    print(out, &operations, wish.json)
}

fn print(out: &mut dyn Write, operations: &[String], json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, operations)?;
        return writeln!(out);
    }
    for operation in operations {
        writeln!(out, "{operation}")?;
    }
    Ok(())
}

fn on_linux(config: &Config, observed: &Observed, down: bool) -> Vec<String> {
    let wanted = desired(config, observed);
    let baseline = observed.baseline(&wanted);
    let changes = if down {
        diff(&wanted, &baseline)
    } else {
        diff(&baseline, &wanted)
    };
    let operations = linux::lower(&changes);
    operations.iter().map(ToString::to_string).collect()
}
