//! The log: plain lines to standard error, nothing but changes of state at `info`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::io::clock::wall_seconds;
use crate::io::poll::is_writable;
use crate::plain::plain_lines;

/// The environment's word for `--log`.
const VARIABLE: &str = "NETCOMBINER_LOG";

/// The log file's most, bytes: it lives in the run directory, which is memory on most systems.
const MOST_BYTES: u64 = 1 << 20;

/// What a pipe that is writable takes without waiting, bytes (POSIX: PIPE_BUF is at least 512; 4096 on
/// Linux, 512 on FreeBSD).
const PIECE: usize = 512;

/// So long the same line of a library is not repeated, seconds: one that says something for each packet
/// must not fill the log.
const SAME: u64 = 60;

struct Logger {
    /// A terminal and a file show no time by themselves, as the journal and syslog do.
    stamped: bool,
    /// Standard error, where it is our own log file: it is kept short.
    own_file: Option<File>,
    /// Lines that nobody took.
    lost: AtomicU32,
    /// The last line of a library.
    foreign: Mutex<Repeated>,
}

/// A line that comes again and again.
#[derive(Debug, Default)]
struct Repeated {
    text: String,
    since: u64,
}

impl Repeated {
    /// True when this line is to be said.
    fn says(&mut self, now: u64, text: &str) -> bool {
        // The wall clock may go back.
        if self.text == text && now.abs_diff(self.since) < SAME {
            return false;
        }
        self.since = now;
        text.clone_into(&mut self.text);
        true
    }
}

/// Writes a line unless that would wait for a reader.
fn write(out: &mut io::StderrLock<'_>, line: &str) -> bool {
    for piece in line.as_bytes().chunks(PIECE) {
        if !is_writable(out.as_fd()) {
            return false;
        }
        // There is no other place to complain.
        let _ = out.write_all(piece);
    }
    true
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if !record.target().starts_with(env!("CARGO_PKG_NAME")) {
            let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
            if !foreign.says(wall_seconds(), &text) {
                return;
            }
        }
        let stamp = self.stamped.then(wall_seconds);
        let mut out = io::stderr().lock();
        if let Some(file) = &self.own_file {
            // A log that cannot be shortened grows on.
            let _ = start_anew_when_full(file);
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            let words = format!("{lost} lines of the log were lost, for nobody read it");
            if write(&mut out, &line(stamp, Level::Warn, &words)) {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
        }
        if !write(&mut out, &line(stamp, record.level(), &text)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Empties a log file that has grown too long. Its writers append, so the next line is the
/// first.
fn start_anew_when_full(mut file: &File) -> io::Result<()> {
    if file.metadata()?.len() < MOST_BYTES {
        return Ok(());
    }
    file.set_len(0)?;
    file.write_all(line(Some(wall_seconds()), Level::Info, "(the log was emptied)").as_bytes())
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
    let text = plain_lines(text).replace('\n', "\n    ");
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

/// Starts logging at `level`; `None`: at that of the environment, or `info`. With `own_file`,
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
            lost: AtomicU32::new(0),
            foreign: Mutex::default(),
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
        // Whatever a name brings along, the terminal does not obey it.
        let text = "sshd\u{1b}[2J listens";
        assert_eq!(line(None, Level::Info, text), "sshd\\u{1b}[2J listens\n");
        assert_eq!(level_of("DEBUG"), Ok(LevelFilter::Debug));
        assert!(level_of("loud").unwrap_err().contains("info"));
    }

    /// Field row C8.
    #[test]
    fn a_library_says_the_same_once_a_minute() {
        let mut repeated = Repeated::default();
        let full = "netlink socket buffer full";
        let said = (100..220).filter(|second| repeated.says(*second, full));
        assert_eq!(said.collect::<Vec<_>>(), [100, 160]);
        assert!(repeated.says(221, "something else"));
        assert!(repeated.says(222, full));
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
        assert!(text.ends_with("(the log was emptied)\nnext\n"), "{text}");
        assert!(text.len() < 100);
        std::fs::remove_file(&path).unwrap();
    }
}
