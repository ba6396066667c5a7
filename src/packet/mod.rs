//! IP packets in memory: pooled buffers, the flow's hash, what may cross, TCP's segment size,
//! super-packets, "packet too big".
#![forbid(unsafe_code)]

pub mod class;
pub mod crossing;
pub mod ecn;
pub mod flow;
pub mod icmp;
pub mod ip;
pub mod mss;
pub mod offload;
pub mod pool;

pub use class::Classes;
pub use crossing::{Crossing, Towards};
pub use flow::{FlowHash, FlowHasher};
pub use pool::{Packet, Pool};
