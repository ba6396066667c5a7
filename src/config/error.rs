//! The errors of a configuration, all of a file at once.

use std::fmt;

use super::Warning;
use crate::plain::plain;

/// One error: where, what is wrong, what is allowed.
///
/// Elements of a list are counted from 1, as the dissertation counts its peers: the first link is
/// `link[1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The line of the file, from 1; nothing when the error is not at one line.
    pub line: Option<usize>,
    /// The column, from 1, in characters; only where the file is no TOML.
    pub column: Option<usize>,
    /// The key: `link[1].port`; empty when it is the file itself.
    pub place: String,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.text)
    }
}

/// Why a file is no configuration: at least one error.
///
/// Prints one line an error, as compilers do: `nc0.toml:12: link[1].port: 74523 is not a port
/// (1-65535)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: String,
    /// The errors, in the order of the file.
    pub errors: Vec<ConfigError>,
    /// What was worth a word besides.
    pub warnings: Vec<Warning>,
}

impl ConfigErrors {
    /// One error of the file as a whole.
    pub(super) fn of_file(file: String, text: impl Into<String>) -> Self {
        Self {
            file,
            errors: vec![ConfigError {
                line: None,
                column: None,
                place: String::new(),
                text: text.into(),
            }],
            warnings: Vec::new(),
        }
    }

    /// One error at a line and column, beyond which nothing can be read.
    pub(super) fn of_place(file: String, at: (usize, usize), text: impl Into<String>) -> Self {
        let mut errors = Self::of_file(file, text);
        for error in &mut errors.errors {
            error.line = Some(at.0);
            error.column = Some(at.1);
        }
        errors
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some(line) = error.line {
                write!(f, ":{line}")?;
            }
            if let Some(column) = error.column {
                write!(f, ":{column}")?;
            }
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, plain(&self.text))
    }
}
