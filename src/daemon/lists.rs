//! Lists of packets that go from thread to thread and come back to be filled again.

use crate::packet::Packet;

/// Lists that are kept: those of a few batches.
const MOST: usize = 8;
/// Packets for which a new list has room: what is read or written at once.
const ROOM: usize = 256;

/// Empty lists that have room.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Vec<Packet>>);

impl Lists {
    /// An empty list.
    pub(super) fn take(&mut self) -> Vec<Packet> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(ROOM))
    }

    /// Gives a list back. One without room would have to grow at its next use, so it is not kept.
    pub(super) fn give(&mut self, mut list: Vec<Packet>) {
        if self.0.len() < MOST && list.capacity() > 0 {
            list.clear();
            self.0.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_has_room() {
        let mut lists = Lists::default();
        let list = lists.take();
        let place = list.as_ptr();
        lists.give(list);
        lists.give(Vec::new());
        let again = lists.take();
        assert_eq!(again.as_ptr(), place);
        assert!(lists.take().capacity() >= ROOM);
        for _ in 0..2 * MOST {
            lists.give(Vec::with_capacity(1));
        }
        assert_eq!(lists.0.len(), MOST);
    }
}
