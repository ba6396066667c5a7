//! One iperf3 run: TCP flows, and what the receiver says of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::pair::Pair;
use super::plan::WARM_UP;
use super::tunnel::Tunnel;
use crate::clock::now;
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::{Context, Error};
use crate::net::Process;
use crate::portal::Side;

/// iperf3's own port.
const PORT: u16 = 5201;

/// The server listens by then, and both ends have told each other their figures by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Running flows.
#[derive(Debug)]
pub(super) struct Iperf {
    client: Process,
    _server: Process,
    output: PathBuf,
}

impl Iperf {
    /// Starts flows that are measured for `length` after [`WARM_UP`].
    pub(super) fn start(
        pair: &Pair,
        tunnel: &Tunnel,
        flows: u32,
        way: Direction,
        length: Duration,
    ) -> Result<Self, Error> {
        let [_, to] = tunnel.ends().map(|address| address.to_string());
        let port = PORT.to_string();
        let (said, output) = ("iperf.server", "iperf.client");
        let mut command = iperf(&tunnel.dir().join(said))?;
        command.args(["-s", "-1", "-4", "-B", &to, "-p", &port]);
        let mut server = Process::spawn(pair.host(Side::Remote), command)?;
        listens(&mut server)?;

        let output = tunnel.dir().join(output);
        let mut command = iperf(&output)?;
        command.args(["-J", "-C", "cubic", "-c", &to, "-p", &port]);
        command.args(["-P", &flows.to_string()]);
        command.args(["-O", &WARM_UP.as_secs().to_string()]);
        command.args(["-t", &length.as_secs().to_string()]);
        if way == Direction::Down {
            command.arg("-R");
        }
        let client = Process::spawn(pair.host(Side::Local), command)?;
        Ok(Self {
            client,
            _server: server,
            output,
        })
    }

    /// Waits for the end; gives the bytes a second that the receiver got.
    pub(super) fn finish(mut self) -> Result<f64, Error> {
        let status = self.client.wait(PATIENCE)?;
        let said = fs::read_to_string(&self.output).unwrap_or_default();
        let said: Value = serde_json::from_str(&said)
            .map_err(|_| Error::failed(format!("iperf3 ended with {status} and gave no JSON")))?;
        received(&said)
    }
}

/// iperf3's version, or how to get it.
pub(super) fn version() -> Result<String, Error> {
    crate::machine::version(Path::new("iperf3")).ok_or_else(|| {
        Error::Lacking("the benchmark lacks iperf3: install the package iperf3".into())
    })
}

/// An iperf3 whose words go to a file.
fn iperf(output: &Path) -> Result<Command, Error> {
    let file = File::create(output).context(format!("cannot make {}", output.display()))?;
    let mut command = Command::new("iperf3");
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null());
    Ok(command)
}

/// Waits until a server waits for its client.
fn listens(server: &mut Process) -> Result<(), Error> {
    // The kernel's list of sockets: the local address in hexadecimal and the state, 0A is LISTEN.
    let path = format!("/proc/{}/net/tcp", server.id());
    let port = format!(":{PORT:04X}");
    let start = now();
    loop {
        if let Some(status) = server.ended() {
            return Err(Error::failed(format!("iperf3 -s ended at once ({status})")));
        }
        let sockets = fs::read_to_string(&path).unwrap_or_default();
        let listening = sockets.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
        });
        if listening {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::failed("iperf3 -s does not listen"));
        }
        interrupt::sleep(Duration::from_millis(5))?;
    }
}

/// The bytes a second of iperf3's JSON.
fn received(said: &Value) -> Result<f64, Error> {
    if let Some(error) = said["error"].as_str() {
        return Err(Error::failed(format!("iperf3: {error}")));
    }
    let received = &said["end"]["sum_received"];
    let number = |key: &str| {
        received[key]
            .as_f64()
            .ok_or_else(|| Error::failed(format!("iperf3 does not say {key}")))
    };
    let seconds = number("seconds")?;
    if seconds <= 0.0 {
        return Err(Error::failed("iperf3 measured no time"));
    }
    Ok(number("bytes")? / seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_iperf_says() {
        let said = json!({"end": {"sum_received": {"seconds": 5.0, "bytes": 1_250_000_000_u64}}});
        assert!((received(&said).unwrap() - 2.5e8).abs() < 1e-3);
        let complaint = received(&json!({"error": "no route"}));
        assert!(complaint.unwrap_err().to_string().contains("no route"));
        assert!(received(&json!({})).is_err());
    }
}
