//! Which path carries the next packet (PROTOCOL.md 4).
//!
//! Paths are asked in the order in which a packet sent now would arrive. Nothing is assigned before
//! it can be sent: the only queue is the tunnel's own. What a flow sends now and then goes by the
//! path that delivers first. A flow that sends more than that path takes spills over to the next one:
//! when its packet has waited a little, and then for a while at once.

mod far;

use std::time::Duration;

use super::Instant;
use super::congestion::OneWayDelay;
use super::event::PathState;
use super::queue::Head;
use super::wire::{MAX_PATHS, PathId};

pub use far::{Loses, PathSets, Trials, Yields};

/// A packet waits so long for the fastest path before another one may take it: as long as a batch of
/// the pacer and a late timer make it wait anyway.
const SPILL: Duration = Duration::from_micros(1500);
/// A flow that spilled over is spread at once for so long.
const SPREAD: Duration = Duration::from_secs(3);
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
    /// Its round trip.
    pub rtt: Duration,
    /// The least of its round trips: no queue, its own or another's, is in it.
    pub least_rtt: Duration,
    /// Whether it loses some of what it carries.
    pub loses: Loses,
    /// It is far, and brought nothing when it was used.
    pub rests: bool,
}

/// Paths in the order in which they are asked for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    paths: [Option<PathId>; MAX_PATHS],
    /// How long a packet waits for the near paths before a far one takes it; zero for those that are near.
    detours: [Duration; MAX_PATHS],
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
        let shortest = usable(state).map(|c| c.least_rtt).min().unwrap_or_default();
        let mut detours = [Duration::ZERO; MAX_PATHS];
        for c in usable(state) {
            if let (Some(owd), Some(fastest)) = (c.owd, fastest) {
                // Far is the way, not the queue that somebody else fills.
                let way = c.least_rtt.saturating_sub(shortest);
                let slower = owd.since(fastest).min(way);
                detours[c.path.index()] = far::detour(slower, c.rtt, c.loses);
            }
        }
        let too_far = |c: &Candidate| {
            let detour = detours[c.path.index()];
            !detour.is_zero() && (c.rests || far::is_hopeless(detour))
        };
        // Each loss on it makes a flow wait for its repair: for so little that is a bad bargain.
        let sum: u64 = usable(state).map(|c| c.bandwidth).sum();
        let too_weak = |c: &Candidate| {
            let slower = c
                .owd
                .zip(fastest)
                .is_some_and(|(owd, fastest)| owd.since(fastest) > CLEARLY_SLOWER);
            c.loses == Loses::Some
                && slower
                && c.bandwidth > 0
                && c.bandwidth.saturating_mul(WEAK) < sum
        };
        let mut sorted = [None; MAX_PATHS];
        for (slot, candidate) in sorted
            .iter_mut()
            .zip(usable(state).filter(|c| !too_far(c) && !too_weak(c)))
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
            detours,
        }
    }

    /// The paths, best first.
    pub fn iter(&self) -> impl Iterator<Item = PathId> + use<> {
        self.paths.into_iter().flatten()
    }

    /// How long a packet waits for nearer paths before this one takes it; zero: it is near.
    pub fn detour(&self, path: PathId) -> Duration {
        self.detours[path.index()]
    }

    /// The longest detour of all.
    pub fn longest_detour(&self) -> Duration {
        let detours = self.iter().map(|path| self.detour(path));
        detours.max().unwrap_or_default()
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
    /// It goes by these far paths too, until then.
    far: u8,
    far_until: Instant,
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

    /// From when on this packet may go by a far path, whose detour is `detour`. A flow that goes there
    /// stays, unless all paths together send less than the near ones alone would carry: then it has too
    /// little under way for the longer way.
    pub fn goes_far_at(
        &self,
        head: &Head,
        path: PathId,
        detour: Duration,
        yield_is_low: bool,
    ) -> Instant {
        if !yield_is_low && head.since < self.far_until && self.far & path.bit() != 0 {
            self.spills_at(head)
        } else {
            head.since + detour.max(SPILL)
        }
    }

    /// A packet of the flow went by a far path.
    pub fn on_far(&mut self, now: Instant, path: PathId) {
        if now >= self.far_until {
            self.far = 0;
        }
        self.far |= path.bit();
        self.far_until = now + SPREAD;
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
            rtt: Duration::from_millis(2 * owd_ms as u64),
            least_rtt: Duration::from_millis(2 * owd_ms as u64),
            loses: Loses::Nothing,
            rests: false,
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
    fn a_satellite_is_asked_late_and_left_out_while_it_rests() {
        use PathState::Up;
        let mut paths = [candidate(0, Up, 0, 300), candidate(1, Up, 0, 10)];
        let detours = |paths: &[Candidate]| {
            let order = Order::of(paths.iter().copied(), None);
            [0, 1].map(|path| order.detour(id(path)).as_millis())
        };
        assert_eq!(order(&paths, None), [1, 0]);
        assert_eq!(detours(&paths), [290, 0]);
        (paths[0].loses, paths[0].least_rtt) = (Loses::Some, Duration::from_millis(570));
        assert_eq!(order(&paths, None), [1, 0]);
        assert_eq!(detours(&paths), [600, 0]);
        assert_eq!(detours(&paths[..1]), [0, 0]);
        paths[0].rests = true;
        assert_eq!(order(&paths, None), [1]);
        // A long queue on a short way is not far.
        paths[0].least_rtt = Duration::from_millis(20);
        assert_eq!(order(&paths, None), [1, 0]);
        paths[0].least_rtt = Duration::from_millis(570);
        // Alone it carries all the same.
        assert_eq!(order(&paths[..1], None), [0]);
        (paths[0].rests, paths[0].rtt) = (false, Duration::from_millis(1100));
        assert_eq!(order(&paths, None), [1]);
    }

    #[test]
    fn a_flow_goes_far_when_its_packets_wait_as_long_and_stays() {
        let at = Instant::from_micros;
        let head = |since| Head {
            length: 1400,
            since: at(since),
            sparse: false,
            bucket: Bucket(1),
        };
        let far = |spread: &Spread, since, path| {
            spread.goes_far_at(&head(since), id(path), Duration::from_millis(300), false)
        };
        let mut spread = Spread::default();
        assert_eq!(far(&spread, 1000, 3), at(301_000));
        spread.on_far(at(301_000), id(3));
        assert_eq!(far(&spread, 2000, 3), at(3500));
        let yields_too_little =
            spread.goes_far_at(&head(2000), id(3), Duration::from_millis(300), true);
        assert_eq!(yields_too_little, at(302_000));
        assert_eq!(far(&spread, 2000, 4), at(302_000));
        assert_eq!(far(&spread, 3_400_000, 3), at(3_700_000));
        spread.on_far(at(4_000_000), id(4));
        assert_eq!(far(&spread, 4_000_000, 3), at(4_300_000));
    }

    #[test]
    fn a_weak_and_lossy_path_is_left_out_beside_a_strong_one() {
        use PathState::{Dead, Up};
        let mut paths = [candidate(0, Up, 0, 4), candidate(1, Up, 0, 20)];
        (paths[0].bandwidth, paths[1].bandwidth) = (37_000_000, 3_700_000);
        assert_eq!(order(&paths, None), [0, 1]);
        paths[1].loses = Loses::Some;
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
