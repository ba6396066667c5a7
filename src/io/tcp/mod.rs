//! TCP as a carrier: every datagram is one record of a connection.

mod connection;
mod listener;
mod record;

pub use connection::TcpConnection;
pub use listener::{Accepted, TcpListener};
