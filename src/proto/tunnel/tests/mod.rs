//! Two tunnels over emulated links on virtual time.

mod clocks;
mod ecn;
mod hostile;
mod life;
mod mtu;
mod pair;
mod parity;
mod repair;
mod standby;
mod traffic;
