//! The receiver indices of a session: both sides derive them, so no path has to announce one.

use super::blake::mac16;
use crate::proto::wire::{MAX_PATHS, PathId, ReceiverIndex};

/// The indices of one direction of a session, one per path, all different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Indices([ReceiverIndex; MAX_PATHS]);

impl Indices {
    /// Those that `key` gives: the first 3 bytes of keyed BLAKE2s over direction, path, and the
    /// number of the attempt.
    pub(super) fn derive(key: &[u8; 32], direction: u8) -> Self {
        Self::distinct(|path, attempt| {
            let mac = mac16(key, &[&[direction, path.byte(), attempt]]);
            ReceiverIndex::new([mac[0], mac[1], mac[2]])
        })
    }

    /// The first attempt in which no two are equal. About one session in 600 000 needs a second; a
    /// last one is not needed in the life of the universe, and would only cost a path.
    fn distinct(index: impl Fn(PathId, u8) -> ReceiverIndex) -> Self {
        let mut indices = [ReceiverIndex::new([0; 3]); MAX_PATHS];
        for attempt in 0..=u8::MAX {
            for path in PathId::all() {
                indices[path.index()] = index(path, attempt);
            }
            let equal = |i: usize| indices[..i].contains(&indices[i]);
            if !(1..MAX_PATHS).any(equal) {
                break;
            }
        }
        Self(indices)
    }

    /// The index of a path.
    pub(super) fn of(&self, path: PathId) -> ReceiverIndex {
        self.0[path.index()]
    }

    /// The path of an index.
    pub(super) fn path(&self, index: ReceiverIndex) -> Option<PathId> {
        PathId::all().find(|path| self.of(*path) == index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collision_is_derived_away() {
        // Three attempts collide, each between other paths.
        let indices = Indices::distinct(|path, attempt| {
            let byte = match (attempt, path.byte()) {
                (0, 7) => 0,
                (1, 4) => 3,
                (2, _) => 9,
                (_, path) => path,
            };
            ReceiverIndex::new([attempt, 0, byte])
        });
        for path in PathId::all() {
            assert_eq!(indices.of(path), ReceiverIndex::new([3, 0, path.byte()]));
            assert_eq!(indices.path(indices.of(path)), Some(path));
        }
    }

    #[test]
    fn hopeless_collisions_end() {
        let indices = Indices::distinct(|_, _| ReceiverIndex::new([1; 3]));
        assert_eq!(indices.path(ReceiverIndex::new([1; 3])), PathId::new(0));
        assert_eq!(indices.path(ReceiverIndex::new([2; 3])), None);
    }

    #[test]
    fn direction_and_key_matter() {
        let a = Indices::derive(&[1; 32], 0);
        assert_ne!(a, Indices::derive(&[1; 32], 1));
        assert_ne!(a, Indices::derive(&[2; 32], 0));
        assert_eq!(a, Indices::derive(&[1; 32], 0));
    }
}
