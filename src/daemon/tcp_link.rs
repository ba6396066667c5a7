//! When a TCP link connects, gives up and tries again.

use std::net::SocketAddr;
use std::time::Duration;

use super::sockets::LinkTerms;
use crate::io::socket::Origin;
use crate::proto::Instant;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: a link that is back is used within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that is not there by then is given up: three SYNs (RFC 6298: 1, 2, 4 s).
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);
/// A connection that lived for so long was a good one: the next pause is short again.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// A link over TCP.
#[derive(Debug)]
pub(super) struct TcpLink {
    pub(super) origin: Origin,
    pub(super) remote: SocketAddr,
    pub(super) terms: LinkTerms,
    state: State,
    pause: Duration,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is open; connect at this time.
    Waiting(Instant),
    /// A connection is being made; give up at this time.
    Connecting(Instant),
    /// It is up since this time.
    Up(Instant),
}

impl TcpLink {
    /// A link that connects at once.
    pub(super) fn new(now: Instant, origin: Origin, remote: SocketAddr, terms: LinkTerms) -> Self {
        Self {
            origin,
            remote,
            terms,
            state: State::Waiting(now),
            pause: FIRST_PAUSE,
            error: None,
        }
    }

    /// When to connect, or to give up connecting.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Connecting(at) => Some(at),
            State::Up(_) => None,
        }
    }

    /// A connection is being made.
    pub(super) fn connecting(&mut self, now: Instant) {
        self.state = State::Connecting(now + CONNECT_PATIENCE);
    }

    /// It is up.
    pub(super) fn connected(&mut self, now: Instant) {
        self.state = State::Up(now);
        self.error = None;
    }

    /// It broke, or could not be made.
    pub(super) fn failed(&mut self, now: Instant, reason: String) {
        if let State::Up(since) = self.state
            && now.since(since) >= GOOD_LIFE
        {
            self.pause = FIRST_PAUSE;
        }
        self.state = State::Waiting(now + self.pause);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        self.error = Some(reason);
    }

    /// Why it is not up.
    pub(super) fn reason(&self) -> String {
        self.error
            .clone()
            .unwrap_or_else(|| format!("connecting to {}", self.remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Congestion;

    fn link(now: Instant) -> TcpLink {
        let origin = Origin {
            device: "wan0".parse().unwrap(),
            source: [192, 0, 2, 1].into(),
            port: None,
        };
        let terms = LinkTerms {
            metric: 0,
            rate_up: None,
            rate_down: None,
            congestion: Congestion::default(),
        };
        TcpLink::new(now, origin, ([203, 0, 113, 2], 4725).into(), terms)
    }

    #[test]
    fn pauses_double_up_to_five_seconds_and_start_again_after_a_good_life() {
        let mut now = Instant::from_micros(1_000_000);
        let mut link = link(now);
        assert_eq!(link.poll_timeout(), Some(now));
        for pause in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            link.connecting(now);
            link.failed(now, "refused".to_owned());
            let next = now + Duration::from_millis(pause);
            assert_eq!(link.poll_timeout(), Some(next));
            now = next;
        }
        assert_eq!(link.reason(), "refused");
        // Accepted and closed at once, as by a foreign server: no reason to hurry.
        link.connected(now);
        assert_eq!(link.poll_timeout(), None);
        link.failed(now, "closed".to_owned());
        assert_eq!(link.poll_timeout(), Some(now + LONGEST_PAUSE));
        link.connected(now);
        now += GOOD_LIFE;
        link.failed(now, "closed".to_owned());
        assert_eq!(link.poll_timeout(), Some(now + FIRST_PAUSE));
    }
}
