//! The control socket of a running tunnel: `RUN_DIR/NAME.sock`, for root only. A request is a line of
//! words, `show json` or `down`. The answer is a line too, and after `text LENGTH` so many bytes. The
//! daemon writes what `show` shows, so the command need not read a status back. Reading JSON here would
//! take 30 kB of a router's program.

mod client;
mod dump;
mod pretty;
mod server;
mod status;
mod units;

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

pub use client::{AskError, ask};
pub use server::{Asked, Server};
pub use status::{DeviceStatus, LinkStatus, Offloads, PathStatus, Portal, Repair, Status, Traffic};

/// The longest text of an answer, bytes: 32 links and 8 paths are some 40 kB.
const MAX_TEXT: usize = 256 * 1024;

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// How is the tunnel?
    Show(Form),
    /// Stop, and give the host back.
    Down,
}

/// How a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Pretty,
    /// For scripts: one line a path.
    Dump,
    /// Everything.
    Json,
}

/// Every request with its words.
const REQUESTS: [(&str, Request); 4] = [
    ("show pretty", Request::Show(Form::Pretty)),
    ("show dump", Request::Show(Form::Dump)),
    ("show json", Request::Show(Form::Json)),
    ("down", Request::Down),
];

impl Request {
    /// The request that these words are.
    fn read(words: &str) -> Option<Self> {
        let known = REQUESTS.iter().find(|(known, _)| *known == words.trim());
        known.map(|(_, request)| *request)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = REQUESTS.iter().find(|(_, request)| request == self);
        f.write_str(known.map_or("", |(words, _)| words))
    }
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Show`].
    Text(String),
    /// To [`Request::Down`]: it has begun.
    Stopping,
    /// The request was not understood or could not be met.
    Error(String),
}

impl Answer {
    /// What goes through the socket.
    fn write(&self) -> String {
        match self {
            Self::Text(text) => format!("text {}\n{text}", text.len()),
            Self::Stopping => "stopping\n".to_owned(),
            Self::Error(reason) => format!("error {}\n", reason.replace('\n', " ")),
        }
    }

    /// Reads an answer whole.
    fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "its answer is not understood");
        let mut line = String::new();
        let length = input.by_ref().take(MAX_TEXT as u64).read_line(&mut line)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix('\n').ok_or_else(invalid)?;
        if line == "stopping" {
            return Ok(Self::Stopping);
        }
        let (kind, rest) = line.split_once(' ').ok_or_else(invalid)?;
        match kind {
            "error" => Ok(Self::Error(rest.to_owned())),
            "text" => {
                let length = rest.parse().ok().filter(|length| *length <= MAX_TEXT);
                let mut text = vec![0; length.ok_or_else(invalid)?];
                input.read_exact(&mut text)?;
                Ok(Self::Text(String::from_utf8(text).map_err(|_| invalid())?))
            }
            _ => Err(invalid()),
        }
    }
}

/// The place of a tunnel's control socket.
pub fn socket_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(format!("{name}.sock"))
}

/// The names of the tunnels that have a control socket, sorted; none when there is no run directory.
///
/// # Errors
/// When the directory cannot be read: it is root's.
pub fn tunnels(run_dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".sock").map(str::to_owned)
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_read_back() {
        for (words, request) in REQUESTS {
            assert_eq!(request.to_string(), words);
            assert_eq!(Request::read(&format!("{words}\n")), Some(request));
        }
        for words in [
            "",
            "show",
            "show pretty json",
            "Down",
            "{\"show\":\"json\"}",
        ] {
            assert_eq!(Request::read(words), None, "{words}");
        }
        for answer in [
            Answer::Text("two\nlines, and \u{e4}\n".to_owned()),
            Answer::Text(String::new()),
            Answer::Stopping,
            Answer::Error("no such thing".to_owned()),
        ] {
            let mut input = io::Cursor::new(answer.write());
            assert_eq!(Answer::read(&mut input).unwrap(), answer);
        }
        for garbage in [
            "",
            "text",
            "text x\n",
            "text 4\nab",
            "text 999999999\n",
            "stopping",
            "\n",
        ] {
            assert!(
                Answer::read(&mut io::Cursor::new(garbage)).is_err(),
                "{garbage}"
            );
        }
    }

    #[test]
    fn no_directory_is_no_tunnel_but_an_unreadable_one_is_told() {
        let place = std::env::temp_dir().join(format!("netcombiner-none-{}", std::process::id()));
        assert_eq!(tunnels(&place).unwrap(), Vec::<String>::new());
        // Root may read everything: a file stands for what cannot be listed.
        std::fs::write(&place, "").unwrap();
        assert!(tunnels(&place).is_err());
        std::fs::remove_file(&place).unwrap();
    }
}
