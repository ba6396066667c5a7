//! One iperf3 run through a tunnel, and what the two ends and the daemons say of it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::cpu::Used;
use super::pair::Pair;
use super::plan::{Load, WARM_UP};
use super::tunnel::Tunnel;
use crate::clock::{Clock, now};
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::{Context, Error};
use crate::net::Process;
use crate::portal::Side;

/// iperf3's own port.
const PORT: u16 = 5201;

/// The server listens by then, and both ends have told each other their figures by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// From iperf3's start to the first packet of the flow; the processor time is read that much later
/// and that much shorter, so that it never counts the start or the end.
const MARGIN: Duration = Duration::from_millis(150);

/// The kernel's memory for datagrams that wait for iperf3, where the machine allows it: 4 MiB are
/// 5,000 small ones, or 20 ms. With the default 208 KiB the figures would be of the scheduler.
const BUFFER: u64 = 4 << 20;

/// What one run gave. Gigabytes are 10^9 bytes of payload that arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Payload received, Gbit/s.
    pub(super) gbps: f64,
    /// Datagrams received a second; of TCP nothing.
    pub(super) packets: Option<f64>,
    /// Share of the datagrams that did not arrive.
    pub(super) lost: f64,
    /// Processor time of both daemons, seconds a gigabyte.
    pub(super) daemons: f64,
    /// Of the whole machine, iperf3 included.
    pub(super) machine: f64,
}

/// Runs a load through a tunnel.
pub(super) fn measure(
    pair: &Pair,
    tunnel: &Tunnel,
    load: Load,
    length: Duration,
) -> Result<Sample, Error> {
    let [_, to] = tunnel.ends();
    let to = to.to_string();
    let port = PORT.to_string();
    let daemons = tunnel.daemons();
    let mut command = iperf(tunnel.dir(), "server")?;
    command.args(["-s", "-1", "-4", "-B", &to, "-p", &port]);
    let mut server = Process::spawn(pair.host(Side::Remote), command)?;
    listens(&mut server)?;

    let mut command = iperf(tunnel.dir(), "client")?;
    command.args(["-c", &to, "-p", &port, "-J"]);
    command.args(["-O", &WARM_UP.as_secs().to_string()]);
    command.args(["-t", &length.as_secs().to_string()]);
    command.args(words(load));
    let mut client = Process::spawn(pair.host(Side::Local), command)?;
    let clock = Clock::start();
    interrupt::sleep(WARM_UP + MARGIN)?;
    let before = Used::now(&clock, &daemons);
    interrupt::sleep(length.saturating_sub(2 * MARGIN))?;
    let used = Used::now(&clock, &daemons).since(&before);
    let status = client.wait(PATIENCE)?;
    let said = fs::read_to_string(tunnel.dir().join("client")).unwrap_or_default();
    let said: Value = serde_json::from_str(&said)
        .map_err(|_| Error::failed(format!("iperf3 ended with {status} and gave no JSON")))?;
    sample(&said, load, &used)
}

/// The whole machine's use of its cores, with nothing of ours running, for a second.
pub(super) fn idle_cores() -> Result<f64, Error> {
    let clock = Clock::start();
    let before = Used::now(&clock, &[]);
    interrupt::sleep(Duration::from_secs(1))?;
    Ok(Used::now(&clock, &[]).since(&before).cores())
}

/// An iperf3 whose words go to a file.
fn iperf(dir: &Path, output: &str) -> Result<Command, Error> {
    let path = dir.join(output);
    let file = File::create(&path).context(format!("cannot make {}", path.display()))?;
    let mut command = Command::new("iperf3");
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null());
    Ok(command)
}

/// What iperf3's client is told of a load.
fn words(load: Load) -> Vec<String> {
    let words = match load {
        Load::Tcp { flows, way } => {
            let way = match way {
                Direction::Up => "",
                Direction::Down => " -R",
            };
            format!("-C cubic -P {flows}{way}")
        }
        Load::Udp { payload } => format!("-u -b 0 -l {payload} -w {}", buffer()),
    };
    words.split(' ').map(str::to_owned).collect()
}

/// As much of [`BUFFER`] as this machine allows.
fn buffer() -> u64 {
    let most = |key: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{key}")).ok()?;
        text.trim().parse().ok()
    };
    ["rmem_max", "wmem_max"]
        .into_iter()
        .filter_map(most)
        .fold(BUFFER, u64::min)
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

/// The figures of iperf3's JSON and of the processor.
fn sample(said: &Value, load: Load, used: &Used) -> Result<Sample, Error> {
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
    let (bytes_per_second, packets, lost) = match load {
        Load::Tcp { .. } => (number("bytes")? / seconds, None, 0.0),
        Load::Udp { payload } => {
            let (all, lost) = (number("packets")?, number("lost_packets")?);
            let arrived = (all - lost).max(0.0) / seconds;
            let share = if all > 0.0 { lost / all } else { 1.0 };
            (arrived * f64::from(payload), Some(arrived), share)
        }
    };
    if bytes_per_second <= 0.0 {
        return Err(Error::failed("nothing arrived"));
    }
    let gigabytes = bytes_per_second * used.passed.as_secs_f64() / 1e9;
    Ok(Sample {
        gbps: bytes_per_second * 8.0 / 1e9,
        packets,
        lost,
        daemons: used.daemons.as_secs_f64() / gigabytes,
        machine: used.machine.as_secs_f64() / gigabytes,
    })
}

/// iperf3's version, or how to get it.
pub(super) fn version() -> Result<String, Error> {
    crate::machine::version(Path::new("iperf3")).ok_or_else(|| {
        Error::Lacking("the benchmark lacks iperf3: install the package iperf3".into())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USED: Used = Used {
        daemons: Duration::from_secs(2),
        machine: Duration::from_secs(6),
        passed: Duration::from_secs(4),
    };

    #[test]
    fn figures_of_tcp() {
        let said = json!({"end": {"sum_received": {"seconds": 5.0, "bytes": 1_250_000_000_u64}}});
        let sample = sample(&said, Load::ONE_FLOW[0], &USED).unwrap();
        assert!((sample.gbps - 2.0).abs() < 1e-9);
        // 0.25 GB/s for 4 s.
        assert!((sample.daemons - 2.0).abs() < 1e-9);
        assert!((sample.machine - 6.0).abs() < 1e-9);
        assert_eq!(sample.packets, None);
    }

    #[test]
    fn figures_of_udp_are_of_what_arrived() {
        let received = json!({"seconds": 2.0, "bytes": 0, "packets": 1000, "lost_packets": 250});
        let said = json!({"end": {"sum_received": received}});
        let sample = sample(&said, Load::SMALL, &USED).unwrap();
        assert_eq!(sample.packets, Some(375.0));
        assert!((sample.lost - 0.25).abs() < 1e-9);
        assert!((sample.gbps - 375.0 * 200.0 * 8.0 / 1e9).abs() < 1e-12);
    }

    #[test]
    fn what_iperf_complains_of_is_told() {
        let complaint = sample(&json!({"error": "no route"}), Load::SMALL, &USED);
        assert!(complaint.unwrap_err().to_string().contains("no route"));
        assert!(sample(&json!({}), Load::SMALL, &USED).is_err());
    }
}
