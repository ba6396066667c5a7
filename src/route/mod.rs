//! What the host should look like: pure functions from the configuration and the observed links to
//! a [`HostState`], the difference between two of them, and the operations that lead from one to
//! the other. Compiles and is tested on every system; `host` executes.
#![forbid(unsafe_code)]

mod awaited;
mod beside;
pub mod border;
pub mod conflicts;
pub mod diff;
pub mod foreign;
pub mod forwarding;
pub mod handed;
pub mod insiders;
mod kinds;
mod link;
pub mod links;
pub mod local;
pub mod lower;
pub mod operation;
pub mod reach;
pub mod remote;
pub mod resource;
pub mod vpn;
mod ways;

#[cfg(test)]
pub(crate) mod cases;

pub use awaited::awaited;
pub use conflicts::{conflicts, misplaced, notes};
pub use diff::{Change, diff};
pub use link::{automatic_links, judge_links};
pub use links::{Observed, ObservedLink};
pub use operation::{Lookup, Operation};
pub use resource::{HostState, Resource};
pub use ways::own_addresses;

use crate::config::{Config, Role};

/// What a Linux host of this configuration should look like, given what was seen of it.
pub fn desired(config: &Config, observed: &Observed) -> HostState {
    match &config.role {
        Role::Local(role) => local::desired(config, role, observed),
        Role::Remote(role) => remote::desired(config, role, observed),
    }
}
