//! The log: plain lines to standard error, nothing but changes of state at `info`.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::io::clock::wall_seconds;

/// The environment's word for `--log`.
const VARIABLE: &str = "NETCOMBINER_LOG";

struct Logger {
    /// A terminal shows no time by itself, as the journal and syslog do.
    stamped: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(
            self.stamped.then(wall_seconds),
            record.level(),
            &record.args().to_string(),
        );
        // There is no other place to complain.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// One line; a text of several lines stays one entry, its further lines moved in.
fn line(seconds: Option<u64>, level: Level, text: &str) -> String {
    let word = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
    };
    let stamp = seconds.map_or(String::new(), |seconds| {
        let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
        format!("{hours:02}:{minutes:02}:{:02}Z ", seconds % 60)
    });
    let text = text.replace('\n', "\n    ");
    format!("{stamp}{word}{text}\n")
}

/// Starts logging at `level`; nothing: at that of the environment, or `info`.
///
/// # Errors
/// When the environment's word is no level.
pub fn start(level: Option<LevelFilter>) -> Result<(), String> {
    let level = match (level, std::env::var(VARIABLE)) {
        (Some(level), _) => level,
        (None, Ok(word)) => {
            level_of(&word).map_err(|error| format!("environment variable {VARIABLE}: {error}"))?
        }
        (None, Err(_)) => LevelFilter::Info,
    };
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger {
        stamped: io::stderr().is_terminal() && std::env::var_os("JOURNAL_STREAM").is_none(),
    });
    // A second start keeps the first logger.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    Ok(())
}

/// The level that a word means.
///
/// # Errors
/// When it means none; says which there are.
pub fn level_of(word: &str) -> Result<LevelFilter, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a level (off, error, warn, info, debug, trace)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(None, Level::Info, "nc0 is up"), "nc0 is up\n");
        assert_eq!(
            line(Some(86_400 + 3_661), Level::Warn, "one\ntwo"),
            "01:01:01Z warning: one\n    two\n"
        );
        assert_eq!(level_of("DEBUG"), Ok(LevelFilter::Debug));
        assert!(level_of("loud").unwrap_err().contains("info"));
    }
}
