//! wireguard-go, boringtun and gotatun: where they are, their keys and their control sockets.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clock::now;
use crate::demo::interrupt;
use crate::error::{Context, Error};
use crate::net::Namespace;
use crate::portal::{Side, run};
use crate::topology::PUBLIC;

/// WireGuard's usual port.
const PORT: u16 = 51820;

/// Where all put the socket by which `wg` speaks to them; it is of the host, not of a namespace.
const SOCKETS: &str = "/var/run/wireguard";

/// The names of our devices: this, our process id, and the side's first letter.
const NAME: &str = "ncl";

/// Programs that are not in the PATH are looked for here.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/bin");

/// The socket comes a moment after the device.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to get what was not found; the run goes on without it.
pub(super) const HELP: &str = "apt-get install wireguard-go wireguard-tools; \
                               cargo install boringtun-cli gotatun-cli --root target/peers";

/// Why a peer is not measured.
pub(super) fn missing() -> Error {
    Error::Lacking("not found".into())
}

/// Finds a program, those of ours first.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(PathBuf::from(PEERS)).chain(std::env::split_paths(&path));
    let mut programs = places.map(|place| place.join(name));
    programs.find(|program| program.is_file())
}

/// The name of our device on a side, unlike that of any other run.
pub(super) fn device(side: Side) -> String {
    let letter = match side {
        Side::Local => 'l',
        Side::Remote => 'r',
    };
    format!("{NAME}{}{letter}", std::process::id())
}

/// Its control socket.
pub(super) fn socket(device: &str) -> PathBuf {
    Path::new(SOCKETS).join(format!("{device}.sock"))
}

/// Removes the sockets of runs that were killed.
pub(super) fn sweep() {
    for entry in fs::read_dir(SOCKETS).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(process_of) else {
            continue;
        };
        if !Path::new(&format!("/proc/{process}")).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process whose run made a socket of this name.
fn process_of(socket: &str) -> Option<u32> {
    let middle = socket.strip_prefix(NAME)?.strip_suffix(".sock")?;
    middle.strip_suffix(['l', 'r'])?.parse().ok()
}

/// The private keys' files and the public keys, the local side's first.
pub(super) struct Keys {
    private: [PathBuf; 2],
    public: [String; 2],
}

impl Keys {
    /// Makes two pairs of keys in a directory.
    pub(super) fn make(dir: &Path) -> Result<Self, Error> {
        let private = ["local", "remote"].map(|side| dir.join(format!("{side}.wg")));
        let mut public = [String::new(), String::new()];
        for (path, public) in private.iter().zip(&mut public) {
            let what = format!("cannot write {}", path.display());
            let mut file = File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(path)
                .context(&what)?;
            file.write_all(wg("genkey", Stdio::null())?.as_bytes())
                .context(&what)?;
            let file = File::open(path).context(format!("cannot read {}", path.display()))?;
            *public = wg("pubkey", file.into())?.trim().to_owned();
        }
        Ok(Self { private, public })
    }

    /// Tells a daemon its key and its peer.
    pub(super) fn configure(
        &self,
        host: &Namespace,
        side: Side,
        device: &str,
    ) -> Result<(), Error> {
        let start = now();
        while !socket(device).exists() && start.elapsed() < PATIENCE {
            interrupt::sleep(Duration::from_millis(5))?;
        }
        let (own, other) = match side {
            Side::Local => (0, 1),
            Side::Remote => (1, 0),
        };
        let mut command = Command::new("wg");
        command.args(["set", device, "private-key"]);
        command.arg(&self.private[own]);
        if side == Side::Remote {
            command.args(["listen-port", &PORT.to_string()]);
        }
        command.args(["peer", &self.public[other], "allowed-ips", "0.0.0.0/0"]);
        if side == Side::Local {
            command.args(["endpoint", &format!("{PUBLIC}:{PORT}")]);
        }
        run(host, command).map(|_| ())
    }
}

fn wg(verb: &str, input: Stdio) -> Result<String, Error> {
    let what = format!("cannot run wg {verb}");
    let output = Command::new("wg")
        .arg(verb)
        .stdin(input)
        .output()
        .context(&what)?;
    if !output.status.success() {
        return Err(Error::failed(format!("{what}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_tells_whose_it_is() {
        for side in Side::BOTH {
            let name = socket(&device(side));
            let name = name.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(process_of(name), Some(std::process::id()));
            assert!(device(side).len() < libc::IFNAMSIZ);
        }
        for foreign in [
            "wg0.sock",
            "ncl.sock",
            "ncl7x.sock",
            "nclr.sock",
            "--help.sock",
        ] {
            assert_eq!(process_of(foreign), None, "{foreign}");
        }
    }
}
