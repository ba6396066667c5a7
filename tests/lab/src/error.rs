//! The lab's one error: what went wrong, where, and if possible what to do.

use std::fmt;

/// Why the lab could not do something, as one sentence for a person.
#[derive(Debug)]
pub enum Error {
    /// The machine lacks something that the lab needs; the text says what and how to get it.
    Lacking(String),
    /// Anything else that went wrong.
    Failed(String),
}

impl Error {
    /// A failure with this text.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacking(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Says what was being done when an error came.
pub trait Context<T> {
    /// `what: error`
    fn context(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::Failed(format!("{what}: {error}")))
    }
}
