//! What lets a path send.

use crate::proto::congestion::{Controller, DATAGRAM, Pacer};

/// What lets a path send.
#[derive(Debug)]
pub struct Gate {
    /// How much at what rate.
    pub controller: Box<dyn Controller>,
    /// Holds the rate.
    pub pacer: Pacer,
    /// A TCP connection: bytes that the kernel takes now.
    pub budget: Option<usize>,
}

impl Gate {
    /// True when the kernel takes a datagram.
    pub(super) fn is_writable(&self) -> bool {
        self.budget.is_none_or(|budget| budget as u64 >= DATAGRAM)
    }
}
