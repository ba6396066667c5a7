//! What every test here needs: a lab with its two configs, people who talk, and the kernel's state
//! in words.

pub(crate) mod case;
pub(crate) mod kernel;
pub(crate) mod lan;
pub(crate) mod talk;
pub(crate) mod watch;
pub(crate) mod wire;

pub(crate) use case::{Case, Outcome, Setup, case, eventually};
pub(crate) use talk::{Answers, Steady, Talk};
pub(crate) use watch::Watch;
