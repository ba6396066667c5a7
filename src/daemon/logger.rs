//! The log: plain lines to standard error, nothing but changes of state at `info`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::io::clock::wall_seconds;

/// The environment's word for `--log`.
const VARIABLE: &str = "NETCOMBINER_LOG";

/// The log file's most, bytes: it lives in the run directory, which is memory on most systems.
const MOST_BYTES: u64 = 1 << 20;

struct Logger {
    /// A terminal and a file show no time by themselves, as the journal and syslog do.
    stamped: bool,
    /// Standard error, where it is our own log file: it is kept short.
    own_file: Option<File>,
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
        let mut out = io::stderr().lock();
        if let Some(file) = &self.own_file {
            // A log that cannot be shortened grows on.
            let _ = start_anew_when_full(file);
        }
        // There is no other place to complain.
        let _ = out.write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Empties a log file that has grown too long. Whoever writes to it appends, so the next line is the
/// first.
fn start_anew_when_full(mut file: &File) -> io::Result<()> {
    if file.metadata()?.len() < MOST_BYTES {
        return Ok(());
    }
    file.set_len(0)?;
    file.write_all(line(Some(wall_seconds()), Level::Info, "(the log begins anew)").as_bytes())
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
        let (year, month, day) = date(seconds / 86_400);
        format!(
            "{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}Z ",
            seconds % 60
        )
    });
    let text = text.replace('\n', "\n    ");
    format!("{stamp}{word}{text}\n")
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| matches!((year % 4, year % 100, year % 400), (0, 1.., _) | (0, _, 0));
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Standard error, if it is a regular file.
fn stderr_file() -> Option<File> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().is_ok_and(|it| it.is_file()).then_some(file)
}

/// Starts logging at `level`; nothing: at that of the environment, or `info`. With `own_file`,
/// standard error is a log file of ours, opened for appending, and kept below 1 MiB.
///
/// # Errors
/// When the environment's word is no level.
pub fn start(level: Option<LevelFilter>, own_file: bool) -> Result<(), String> {
    let level = match (level, std::env::var(VARIABLE)) {
        (Some(level), _) => level,
        (None, Ok(word)) => {
            level_of(&word).map_err(|error| format!("environment variable {VARIABLE}: {error}"))?
        }
        (None, Err(_)) => LevelFilter::Info,
    };
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| {
        let file = stderr_file();
        let keeps_time = std::env::var_os("JOURNAL_STREAM").is_some();
        Logger {
            stamped: file.is_some() || (io::stderr().is_terminal() && !keeps_time),
            own_file: file.filter(|_| own_file),
        }
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
            "1970-01-02T01:01:01Z warning: one\n    two\n"
        );
        assert_eq!(level_of("DEBUG"), Ok(LevelFilter::Debug));
        assert!(level_of("loud").unwrap_err().contains("info"));
    }

    #[test]
    fn dates() {
        // date -u -d @SECONDS
        assert_eq!(date(951_782_400 / 86_400), (2000, 2, 29));
        assert_eq!(date(1_735_603_200 / 86_400), (2024, 12, 31));
        assert_eq!(date(1_795_366_800 / 86_400), (2026, 11, 22));
        assert_eq!(date(4_107_542_400 / 86_400), (2100, 3, 1));
    }

    #[test]
    fn a_full_log_begins_anew() {
        let path = std::env::temp_dir().join(format!("netcombiner-log-{}", std::process::id()));
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(b"short\n").unwrap();
        start_anew_when_full(&file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short\n");
        file.write_all(&vec![b'x'; 1 << 20]).unwrap();
        start_anew_when_full(&file).unwrap();
        file.write_all(b"next\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("(the log begins anew)\nnext\n"), "{text}");
        assert!(text.len() < 100);
        std::fs::remove_file(&path).unwrap();
    }
}
