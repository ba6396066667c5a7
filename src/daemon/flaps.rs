//! How much the log says of a path that comes and goes.

use std::time::Duration;

use crate::proto::Instant;
use crate::proto::event::PathState;
use crate::proto::wire::{MAX_PATHS, PathId};

/// What is said of a path at most, before it is only counted.
const LINES: u32 = 6;
/// For so long.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Default)]
struct Flap {
    since: Instant,
    lines: u32,
    hidden: u32,
    state: Option<PathState>,
}

/// The last minute of each path.
#[derive(Debug, Default)]
pub(super) struct Flaps([Flap; MAX_PATHS]);

/// A path that changed more often than was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) path: PathId,
    /// Changes that were not said.
    pub(super) hidden: u32,
    /// How it is now.
    pub(super) state: PathState,
}

impl Flaps {
    /// A path changed its state: true when a line is to say so.
    pub(super) fn says(&mut self, now: Instant, path: PathId, state: PathState) -> bool {
        let flap = &mut self.0[path.index()];
        // A window with hidden changes ends by its summary.
        if flap.hidden == 0 && now.since(flap.since) >= WINDOW {
            (flap.since, flap.lines) = (now, 0);
        }
        flap.state = Some(state);
        if flap.lines < LINES {
            flap.lines += 1;
            return true;
        }
        flap.hidden = flap.hidden.saturating_add(1);
        false
    }

    /// True when there will be a summary.
    pub(super) fn is_counting(&self) -> bool {
        self.0.iter().any(|flap| flap.hidden > 0)
    }

    /// What was not said in a minute that is over.
    pub(super) fn summaries(&mut self, now: Instant) -> Vec<Summary> {
        let mut all = Vec::new();
        for (path, flap) in PathId::all().zip(&mut self.0) {
            if flap.hidden > 0 && now.since(flap.since) >= WINDOW {
                let hidden = std::mem::take(&mut flap.hidden);
                (flap.since, flap.lines) = (now, 0);
                all.extend(flap.state.map(|state| Summary {
                    path,
                    hidden,
                    state,
                }));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field row C8: a path that flaps for an hour costs seven lines a minute, and none is lost.
    #[test]
    fn flaps_are_summarised() {
        let mut flaps = Flaps::default();
        let path = PathId::all().nth(2).unwrap();
        let (mut lines, mut changes, mut hidden) = (0, 0, 0);
        let start = Instant::from_micros(3_600_000_000);
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            for state in [PathState::Suspect, PathState::Up] {
                changes += 1;
                lines += u32::from(flaps.says(now, path, state));
            }
            for summary in flaps.summaries(now) {
                assert_eq!((summary.path, summary.state), (path, PathState::Up));
                lines += 1;
                hidden += summary.hidden;
            }
        }
        assert!(lines <= 61 * 7, "{lines}");
        assert!(hidden >= changes - 61 * 7 - 120, "{hidden} of {changes}");
        // A calm path says everything.
        let later = start + Duration::from_secs(4000);
        let _ = flaps.summaries(later);
        assert!(!flaps.is_counting());
        assert!(flaps.says(later, path, PathState::Dead));
    }
}
