//! Which path carries the next packet.
//!
//! Greedy, as in the dissertation: whichever path of the lowest usable tier has room takes the
//! packet, the one with the shortest round trip first. Nothing is assigned before it can be sent.

use std::time::Duration;

use super::event::PathState;
use super::wire::{MAX_PATHS, PathId};

/// What the scheduler needs to know of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub path: PathId,
    /// Its state.
    pub state: PathState,
    /// Its tier.
    pub metric: u8,
    /// Its smoothed round trip.
    pub rtt: Option<Duration>,
}

/// Paths in the order in which they are asked for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    paths: [Option<PathId>; MAX_PATHS],
}

impl Order {
    /// The order of these paths: those that are up, in the lowest tier that has any. When none is,
    /// suspects of the lowest tier, for a suspicion may be false.
    pub fn of(candidates: impl Iterator<Item = Candidate> + Clone) -> Self {
        let usable = |state| {
            let in_state = candidates.clone().filter(move |c| c.state == state);
            let tier = in_state.clone().map(|c| c.metric).min();
            in_state.filter(move |c| Some(c.metric) == tier)
        };
        let mut sorted = [None; MAX_PATHS];
        let mut count = 0;
        let state = if usable(PathState::Up).next().is_some() {
            PathState::Up
        } else {
            PathState::Suspect
        };
        for candidate in usable(state).take(MAX_PATHS) {
            sorted[count] = Some(candidate);
            count += 1;
        }
        sorted[..count].sort_by_key(|c| c.map(|c| (c.rtt.unwrap_or(Duration::MAX), c.path)));
        Self {
            paths: sorted.map(|c| c.map(|c| c.path)),
        }
    }

    /// The paths, best first.
    pub fn iter(&self) -> impl Iterator<Item = PathId> + use<> {
        self.paths.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u8, state: PathState, metric: u8, rtt: u64) -> Candidate {
        let path = PathId::new(id).unwrap();
        Candidate {
            path,
            state,
            metric,
            rtt: Some(Duration::from_millis(rtt)),
        }
    }

    fn order(candidates: &[Candidate]) -> Vec<u8> {
        Order::of(candidates.iter().copied())
            .iter()
            .map(PathId::byte)
            .collect()
    }

    #[test]
    fn the_lowest_tier_that_is_up_fastest_first() {
        use PathState::{Dead, Suspect, Up};
        let mut paths = [
            candidate(0, Up, 0, 40),
            candidate(1, Up, 0, 15),
            candidate(2, Up, 1, 5),
            candidate(3, Dead, 0, 1),
        ];
        assert_eq!(order(&paths), [1, 0]);
        paths[1].state = Suspect;
        assert_eq!(order(&paths), [0]);
        paths[0].state = Dead;
        assert_eq!(order(&paths), [2]);
        paths[2].state = Dead;
        assert_eq!(order(&paths), [1]);
        paths[1].state = Dead;
        assert!(order(&paths).is_empty());
    }
}
