//! What was found wrong so far, and where in the file.

use crate::sorted::{Set, sort_by_key};

use super::Warning;
use super::error::{ConfigError, ConfigErrors};

/// Where something stands in the file.
#[derive(Debug, Clone)]
pub(super) struct At {
    /// The key: `link[1].port`.
    pub(super) place: String,
    /// The byte of the file it stands at.
    pub(super) offset: Option<usize>,
}

/// What was found wrong so far.
pub(super) struct Report<'t> {
    lines: Lines<'t>,
    /// The errors, each with the byte of the file it stands at.
    errors: Vec<(usize, ConfigError)>,
    pub(super) warnings: Vec<Warning>,
    /// Lines that are no TOML: what was recovered from them is not judged, and what is missing may
    /// have stood there.
    broken: Set<usize>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            lines: Lines::new(text.as_bytes()),
            errors: Vec::new(),
            warnings: Vec::new(),
            broken: Set::new(),
        }
    }

    /// The file is no TOML at this place.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let offset = error
            .span()
            .map_or(self.lines.text.len(), |span| span.start);
        let (line, column) = self.lines.position(offset);
        let text = format!("this is not TOML: {}", error.message().replace('\n', " "));
        // The parser stumbles on after a mistake: its first word on a line is the one that helps,
        // and an open bracket makes it repeat itself on every line that follows.
        let again = self
            .errors
            .last()
            .is_some_and(|(_, last)| last.text == text && self.broken.contains(&(line - 1)));
        if self.broken.insert(line) && !again {
            let error = ConfigError {
                line: Some(line),
                column: Some(column),
                place: String::new(),
                text,
            };
            self.errors.push((offset, error));
        }
    }

    pub(super) fn error(&mut self, at: &At, text: impl Into<String>) {
        let line = at.offset.map(|offset| self.lines.position(offset).0);
        if line.is_some_and(|line| self.broken.contains(&line)) {
            return;
        }
        let error = ConfigError {
            line,
            column: None,
            place: at.place.clone(),
            text: text.into(),
        };
        // Errors of the whole file come last: what is missing is often a mistyped key above.
        self.errors.push((at.offset.unwrap_or(usize::MAX), error));
    }

    /// A key that must be there and is not.
    pub(super) fn missing(&mut self, at: &At, text: impl Into<String>) {
        if self.broken.is_empty() {
            self.error(at, text);
        }
    }

    /// The value, when there was no error at all.
    pub(super) fn finish<T>(
        mut self,
        file: String,
        value: Option<T>,
    ) -> Result<(T, Vec<Warning>), ConfigErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            Some(_) | None => {
                sort_by_key(&mut self.errors, |&(offset, _)| offset);
                Err(ConfigErrors {
                    file,
                    errors: self.errors.into_iter().map(|(_, error)| error).collect(),
                    warnings: self.warnings,
                })
            }
        }
    }
}

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t [u8],
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        let after_newlines = text
            .iter()
            .zip(1..)
            .filter_map(|(&byte, next)| (byte == b'\n').then_some(next));
        Self {
            text,
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// Line and column of a byte, both from 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts[line - 1];
        let before = String::from_utf8_lossy(&self.text[start..offset]);
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let lines = Lines::new("a\nüb\n\nc".as_bytes());
        for (offset, position) in [
            (0, (1, 1)),
            (1, (1, 2)),
            (2, (2, 1)),
            (4, (2, 2)),
            (6, (3, 1)),
            (7, (4, 1)),
            (8, (4, 2)),
            (99, (4, 2)),
        ] {
            assert_eq!(lines.position(offset), position, "{offset}");
        }
        assert_eq!(Lines::new(b"").position(0), (1, 1));
    }
}
