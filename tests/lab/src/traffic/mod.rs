//! Real traffic of real kernels: TCP flows, checked transfers, pings and UDP probes, each bounded
//! in time.

mod connection;
mod flow;
mod probe;
mod quantiles;
mod tcp_info;
mod transfer;
mod udp;
mod voice;

pub use connection::{Connection, Sender};
pub(crate) use flow::FLOW_THREAD;
pub use flow::{Flow, FlowReport};
pub use probe::{Probe, Probes};
pub use quantiles::Quantiles;
pub use tcp_info::TcpInfo;
pub use transfer::transfer;
pub use udp::UdpEcho;
pub use voice::{Heard, Said, Voice, VoiceReport};
