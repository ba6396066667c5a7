//! What the log says of the tunnel's news.

use log::Level;

use super::Running;
use crate::proto::event::{Event, PathState};

impl Running<'_> {
    /// In a fight, which was warned of, something is put back every second.
    pub(super) fn level_of_repairs(&self) -> Level {
        match self.routing_error {
            Some(_) => Level::Debug,
            None => Level::Info,
        }
    }

    /// Says it, unless the same has been said often enough.
    pub(super) fn log(&mut self, event: &Event) {
        let (level, text) = self.line(event);
        if self.flaps.says(self.clock.now(), event, (level, &text)) {
            log::log!(level, "{}: {text}", self.name());
        }
    }

    pub(super) fn log_flaps(&mut self) {
        for (level, text) in self.flaps.summaries(self.clock.now()) {
            log::log!(level, "{}: {text}", self.name());
        }
    }

    fn line(&self, event: &Event) -> (Level, String) {
        match event {
            Event::Connected => (Level::Info, "connected with the peer".to_owned()),
            Event::Rekeyed => (Level::Debug, "new keys are in use".to_owned()),
            Event::Disconnected => (Level::Warn, "no path is usable any more".to_owned()),
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
                (Level::Info, format!("path {path}{link}{remote} is {word}"))
            }
            Event::Roamed { path, to } => {
                let text = format!("the peer moved to {to} on path {path}");
                (Level::Info, text)
            }
            Event::Mtu(mtu) => (
                Level::Info,
                format!("packets of up to {mtu} bytes are carried"),
            ),
            Event::SecurityMismatch { peer } => {
                let own = self.config.security;
                let text = format!(
                    "the peer has security = \"{peer}\", this portal \"{own}\": the tunnel stays down \
                     until both say the same"
                );
                (Level::Error, text)
            }
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
