//! What the host should look like: pure functions from the configuration and the observed links to
//! a [`HostState`], the difference between two of them, and the operations that lead from one to
//! the other. Compiles and is tested on every system; `host` executes.
#![forbid(unsafe_code)]

pub mod operation;
pub mod resource;

pub use operation::{Lookup, Operation};
pub use resource::{HostState, Resource};
