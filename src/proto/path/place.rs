//! Where a path leads to, who opened it, and what it has to prove.

use std::net::SocketAddr;

use crate::config::units::Bitrate;
use crate::config::{Congestion, Transport};
use crate::proto::Instant;
use crate::proto::event::{LinkId, SocketId};

/// Where a path's datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// By which socket.
    pub socket: SocketId,
    /// To whom.
    pub remote: SocketAddr,
}

/// A place that must prove itself before more is sent to it than came from it.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// Where.
    pub place: Place,
    /// What it has to send back.
    pub token: [u8; 8],
    /// When it was asked last; nothing: not yet.
    pub asked: Option<Instant>,
    /// How often it was asked.
    pub tries: u32,
}

/// What a path's opener knows of its link.
#[derive(Debug, Clone, Copy)]
pub struct Opener {
    /// The link.
    pub link: LinkId,
    /// A cap on what the peer sends, which it is told.
    pub rate_down: Option<Bitrate>,
    /// What its gate was made from.
    pub terms: (Transport, Congestion, Option<Bitrate>),
}

/// Datagrams that answer or ask for a proof: at once, and to where it was asked from.
#[derive(Debug, Clone, Copy)]
pub struct Urgent {
    /// To where.
    pub place: Place,
    /// The proof asked for.
    pub response: Option<[u8; 8]>,
    /// Our own question.
    pub challenge: Option<[u8; 8]>,
}
