//! FreeBSD's own programs: ifconfig(8), netstat(1), route(8), sysctl(8), pfctl(8).

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::{self, Stdio};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::host::HostError;
use crate::route::lower::freebsd::{Command, PF_HINT, missing};

/// Each of them answers within some ten milliseconds. One that hangs must leave time for the others
/// within the 10 s that setting up and giving back may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How the programs are found.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The path they are looked for in; `None`: the environment's.
    pub path: Option<OsString>,
}

/// What pf says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pf {
    /// There is no /dev/pf.
    Absent,
    /// It is there, and this stands in the way of the tunnel's rules.
    Present(Vec<String>),
}

impl Pf {
    /// What the administrator has to do.
    pub fn notices(self) -> Vec<String> {
        match self {
            Self::Absent => vec![PF_HINT.to_owned()],
            Self::Present(missing) => missing,
        }
    }
}

impl Programs {
    /// Runs a program and gives what it prints.
    pub(super) async fn print(&self, line: &str) -> Result<String, HostError> {
        let command = Command::of(line);
        let read = |error| HostError::read(line, error);
        self.run(command).await.map_err(read)
    }

    /// Carries out a command.
    pub(super) async fn execute(&self, command: &Command) -> Result<(), HostError> {
        let failed = |error| HostError::step(command, error);
        self.run(command.clone()).await.map(drop).map_err(failed)
    }

    async fn run(&self, command: Command) -> io::Result<String> {
        let programs = self.clone();
        let running = spawn_blocking(move || programs.run_now(&command));
        match timeout(PATIENCE, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer in {} s", PATIENCE.as_secs()),
            )),
        }
    }

    /// Runs a command without a shell; what it says on its standard error is the error.
    fn run_now(&self, command: &Command) -> io::Result<String> {
        let (program, arguments) = command
            .argv
            .split_first()
            .ok_or_else(|| io::Error::other("an empty command"))?;
        let mut child = process::Command::new(program);
        if let Some(path) = &self.path {
            child.env("PATH", path);
        }
        let mut child = child
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), &command.input) {
            match stdin.write_all(input.as_bytes()) {
                // It ended before it had read everything: its own words say more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result?,
            }
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!(
                "{}: {}",
                output.status,
                said.trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Asks pf whether it will heed an anchor, for which pf.conf needs these lines. Waits for the
    /// programs: for verbs, which have nothing else to do.
    pub fn pf(&self, lines: &[&str]) -> Pf {
        if lines.is_empty() {
            return Pf::Present(Vec::new());
        }
        let ask = |what: &str| self.run_now(&Command::of(what));
        match [PF_INFO, PF_RULES, PF_NAT].map(ask) {
            [Ok(info), Ok(rules), Ok(nat)] => Pf::Present(missing(lines, &info, &rules, &nat)),
            [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => refused(&error),
        }
    }

    /// The same, while others are served.
    pub(super) async fn ask_pf(&self, lines: &[&'static str]) -> Pf {
        let (programs, lines) = (self.clone(), lines.to_vec());
        match spawn_blocking(move || programs.pf(&lines)).await {
            Ok(pf) => pf,
            Err(error) => refused(&io::Error::other(error)),
        }
    }
}

const PF_INFO: &str = "pfctl -v -s info";
const PF_RULES: &str = "pfctl -s rules";
const PF_NAT: &str = "pfctl -s nat";

fn refused(error: &io::Error) -> Pf {
    if has_no_pf(&error.to_string()) {
        Pf::Absent
    } else {
        Pf::Present(vec![format!("pf cannot be asked: pfctl: {error}")])
    }
}

/// `pfctl: /dev/pf: No such file or directory`.
pub(super) fn has_no_pf(said: &str) -> bool {
    said.contains("/dev/pf: No such file")
}
