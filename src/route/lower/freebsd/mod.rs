//! The same on FreeBSD: addresses, routes and settings as commands, and all that Linux does by
//! rules and tables as one pf anchor, `netcombiner/nc0`, replaced whole.
//!
//! The user's pf.conf names the anchors once ([`pf_conf_lines`]); no program edits it.

mod anchor;
mod closed;
mod crossing;
mod own;
mod readiness;
mod steps;

use std::fmt;

pub use anchor::anchor;
pub use readiness::{PF_HINT, missing, pf_conf_lines};
pub use steps::{Step, What, steps};

use crate::config::Config;
use crate::config::units::IfName;
use crate::route::links::Observed;

/// One command, its arguments as they are (no shell), and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What it reads from its standard input: an anchor's text.
    pub input: Option<String>,
}

impl Command {
    /// A command of words without spaces: addresses, numbers and device names have none.
    pub fn of(line: impl AsRef<str>) -> Self {
        Self {
            argv: line.as_ref().split(' ').map(str::to_owned).collect(),
            input: None,
        }
    }

    /// The command without what it reads.
    pub fn line(&self) -> String {
        self.argv.join(" ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())?;
        match &self.input {
            Some(input) => write!(f, " <<'END'\n{input}END"),
            None => Ok(()),
        }
    }
}

/// The commands that make a FreeBSD host look as desired.
pub fn up(config: &Config, observed: &Observed) -> Vec<Command> {
    let steps = steps(config, observed).into_iter();
    steps.map(|step| step.up).collect()
}

/// The commands that undo [`up`], backwards.
pub fn down(config: &Config, observed: &Observed) -> Vec<Command> {
    let steps = steps(config, observed).into_iter().rev();
    steps.filter_map(|step| step.down).collect()
}

/// The name of a tunnel's anchor.
pub fn anchor_name(tunnel: &IfName) -> String {
    format!("netcombiner/{tunnel}")
}
