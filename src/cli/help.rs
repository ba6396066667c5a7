//! `netcombiner help`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use lexopt::prelude::*;

use super::VERBS;
use super::args::{CliError, unexpected};

pub(super) const HELP: &str = "\
usage: netcombiner help [VERB]

Prints what there is, or how a verb is used.
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut verb = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => verb = Some("help".to_owned()),
            Value(word) if verb.is_none() => verb = Some(word.string()?),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "help")),
        }
    }
    match verb.as_deref() {
        None => print(&overview()),
        Some(name) => match VERBS.iter().find(|verb| verb.name == name) {
            Some(verb) => print(verb.help),
            None => Err(CliError::usage(format!(
                "there is no verb {name:?} (see `netcombiner help`)"
            ))),
        },
    }
}

/// Prints a text, and that was all.
pub(super) fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn overview() -> String {
    let mut text = "netcombiner makes several Internet links one\n\n".to_owned();
    for verb in VERBS {
        let call = format!("{} {}", verb.name, verb.arguments);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  netcombiner {call:<37}  {}", verb.about);
    }
    text.push_str(
        "\nNAME is the tunnel's device, like nc0: its configuration is \
         /etc/netcombiner/nc0.toml\n(/usr/local/etc/netcombiner/nc0.toml on FreeBSD). \
         `netcombiner help VERB` says more.\n",
    );
    text
}
