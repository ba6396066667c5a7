//! Both portals of a lab, for one measurement after the other.

use std::path::Path;
use std::time::Duration;

use crate::clock::now;
use crate::demo::interrupt;
use crate::error::Error;
use crate::portal::{ConfigOptions, Portal, Side, TempDir};
use crate::topology::{Lab, SERVER};
use crate::traffic::Probe;

/// From both portals' start to the first packet that gets through.
const REACHABLE: Duration = Duration::from_secs(5);

/// From then on until every link is one of the tunnel's: some round trips of the slowest.
const ALL_LINKS: Duration = Duration::from_millis(500);

/// Two running portals.
pub(super) struct Tunnel {
    portals: Vec<Portal>,
    _dir: TempDir,
}

impl Tunnel {
    /// Starts both and waits until the client reaches the server.
    pub(super) fn start(
        lab: &Lab,
        program: &Path,
        transport: &str,
        links: Option<Vec<usize>>,
    ) -> Result<Self, Error> {
        let dir = TempDir::new("bench")?;
        let options = ConfigOptions {
            link: format!("transport = \"{transport}\""),
            links,
            ..ConfigOptions::default()
        };
        let configs = lab.portal_configs(program, dir.path(), &options)?;
        let mut portals = Vec::new();
        for side in Side::BOTH {
            portals.push(lab.start_portal(&configs, side)?);
        }
        let tunnel = Self { portals, _dir: dir };
        reachable(lab).map_err(|error| tunnel.explain(&error))?;
        interrupt::sleep(ALL_LINKS)?;
        Ok(tunnel)
    }

    /// The daemons.
    pub(super) fn portals(&self) -> &[Portal] {
        &self.portals
    }

    /// An error with the portals' last words.
    pub(super) fn explain(&self, error: &Error) -> Error {
        let words: Vec<_> = self.portals.iter().map(Portal::last_words).collect();
        Error::failed(format!("{error}\n{}", words.join("\n")))
    }

    /// Ends both in order.
    pub(super) fn stop(self) -> Result<(), Error> {
        for portal in self.portals {
            portal.stop()?;
        }
        Ok(())
    }
}

fn reachable(lab: &Lab) -> Result<(), Error> {
    let ping = Probe::ping(&lab.client, SERVER, Duration::from_millis(20), u32::MAX)?;
    let start = now();
    while ping.so_far().answered == 0 {
        if start.elapsed() > REACHABLE {
            return Err(Error::failed(format!(
                "the client cannot reach the server through netcombiner within {REACHABLE:?}"
            )));
        }
        interrupt::sleep(Duration::from_millis(10))?;
    }
    Ok(())
}
