//! Makes the kernel look as desired.
//!
//! [`Host`] is one system's kernel: it says what is ours on it and carries out one operation at a
//! time. [`mod@converge`] leads from what is to what shall be and drives back when anything fails;
//! [`baseline`] remembers what was borrowed; [`reconciler`] keeps it so while the daemon runs.

pub mod baseline;
mod borrowed;
pub mod converge;
pub mod groups;
pub mod keep;
pub mod listeners;
pub mod reconciler;
mod troubles;

// FreeBSD's is mostly programs and their texts, which are tested on every system.
#[cfg(any(target_os = "freebsd", test))]
pub mod freebsd;
#[cfg(target_os = "linux")]
pub mod linux;

#[cfg(test)]
pub(crate) mod fake;

use std::fmt;
use std::io;

use thiserror::Error;

use crate::config::Config;
use crate::config::units::{Family, IfName, RulePref};
use crate::route::links::{KERNEL_LOCAL_PREF, Observed};
use crate::route::resource::{Address, Filter, LocalTable, ProxyNeighbour};
use crate::route::{HostState, Resource};
use crate::sorted::{Map, Set};

pub use converge::{ConvergeError, Outcome, converge};
pub use groups::{Group, Groups};
pub use keep::{Command, Event, Hold};

/// What is wanted of a host, in the words of its system.
#[cfg(target_os = "linux")]
pub type Desired = HostState;
#[cfg(target_os = "linux")]
pub use crate::route::desired;
#[cfg(target_os = "freebsd")]
pub use freebsd::{Desired, Reconciler, System, desired};
#[cfg(target_os = "linux")]
pub use linux::System;
#[cfg(target_os = "linux")]
pub use reconciler::Reconciler;

/// Where the baseline files are kept: a place that a reboot empties, as it empties the kernel.
pub const RUN_DIRECTORY: &str = if cfg!(target_os = "freebsd") {
    "/var/run/netcombiner"
} else {
    "/run/netcombiner"
};

/// What the administrator has to do before the packet filter heeds the rules of a configuration;
/// without one, of any. Linux's heeds them as they are.
pub fn filter_notices(config: Option<&Config>) -> Vec<String> {
    #[cfg(target_os = "freebsd")]
    {
        let lines = crate::route::lower::freebsd::pf_conf_lines(config);
        freebsd::Programs::default().pf(&lines).notices()
    }
    #[cfg(target_os = "linux")]
    {
        let _ = config;
        Vec::new()
    }
}

/// One system's kernel.
#[expect(
    async_fn_in_trait,
    reason = "control runs on one thread: no future has to be Send"
)]
pub trait Host {
    /// The smallest change of this system; prints as the command that does the same.
    type Step: fmt::Debug + fmt::Display + PartialEq;

    /// The steps from one state to another, in an order that is safe at each of them; none when
    /// the host is as it shall be.
    fn plan(&self, from: &HostState, to: &HostState) -> Vec<Self::Step>;

    /// Everything of ours on the host, and the present values of the borrowed things in `scope`.
    async fn observe(&mut self, scope: &Scope) -> Result<HostState, HostError>;

    /// Carries out one step, or asks and compares where it is a question.
    async fn execute(&mut self, step: &Self::Step) -> Result<(), HostError>;

    /// The devices but the tunnel's, their addresses and gateways, the settings as they are now,
    /// and who else uses policy routing.
    async fn links(&mut self, tunnel: &IfName) -> Result<Observed, HostError>;

    /// Waits until the kernel tells of a change of devices, addresses, routes, rules or the packet
    /// filter. May be dropped while it waits.
    async fn changed(&mut self) -> Result<(), HostError>;

    /// The settings and neighbours of `scope`, of whose changes the kernel does not tell. Cheap.
    async fn glance(&mut self, scope: &Scope) -> Result<HostState, HostError>;

    /// Sets the tunnel's device up where somebody set it down, and says so; an error when it is
    /// gone or stays down.
    async fn raise(&mut self, tunnel: &IfName) -> Result<bool, HostError>;

    /// Who made the last change that the kernel gave notice of, as far as it says.
    fn last_to_change(&self) -> Option<String>;
}

/// Where to look for what carries no mark of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The tunnel, which names the packet filter's table.
    pub tunnel: IfName,
    /// The kernel settings to read.
    pub settings: Set<String>,
    /// The families whose local table's rule is to be found, and where it may stand.
    pub local_tables: Map<Family, Set<RulePref>>,
    /// The addresses that are wanted, or were added by us.
    pub addresses: Set<Address>,
    /// Routes, rules and the packet filter, which carry our mark, are wanted or were put by us.
    /// Otherwise what is marked so is somebody else's: of one who runs what `plan` prints himself.
    pub marked: bool,
    /// Proxy neighbours that are wanted: one that somebody else made is as good, and is
    /// not seen where none is wanted.
    pub neighbours: Set<ProxyNeighbour>,
    /// The packet filters that are wanted, or were put by us: the table that stands there is
    /// the first of them that it equals, for several can be one and the same table.
    pub filters: Vec<Filter>,
}

impl Scope {
    /// The scope that sees all resources of `states`.
    pub fn of<'a>(tunnel: &IfName, states: impl IntoIterator<Item = &'a HostState>) -> Self {
        let mut scope = Self {
            tunnel: tunnel.clone(),
            settings: Set::new(),
            local_tables: Map::new(),
            addresses: Set::new(),
            marked: false,
            neighbours: Set::new(),
            filters: Vec::new(),
        };
        for resource in states.into_iter().flat_map(HostState::iter) {
            match resource {
                Resource::Setting(setting) => {
                    scope.settings.insert(setting.key.clone());
                }
                Resource::LocalTable(local) => {
                    let tables = &mut scope.local_tables;
                    let places = tables.get_or_insert_with(local.family, Set::new);
                    places.extend([KERNEL_LOCAL_PREF, local.pref]);
                }
                Resource::Address(address) => {
                    scope.addresses.insert(address.clone());
                }
                Resource::Neighbour(neighbour) => {
                    scope.neighbours.insert(neighbour.clone());
                    scope.marked = true;
                }
                Resource::Filter(filter) => {
                    if !scope.filters.contains(filter) {
                        scope.filters.push(filter.clone());
                    }
                    scope.marked = true;
                }
                Resource::Route(_) | Resource::Rule(_) => {
                    scope.marked = true;
                }
            }
        }
        scope
    }

    /// Which of the rules `from all lookup local` is the kernel's, or the one that we put for it:
    /// those at the places known, else the first. Others are an administrator's, and stay.
    pub fn local_tables(
        &self,
        family: Family,
        listed: &Set<RulePref>,
    ) -> impl Iterator<Item = Resource> + use<> {
        let places = self.local_tables.get(&family);
        let mut found: Set<_> = places
            .into_iter()
            .flat_map(|places| places.intersection(listed))
            .copied()
            .collect();
        if places.is_some() && found.is_empty() {
            found.extend(listed.first().copied());
        }
        found
            .into_iter()
            .map(move |pref| Resource::LocalTable(LocalTable { family, pref }))
    }
}

/// Why the kernel could not be asked or changed.
#[derive(Debug, Error)]
pub enum HostError {
    /// One step failed; the text is the equal command.
    #[error("{step}: {error}")]
    Step {
        /// The step, as the command it equals.
        step: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The kernel would route a packet elsewhere than it must; nothing more was changed.
    #[error("{question}: the kernel answers {answer}, so going on could cut this host off")]
    Verify {
        /// The question, as the command it equals.
        question: String,
        /// The answer.
        answer: String,
    },
    /// Something could not be read from the kernel.
    #[error("cannot read {what}: {error}")]
    Read {
        /// What was asked for.
        what: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// What was done on the host could not be undone.
    #[error("not undone: {}", .0.join("; "))]
    Left(Vec<String>),
    /// The tunnel's device is gone.
    #[error("{0} is gone: somebody deleted the tunnel's device")]
    Gone(IfName),
    /// The baseline file could not be read or written.
    #[error("baseline {path}: {error}")]
    Baseline {
        /// The file.
        path: String,
        /// What went wrong.
        error: io::Error,
    },
}

impl HostError {
    /// A step that failed.
    pub(crate) fn step(step: &impl fmt::Display, error: io::Error) -> Self {
        // The packet filter's is a script of many lines, of which the first says enough.
        let text = step.to_string();
        Self::Step {
            step: text.lines().next().unwrap_or_default().to_owned(),
            error,
        }
    }

    /// True when an answer of the kernel's did not come, or changed while it came: who asks again may
    /// get it.
    pub(crate) fn is_lost_answer(&self) -> bool {
        match self {
            Self::Step { error, .. } | Self::Read { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
            Self::Verify { .. } | Self::Gone(_) | Self::Left(_) | Self::Baseline { .. } => false,
        }
    }

    /// Something that could not be read.
    pub(crate) fn read(what: impl Into<String>, error: io::Error) -> Self {
        Self::Read {
            what: what.into(),
            error,
        }
    }
}
