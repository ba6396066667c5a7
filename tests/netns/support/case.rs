//! One test's lab, configs and portals.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use netcombiner_lab::clock::now;
use netcombiner_lab::prelude::*;
use serde_json::Value;

/// How a test ends.
pub(crate) type Outcome = Result<(), Box<dyn StdError>>;

/// Labs at once in this process: each has an emulator and two portals that want a processor now.
const LABS: usize = 2;

/// How long something that must come may take. Far more than it needs: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_netcombiner"))
}

/// What a test starts with.
pub(crate) struct Setup {
    /// The links; 20 and 10 Mbit/s with round trips of 15 and 40 ms.
    pub(crate) links: Vec<LinkSpec>,
    /// What the configs say.
    pub(crate) options: ConfigOptions,
    /// `rp_filter` before netcombiner.
    pub(crate) reverse_path: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            links: vec![LinkSpec::symmetric(20.0, 15), LinkSpec::symmetric(10.0, 40)],
            options: ConfigOptions::default(),
            reverse_path: 0,
        }
    }
}

impl Setup {
    /// The address is shared by the LAN of [`into_a_lan`](crate::netns::modes::into_a_lan). The lines in
    /// `more` follow.
    pub(crate) fn nat(more: &str) -> Self {
        Self::delivering(&format!(
            "deliver = \"nat\"\nlan = {{ device = \"lan\" }}\n{more}"
        ))
    }

    /// What the local portal does with the address, in these lines.
    pub(crate) fn delivering(lines: &str) -> Self {
        let mut setup = Self::default();
        setup.options.deliver = Some(lines.to_owned());
        setup
    }
}

/// A raised lab with both configs written. Dropped, all of it is gone.
pub(crate) struct Case {
    pub(crate) portals: Portals,
    pub(crate) dir: TempDir,
    pub(crate) lab: Lab,
    _turn: Turn,
}

/// Raises a lab, and says what the portals logged when the test fails.
pub(crate) fn case(setup: Setup, test: impl FnOnce(&Case) -> Outcome) {
    let case = Case::raise(setup).unwrap_or_else(|error| panic!("no lab: {error}"));
    if let Err(error) = test(&case) {
        panic!("{error}");
    }
}

impl Case {
    fn raise(setup: Setup) -> Result<Self, Box<dyn StdError>> {
        let turn = Turn::take();
        net::enter()?;
        let lab = Lab::start(&LabSpec {
            reverse_path: setup.reverse_path,
            ..LabSpec::new(setup.links)
        })?;
        let dir = TempDir::new("netns")?;
        let portals = lab.portal_configs(program(), dir.path(), &setup.options)?;
        Ok(Self {
            portals,
            dir,
            lab,
            _turn: turn,
        })
    }

    /// Changes the text of a portal's configuration.
    pub(crate) fn rewrite(&self, side: Side, change: impl FnOnce(&str) -> String) -> Outcome {
        let file = self.portals.config(side);
        let text = std::fs::read_to_string(&file)?;
        let new = change(&text);
        assert_ne!(new, text, "nothing was changed");
        Ok(std::fs::write(&file, new)?)
    }

    /// Starts one portal.
    pub(crate) fn start(&self, side: Side) -> Result<Portal, Error> {
        self.lab.start_portal(&self.portals, side)
    }

    /// Starts both and waits until every link carries.
    pub(crate) fn up(&self) -> Result<(Portal, Portal), Error> {
        let remote = self.start(Side::Remote)?;
        let local = self.start(Side::Local)?;
        self.wait_for_paths(self.lab.links())?;
        Ok((remote, local))
    }

    /// Waits until so many links of the local portal are up.
    pub(crate) fn wait_for_paths(&self, count: usize) -> Result<(), Error> {
        eventually(&format!("{count} paths that are up"), || {
            Ok(self.paths_up()?.len() == count)
        })
    }

    /// The names of the links whose path carries data, as `show` tells it.
    pub(crate) fn paths_up(&self) -> Result<Vec<String>, Error> {
        let status = self.show(Side::Local)?;
        let links = status["links"].as_array().cloned().unwrap_or_default();
        Ok(links
            .iter()
            .filter(|link| link["path"]["state"] == "up")
            .filter_map(|link| link["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// `netcombiner show nc0 --json`.
    pub(crate) fn show(&self, side: Side) -> Result<Value, Error> {
        self.lab.show(&self.portals, side)
    }

    /// What `show` tells of each path.
    pub(crate) fn paths(&self, side: Side) -> Result<Vec<Value>, Error> {
        let status = self.show(side)?;
        let listed = |key: &str| status[key].as_array().cloned().unwrap_or_default();
        Ok(match side {
            Side::Local => listed("links")
                .iter()
                .map(|link| link["path"].clone())
                .collect(),
            Side::Remote => listed("paths"),
        })
    }

    /// A count out of `show`'s discards.
    pub(crate) fn discards(&self, side: Side) -> Result<u64, Error> {
        let status = self.show(side)?;
        let discards = status["discards"].as_object().cloned().unwrap_or_default();
        Ok(discards.values().filter_map(Value::as_u64).sum())
    }

    /// Bytes that the emulator has delivered over a link.
    pub(crate) fn carried(&self, link: usize, direction: Direction) -> u64 {
        self.lab.emulator.counters(link, direction).out_bytes
    }

    /// How many of 20 pings at 50 ms are answered.
    pub(crate) fn pings(&self, from: &Namespace, to: std::net::Ipv4Addr) -> Result<u32, Error> {
        let interval = Duration::from_millis(50);
        Ok(Probe::ping(from, to, interval, 20)?.finish().answered)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for side in Side::BOTH {
            let log = self.dir.path().join(format!("{}.log", side.name()));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            eprintln!("the log of the {} portal:\n{log}", side.name());
        }
    }
}

/// Asks again and again until it is so.
pub(crate) fn eventually(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let start = now();
    while !is_so()? {
        if start.elapsed() > PATIENCE {
            return Err(Error::failed(format!("{what}: not within {PATIENCE:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One of the labs that may be there at once.
struct Turn;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= LABS {
            taken = FREED.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
