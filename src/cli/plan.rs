//! `netcombiner plan`: exactly the operations that would run, as the commands that do the same.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;

use super::args::{CliError, config_path, unexpected};
use super::help;
use super::look::{Seen, look};
use crate::config::Config;
use crate::host::RUN_DIRECTORY;
use crate::route::lower::{freebsd, linux};
use crate::route::{HostState, Observed, conflicts, desired, diff};

pub(super) const HELP: &str = "\
usage: netcombiner plan NAME|FILE [--links FILE] [--os linux|freebsd]
                        [--down] [--json] [--run-dir DIR]

Prints the operations that would bring this host's routing to what the configuration
asks for, in order, as the commands that do the same. Changes nothing.

  --links FILE   a description of a host's links (JSON or TOML) instead of this host:
                 what would run on a host like that on which nothing of ours is
  --os SYSTEM    linux or freebsd (default: this system)
  --down         what `down` would run instead
  --json         as JSON
  --run-dir DIR  where a running or killed daemon left its state (default: /run/netcombiner,
                 /var/run/netcombiner on FreeBSD)
";

/// Plans for other systems, and for hosts that a file describes: not in the router's program, which is
/// for this host alone.
const ELSEWHERE: bool = cfg!(feature = "plan-elsewhere");

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
    let mut run_dir = PathBuf::from(RUN_DIRECTORY);
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
            Long("run-dir") => run_dir = PathBuf::from(parser.value()?),
            Long("down") => wish.down = true,
            Long("json") => wish.json = true,
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "plan")),
        }
    }
    let word = what.ok_or_else(|| {
        CliError::usage("plan what? Write `netcombiner plan nc0` or `netcombiner plan FILE`")
    })?;
    if !ELSEWHERE && (links.is_some() || wish.system != System::here()) {
        return Err(CliError::usage(
            "this program is built for routers, and plans for this host only: leave out --links and --os",
        ));
    }
    let (config, mut warnings) = Config::read(&config_path(&word)?)
        .map_err(|errors| CliError::failed(errors.to_string()))?;
    let seen = match links {
        Some(path) if ELSEWHERE => described(&path)?,
        None if wish.system != System::here() => {
            return Err(CliError::usage(
                "a plan for another system needs a description of the host's links: add --links FILE",
            ));
        }
        Some(_) | None => {
            look(&config, &run_dir).map_err(|error| CliError::failed(error.to_string()))?
        }
    };
    warnings.extend(seen.warnings);
    warnings.extend(conflicts(&config, &seen.observed));
    for warning in warnings {
        writeln!(io::stderr().lock(), "warning: {warning}")?;
    }
    let mut out = io::stdout().lock();
    let present = seen.present.as_ref();
    write(&mut out, &config, &seen.observed, present, wish)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
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
fn described(path: &Path) -> Result<Seen, CliError> {
    let failed = |why: String| CliError::failed(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let observed = Observed::parse(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Seen {
        observed,
        present: None,
        warnings: Vec::new(),
    })
}

/// Prints the plan for a host that looks like `observed` and holds `present`; when nothing is
/// said of what it holds, it is at its baseline before the way up, and as desired before the way
/// down.
///
/// # Errors
/// When `out` fails.
pub fn write(
    out: &mut dyn Write,
    config: &Config,
    observed: &Observed,
    present: Option<&HostState>,
    wish: Wish,
) -> io::Result<()> {
    let operations = match wish.system {
        System::FreeBsd if ELSEWHERE || System::here() == System::FreeBsd => {
            let commands = if wish.down {
                freebsd::down(config, observed)
            } else {
                freebsd::up(config, observed)
            };
            commands.iter().map(ToString::to_string).collect()
        }
        System::Linux | System::FreeBsd => on_linux(config, observed, present, wish.down),
    };
    if wish.json {
        serde_json::to_writer_pretty(&mut *out, &operations)?;
        return writeln!(out);
    }
    for operation in operations {
        writeln!(out, "{operation}")?;
    }
    Ok(())
}

fn on_linux(
    config: &Config,
    observed: &Observed,
    present: Option<&HostState>,
    down: bool,
) -> Vec<String> {
    let wanted = desired(config, observed);
    let baseline = observed.baseline(&wanted);
    let changes = if down {
        diff(present.unwrap_or(&wanted), &baseline)
    } else {
        diff(present.unwrap_or(&baseline), &wanted)
    };
    let operations = linux::lower(&changes);
    operations.iter().map(ToString::to_string).collect()
}
