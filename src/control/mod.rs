//! The control socket of a running tunnel: one line of JSON asked, one line of JSON answered.
//!
//! `RUN_DIR/NAME.sock`, for root only. The words are serde types. The daemon writes what `show` shows:
//! so the command need not read a status back, for which serde takes 80 kB of a router's program.

mod client;
mod dump;
mod pretty;
mod server;
mod status;
mod units;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{AskError, ask};
pub use server::{Asked, Server};
pub use status::{DeviceStatus, LinkStatus, Offloads, PathStatus, Portal, Repair, Status, Traffic};

/// The longest line that either side reads, bytes: 32 links and 8 paths are some 40 kB.
const MAX_LINE: u64 = 256 * 1024;

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How is the tunnel?
    Show(Form),
    /// Stop, and give the host back.
    Down,
}

/// How a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// For people.
    Pretty,
    /// For scripts: one line a path.
    Dump,
    /// Everything.
    Json,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To [`Request::Show`].
    Text(String),
    /// To [`Request::Down`]: it has begun.
    Stopping,
    /// The request was not understood or could not be met.
    Error(String),
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
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

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
