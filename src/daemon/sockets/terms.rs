//! What a link's socket is opened with, and how it is.

use std::net::SocketAddr;

use crate::config::units::Bitrate;
use crate::config::{Congestion, Transport};
use crate::proto::event::{Attachment, LinkId, PathTerms};

/// What the configuration says of a link to the tunnel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::daemon) struct LinkTerms {
    /// The tier.
    pub(in crate::daemon) metric: u8,
    /// A cap on what is sent.
    pub(in crate::daemon) rate_up: Option<Bitrate>,
    /// A cap on what is received.
    pub(in crate::daemon) rate_down: Option<Bitrate>,
    /// The congestion controller.
    pub(in crate::daemon) congestion: Congestion,
}

impl LinkTerms {
    /// The tunnel's part of it.
    pub(super) fn of_path(self) -> PathTerms {
        PathTerms {
            metric: self.metric,
            rate_up: self.rate_up,
            rate_down: self.rate_down,
            congestion: self.congestion,
        }
    }

    pub(super) fn attachment(
        self,
        link: LinkId,
        transport: Transport,
        remote: SocketAddr,
    ) -> Attachment {
        Attachment::Link {
            link,
            transport,
            remote,
            metric: self.metric,
            rate_up: self.rate_up,
            rate_down: self.rate_down,
            congestion: self.congestion,
        }
    }
}

/// How a link's socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum LinkSocket {
    /// Open, bound to this address.
    Open(Option<SocketAddr>),
    /// A TCP connection that is not there, and why.
    Waiting(String),
}
