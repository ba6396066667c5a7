//! What the log says of the tunnel's news.

use super::Running;
use crate::daemon::flaps::Summary;
use crate::proto::event::{Event, PathState};

impl Running<'_> {
    /// False for what a path that comes and goes is only counted for.
    pub(super) fn is_worth_a_line(&mut self, event: &Event) -> bool {
        let now = self.clock.now();
        if let Event::Path { path, state, .. } = event {
            self.flaps.says(now, *path, *state)
        } else {
            true
        }
    }

    pub(super) fn log_flaps(&mut self) {
        let now = self.clock.now();
        for Summary {
            path,
            hidden,
            state,
        } in self.flaps.summaries(now)
        {
            let word = word(state);
            log::info!(
                "{}: path {path} changed {hidden} more times in the last minute; it is {word}",
                self.name()
            );
        }
    }

    pub(super) fn log(&self, event: &Event) {
        let name = self.name();
        match event {
            Event::Connected => log::info!("{name}: connected with the peer"),
            Event::Rekeyed => log::debug!("{name}: new keys are in use"),
            Event::Disconnected => log::warn!("{name}: no path is usable any more"),
            Event::Path {
                path,
                link,
                state,
                remote,
            } => {
                let link = link
                    .and_then(|id| self.plans.iter().find(|plan| plan.id == id))
                    .map_or(String::new(), |plan| format!(" (link {})", plan.name));
                let remote = remote.map_or(String::new(), |remote| format!(" with {remote}"));
                let word = word(*state);
                log::info!("{name}: path {path}{link}{remote} is {word}");
            }
            Event::Roamed { path, to } => {
                log::info!("{name}: the peer moved to {to} on path {path}");
            }
            Event::Mtu(mtu) => log::info!("{name}: packets of up to {mtu} bytes are carried"),
            Event::SecurityMismatch { peer } => log::error!(
                "{name}: the peer has security = \"{peer}\", this portal \"{}\": the tunnel stays \
                 down until both say the same",
                self.config.security
            ),
        }
    }
}

fn word(state: PathState) -> &'static str {
    match state {
        PathState::Up => "up",
        PathState::Suspect => "silent",
        PathState::Validating => "being validated",
        PathState::Dead => "dead",
        PathState::Down => "down",
    }
}
