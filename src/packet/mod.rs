//! IP packets in memory: pooled buffers, header views, the flow's hash.
#![forbid(unsafe_code)]

pub mod flow;
pub mod ip;
pub mod pool;

pub use flow::{FlowHash, FlowHasher};
pub use pool::{Packet, Pool};
