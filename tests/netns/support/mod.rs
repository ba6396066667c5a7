//! What every test here needs: a lab with its two configs, people who talk, and the kernel's state
//! in words.

pub(crate) mod case;
pub(crate) mod kernel;
pub(crate) mod lan;
pub(crate) mod talk;
pub(crate) mod watch;
pub(crate) mod wire;

use std::net::Ipv4Addr;

pub(crate) use case::{Case, Outcome, Setup, case, eventually};
pub(crate) use talk::{Answers, Steady, Talk, is_open};
pub(crate) use watch::Watch;

/// The portals' addresses inside the tunnel (the configuration's defaults).
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 3);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 19, 152, 2);
