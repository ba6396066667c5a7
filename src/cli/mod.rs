//! The command line: one file a verb, and the table that finds it.

pub mod args;
mod check;
mod down;
mod genkey;
mod genpsk;
mod help;
mod init;
mod key_output;
mod look;
pub mod plan;
mod pubkey;
mod run;
mod show;
mod up;
mod version;

use std::io::{self, Write as _};
use std::process::ExitCode;

use args::{CliError, config_path};
use lexopt::prelude::*;

use crate::config::suggest::nearest;
use crate::io::secrecy;

/// Exit code of a command line that cannot be understood, as shells have it.
const USAGE: u8 = 2;

/// One verb.
struct Verb {
    name: &'static str,
    /// What follows it, for `help`.
    arguments: &'static str,
    /// What it does, for `help`.
    about: &'static str,
    /// How it is used, for `help VERB`.
    help: &'static str,
    run: fn(lexopt::Parser) -> Result<ExitCode, CliError>,
}

/// All verbs, in the order that `help` shows them.
static VERBS: &[Verb] = &[
    Verb {
        name: "up",
        arguments: "NAME|FILE",
        about: "start a tunnel in the background (also: `netcombiner NAME`)",
        help: up::HELP,
        run: up::run,
    },
    Verb {
        name: "down",
        arguments: "NAME",
        about: "stop a tunnel, or clean up after one that was killed",
        help: down::HELP,
        run: down::run,
    },
    Verb {
        name: "show",
        arguments: "[NAME] [dump | --json]",
        about: "show how the tunnels are",
        help: show::HELP,
        run: show::run,
    },
    Verb {
        name: "run",
        arguments: "NAME|FILE",
        about: "run a tunnel in the foreground",
        help: run::HELP,
        run: run::run,
    },
    Verb {
        name: "init",
        arguments: "--public-address ADDRESS ...",
        about: "write a matching pair of configurations, keys included",
        help: init::HELP,
        run: init::run,
    },
    Verb {
        name: "check",
        arguments: "NAME|FILE",
        about: "say everything that is wrong in a configuration",
        help: check::HELP,
        run: check::run,
    },
    Verb {
        name: "plan",
        arguments: "NAME|FILE [--links FILE]",
        about: "print the operations that would set up this host's routing",
        help: plan::HELP,
        run: plan::run,
    },
    Verb {
        name: "genkey",
        arguments: "",
        about: "print a new private key",
        help: genkey::HELP,
        run: genkey::run,
    },
    Verb {
        name: "pubkey",
        arguments: "",
        about: "read a private key and print its public key",
        help: pubkey::HELP,
        run: pubkey::run,
    },
    Verb {
        name: "genpsk",
        arguments: "",
        about: "print a new preshared key",
        help: genpsk::HELP,
        run: genpsk::run,
    },
    Verb {
        name: "help",
        arguments: "[VERB]",
        about: "print this help, or that of a verb",
        help: help::HELP,
        run: help::run,
    },
    Verb {
        name: "version",
        arguments: "",
        about: "print the version",
        help: version::HELP,
        run: version::run,
    },
];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    secrecy::hide_memory();
    match dispatch(lexopt::Parser::from_env()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody reads any more: there is nobody to tell either.
            if !error.is_broken_pipe() {
                let _ = writeln!(io::stderr().lock(), "netcombiner: {error}");
            }
            match error {
                CliError::Usage(_) => ExitCode::from(USAGE),
                CliError::Failed(_) | CliError::Io(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let word = match parser.next()? {
        None => {
            return Err(CliError::usage(
                "a verb is missing (see `netcombiner help`)",
            ));
        }
        Some(Short('h') | Long("help")) => return help::run(parser),
        Some(Short('V') | Long("version")) => return version::run(parser),
        Some(Value(word)) => word.string()?,
        Some(other @ (Short(_) | Long(_))) => return Err(args::unexpected(&other, "help")),
    };
    match VERBS.iter().find(|verb| verb.name == word) {
        Some(verb) => (verb.run)(parser),
        // As in the dissertation (3.1.3): a tunnel's name is enough.
        None if config_path(word.as_ref()).is_ok_and(|path| path.is_file()) => {
            match parser.next()? {
                None => up::start(&word),
                Some(other) => Err(args::unexpected(&other, "up")),
            }
        }
        None => Err(CliError::usage(
            match nearest(&word, VERBS.iter().map(|verb| verb.name)) {
                Some(name) => format!("unknown verb {word:?} (did you mean {name:?}?)"),
                None => format!("unknown verb {word:?} (see `netcombiner help`)"),
            },
        )),
    }
}
