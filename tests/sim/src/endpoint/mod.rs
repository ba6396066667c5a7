//! What lives at the two ends of the tunnel, or of a bare link: TCP connections, datagram streams,
//! echoes.

pub mod ranges;
pub mod stream;
pub mod tcp;

use std::time::Duration;

pub use stream::{Stream, StreamSpec};
pub use tcp::{Algorithm, Connection, ConnectionSpec};

use crate::packet::{Host, Inner};

/// One flow, both ends of it.
#[derive(Debug)]
pub enum Traffic {
    /// A TCP connection.
    Tcp(Box<Connection>),
    /// Datagrams at a constant rate, or echoes.
    Stream(Box<Stream>),
}

impl Traffic {
    /// When [`Traffic::wake`] has something to do.
    pub fn next(&self) -> Option<Duration> {
        match self {
            Self::Tcp(connection) => connection.next(),
            Self::Stream(stream) => stream.next(),
        }
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Duration) {
        match self {
            Self::Tcp(connection) => connection.wake(now),
            Self::Stream(stream) => stream.wake(now),
        }
    }

    /// A packet came to the host `at`.
    pub fn arrive(&mut self, now: Duration, at: Host, inner: &Inner) {
        match self {
            Self::Tcp(connection) => connection.arrive(now, at, inner),
            Self::Stream(stream) => stream.arrive(now, at, inner),
        }
    }

    /// The next packet, and who sends it.
    pub fn poll(&mut self) -> Option<(Host, Inner)> {
        match self {
            Self::Tcp(connection) => connection.poll(),
            Self::Stream(stream) => stream.poll(),
        }
    }

    /// The connection, if it is one.
    pub fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Tcp(connection) => Some(connection),
            Self::Stream(_) => None,
        }
    }

    /// The stream, if it is one.
    pub fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Tcp(_) => None,
            Self::Stream(stream) => Some(stream),
        }
    }
}
