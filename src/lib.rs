//! netcombiner makes several Internet links one.
//!
//! Two portals carry every IP packet over several congestion-controlled flows, one or more per
//! link, and program their hosts so that a client behind the local portal owns the public address
//! of the remote portal. See ARCHITECTURE.md for the map of the house.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod host;
pub mod io;
pub mod packet;
pub mod plain;
pub mod proto;
pub mod route;
pub mod sorted;
