//! `netcombiner check`: everything that is wrong in a configuration.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use lexopt::prelude::*;

use super::args::{CliError, config_path, unexpected};
use super::help;
use super::look::look;
use crate::config::{Config, Warning};
use crate::daemon::taken;
use crate::host::RUN_DIRECTORY;
use crate::host::listeners::ssh_session;
use crate::route::handed::HandedOver;
use crate::route::links::Observed;
use crate::route::reach::lock_out;
use crate::route::vpn::lost_vpn;
use crate::route::{conflicts, judge_links, notes};

pub(super) const HELP: &str = "\
usage: netcombiner check NAME|FILE [--host]

Prints every error and every warning of a configuration, one a line, each with its
line of the file and its key; links and other lists are counted from 1.

  NAME   a tunnel, like nc0: its configuration in the usual place; what on this host
         stands in its way is warned of too, and what stays outside of it is noted
  FILE   a file: has a / in it or ends in .toml
  --host warn of this host also when a FILE is checked

Exit code: 0 when the configuration can be run, 1 when it has errors.
";

/// Which devices are links, and why; which are not, and why not.
fn write_links(out: &mut impl io::Write, config: &Config, seen: &Observed) -> io::Result<()> {
    for (link, reason) in judge_links(config, seen) {
        match reason {
            Ok(reason) => writeln!(out, "link {}: {reason}", link.device)?,
            Err(reason) => writeln!(out, "no link: {}: {reason}", link.device)?,
        }
    }
    Ok(())
}

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut what = None;
    let mut host = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Long("host") => host = true,
            Value(word) if what.is_none() => what = Some(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "check")),
        }
    }
    let word = what.ok_or_else(|| {
        CliError::usage("check what? Write `netcombiner check nc0` or `netcombiner check FILE`")
    })?;
    let path = config_path(&word)?;
    let mut out = io::stdout().lock();
    let mut noted = Vec::new();
    let (code, warnings) = match Config::read(&path) {
        Ok((config, mut warnings)) => {
            writeln!(out, "{}: no errors", path.display())?;
            if host || path.as_os_str() != word.as_os_str() {
                let seen = look(&config, Path::new(RUN_DIRECTORY))
                    .map_err(|error| CliError::failed(format!("this host: {error}")))?;
                if config.links.is_empty() {
                    write_links(&mut out, &config, &seen.observed)?;
                }
                warnings.extend(seen.warnings);
                warnings.extend(conflicts(&config, &seen.observed));
                warnings.extend(taken(&config, &seen.observed.sockets));
                noted = notes(&config, &seen.observed);
                let (links, sockets) = (&seen.observed.links, &seen.observed.sockets);
                let vpn = || lost_vpn(&HandedOver::by(&config), links, sockets);
                if let Some(reason) = lock_out(&config, sockets, ssh_session()).or_else(vpn) {
                    warnings.push(Warning {
                        place: "keep".to_owned(),
                        text: reason.to_string(),
                    });
                }
            }
            (ExitCode::SUCCESS, warnings)
        }
        Err(errors) => {
            writeln!(out, "{errors}")?;
            (ExitCode::FAILURE, errors.warnings)
        }
    };
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for note in noted {
        writeln!(out, "note: {note}")?;
    }
    out.flush()?;
    Ok(code)
}
