//! Which path carries the next packet (PROTOCOL.md 4).
//!
//! Paths are asked in the order in which a packet sent now would arrive. Nothing is assigned before
//! it can be sent: the only queue is the tunnel's own. What a flow sends now and then goes by the
//! path that delivers first. A flow that sends more than that path takes spills over to the next one:
//! when its packet has waited a little, and then for a while at once.

use std::time::Duration;

use super::Instant;
use super::congestion::OneWayDelay;
use super::event::PathState;
use super::queue::Head;
use super::wire::{MAX_PATHS, PathId};

/// A packet waits so long for the fastest path before another one may take it: as long as a batch of
/// the pacer and a late timer make it wait anyway.
const SPILL: Duration = Duration::from_micros(1500);
/// A flow that spilled over is spread at once for so long.
const SPREAD: Duration = Duration::from_secs(3);
/// A path so much slower than the fastest is not used beside it: what it carries comes when the
/// receiver waits no longer.
const MOST_SPREAD: Duration = Duration::from_millis(150);
/// A lossy path that carries less than this part of the whole ...
const WEAK: u64 = 8;
/// ... and is slower than the fastest by more than this is not used beside it either.
const CLEARLY_SLOWER: Duration = Duration::from_millis(5);
/// The fastest path stays the first to be asked until another one is faster by more than this: flows
/// that fit into one path stay on it.
const HYSTERESIS: Duration = Duration::from_micros(500);

/// What the scheduler needs to know of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub path: PathId,
    /// Its state.
    pub state: PathState,
    /// Its tier.
    pub metric: u8,
    /// How long its datagrams take, its queue included.
    pub owd: Option<OneWayDelay>,
    /// What it was found to carry, bytes per second; zero: not known.
    pub bandwidth: u64,
    /// It loses some of what it carries.
    pub lossy: bool,
}

/// Paths in the order in which they are asked for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    paths: [Option<PathId>; MAX_PATHS],
}

impl Order {
    /// The order of these paths: those that are up, in the lowest tier that has any. When none is,
    /// suspects of the lowest tier, for a suspicion may be false. `first` is the one that led the
    /// order until now.
    pub fn of(candidates: impl Iterator<Item = Candidate> + Clone, first: Option<PathId>) -> Self {
        let usable = |state| {
            let in_state = candidates.clone().filter(move |c| c.state == state);
            let tier = in_state.clone().map(|c| c.metric).min();
            in_state.filter(move |c| Some(c.metric) == tier)
        };
        let state = if usable(PathState::Up).next().is_some() {
            PathState::Up
        } else {
            PathState::Suspect
        };
        let fastest = usable(state).filter_map(|c| c.owd).min();
        let too_slow = |c: &Candidate| match (c.owd, fastest) {
            (Some(owd), Some(fastest)) => owd.since(fastest) > MOST_SPREAD,
            _ => false,
        };
        // Each loss on it makes a flow wait for its repair: for so little that is a bad bargain.
        let sum: u64 = usable(state).map(|c| c.bandwidth).sum();
        let too_weak = |c: &Candidate| {
            let slower = c
                .owd
                .zip(fastest)
                .is_some_and(|(owd, fastest)| owd.since(fastest) > CLEARLY_SLOWER);
            c.lossy && slower && c.bandwidth > 0 && c.bandwidth.saturating_mul(WEAK) < sum
        };
        let mut sorted = [None; MAX_PATHS];
        for (slot, candidate) in sorted
            .iter_mut()
            .zip(usable(state).filter(|c| !too_slow(c) && !too_weak(c)))
        {
            *slot = Some(candidate);
        }
        sorted.sort_by_key(|c| {
            c.map_or((2, 0, None), |c| match c.owd {
                Some(owd) if Some(c.path) == first => {
                    (0, owd.as_micros() - HYSTERESIS.as_micros() as i64, None)
                }
                Some(owd) => (0, owd.as_micros(), Some(c.path)),
                None => (1, 0, Some(c.path)),
            })
        });
        Self {
            paths: sorted.map(|c| c.map(|c| c.path)),
        }
    }

    /// The paths, best first.
    pub fn iter(&self) -> impl Iterator<Item = PathId> + use<> {
        self.paths.into_iter().flatten()
    }

    /// The best path.
    pub fn first(&self) -> Option<PathId> {
        self.paths[0]
    }
}

/// How far a flow is spread over paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread {
    until: Instant,
}

impl Spread {
    /// From when on this packet may go by another path than the first.
    pub fn spills_at(&self, head: &Head) -> Instant {
        let spills = head.since + SPILL;
        if spills < self.until {
            head.since
        } else {
            spills
        }
    }

    /// A packet of the flow went by another path than the first.
    pub fn on_spill(&mut self, now: Instant, waiting_since: Instant) {
        if now >= waiting_since + SPILL {
            self.until = now + SPREAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire::frame::Bucket;

    fn id(id: u8) -> PathId {
        PathId::new(id).unwrap()
    }

    fn candidate(path: u8, state: PathState, metric: u8, owd_ms: i64) -> Candidate {
        Candidate {
            path: id(path),
            state,
            metric,
            owd: Some(OneWayDelay::from_micros(owd_ms * 1000 - 77_000_000)),
            bandwidth: 0,
            lossy: false,
        }
    }

    fn order(candidates: &[Candidate], first: Option<PathId>) -> Vec<u8> {
        Order::of(candidates.iter().copied(), first)
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
        assert_eq!(order(&paths, None), [1, 0]);
        paths[1].state = Suspect;
        assert_eq!(order(&paths, None), [0]);
        paths[0].state = Dead;
        assert_eq!(order(&paths, None), [2]);
        paths[2].state = Dead;
        assert_eq!(order(&paths, None), [1]);
        paths[1].state = Dead;
        assert!(order(&paths, None).is_empty());
    }

    #[test]
    fn the_first_stays_first_unless_clearly_slower_and_the_unknown_is_last() {
        use PathState::Up;
        let mut paths = [
            candidate(0, Up, 0, 15),
            candidate(1, Up, 0, 15),
            candidate(2, Up, 0, 1),
        ];
        paths[2].owd = None;
        assert_eq!(order(&paths, None), [0, 1, 2]);
        assert_eq!(order(&paths, Some(id(1))), [1, 0, 2]);
        paths[1].owd = Some(OneWayDelay::from_micros(15_600 - 77_000_000));
        assert_eq!(order(&paths, Some(id(1))), [0, 1, 2]);
    }

    #[test]
    fn a_path_of_a_satellite_is_left_out_beside_a_fast_one() {
        use PathState::Up;
        let paths = [candidate(0, Up, 0, 300), candidate(1, Up, 0, 10)];
        assert_eq!(order(&paths, None), [1]);
        assert_eq!(order(&paths[..1], None), [0]);
    }

    #[test]
    fn a_weak_and_lossy_path_is_left_out_beside_a_strong_one() {
        use PathState::{Dead, Up};
        let mut paths = [candidate(0, Up, 0, 4), candidate(1, Up, 0, 20)];
        (paths[0].bandwidth, paths[1].bandwidth) = (37_000_000, 3_700_000);
        assert_eq!(order(&paths, None), [0, 1]);
        paths[1].lossy = true;
        assert_eq!(order(&paths, None), [0]);
        paths[0].bandwidth = 20_000_000;
        assert_eq!(order(&paths, None), [0, 1]);
        paths[0].state = Dead;
        assert_eq!(order(&paths, None), [1]);
    }

    #[test]
    fn a_flow_spills_after_a_wait_and_then_at_once() {
        let at = Instant::from_micros;
        let head = |since| Head {
            length: 1400,
            since: at(since),
            sparse: false,
            bucket: Bucket(1),
        };
        let mut spread = Spread::default();
        assert_eq!(spread.spills_at(&head(1000)), at(2500));
        spread.on_spill(at(2000), at(1000));
        assert_eq!(spread.spills_at(&head(1000)), at(2500));
        spread.on_spill(at(2500), at(1000));
        assert_eq!(spread.spills_at(&head(5000)), at(5000));
        assert_eq!(spread.spills_at(&head(3_002_000)), at(3_003_500));
    }
}
