//! Groups that do not stay as desired: what the kernel refused, and what somebody undoes again and
//! again. Such a group rests for a while; no other waits for it.

use std::time::Duration;

use tokio::time::Instant;

use super::groups::Group;
use crate::config::units::fixed;
use crate::route::HostState;

/// How long a group rests that could not be made as desired. When other things are wanted of it, it
/// is tried at once.
pub(crate) const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// After so many repairs of one and the same thing, each soon after the last, somebody fights us.
/// Below that everything is put back at once: scripts that flush and load again do so a few times.
const FIGHT: u32 = 10;

/// A thing that stayed repaired for so long is no matter of a fight any more.
const CALM: Duration = Duration::from_secs(30);

/// The longest pause in a fight. The first is a second, each next one twice as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause in a fight about the tunnel's own part. While that is not as desired, packets may leave
/// in clear: with the time that changes are collected for, it is back within a second.
const PAUSE_OF_TUNNEL: Duration = Duration::from_millis(500);

/// The groups that are in trouble.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    failures: Vec<Failure>,
    repairs: Vec<Repair>,
}

#[derive(Debug)]
struct Failure {
    group: Group,
    /// What was wanted.
    target: HostState,
    text: String,
    until: Instant,
}

/// A thing that had to be put back.
#[derive(Debug)]
struct Repair {
    group: Group,
    steps: Vec<String>,
    times: u32,
    /// The end of the last pause; the time of the repair where there was none.
    until: Instant,
    /// What is said once it is a fight; always the same, so that it is said once.
    text: Option<String>,
}

impl Troubles {
    /// True when these steps are not to be tried with this group now. A fight holds up nothing but
    /// what it is about.
    pub(crate) fn rests(
        &self,
        group: &Group,
        target: &HostState,
        steps: &[String],
        now: Instant,
    ) -> bool {
        let failed = |it: &Failure| it.group == *group && it.target == *target && now < it.until;
        self.failures.iter().any(failed)
            || self
                .repairs
                .iter()
                .any(|it| it.group == *group && it.steps == steps && now < it.until)
    }

    /// It could not be made as desired.
    pub(crate) fn failed(&mut self, group: &Group, target: HostState, text: String, now: Instant) {
        self.fine(group);
        self.failures.push(Failure {
            group: group.clone(),
            target,
            text,
            until: now + PAUSE_AFTER_FAILURE,
        });
    }

    /// It is as desired.
    pub(crate) fn fine(&mut self, group: &Group) {
        self.failures.retain(|it| it.group != *group);
    }

    /// It was as desired, somebody changed it, and it was put back. Here `who` says who that was.
    pub(crate) fn repaired(
        &mut self,
        group: &Group,
        steps: &[String],
        now: Instant,
        who: impl FnOnce() -> Option<String>,
    ) {
        self.forget(now);
        let known = |it: &Repair| it.group == *group && it.steps == steps;
        let place = self.repairs.iter().position(known).unwrap_or_else(|| {
            self.repairs.push(Repair {
                group: group.clone(),
                steps: steps.to_vec(),
                times: 0,
                until: now,
                text: None,
            });
            self.repairs.len() - 1
        });
        let Some(repair) = self.repairs.get_mut(place) else {
            return;
        };
        repair.times = repair.times.saturating_add(1);
        repair.until = now;
        if repair.times < FIGHT {
            return;
        }
        let longest = longest_pause(group);
        // Doubled at most six times.
        let pause = Duration::from_secs(1) * 2_u32.pow((repair.times - FIGHT).min(6));
        repair.until = now + pause.min(longest);
        repair.text.get_or_insert_with(|| {
            let who = who().map_or_else(String::new, |who| format!(" (the last was {who})"));
            // The packet filter's step is a script of many lines, of which the first says enough.
            let step = steps.first().and_then(|step| step.lines().next());
            format!(
                "somebody undoes this again and again{who}, so it is put back after pauses of up \
                 to {} s: {}",
                fixed(longest.as_secs_f64(), 1),
                step.unwrap_or_default()
            )
        });
    }

    /// Forgets groups that are no more, and fights that have ended.
    pub(crate) fn keep(&mut self, groups: &[Group], now: Instant) {
        self.failures.retain(|it| groups.contains(&it.group));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        self.repairs.retain(|it| now < it.until + CALM);
    }

    /// What is wrong, all of it.
    pub(crate) fn text(&self) -> Option<String> {
        let failures = self.failures.iter().map(|it| it.text.as_str());
        let fights = self.repairs.iter().filter_map(|it| it.text.as_deref());
        let texts: Vec<&str> = failures.chain(fights).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// How long until the next of them is to be tried.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let pauses = self.failures.iter().map(|it| it.until);
        let pauses = pauses.chain(self.repairs.iter().map(|it| it.until));
        let ahead = pauses.filter(|until| *until > now).min();
        ahead.map(|until| until - now)
    }
}

/// How long a fight about a group may leave it undone.
fn longest_pause(group: &Group) -> Duration {
    match group {
        Group::Tunnel => PAUSE_OF_TUNNEL,
        Group::Link(_) | Group::Device(_) => LONGEST_PAUSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn steps(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    /// Twenty repairs in a row: the pause after each in milliseconds, and what was said.
    fn fight(group: &Group) -> (Vec<u128>, Vec<String>) {
        let (mut now, nothing) = (clock::now(), HostState::new());
        let mut troubles = Troubles::default();
        let rule = steps("ip rule add");
        let (mut pauses, mut texts) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            while troubles.rests(group, &nothing, &rule, now) {
                now += SECOND / 10;
            }
            troubles.repaired(group, &rule, now, || Some("mwan3".into()));
            // Neither another group nor another thing of this one waits.
            let lan = Group::Device("lan".parse().unwrap());
            assert!(!troubles.rests(&lan, &nothing, &rule, now));
            assert!(!troubles.rests(group, &nothing, &steps("nft"), now));
            texts.extend(troubles.text());
            pauses.push(troubles.next(now).unwrap_or_default().as_millis());
        }
        texts.dedup();
        troubles.keep(&[Group::Tunnel], now + LONGEST_PAUSE + CALM);
        assert_eq!(troubles.text(), None);
        (pauses, texts)
    }

    /// Field row B6: what others change of a link again and again is put back ever more rarely, and
    /// that is said once.
    #[test]
    fn a_fight_is_noticed_and_ends() {
        let (pauses, texts) = fight(&Group::Link(crate::config::units::TableId(28260)));
        let seconds = [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60];
        assert_eq!(pauses[8..], seconds.map(|it| it * 1000));
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains("(the last was mwan3)"), "{texts:?}");
    }

    /// Field row B6: the kill switch does not stand open while somebody fights it.
    #[test]
    fn the_tunnels_part_never_waits_for_long() {
        let (pauses, texts) = fight(&Group::Tunnel);
        assert!(pauses.iter().all(|it| *it <= 500), "{pauses:?}");
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains("up to 0.5 s"), "{texts:?}");
    }

    #[test]
    fn different_repairs_are_no_fight() {
        let (now, nothing) = (clock::now(), HostState::new());
        let mut troubles = Troubles::default();
        for number in 0..4 * FIGHT {
            let at = now + SECOND * number;
            let step = steps(&format!("step {}", number % 4));
            troubles.repaired(&Group::Tunnel, &step, at, || None);
            let rests = troubles.rests(&Group::Tunnel, &nothing, &step, at);
            assert_eq!(rests, number >= 4 * (FIGHT - 1), "{number}");
        }
        // One that happens now and then.
        let (mut troubles, step) = (Troubles::default(), steps("step"));
        for number in 0..4 * FIGHT {
            let at = now + 2 * CALM * number;
            troubles.repaired(&Group::Tunnel, &step, at, || None);
            assert!(!troubles.rests(&Group::Tunnel, &nothing, &step, at));
        }
    }

    #[test]
    fn what_failed_rests_while_the_same_is_wanted() {
        let (now, nothing) = (clock::now(), HostState::new());
        let mut troubles = Troubles::default();
        troubles.failed(&Group::Tunnel, HostState::new(), "no".into(), now);
        assert!(troubles.rests(&Group::Tunnel, &nothing, &[], now));
        assert!(!troubles.rests(&Group::Tunnel, &nothing, &[], now + PAUSE_AFTER_FAILURE));
        let other = HostState::from_iter([crate::host::fake::setting("a", "1")]);
        assert!(!troubles.rests(&Group::Tunnel, &other, &[], now));
        assert_eq!(troubles.next(now), Some(PAUSE_AFTER_FAILURE));
        troubles.keep(&[], now);
        assert_eq!(troubles.text(), None);
    }
}
