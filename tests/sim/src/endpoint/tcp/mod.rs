//! TCP at packet level: what Linux does, as far as a bulk transfer shows it.

pub mod ack;
pub mod bbr;
pub mod board;
pub mod connection;
pub mod control;
pub mod cubic;
pub mod hystart;
pub mod rack;
pub mod rate;
pub mod receiver;
pub mod recovery;
pub mod reno;
pub mod rtt;
pub mod sender;
pub mod timers;
pub mod window;

pub use connection::{Algorithm, Connection, ConnectionSpec};
pub use sender::SenderCount;
