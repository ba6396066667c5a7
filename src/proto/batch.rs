//! A batch of datagrams: written by the tunnel, sealed when it leaves.
//!
//! Sealing is put off until a batch is whole: many tags are then made at once, and the owner may let
//! another thread do it, for it needs nothing of the tunnel.

use std::sync::Arc;

use super::crypto::Session;
use super::event::Transmit;
use super::wire::{PacketNumber, PathId};

/// Datagrams for one socket and destination. Its bytes are given away sealed only.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) seal: Option<Seal>,
    pub(super) transmit: Option<Transmit>,
}

/// What makes the tags of a batch: each of its datagrams has the room for one at its end, and the
/// numbers of all follow each other.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    pub(super) session: Arc<Session>,
    pub(super) path: PathId,
    pub(super) first: PacketNumber,
}

impl Batch {
    /// The datagrams as they go out, and where to. Nothing when the batch is empty.
    pub fn seal(&mut self) -> Option<(Transmit, &[u8])> {
        let transmit = self.transmit?;
        if let Some(Seal {
            session,
            path,
            first,
        }) = self.seal.take()
        {
            session.seal(path, first, transmit.segment_size, &mut self.bytes);
        }
        Some((transmit, &self.bytes))
    }

    /// Empties it; its memory is kept.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.seal = None;
        self.transmit = None;
    }
}
