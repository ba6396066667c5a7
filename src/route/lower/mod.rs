//! From changes to what is done on a system: one kernel request each on Linux, a list of commands
//! and one pf anchor on FreeBSD. Pure, on every system.

pub mod freebsd;
pub mod linux;
pub mod nft;
