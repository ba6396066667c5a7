//! A candidate's two daemons between the two hosts.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::pair::Pair;
use super::plan::{Candidate, Security};
use super::{peers, relay};
use crate::clock::now;
use crate::demo::interrupt;
use crate::error::{Context, Error};
use crate::net::Process;
use crate::portal::{ConfigOptions, Portals, Side, TempDir};
use crate::topology::{Lab, PUBLIC};
use crate::traffic::Probe;

/// The tunnels' inner addresses, netcombiner's own defaults.
const INNER_LOCAL: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 3);
const INNER_REMOTE: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 2);

/// The MTU of WireGuard's devices, and of the relay's, for as many packets a gigabyte.
const MTU: u16 = 1420;

/// A daemon that has no device by then has failed; so has a tunnel that no ping passes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Part of the name of a tunnel's directory.
const FILES: &str = "throughput";

/// A daemon that does not end in order within this is killed.
const STOP: Duration = Duration::from_secs(2);

/// What a netcombiner here does not need: the host's routes, for all traffic is between the two
/// tunnel addresses, as with the other candidates.
const BARE: &str = "manage_routing = false";

/// The programs that are measured.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) netcombiner: PathBuf,
    pub(super) wireguard_go: Option<PathBuf>,
    pub(super) boringtun: Option<PathBuf>,
    pub(super) gotatun: Option<PathBuf>,
}

/// A tunnel that packets pass. Dropped, its daemons are killed and its files are gone.
#[derive(Debug)]
pub(super) struct Tunnel {
    ends: [Ipv4Addr; 2],
    mtu: u32,
    offloads: Option<String>,
    daemons: Vec<Process>,
    /// Control sockets that a killed daemon would leave behind.
    sockets: Vec<PathBuf>,
    dir: TempDir,
}

/// Removes what the tunnels of killed runs left behind.
pub(super) fn sweep() {
    TempDir::sweep(FILES);
    peers::sweep();
}

impl Tunnel {
    /// Starts a candidate and waits until a ping passes.
    pub(super) fn start(
        pair: &Pair,
        candidate: Candidate,
        programs: &Programs,
    ) -> Result<Self, Error> {
        let mut tunnel = Self {
            ends: [INNER_LOCAL, INNER_REMOTE],
            mtu: 0,
            offloads: None,
            daemons: Vec::new(),
            sockets: Vec::new(),
            dir: TempDir::new(FILES)?,
        };
        match candidate {
            Candidate::Veth => {
                tunnel.ends = [Lab::wan_address(0), Lab::wan_gateway(0)];
                tunnel.mtu = pair.host(Side::Local).netlink()?.mtu(&Lab::wan(0))?;
            }
            Candidate::Relay => tunnel.relay(pair)?,
            Candidate::WireguardGo => {
                let program = programs.wireguard_go.as_deref();
                tunnel.wireguard(pair, program.ok_or_else(peers::missing)?, &["-f"])?;
            }
            Candidate::Boringtun => {
                tunnel.of_boringtuns_kind(pair, programs.boringtun.as_deref())?;
            }
            Candidate::Gotatun => tunnel.of_boringtuns_kind(pair, programs.gotatun.as_deref())?,
            Candidate::Netcombiner { links, security } => {
                tunnel.netcombiner(pair, &programs.netcombiner, links, security)?;
            }
        }
        tunnel.reachable(pair)?;
        Ok(tunnel)
    }

    /// boringtun, or what took its command line over.
    fn of_boringtuns_kind(&mut self, pair: &Pair, program: Option<&Path>) -> Result<(), Error> {
        // Privileges are dropped to the user of sudo, who cannot open the device.
        let arguments = ["--foreground", "--disable-drop-privileges"];
        self.wireguard(pair, program.ok_or_else(peers::missing)?, &arguments)
    }

    /// The addresses at the two ends, the local one first.
    pub(super) const fn ends(&self) -> [Ipv4Addr; 2] {
        self.ends
    }

    /// The MTU of the device that the flows leave by, bytes.
    pub(super) const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// What the daemon says of the offloads it uses, if it does.
    pub(super) fn offloads(&self) -> Option<&str> {
        self.offloads.as_deref()
    }

    /// The process ids of the daemons.
    pub(super) fn daemons(&self) -> Vec<u32> {
        self.daemons.iter().map(Process::id).collect()
    }

    /// A directory for the files of a measurement.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the daemons in order.
    pub(super) fn stop(mut self) {
        for daemon in &mut self.daemons {
            // What does not end is killed.
            let _ = daemon.terminate(STOP);
        }
    }

    fn relay(&mut self, pair: &Pair) -> Result<(), Error> {
        let program = std::env::current_exe().context("cannot find our own program")?;
        let places = [Lab::wan_address(0), PUBLIC];
        for (side, device, here, there) in [
            (Side::Remote, "tun0", places[1], places[0]),
            (Side::Local, "tun0", places[0], places[1]),
        ] {
            let mut command = Command::new(&program);
            command.args([relay::COMMAND, device, &MTU.to_string()]);
            command.args([here, there].map(|address| format!("{address}:{}", relay::PORT)));
            self.spawn(pair, side, command)?;
            self.furnish(pair, side, device)?;
        }
        Ok(())
    }

    fn wireguard(&mut self, pair: &Pair, program: &Path, options: &[&str]) -> Result<(), Error> {
        let keys = peers::Keys::make(self.dir.path())?;
        for side in Side::BOTH {
            let device = peers::device(side);
            self.sockets.push(peers::socket(&device));
            let mut command = Command::new(program);
            command.args(options).arg(&device);
            self.spawn(pair, side, command)?;
            self.appears(pair, side, &device)?;
            keys.configure(pair.host(side), side, &device)?;
            self.furnish(pair, side, &device)?;
        }
        Ok(())
    }

    fn netcombiner(
        &mut self,
        pair: &Pair,
        program: &Path,
        links: usize,
        security: Security,
    ) -> Result<(), Error> {
        let mut lines = format!("{BARE}\nsecurity = \"{}\"\n", security.name());
        if security == Security::None {
            lines += "i_understand_data_is_not_protected = true\n";
        }
        let options = ConfigOptions {
            local: lines.clone(),
            remote: lines,
            deliver: Some("deliver = \"none\"\nkeep = [\"tcp:1-65535\", \"udp:1-65535\"]".into()),
            ..ConfigOptions::default()
        };
        let portals = Portals::write(links, program, self.dir.path(), &options)?;
        for side in Side::BOTH {
            let portal = portals.start(side, pair.host(side))?;
            self.daemons.push(portal.process);
        }
        let mut netlink = pair.host(Side::Local).netlink()?;
        self.mtu = netlink.mtu(&options.interface)?;
        let shown = portals.show(Side::Local, pair.host(Side::Local))?;
        self.offloads = shown.get("offloads").and_then(offloads);
        Ok(())
    }

    /// Starts a daemon on a host; its words go to a file.
    fn spawn(&mut self, pair: &Pair, side: Side, mut command: Command) -> Result<(), Error> {
        let log = self.log(side);
        let open = || File::options().create(true).append(true).open(&log);
        let what = format!("cannot open {}", log.display());
        command
            .stdin(Stdio::null())
            .stdout(open().context(&what)?)
            .stderr(open().context(&what)?);
        self.daemons.push(Process::spawn(pair.host(side), command)?);
        Ok(())
    }

    /// Waits for the device of the daemon that was started last.
    fn appears(&mut self, pair: &Pair, side: Side, device: &str) -> Result<(), Error> {
        let start = now();
        let mut netlink = pair.host(side).netlink()?;
        while netlink.index(device).is_err() {
            let ended = self.daemons.last_mut().and_then(Process::ended);
            if ended.is_some() || start.elapsed() > PATIENCE {
                let how = ended.map_or_else(String::new, |status| format!(" ({status})"));
                return Err(self.failed(&format!("made no device{how}"), side));
            }
            interrupt::sleep(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Gives a device its address and its MTU, and brings it up.
    fn furnish(&mut self, pair: &Pair, side: Side, device: &str) -> Result<(), Error> {
        self.appears(pair, side, device)?;
        let mut netlink = pair.host(side).netlink()?;
        let [local, remote] = self.ends;
        let address = match side {
            Side::Local => local,
            Side::Remote => remote,
        };
        netlink.set_mtu(device, MTU.into())?;
        netlink.add_address(device, IpAddr::V4(address), 24)?;
        netlink.set_up(device)?;
        self.mtu = MTU.into();
        Ok(())
    }

    fn reachable(&self, pair: &Pair) -> Result<(), Error> {
        let every = Duration::from_millis(20);
        let ping = Probe::ping(pair.host(Side::Local), self.ends[1], every, u32::MAX)?;
        let start = now();
        while ping.so_far().answered == 0 {
            if start.elapsed() > PATIENCE {
                return Err(self.failed("carries no ping", Side::Local));
            }
            interrupt::sleep(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn log(&self, side: Side) -> PathBuf {
        self.dir.path().join(format!("{}.log", side.name()))
    }

    /// An error with the daemon's last line.
    fn failed(&self, why: &str, side: Side) -> Error {
        let log = fs::read_to_string(self.log(side)).unwrap_or_default();
        let last = log.lines().next_back().unwrap_or("it said nothing").trim();
        Error::failed(format!("the {} daemon {why}: {last}", side.name()))
    }
}

/// `tun_tcp true, udp_gso 64`, of the JSON of `show`.
fn offloads(shown: &Value) -> Option<String> {
    let list = shown.as_object()?.iter();
    let words: Vec<String> = list
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    Some(words.join(", "))
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.daemons.clear();
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn offloads_in_words() {
        let shown = json!({"tun_tcp": true, "udp_gso": 64, "udp_gro": null});
        let words = "tun_tcp true, udp_gro null, udp_gso 64";
        assert_eq!(offloads(&shown).as_deref(), Some(words));
        assert_eq!(offloads(&Value::Null), None);
    }
}
