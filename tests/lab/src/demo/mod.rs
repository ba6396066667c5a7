//! The demo: what two unequal links carry each, what netcombiner makes of them, and what happens
//! when the better one is cut.

mod build;
mod chart;
pub(crate) mod interrupt;
mod monitor;
mod screen;

use std::path::Path;
use std::time::Duration;

pub use build::build;
pub use interrupt::{catch, interrupted};
pub use screen::Screen;

use crate::clock::now;
use crate::emulator::Direction;
use crate::error::Error;
use crate::net::{HostState, host_state};
use crate::portal::{ConfigOptions, Portal, Portals, Side, TempDir};
use crate::topology::{Lab, LabSpec, LinkSpec, PUBLIC, SERVER};
use crate::traffic::{Connection, Flow, FlowReport, Probe, Sender};
use monitor::{Cut, watch};

/// The two links: Mbit/s and round trip in ms.
const LINKS: [(f64, u64); 2] = [(20.0, 15), (10.0, 40)];

/// How long each link alone is measured each way.
const RAW: Duration = Duration::from_secs(4);

/// How long a flow through netcombiner is measured each way.
const FLOW: Duration = Duration::from_secs(10);

/// Of each measurement the slow start is not counted.
const SLOW_START: Duration = Duration::from_secs(1);

/// The flow that meets the cut of the better link, in its middle.
const CUT_FLOW: Duration = Duration::from_secs(16);
const CUT: Cut = Cut {
    link: 0,
    from: Duration::from_secs(6),
    to: Duration::from_secs(10),
};

/// From both portals' start to the first packet that gets through.
const REACHABLE: Duration = Duration::from_secs(5);

/// For what one flow left in the queues, before the next begins.
const REST: Duration = Duration::from_millis(500);

/// The demo's outcome, as its last line tells it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    best_link_mbps: f64,
    down_mbps: f64,
    up_mbps: f64,
    longest_gap: Duration,
    leftovers: usize,
    failures: Vec<String>,
}

impl Outcome {
    /// What went wrong although the demo came to its end.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    fn json(&self) -> String {
        format!(
            "{{\"best_link_mbps\":{:.2},\"down_mbps\":{:.2},\"up_mbps\":{:.2},\
             \"longest_gap_ms\":{},\"leftovers\":{}}}",
            self.best_link_mbps,
            self.down_mbps,
            self.up_mbps,
            self.longest_gap.as_millis(),
            self.leftovers
        )
    }
}

/// Runs the demo with the `netcombiner` at `program`, and takes everything away again.
pub fn run(screen: &Screen, program: &Path) -> Result<Outcome, Error> {
    let links: Vec<LinkSpec> = LINKS
        .iter()
        .map(|(mbps, rtt)| LinkSpec::symmetric(*mbps, *rtt))
        .collect();
    screen.heading(
        "The lab: client - local portal ==2 links== mock Internet - remote portal, server",
    )?;
    let lab = Lab::start(&LabSpec::new(links))?;
    let mut outcome = Outcome::default();
    let steps = steps(screen, &lab, program, &mut outcome);
    let left = lab.stop()?;
    if left.count() > 0 {
        outcome.leftovers += left.count();
        outcome.failures.push(left.to_string().trim().to_owned());
    }
    match steps {
        Ok(()) => {}
        Err(error) if interrupted() => {
            return Err(Error::failed(format!(
                "{error}; left over: {}",
                outcome.leftovers
            )));
        }
        Err(error) => return Err(error),
    }
    screen.line(&format!("\nresult: {}", outcome.json()))?;
    Ok(outcome)
}

fn steps(screen: &Screen, lab: &Lab, program: &Path, outcome: &mut Outcome) -> Result<(), Error> {
    for (link, (mbps, rtt)) in LINKS.iter().enumerate() {
        let queue = lab.emulator.shape(link, Direction::Down).queue / 1000;
        screen.line(&format!(
            "  {}: {mbps} Mbit/s each way, round trip {rtt} ms, queue {queue} kB",
            Lab::wan(link)
        ))?;
    }
    if !lab.emulator.realtime() {
        screen.line("  (no real-time priority for the emulator: delays are off by up to 2 ms)")?;
    }
    // First, so that nobody waits for a binary that does not work.
    let dir = TempDir::new("demo")?;
    let portals = lab.portal_configs(program, dir.path(), &ConfigOptions::default())?;
    outcome.best_link_mbps = raw(screen, lab)?;

    let before = [host_state(&lab.remote)?, host_state(&lab.local)?];
    screen.heading("Both portals, each with its config of a few lines")?;
    let remote = lab.start_portal(&portals, Side::Remote)?;
    let local = lab.start_portal(&portals, Side::Local)?;
    through_netcombiner(screen, lab, outcome)
        .map_err(|error| with_logs(error, [&local, &remote]))?;

    screen.heading("The end: SIGTERM to both portals")?;
    for portal in [local, remote] {
        portal.stop()?;
    }
    restored(screen, lab, &portals, before, outcome)
}

/// One TCP flow over each link alone, both ways, without netcombiner; gives the best.
fn raw(screen: &Screen, lab: &Lab) -> Result<f64, Error> {
    screen.heading("Each link alone, without netcombiner: one TCP flow")?;
    let mut best = 0.0_f64;
    for link in 0..lab.links() {
        let mut measured = Vec::new();
        for sender in [Sender::Listener, Sender::Connector] {
            let connection = Connection::new(&lab.local, &lab.server, SERVER, sender);
            let flow = Flow::start(&connection.bound_to(&Lab::wan(link)), RAW)?;
            interrupt::sleep(RAW)?;
            measured.push(flow.finish()?.mbps_after(SLOW_START));
            interrupt::sleep(REST)?;
        }
        screen.line(&format!(
            "  {}: {:5.1} Mbit/s down, {:5.1} Mbit/s up",
            Lab::wan(link),
            measured[0],
            measured[1]
        ))?;
        best = measured.into_iter().fold(best, f64::max);
    }
    Ok(best)
}

fn through_netcombiner(screen: &Screen, lab: &Lab, outcome: &mut Outcome) -> Result<(), Error> {
    reachable(lab)?;
    let probes = Probe::ping(&lab.client, SERVER, Duration::from_millis(100), 10)?.finish();
    screen.line(&format!(
        "  the client, who owns {PUBLIC}, pings the server: {} of {} answered, {:.1} ms",
        probes.answered,
        probes.sent,
        probes.mean().as_secs_f64() * 1e3
    ))?;
    let down = Connection::new(&lab.client, &lab.server, SERVER, Sender::Listener);
    let up = Connection {
        sender: Sender::Connector,
        ..down.clone()
    };
    let measure = |connection: &Connection<'_>, direction, duration, cut| {
        interrupt::sleep(REST)?;
        let every = Duration::from_millis(100);
        let ping = Probe::ping(&lab.client, SERVER, every, u32::MAX)?;
        let flow = Flow::start(connection, duration)?;
        watch(screen, lab, &ping, flow, direction, cut)
    };
    let better = |report: &FlowReport| format!("  {:.1} Mbit/s", report.mbps_after(SLOW_START));

    screen.heading("One TCP flow from the server to the client")?;
    let report = measure(&down, Direction::Down, FLOW, None)?;
    outcome.down_mbps = report.mbps_after(SLOW_START);
    screen.line(&better(&report))?;

    screen.heading("One TCP flow from the client to the server")?;
    let report = measure(&up, Direction::Up, FLOW, None)?;
    outcome.up_mbps = report.mbps_after(SLOW_START);
    screen.line(&better(&report))?;

    screen.heading("One TCP flow to the client; the better link is cut and returns")?;
    let report = measure(&down, Direction::Down, CUT_FLOW, Some(CUT))?;
    outcome.longest_gap = report.longest_gap;
    screen.line(&format!(
        "  before the cut {:.1}, during it {:.1}, after it {:.1} Mbit/s; longest silence {} ms, {:.1} s after the start",
        report.mbps_between(SLOW_START, CUT.from),
        report.mbps_between(CUT.from, CUT.to),
        report.mbps_between(CUT.to, CUT_FLOW),
        report.longest_gap.as_millis(),
        report.gap_began.as_secs_f64()
    ))?;
    judge(outcome, &report);
    Ok(())
}

/// Waits for the first answer that the client gets from the server.
fn reachable(lab: &Lab) -> Result<(), Error> {
    let ping = Probe::ping(&lab.client, SERVER, Duration::from_millis(50), u32::MAX)?;
    let start = now();
    while ping.so_far().answered == 0 {
        if start.elapsed() > REACHABLE {
            return Err(Error::failed(format!(
                "the client cannot reach the server through netcombiner within {REACHABLE:?}"
            )));
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

/// What the demo promises.
fn judge(outcome: &mut Outcome, cut: &FlowReport) {
    let best = outcome.best_link_mbps;
    for (way, mbps) in [("down", outcome.down_mbps), ("up", outcome.up_mbps)] {
        if mbps <= best {
            outcome.failures.push(format!(
                "{way}: {mbps:.2} Mbit/s is not more than the better link alone ({best:.2})"
            ));
        }
    }
    if cut.mbps_between(CUT.to, CUT_FLOW) == 0.0 {
        outcome
            .failures
            .push("the flow did not survive the cut".into());
    }
}

/// Counts what the portals left of rules, routes and settings on their hosts.
fn restored(
    screen: &Screen,
    lab: &Lab,
    portals: &Portals,
    before: [HostState; 2],
    outcome: &mut Outcome,
) -> Result<(), Error> {
    for (side, before) in Side::BOTH.into_iter().zip(before) {
        let differences = before.differences(&host_state(lab.host(side))?);
        if differences.is_empty() {
            screen.line(&format!("  the {} portal's host is as it was", side.name()))?;
            continue;
        }
        outcome.leftovers += differences.len();
        outcome.failures.push(format!(
            "the {} portal ({}) left its host changed:\n  {}",
            side.name(),
            portals.config(side).display(),
            differences.join("\n  ")
        ));
    }
    Ok(())
}

/// Adds the portals' last words to an error.
fn with_logs(error: Error, portals: [&Portal; 2]) -> Error {
    if interrupted() {
        return error;
    }
    let mut text = error.to_string();
    for portal in portals {
        text += &format!("\n{}", portal.last_words());
    }
    Error::Failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_json_with_the_promised_keys() {
        let outcome = Outcome {
            best_link_mbps: 19.1,
            down_mbps: 27.25,
            up_mbps: 26.0,
            longest_gap: Duration::from_millis(312),
            ..Outcome::default()
        };
        let text = outcome.json();
        let keys = "{\"best_link_mbps\":19.10,\"down_mbps\":27.25,\"up_mbps\":26.00,";
        assert_eq!(
            text,
            format!("{keys}\"longest_gap_ms\":312,\"leftovers\":0}}")
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}
