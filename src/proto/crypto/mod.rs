//! Keys, the handshake, the sealing of datagrams, the replay window.

pub mod keys;
