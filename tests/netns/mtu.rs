//! Links that carry less than others from one moment to the next: no flow falls into a black hole, and
//! nothing inside the tunnel is cut.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case, eventually};

const MS: Duration = Duration::from_millis(1);

/// How long a flow may stand still: 60 to 220 ms were seen, and the machine may be busy.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// The router in front of the client takes no more than 1,280 bytes from one moment to the next, and
/// nobody hears of it.
#[test]
fn a_link_becomes_a_black_hole_for_long_packets_amid_a_download() {
    shrinks(Setup::default(), Sender::Listener, |case| hole(&case.lab));
}

#[test]
fn so_does_the_only_link() {
    let links = vec![LinkSpec::symmetric(20.0, 15)];
    let setup = Setup {
        links,
        ..Setup::default()
    };
    shrinks(setup, Sender::Listener, |case| hole(&case.lab));
}

/// The portal's own device takes no more: the kernel refuses what is longer.
#[test]
fn the_own_device_takes_less_amid_an_upload() {
    shrinks(Setup::default(), Sender::Connector, |case| {
        sh(&case.lab.local, "ip link set wan0 mtu 1280").map(drop)
    });
}

fn hole(lab: &Lab) -> Result<(), Error> {
    // What the router says of it is lost.
    sh(
        &lab.internet,
        "ip rule add pref 1 iif lo to 203.0.113.2 ipproto icmp blackhole",
    )?;
    sh(&lab.internet, "ip link set link0 mtu 1280").map(drop)
}

/// Lowers an MTU in mid-flow, and looks at the flow, the path and the TUN.
fn shrinks(setup: Setup, sender: Sender, shrink: impl Fn(&Case) -> Result<(), Error>) {
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        // Who sends the data finds out.
        let side = match sender {
            Sender::Listener => Side::Remote,
            Sender::Connector => Side::Local,
        };
        eventually("paths of 1461 bytes", || {
            Ok(mtus(case, side)?.iter().all(|mtu| *mtu == 1461))
        })?;
        assert_eq!(tun(case, side)?, 1400);
        let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
        let flow = Flow::start(&connection, 6000 * MS)?;
        std::thread::sleep(2000 * MS);
        shrink(case)?;
        eventually("a path of 1280 bytes", || Ok(mtus(case, side)?[0] == 1280))?;
        eventually("the TUN's MTU is 1280", || Ok(tun(case, side)? == 1280))?;
        let direction = match sender {
            Sender::Listener => Direction::Down,
            Sender::Connector => Direction::Up,
        };
        let carried = case.carried(0, direction);
        let report = flow.finish()?;
        assert!(report.longest_gap < STANDSTILL, "{report:?}");
        let since = case.carried(0, direction) - carried;
        assert!(since > 500_000, "the link carried {since} bytes");
        for host in [&lab.client, &lab.server] {
            assert_eq!(fragments(host)?, 0, "in {}", host.name());
        }
        // What was lost was too long, not marked.
        assert_eq!(case.paths(side)?[0]["ecn"], "capable");
        // New connections, and both ways.
        for sender in [Sender::Connector, Sender::Listener] {
            let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
            transfer(&connection, 1_000_000, 5000 * MS)?;
        }
        // Somebody else's idea of the TUN's MTU does not last.
        sh(lab.host(side), "ip link set nc0 mtu 1400")?;
        eventually("the TUN's MTU is 1280 again", || {
            Ok(tun(case, side)? == 1280)
        })?;
        Ok(())
    });
}

/// The paths' MTUs as `show` tells them; zero: not known.
fn mtus(case: &Case, side: Side) -> Result<Vec<u64>, Error> {
    let paths = case.paths(side)?;
    Ok(paths
        .iter()
        .map(|path| path["mtu"].as_u64().unwrap_or(0))
        .collect())
}

/// The TUN's MTU as the kernel tells it.
fn tun(case: &Case, side: Side) -> Result<u32, Error> {
    let text = sh(case.lab.host(side), "ip link show nc0")?;
    let mut words = text.split_whitespace();
    words.find(|word| *word == "mtu");
    words
        .next()
        .and_then(|mtu| mtu.parse().ok())
        .ok_or_else(|| Error::failed(format!("no MTU in {text:?}")))
}

/// Fragments that a host has seen or made.
fn fragments(host: &Namespace) -> Result<u64, Error> {
    let text = sh(host, "cat /proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Err(Error::failed(format!("no counters in {text:?}")));
    };
    let counted = ["ReasmReqds", "FragOKs", "FragCreates"];
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let sum = pairs.filter(|(name, _)| counted.contains(name));
    Ok(sum.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}
