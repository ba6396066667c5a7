//! Where the demo writes: its standard output, line by line.

use std::io::{IsTerminal, Write, stdout};

use super::chart::Style;
use crate::error::{Context, Error};

/// The standard output, and how it likes its charts.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Block characters on a terminal.
    pub style: Style,
    colour: bool,
}

impl Screen {
    /// Looks at the standard output.
    pub fn new() -> Self {
        let terminal = stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            style: if terminal {
                Style::Blocks
            } else {
                Style::Plain
            },
            colour,
        }
    }

    /// Writes a line. A reader that has gone is an error: the demo then ends in order.
    pub fn line(&self, text: &str) -> Result<(), Error> {
        let mut out = stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .context("cannot write")
    }

    /// An empty line and a heading.
    pub fn heading(&self, text: &str) -> Result<(), Error> {
        if self.colour {
            self.line(&format!("\n\x1b[1m{text}\x1b[0m"))
        } else {
            self.line(&format!("\n{text}"))
        }
    }

    /// The text marked as bad, where there is colour.
    pub fn alarm(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[31m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
