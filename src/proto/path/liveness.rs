//! Is a path alive? Suspicion is cheap and quick, death is dear and slow (PROTOCOL.md 3.3).

use std::time::Duration;

use super::arrivals::MAX_ACK_DELAY;
use super::rtt::Rtt;
use crate::proto::Instant;

/// A path is not suspected before its oldest datagram is this old.
const LEAST_AGE: Duration = Duration::from_millis(60);
/// Beyond round trip and deviation, for timers and acknowledgements that are late.
const AGE_MARGIN: Duration = Duration::from_millis(20);
/// Nor before it was silent for this long. PROTOCOL.md 3.3 says 80 ms; acknowledgements of a busy path come
/// each 5 ms, and 20 ms are a tenth of the longest gap that a flow may see.
const LEAST_SILENCE: Duration = Duration::from_millis(60);
/// Beyond the deviation, for the same.
const SILENCE_MARGIN: Duration = Duration::from_millis(30);
/// A path is dead after this silence ...
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// ... and so many probes.
const DEAD_PROBES: u32 = 3;
/// Probes on an idle path while any traffic flows: 70 bytes, 2.8 kbit/s.
const PROBE_BUSY: Duration = Duration::from_millis(200);
/// Probes on an idle path of an idle tunnel; keeps NATs open too.
const PROBE_IDLE: Duration = Duration::from_secs(1);
/// Probes on a standby path, while a lower tier is up: a link that is paid by the byte. With headers a
/// probe and its answer are 200 bytes, and both sides ask: 16 bytes a second. NATs forget a mapping
/// after 30 s and more (WireGuard's persistent keepalive is 25 s for them).
const PROBE_STANDBY: Duration = Duration::from_secs(25);
/// Probes of a standby path that is dead: 20 bytes a second. One that returns need not be known sooner.
const PROBE_STANDBY_DEAD: Duration = Duration::from_secs(10);
/// Probes of a suspect.
const PROBE_SUSPECT: Duration = Duration::from_millis(100);
/// Probes of the dead, for a first while, that a link is used again soon after it returns.
const PROBE_DEAD: Duration = Duration::from_millis(250);
/// The first while.
const DEAD_SOON: Duration = Duration::from_secs(30);
/// Probes of the dead later: with the round trip, a link that returns is used within a second.
const PROBE_LONG_DEAD: Duration = Duration::from_millis(750);

/// What a path's silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// No new data until it answers.
    Suspect,
    /// What was in flight is lost.
    Dead,
}

/// When a path last answered and was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Liveness {
    answered: Instant,
    asked: Instant,
    /// Probes since the last answer.
    probes: u32,
    /// When the last of the [`DEAD_PROBES`] was sent.
    last_probed: Instant,
}

impl Liveness {
    /// A path that has just proven itself.
    pub fn proven(now: Instant) -> Self {
        Self {
            answered: now,
            asked: now,
            probes: 0,
            last_probed: now,
        }
    }

    /// An acknowledgement accounted for something.
    pub fn on_answer(&mut self, now: Instant) {
        self.answered = now;
        self.probes = 0;
    }

    /// Something that asks for an answer was sent.
    pub fn on_asked(&mut self, now: Instant) {
        self.asked = now;
    }

    /// A probe was sent.
    pub fn on_probe(&mut self, now: Instant) {
        self.probes += 1;
        if self.probes == DEAD_PROBES {
            self.last_probed = now;
        }
    }

    /// When the verdict on a path that was alive becomes "suspect", `oldest` being when the oldest
    /// datagram in flight was sent.
    pub fn suspect_at(&self, oldest: Option<Instant>, rtt: &Rtt) -> Option<Instant> {
        let deviation = 4 * rtt.variation();
        let age = (rtt.probe_timeout(Duration::ZERO) + AGE_MARGIN).max(LEAST_AGE);
        let silence = (deviation + SILENCE_MARGIN).max(LEAST_SILENCE);
        Some((oldest? + age).max(self.answered + silence))
    }

    /// When a suspect becomes dead, as long as nothing is heard: not before the answers to all
    /// probes are overdue. Otherwise one lost datagram would kill a path with a round trip of 600 ms.
    pub fn dead_at(&self, rtt: &Rtt) -> Option<Instant> {
        let overdue = self.last_probed + rtt.probe_timeout(MAX_ACK_DELAY) + AGE_MARGIN;
        (self.probes >= DEAD_PROBES).then_some(overdue.max(self.answered + DEAD_AFTER))
    }

    /// When to ask next. `flying`: something that asks is in flight; until `busy_until` the tunnel
    /// counts as busy; `standby`: nothing needs the path now.
    pub fn probe_at(
        &self,
        verdict: Verdict,
        flying: bool,
        busy_until: Instant,
        standby: bool,
        rtt: &Rtt,
    ) -> Instant {
        match verdict {
            Verdict::Alive if flying => self.asked + rtt.probe_timeout(MAX_ACK_DELAY),
            Verdict::Alive if standby => self.asked.max(self.answered) + PROBE_STANDBY,
            Verdict::Alive => {
                let last = self.asked.max(self.answered);
                last + if last + PROBE_BUSY <= busy_until {
                    PROBE_BUSY
                } else {
                    PROBE_IDLE
                }
            }
            Verdict::Suspect => self.asked + PROBE_SUSPECT,
            Verdict::Dead if standby => self.asked + PROBE_STANDBY_DEAD,
            Verdict::Dead if self.asked.since(self.answered) < DEAD_SOON => self.asked + PROBE_DEAD,
            Verdict::Dead => self.asked + PROBE_LONG_DEAD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn silence_makes_a_suspect_then_a_corpse() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.update(30 * MS, Duration::ZERO);
        }
        let mut liveness = Liveness::proven(at(1000));
        assert_eq!(liveness.suspect_at(None, &rtt), None);
        // The oldest has to be 60 ms old, and the path silent for as long.
        assert_eq!(liveness.suspect_at(Some(at(1005)), &rtt), Some(at(1065)));
        assert_eq!(liveness.suspect_at(Some(at(1030)), &rtt), Some(at(1090)));
        assert_eq!(liveness.dead_at(&rtt), None);
        (0..3).for_each(|_| liveness.on_probe(at(1065)));
        assert_eq!(liveness.dead_at(&rtt), Some(at(2000)));
        liveness.on_answer(at(1900));
        assert_eq!(liveness.dead_at(&rtt), None);
    }

    /// Field row E: over 650 ms a lost probe made a path dead that answered all the others.
    #[test]
    fn a_lost_probe_kills_no_path_with_a_long_round_trip() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.update(650 * MS, Duration::ZERO);
        }
        let mut liveness = Liveness::proven(at(1000));
        // The first one is lost, the others are sent as soon as that is suspected.
        for ms in [1200, 1890, 1990] {
            assert_eq!(liveness.dead_at(&rtt), None);
            liveness.on_probe(at(ms));
        }
        assert!(liveness.dead_at(&rtt).unwrap() > at(1990 + 650));
        liveness.on_answer(at(1890 + 650));
        assert_eq!(liveness.dead_at(&rtt), None);
    }

    #[test]
    fn the_dead_are_asked_less_and_less() {
        let mut liveness = Liveness::proven(at(0));
        let rtt = Rtt::default();
        assert_eq!(
            liveness.probe_at(Verdict::Alive, false, at(0), false, &rtt),
            at(1000)
        );
        assert_eq!(
            liveness.probe_at(Verdict::Alive, false, at(500), false, &rtt),
            at(200)
        );
        liveness.on_asked(at(2000));
        assert_eq!(
            liveness.probe_at(Verdict::Suspect, true, at(0), false, &rtt),
            at(2100)
        );
        assert_eq!(
            liveness.probe_at(Verdict::Dead, true, at(0), false, &rtt),
            at(2250)
        );
        liveness.on_asked(at(40_000));
        assert_eq!(
            liveness.probe_at(Verdict::Dead, true, at(0), false, &rtt),
            at(40_750)
        );
    }

    #[test]
    fn a_standby_path_is_asked_seldom_until_it_is_needed() {
        let mut liveness = Liveness::proven(at(0));
        let rtt = Rtt::default();
        let mut due = |verdict, standby| {
            liveness.on_asked(at(1000));
            liveness.probe_at(verdict, false, at(60_000), standby, &rtt)
        };
        assert_eq!(due(Verdict::Alive, true), at(26_000));
        assert_eq!(due(Verdict::Alive, false), at(1200));
        assert_eq!(due(Verdict::Dead, true), at(11_000));
        assert_eq!(due(Verdict::Suspect, true), at(1100));
    }
}
