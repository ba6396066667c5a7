//! The simulator of netcombiner: two real tunnels, the lab's links, and modelled endpoints, in
//! virtual time. The same seed gives the same run.
//!
//! - [`packet`]: inner packets, as values and as bytes.
//! - [`endpoint`]: TCP as Linux does it, datagram streams.
//! - [`network`]: the world and its clock.
//! - [`measure`]: what is recorded.
//! - [`run`]: one run and what it is judged by; [`cases`]: what is run; [`table`]: how it is shown;
//!   [`sweep`]: slow links beside fast ones, with a table of their own.

pub mod cases;
pub mod endpoint;
pub mod measure;
pub mod network;
pub mod packet;
pub mod run;
pub mod suite;
pub mod sweep;
pub mod table;
pub mod trace;
