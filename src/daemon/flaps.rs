//! How much the log says of what comes and goes, or is brought about by others again and again.

use std::time::Duration;

use log::Level;

use crate::proto::Instant;
use crate::proto::event::Event;
use crate::proto::wire::MAX_PATHS;

/// The most lines of one thing in [`WINDOW`]. The rest are counted.
const LINES: u32 = 6;
/// How long one thing's lines are counted, and how often a summary is said.
const WINDOW: Duration = Duration::from_secs(60);
/// What is counted separately: each path's state and address, and three things of the tunnel.
const TOPICS: usize = 2 * MAX_PATHS + 3;

#[derive(Debug, Clone)]
struct Flap {
    since: Instant,
    lines: u32,
    hidden: u32,
    /// The newest line that was not said.
    last: (Level, String),
}

/// The last minute of each thing.
#[derive(Debug)]
pub(super) struct Flaps(Vec<Flap>);

impl Default for Flaps {
    fn default() -> Self {
        let flap = Flap {
            since: Instant::default(),
            lines: 0,
            hidden: 0,
            last: (Level::Info, String::new()),
        };
        Self(vec![flap; TOPICS])
    }
}

impl Flaps {
    /// This line is about to be said of an event: false when it is only counted.
    pub(super) fn says(
        &mut self,
        now: Instant,
        event: &Event,
        (level, text): (Level, &str),
    ) -> bool {
        let flap = &mut self.0[topic(event)];
        // A window with hidden lines ends by its summary.
        if flap.hidden == 0 && now.since(flap.since) >= WINDOW {
            (flap.since, flap.lines) = (now, 0);
        }
        if flap.lines < LINES {
            flap.lines += 1;
            return true;
        }
        flap.hidden = flap.hidden.saturating_add(1);
        flap.last = (level, text.to_owned());
        false
    }

    /// True when there will be a summary.
    pub(super) fn is_counting(&self) -> bool {
        self.0.iter().any(|flap| flap.hidden > 0)
    }

    /// The last line of those that were not said in a minute that is over.
    pub(super) fn summaries(&mut self, now: Instant) -> Vec<(Level, String)> {
        let mut all = Vec::new();
        for flap in &mut self.0 {
            if flap.hidden > 0 && now.since(flap.since) >= WINDOW {
                let hidden = std::mem::take(&mut flap.hidden);
                let (level, last) = std::mem::replace(&mut flap.last, (Level::Info, String::new()));
                (flap.since, flap.lines) = (now, 0);
                all.push((
                    level,
                    format!("{last} ({hidden} changes in the last minute)"),
                ));
            }
        }
        all
    }
}

/// What an event is counted with.
fn topic(event: &Event) -> usize {
    match event {
        Event::Path { path, .. } => path.index(),
        Event::Roamed { path, .. } => MAX_PATHS + path.index(),
        Event::Connected | Event::Disconnected => 2 * MAX_PATHS,
        Event::Mtu(_) => 2 * MAX_PATHS + 1,
        // New keys are logged at `debug` only, so they do not need a topic of their own.
        Event::SecurityMismatch { .. } | Event::Rekeyed => 2 * MAX_PATHS + 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;
    use crate::proto::event::PathState;
    use crate::proto::wire::PathId;

    /// An hour of an event, twice a second: lines said, and lines hidden.
    fn hour(flaps: &mut Flaps, event: &Event) -> (u32, u32) {
        let (mut lines, mut hidden) = (0, 0);
        let start = Instant::from_micros(3_600_000_000);
        for number in 0..7200 {
            let now = start + number * Duration::from_millis(500);
            let text = format!("line {number}");
            if flaps.says(now, event, (Level::Warn, &text)) {
                lines += 1;
            }
            for (level, summary) in flaps.summaries(now) {
                assert_eq!(level, Level::Warn);
                assert!(summary.starts_with(&text), "{summary}");
                let words = summary.split(['(', ' ']);
                hidden += words
                    .filter_map(|word| word.parse::<u32>().ok())
                    .nth(1)
                    .unwrap();
                lines += 1;
            }
        }
        (lines, hidden)
    }

    /// Field row C8: whatever flaps for an hour, or is made to, costs seven lines a minute, and none is lost.
    #[test]
    fn flaps_are_summarised() {
        let path = PathId::all().nth(2).unwrap();
        let events = [
            Event::Path {
                path,
                link: None,
                state: PathState::Up,
                remote: None,
            },
            Event::Roamed {
                path,
                to: ([192, 0, 2, 1], 99).into(),
            },
            Event::Disconnected,
            Event::SecurityMismatch {
                peer: Security::None,
            },
        ];
        let mut flaps = Flaps::default();
        for event in events {
            let (lines, hidden) = hour(&mut flaps, &event);
            assert!(lines <= 61 * 7, "{event:?}: {lines}");
            assert!(hidden >= 7200 - 61 * 7 - 120, "{event:?}: {hidden}");
            // A calm one says everything.
            let later = Instant::from_micros(3_600_000_000) + Duration::from_secs(4000);
            let _ = flaps.summaries(later);
            assert!(!flaps.is_counting());
            assert!(flaps.says(later, &event, (Level::Info, "calm")));
        }
    }
}
