//! `lab`: the demo, and whether this machine can raise the lab at all.

use std::ffi::{OsStr, OsString};
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value};
use netcombiner_lab::demo::{self, Screen};
use netcombiner_lab::error::Error;
use netcombiner_lab::net::{self, Way};

const USAGE: &str = "\
Usage: lab COMMAND

Commands:
  demo [--program FILE]  two links, two portals, real TCP flows; FILE is a built netcombiner,
                         without it cargo builds one
  check                  whether this machine can raise the lab
";

/// The machine lacks something.
const LACKING: u8 = 2;

/// The command line is wrong (`EX_USAGE` of sysexits.h).
const WRONG_USAGE: u8 = 64;

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

enum Request {
    Help,
    Check,
    Demo { program: Option<PathBuf> },
}

fn main() -> ExitCode {
    let request = match parse() {
        Ok(request) => request,
        Err(error) => {
            complain(&format!("{error}\n\n{USAGE}"));
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let result = match request {
        Request::Help => {
            let _ = stdout().write_all(USAGE.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Request::Check => net::enter().map(|()| ExitCode::SUCCESS),
        Request::Demo { program } => run_demo(program),
    };
    result.unwrap_or_else(|error| {
        complain(&error.to_string());
        match error {
            Error::Lacking(_) => ExitCode::from(LACKING),
            Error::Failed(_) if demo::interrupted() => ExitCode::from(INTERRUPTED),
            Error::Failed(_) => ExitCode::FAILURE,
        }
    })
}

fn run_demo(program: Option<PathBuf>) -> Result<ExitCode, Error> {
    // First, so that nobody waits for a build in vain.
    let way = net::way(&[OsStr::new("check")])?;
    // In the other way the signals are the copy's to handle; our death is its SIGTERM.
    if way == Way::Here {
        demo::catch()?;
    }
    let screen = Screen::new();
    let program = match program {
        Some(program) => program,
        None => demo::build(&screen)?,
    };
    if way == Way::UserNamespace {
        screen.line("not root: the lab runs in a user namespace")?;
        let arguments = [
            OsStr::new("demo"),
            OsStr::new("--program"),
            program.as_os_str(),
        ];
        let status = net::reexec(&arguments)?;
        return Ok(status
            .code()
            .map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)));
    }
    let outcome = demo::run(&screen, &program)?;
    for failure in outcome.failures() {
        complain(failure);
    }
    Ok(if outcome.failures().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn parse() -> Result<Request, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut command: Option<OsString> = None;
    let mut program = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Request::Help),
            Long("program") => program = Some(parser.value()?.into()),
            Value(value) if command.is_none() => command = Some(value),
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    match command.as_deref().and_then(OsStr::to_str) {
        Some("demo") => Ok(Request::Demo { program }),
        Some("check") => Ok(Request::Check),
        _ => Err("which command?".into()),
    }
}

fn complain(text: &str) {
    let _ = writeln!(stderr().lock(), "lab: {text}");
}
