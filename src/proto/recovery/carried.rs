//! Which packets the datagrams in flight carry.

use std::collections::VecDeque;

/// A packet that may have to be sent again, by its number in [`Repairs`].
///
/// [`Repairs`]: crate::proto::repair::Repairs
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeptId(pub u64);

/// The packets of one datagram: their place in [`Carried`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u64,
    end: u64,
}

/// The packets of a path's datagrams, in the order in which these were sent.
#[derive(Debug, Default)]
pub(super) struct Carried {
    packets: VecDeque<KeptId>,
    /// How many were forgotten before the first one.
    first: u64,
    /// Where the datagram that is being written begins.
    open: u64,
}

impl Carried {
    /// The datagram that is being written carries this packet.
    pub(super) fn push(&mut self, kept: KeptId) {
        self.packets.push_back(kept);
    }

    /// The datagram is written.
    pub(super) fn close(&mut self) -> Span {
        let end = self.first + self.packets.len() as u64;
        let start = std::mem::replace(&mut self.open, end);
        Span { start, end }
    }

    /// The packets of a datagram.
    pub(super) fn of(&self, span: Span) -> impl Iterator<Item = KeptId> + '_ {
        let at = |place: u64| place.saturating_sub(self.first) as usize;
        self.packets.range(at(span.start)..at(span.end)).copied()
    }

    /// Forgets what was carried before `oldest`; with nothing, by all datagrams that are written.
    pub(super) fn forget(&mut self, oldest: Option<Span>) {
        let until = oldest.map_or(self.open, |span| span.start);
        let count = until.saturating_sub(self.first) as usize;
        self.packets.drain(..count);
        self.first = until;
    }
}

impl Span {
    /// True when the datagram carries no packet.
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_datagram_carries_is_known_until_it_is_forgotten() {
        let mut carried = Carried::default();
        (0..3).for_each(|n| carried.push(KeptId(n)));
        let three = carried.close();
        let none = carried.close();
        carried.push(KeptId(9));
        let one = carried.close();
        let all = |carried: &Carried, span| carried.of(span).collect::<Vec<_>>();
        assert_eq!(all(&carried, three), [KeptId(0), KeptId(1), KeptId(2)]);
        assert!(none.is_empty() && all(&carried, none).is_empty());
        carried.forget(Some(none));
        assert_eq!(all(&carried, one), [KeptId(9)]);
        assert_eq!(carried.packets.len(), 1);
        // What is being written is not forgotten.
        carried.push(KeptId(10));
        carried.forget(None);
        let last = carried.close();
        assert_eq!(all(&carried, last), [KeptId(10)]);
    }
}
