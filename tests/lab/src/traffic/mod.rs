//! Real traffic of real kernels: TCP flows, checked transfers, pings and UDP probes, each bounded
//! in time.

mod connection;
mod flow;
mod probe;
mod transfer;
mod udp;

pub use connection::{Connection, Sender};
pub use flow::{Flow, FlowReport};
pub use probe::{Probe, Probes};
pub use transfer::transfer;
pub use udp::UdpEcho;
