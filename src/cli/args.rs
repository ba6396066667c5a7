//! What the verbs share: their errors and how a tunnel is named.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use lexopt::Arg;
use lexopt::prelude::*;
use thiserror::Error;

use crate::config::default_path;
use crate::config::units::IfName;

/// Why a verb did not do its work.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line was not understood; says what to write. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The work failed; says what to do. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Standard input or output failed. Exit code 1.
    #[error("standard input or output: {0}")]
    Io(#[from] io::Error),
}

impl CliError {
    /// An error of the command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// An error of the work.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// True when the reader of our output has gone, as `head` does.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(format!("{error} (see `netcombiner help`)"))
    }
}

/// The error of an argument that the verb does not have.
pub(crate) fn unexpected(arg: &Arg<'_>, verb: &str) -> CliError {
    let see = match verb {
        "help" => "`netcombiner help`".to_owned(),
        verb => format!("`netcombiner help {verb}`"),
    };
    CliError::usage(match arg {
        Short(letter) => format!("unknown option \"-{letter}\" (see {see})"),
        Long(name) => format!("unknown option \"--{name}\" (see {see})"),
        Value(word) => format!(
            "{:?} is one word too many (see {see})",
            word.to_string_lossy()
        ),
    })
}

/// For verbs without arguments: refuses any, and answers `--help` with `true`.
pub(crate) fn no_more(parser: &mut lexopt::Parser, verb: &str) -> Result<bool, CliError> {
    match parser.next()? {
        None => Ok(false),
        Some(Short('h') | Long("help")) => Ok(true),
        Some(other) => Err(unexpected(&other, verb)),
    }
}

/// The configuration that a word of the command line means: a name (`nc0`) is looked for at its
/// [`default_path`]; with a `/`, or ending in `.toml`, it is a file.
///
/// # Errors
/// When the word is neither.
pub fn config_path(word: &OsStr) -> Result<PathBuf, CliError> {
    let is_file =
        word.as_encoded_bytes().contains(&b'/') || word.as_encoded_bytes().ends_with(b".toml");
    if is_file {
        return Ok(PathBuf::from(word));
    }
    let name: IfName = word
        .to_string_lossy()
        .parse()
        .map_err(|error| CliError::usage(format!("{error}, and a file would end in .toml")))?;
    Ok(default_path(&name))
}
