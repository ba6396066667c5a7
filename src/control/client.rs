//! The command's end of the control socket.

use std::io::{self, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::{Answer, Request};

/// A daemon that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// No daemon lives behind the socket.
    #[error("it is not running")]
    NotRunning,
    /// The socket may not be used.
    #[error("its control socket belongs to root: run this as root")]
    NotPermitted,
    /// The daemon closed the line or answered something else.
    #[error("its daemon does not answer: {0}")]
    Broken(io::Error),
}

/// Asks the daemon behind `socket` and waits for its answer.
pub fn ask(socket: &Path, request: Request) -> Result<Answer, AskError> {
    let stream = UnixStream::connect(socket).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ECONNREFUSED) => AskError::NotRunning,
        Some(libc::EACCES | libc::EPERM) => AskError::NotPermitted,
        Some(_) | None => AskError::Broken(error),
    })?;
    converse(&stream, request).map_err(AskError::Broken)
}

fn converse(mut stream: &UnixStream, request: Request) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    Answer::read(&mut BufReader::new(stream))
}
