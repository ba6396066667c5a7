//! Two tunnels over emulated links on virtual time.

mod ecn;
mod hostile;
mod life;
mod mtu;
mod pair;
mod repair;
mod traffic;
