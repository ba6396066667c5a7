//! What a tunnel costs while nobody uses it: processor, wake-ups and memory of both daemons.

use std::path::Path;
use std::time::Duration;

use crate::clock::now;
use crate::demo::{Screen, interrupt};
use crate::error::Error;
use crate::net;
use crate::portal::{ConfigOptions, Portal, Portals, Side, TempDir};
use crate::topology::{Lab, LabSpec, LinkSpec};
use crate::usage::{Memory, Work};

/// The links, of 50 Mbit/s and 20 ms.
const LINKS: usize = 4;

/// Links that are not up by then have failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// From the links' start until the tunnel rests: what is asked often in the beginning is asked once a
/// second by then.
const SETTLE: Duration = Duration::from_secs(5);

/// Raises a lab, lets both daemons rest for so long, and prints what they used.
pub fn run(screen: &Screen, program: &Path, rest: Duration) -> Result<(), Error> {
    net::enter()?;
    let lab = Lab::start(&LabSpec::new(vec![LinkSpec::symmetric(50.0, 20); LINKS]))?;
    let dir = TempDir::new("idle")?;
    let portals = lab.portal_configs(program, dir.path(), &ConfigOptions::default())?;
    let mut daemons = Vec::new();
    for side in Side::BOTH {
        daemons.push(lab.start_portal(&portals, side)?);
    }
    all_up(&lab, &portals)?;
    interrupt::sleep(SETTLE)?;
    screen.line(&format!(
        "{LINKS} links up, no traffic, {} s; memory in KiB",
        rest.as_secs()
    ))?;
    let before = works(&daemons)?;
    let start = now();
    interrupt::sleep(rest)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = works(&daemons)?;
    screen.line(
        "portal    % of a core  wake-ups/s  threads  resident  of it own  of it program  peak",
    )?;
    for (daemon, (before, after)) in daemons.iter().zip(before.iter().zip(&after)) {
        let work = after.since(before);
        let memory = Memory::of(daemon.process.id())?;
        screen.line(&format!(
            "{:8}  {:11.2}  {:10.1}  {:7}  {:8}  {:9}  {:13}  {:4}",
            daemon.side.name(),
            work.processor.as_secs_f64() / seconds * 100.0,
            work.wake_ups as f64 / seconds,
            work.threads,
            memory.resident / 1024,
            memory.anonymous / 1024,
            memory.file / 1024,
            memory.peak / 1024,
        ))?;
    }
    for daemon in daemons {
        daemon.stop()?;
    }
    Ok(())
}

fn works(daemons: &[Portal]) -> Result<Vec<Work>, Error> {
    daemons
        .iter()
        .map(|daemon| Work::of(daemon.process.id()))
        .collect()
}

fn all_up(lab: &Lab, portals: &Portals) -> Result<(), Error> {
    let start = now();
    loop {
        let status = lab.show(portals, Side::Local)?;
        let links = status["links"].as_array().cloned().unwrap_or_default();
        let up = links.iter().filter(|link| link["path"]["state"] == "up");
        if up.count() == LINKS {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::failed(format!("not all links are up: {status}")));
        }
        interrupt::sleep(Duration::from_millis(50))?;
    }
}
