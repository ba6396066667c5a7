//! `lab`: the demo, the benchmark, and whether this machine can raise the lab at all.

use std::ffi::{OsStr, OsString};
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};
use netcombiner_lab::bench::{self, Options};
use netcombiner_lab::demo::{self, Screen};
use netcombiner_lab::error::Error;
use netcombiner_lab::idle;
use netcombiner_lab::net::{self, Way};
use netcombiner_lab::throughput::{self, relay};

const USAGE: &str = "\
Usage: lab COMMAND

Commands:
  demo [--program FILE]  two links, two portals, real TCP flows; FILE is a built netcombiner,
                         without it cargo builds one
  bench [OPTION ...]     one TCP flow over many mixtures of links, under 15 minutes; nothing else
                         should run on the machine
    --program FILE       as above
    --case NAME          only this case; again for more
    --seconds N          how long a flow over all links lasts
    --repeats N          how often each is measured (1)
    --far                the cases with a far link instead: half an hour for three repeats
    --full               BBR, eight flows and the TCP transport in every case, both ways
    --json FILE          where all figures go (target/bench.json); tests/lab/figures.py draws them
  throughput [OPTION ...] how fast the data path is beside wireguard-go, boringtun and gotatun over
                         links without a shape, under 12 minutes; nothing else should run
    --program FILE       as above
    --only NAME          only this candidate or this load; again for more
    --seconds N          how long each is measured after 2 s of warm-up (5)
    --repeat N           how often; the table shows the medians (1)
    --json FILE          where all figures go; without it nowhere
  idle [OPTION ...]      what both daemons use while four links are up and nobody sends
    --program FILE       as above
    --seconds N          how long that is measured (30)
  check                  whether this machine can raise the lab
";

/// A rest this long shows the processor's use to 0.03 %: the kernel tells it in ticks of 10 ms.
const IDLE: Duration = Duration::from_secs(30);

/// The machine lacks something.
const LACKING: u8 = 2;

/// The command line is wrong (`EX_USAGE` of sysexits.h).
const WRONG_USAGE: u8 = 64;

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

enum Request {
    Help,
    Check,
    Demo {
        program: Option<PathBuf>,
    },
    Bench(Options),
    Throughput(throughput::Options),
    Idle {
        program: Option<PathBuf>,
        rest: Duration,
    },
    /// A daemon of the throughput benchmark, which starts it itself.
    Relay(Vec<OsString>),
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
        Request::Bench(options) => run_bench(&options),
        Request::Throughput(options) => run_throughput(&options),
        Request::Idle { program, rest } => run_idle(program, rest),
        Request::Relay(arguments) => relay::run(&arguments).map(|()| ExitCode::SUCCESS),
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
    let screen = Screen::new();
    let program = match prepare(&screen, program)? {
        Prepared::Here(program) => program,
        Prepared::Done(code) => return Ok(code),
    };
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

fn run_bench(options: &Options) -> Result<ExitCode, Error> {
    let screen = Screen::new();
    let program = match prepare(&screen, options.program.clone())? {
        Prepared::Here(program) => program,
        Prepared::Done(code) => return Ok(code),
    };
    bench::run(&screen, options, &program)?;
    Ok(ExitCode::SUCCESS)
}

fn run_throughput(options: &throughput::Options) -> Result<ExitCode, Error> {
    throughput::check(options)?;
    let screen = Screen::new();
    let program = match prepare(&screen, options.program.clone())? {
        Prepared::Here(program) => program,
        Prepared::Done(code) => return Ok(code),
    };
    throughput::run(&screen, options, &program)?;
    Ok(ExitCode::SUCCESS)
}

fn run_idle(program: Option<PathBuf>, rest: Duration) -> Result<ExitCode, Error> {
    let screen = Screen::new();
    let program = match prepare(&screen, program)? {
        Prepared::Here(program) => program,
        Prepared::Done(code) => return Ok(code),
    };
    idle::run(&screen, &program, rest)?;
    Ok(ExitCode::SUCCESS)
}

enum Prepared {
    /// The lab can be raised; this is the program.
    Here(PathBuf),
    /// A copy of ourselves has done it all, in a user namespace.
    Done(ExitCode),
}

/// Builds the program if there is none. Where we are not root, a copy of ourselves in a user
/// namespace does the rest, with the same arguments.
fn prepare(screen: &Screen, program: Option<PathBuf>) -> Result<Prepared, Error> {
    // First, so that nobody waits for a build in vain.
    let way = net::way(&[OsStr::new("check")])?;
    // In the other way the signals are the copy's to handle; our death is its SIGTERM.
    if way == Way::Here {
        demo::catch()?;
    }
    let (program, built) = match program {
        Some(program) => (program, false),
        None => (demo::build(screen)?, true),
    };
    if way == Way::Here {
        return Ok(Prepared::Here(program));
    }
    screen.line("not root: the lab runs in a user namespace")?;
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if built {
        arguments.extend([OsString::from("--program"), program.into_os_string()]);
    }
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let status = net::reexec(&arguments)?;
    let code = status.code().map_or(1, |code| code as u8);
    Ok(Prepared::Done(ExitCode::from(code)))
}

fn parse() -> Result<Request, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut command: Option<OsString> = None;
    let mut words: Vec<OsString> = Vec::new();
    let mut bench = Options::default();
    let mut throughput = throughput::Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Request::Help),
            Long("program") => bench.program = Some(parser.value()?.into()),
            Long("case") => bench.cases.push(parser.value()?.string()?),
            Long("only") => throughput.only.push(parser.value()?.string()?),
            Long("seconds") => bench.seconds = Some(parser.value()?.parse()?),
            Long("repeats") => bench.repeats = parser.value()?.parse()?,
            Long("far") => bench.far = true,
            Long("repeat") => throughput.repeats = parser.value()?.parse()?,
            Long("full") => bench.full = true,
            Long("json") => throughput.json = Some(parser.value()?.into()),
            Value(value) if command.is_none() => command = Some(value),
            Value(value) if command.as_deref() == Some(OsStr::new(relay::COMMAND)) => {
                words.push(value);
            }
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    throughput.program.clone_from(&bench.program);
    throughput.seconds = bench.seconds.unwrap_or(throughput.seconds);
    if let Some(json) = &throughput.json {
        bench.json.clone_from(json);
    }
    match command.as_deref().and_then(OsStr::to_str) {
        Some("demo") => Ok(Request::Demo {
            program: bench.program,
        }),
        Some("bench") => Ok(Request::Bench(bench)),
        Some("throughput") => Ok(Request::Throughput(throughput)),
        Some("idle") => Ok(Request::Idle {
            program: bench.program,
            rest: bench.seconds.map_or(IDLE, Duration::from_secs),
        }),
        Some(relay::COMMAND) => Ok(Request::Relay(words)),
        Some("check") => Ok(Request::Check),
        _ => Err("which command?".into()),
    }
}

fn complain(text: &str) {
    let _ = writeln!(stderr().lock(), "lab: {text}");
}
