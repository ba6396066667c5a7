//! Moves bytes between the kernel and the tunnel. Nothing here decides anything that is longer than
//! "is it readable".

pub mod clock;
mod cut;
pub mod entropy;
mod locals;
pub mod poll;
pub mod secrecy;
pub mod socket;
pub mod tcp;
pub mod tun;
pub mod udp;

pub use clock::Clock;
pub use tun::Tun;
