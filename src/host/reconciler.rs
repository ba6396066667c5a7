//! One tunnel's hold on a host: what was borrowed, what is in trouble, and the way to what is
//! desired, group by group.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::baseline::Baseline;
use super::converge::{Back, Cause, ConvergeError, Outcome, View, converge};
use super::groups::{Group, Groups};
use super::keep::{Command, Event, Hold, keep};
use super::troubles::Troubles;
use super::{Host, HostError, Scope};
use crate::config::units::IfName;
use crate::io::clock;
use crate::route::forwarding::written_over;
use crate::route::links::Observed;
use crate::route::resource::Filter;
use crate::route::{HostState, Resource};

/// How often a glance is taken at what the kernel does not tell of, so that it is put back within a
/// second. A glance reads a dozen files of /proc and asks for the proxy neighbours.
const GLANCE: Duration = Duration::from_millis(800);

/// How often giving the host back is tried: nobody tries again after us.
const TRIES_TO_STOP: u32 = 3;

/// Filters that may stand on the host while a group of it fails: the last ones that were wanted.
const MOST_FILTERS: usize = 8;

/// One tunnel's hold on the host.
#[derive(Debug)]
pub struct Reconciler<H = super::System> {
    host: H,
    tunnel: IfName,
    baseline: Baseline,
    /// The packet filters that were put last: what stands there is compared with them too.
    filters: Vec<Filter>,
    troubles: Troubles,
    /// What each group was made to look like last: a change of that is somebody else's.
    reached: Vec<(Group, HostState)>,
    /// Where to glance, and what is to be seen there.
    quiet: Option<(Scope, HostState)>,
}

impl<H: Host> Reconciler<H> {
    /// Reads what a killed instance borrowed. Changes nothing.
    pub fn open(host: H, tunnel: &IfName, run_directory: &Path) -> Result<Self, HostError> {
        Ok(Self {
            host,
            tunnel: tunnel.clone(),
            baseline: Baseline::open(run_directory, tunnel)?,
            filters: Vec::new(),
            troubles: Troubles::default(),
            reached: Vec::new(),
            quiet: None,
        })
    }

    /// The host. What it is asked to do here is not kept so.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The links, and the settings as they were before us, so that the desired state does not
    /// depend on our own work.
    pub async fn links(&mut self) -> Result<Observed, HostError> {
        let mut observed = self.host.links(&self.tunnel).await?;
        for (key, present) in observed.settings.iter_mut() {
            if let Some(before) = self.baseline.setting(key) {
                before.clone_into(present);
            } else if let Some((switch, off)) = written_over(key, false)
                && self.baseline.setting(switch) == Some("0")
            {
                // Forwarding was off before us, and what would not go back to that is borrowed.
                off.clone_into(present);
            }
        }
        Ok(observed)
    }

    /// What the host holds now of `desired`, and all that is ours.
    pub async fn present(&mut self, desired: &HostState) -> Result<HostState, HostError> {
        self.host.observe(&self.baseline.scope(desired)).await
    }

    /// Makes the host look like `desired`; each group for which there is an error looks as before.
    pub async fn apply(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        self.troubles = Troubles::default();
        self.apply_groups(desired).await?.whole()
    }

    /// Makes each group of the host look like `desired`, but those that rest after a failure.
    async fn apply_groups(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        let nothing_was_borrowed = self.baseline.is_empty();
        let unchanged = |error| ConvergeError {
            cause: Cause::Host(error),
            back: Back::Restored,
        };
        let mut scope = self.baseline.scope(desired);
        let wanted = scope.filters.clone();
        scope.filters.extend(self.filters.iter().cloned());
        let present = self.host.observe(&scope).await.map_err(unchanged)?;
        self.heed_forwarders(desired).await;
        self.baseline.borrow(desired, &present).map_err(unchanged)?;
        let target = self.baseline.complete(desired, &present);
        let groups = Groups::of(&self.tunnel, [&present, &target]);
        let scope = Scope::of(&self.tunnel, [&target, &present]);
        let order = groups.order(&present, &target);
        self.troubles.keep(&order, clock::now());
        self.reached.retain(|(group, _)| order.contains(group));
        let mut outcome = Outcome::default();
        let mut quiet = Vec::new();
        for group in &order {
            let (from, to) = (groups.part(group, &present), groups.part(group, &target));
            let reached = self.apply_group(&groups, group, &scope, (&from, &to), &mut outcome);
            let there = if reached.await { &to } else { &from };
            quiet.extend(there.iter().filter(|it| is_quiet(it)).cloned());
        }
        let quiet: HostState = quiet.into_iter().collect();
        self.quiet = (!quiet.is_empty()).then(|| (Scope::of(&self.tunnel, [&quiet]), quiet));
        if self.troubles.text().is_none() {
            self.filters = wanted;
            self.baseline.settle(desired).map_err(unchanged)?;
        } else {
            // Some of these may stand there now. One that nobody knows would be driven back to an empty one.
            self.filters.extend(wanted);
            let old = self.filters.len().saturating_sub(MOST_FILTERS);
            self.filters.drain(..old);
        }
        if self.troubles.text().is_some()
            && nothing_was_borrowed
            && outcome.executed.is_empty()
            && outcome.failed.iter().all(|(_, error)| error.is_restored())
        {
            // Everything borrowed has been given back. The error at hand says more than one of
            // this file would.
            let _ = self.baseline.remove();
        }
        Ok(outcome)
    }

    /// Docker and libvirt switch forwarding on where it is off, and rely on it after that. Where they
    /// were started while it was on because of us, it is not switched off again.
    async fn heed_forwarders(&mut self, desired: &HostState) {
        if self.baseline.switches_on(desired) {
            let who = self.host.forwarders(&self.tunnel).await;
            self.baseline.set_forwarders(who);
        } else if !self.baseline.switches_back(desired).is_empty() {
            let forwarders = self.host.forwarders(&self.tunnel).await;
            if let Some(who) = self.baseline.newcomer(&forwarders) {
                for switch in self.baseline.leave_switches(desired) {
                    log::warn!(
                        "{switch} was 0 before netcombiner and stays 1: {who} came after, and needs it"
                    );
                }
            }
        }
    }

    /// Makes one group look as it shall; true when it does.
    async fn apply_group(
        &mut self,
        groups: &Groups,
        group: &Group,
        scope: &Scope,
        (from, to): (&HostState, &HostState),
        outcome: &mut Outcome,
    ) -> bool {
        let now = clock::now();
        let steps = self.host.plan(from, to);
        if !steps.is_empty() {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            if self.troubles.rests(group, to, &steps, now) {
                return false;
            }
            let view = View {
                scope,
                part: &|state| groups.part(group, state),
            };
            match converge(&mut self.host, &view, from, to).await {
                Ok(executed) => {
                    if self.reached.iter().any(|(of, it)| of == group && it == to) {
                        let who = || self.host.last_to_change();
                        self.troubles.repaired(group, &steps, now, who);
                    }
                    outcome.executed.extend(executed);
                }
                Err(error) => {
                    let text = error.to_string();
                    self.troubles.failed(group, to.clone(), text, now);
                    outcome.failed.push((group.clone(), error));
                    return false;
                }
            }
        }
        self.troubles.fine(group);
        self.reached.retain(|(of, _)| of != group);
        self.reached.push((group.clone(), to.clone()));
        true
    }

    /// Takes everything of ours away and gives back what was borrowed.
    pub async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        let mut tries = 1;
        let outcome = loop {
            match self.apply(&HostState::new()).await {
                Ok(outcome) => break outcome,
                Err(error) if tries == TRIES_TO_STOP => return Err(error),
                Err(_) => tries += 1,
            }
        };
        self.baseline.remove().map_err(|error| ConvergeError {
            cause: Cause::Host(error),
            back: Back::Restored,
        })?;
        Ok(outcome)
    }

    /// Waits until the kernel tells of a change.
    pub async fn changed(&mut self) -> Result<(), HostError> {
        self.host.changed().await
    }

    /// Keeps the host as `desired` says until it is told to stop, or nobody is left to tell it;
    /// then gives the host back.
    pub async fn run<D>(
        mut self,
        desired: D,
        commands: mpsc::Receiver<Command>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Outcome, ConvergeError>
    where
        D: FnMut(&Observed) -> HostState,
    {
        keep(&mut self, desired, commands, events).await
    }
}

/// True for what changes without a notice.
fn is_quiet(resource: &Resource) -> bool {
    matches!(resource, Resource::Setting(_) | Resource::Neighbour(_))
}

impl<H: Host> Hold for Reconciler<H> {
    type Desired = HostState;

    async fn links(&mut self) -> Result<Observed, HostError> {
        self.links().await
    }

    async fn apply(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        self.apply_groups(desired).await
    }

    async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        self.stop().await
    }

    async fn changed(&mut self) -> Result<(), HostError> {
        self.changed().await
    }

    async fn raise(&mut self) -> Result<(), HostError> {
        let (now, nothing) = (clock::now(), HostState::new());
        let group = Group::Device(self.tunnel.clone());
        let steps = [format!("ip link set {} up", self.tunnel)];
        if !self.troubles.rests(&group, &nothing, &steps, now)
            && self.host.raise(&self.tunnel).await?
        {
            let who = || self.host.last_to_change();
            self.troubles.repaired(&group, &steps, now, who);
            log::debug!("{}", steps[0]);
        }
        Ok(())
    }

    fn failing(&self) -> Option<String> {
        self.troubles.text()
    }

    fn rest(&self) -> Option<Duration> {
        self.troubles.next(clock::now())
    }

    fn glances(&self) -> Option<Duration> {
        self.quiet.as_ref().map(|_| GLANCE)
    }

    async fn glance(&mut self) -> bool {
        let Some((scope, seen)) = &self.quiet else {
            return false;
        };
        // An error will show itself at the look that it leads to.
        self.host.glance(scope).await.ok().as_ref() != Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::units::{Family, RulePref, TableId};
    use crate::host::fake::{Fake, setting};
    use crate::host::troubles::PAUSE_AFTER_FAILURE;
    use crate::route::resource::{FilterClause, LocalTable, Route, Rule};
    use crate::sorted::Set;

    const FORWARD: &str = "net.ipv4.ip_forward";

    fn directory(name: &str) -> PathBuf {
        let name = format!("netcombiner-reconciler-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        directory
    }

    fn tunnel() -> IfName {
        "nc0".parse().unwrap()
    }

    fn host() -> Fake {
        Fake::new(&["wan0", "nc0"], &[FORWARD])
    }

    fn desired() -> HostState {
        HostState::from_iter([
            setting(FORWARD, "1"),
            Resource::LocalTable(LocalTable {
                family: Family::V4,
                pref: RulePref(20),
            }),
            Resource::Route(Route {
                table: TableId(19),
                destination: "203.0.113.2/32".parse().unwrap(),
                via: None,
                device: Some(tunnel()),
                source: None,
                onlink: false,
                metric: 0,
            }),
            Resource::Rule(Rule::new(Family::V4, RulePref(19), TableId(19))),
        ])
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_killed_instance_is_cleaned_up_after() {
        let directory = directory("killed");
        let before = host().state;
        let mut killed = Reconciler::open(host(), &tunnel(), &directory).unwrap();
        killed.apply(&desired()).await.unwrap();
        let Reconciler { host: left, .. } = killed;

        let mut next = Reconciler::open(left, &tunnel(), &directory).unwrap();
        // The settings are told as they were before the killed one.
        assert_eq!(next.links().await.unwrap().settings[FORWARD], "0");
        assert!(next.apply(&desired()).await.unwrap().executed.is_empty());
        next.stop().await.unwrap();
        assert_eq!(next.host().state, before);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_given_back_is_the_administrators() {
        let directory = directory("settled");
        let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
        reconciler.apply(&desired()).await.unwrap();
        let less: HostState = desired()
            .iter()
            .filter(|resource| !matches!(resource, Resource::Setting(_)))
            .cloned()
            .collect();
        reconciler.apply(&less).await.unwrap();
        // He turns on what we have turned off again.
        let theirs = &mut reconciler.host().state;
        assert!(theirs.remove(&setting(FORWARD, "0")));
        theirs.insert(setting(FORWARD, "1"));
        assert!(reconciler.apply(&less).await.unwrap().executed.is_empty());
        reconciler.stop().await.unwrap();
        assert!(reconciler.host().state.contains(&setting(FORWARD, "1")));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// One that somebody put beside the kernel's own.
    #[tokio::test(flavor = "current_thread")]
    async fn a_second_local_rule_stays() {
        let directory = directory("second-local");
        let mut kernel = host();
        kernel.state.insert(Resource::LocalTable(LocalTable {
            family: Family::V4,
            pref: RulePref(100),
        }));
        let before = kernel.state.clone();
        let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
        reconciler.apply(&desired()).await.unwrap();
        let prefs = |state: &Set<Resource>| -> Vec<u32> {
            let v4 = state.iter().filter_map(|resource| match resource {
                Resource::LocalTable(local) => (local.family == Family::V4).then_some(local.pref.0),
                Resource::Setting(_)
                | Resource::Address(_)
                | Resource::Neighbour(_)
                | Resource::Route(_)
                | Resource::Filter(_)
                | Resource::Rule(_) => None,
            });
            v4.collect()
        };
        assert_eq!(prefs(&reconciler.host().state), [20, 100]);
        reconciler.stop().await.unwrap();
        assert_eq!(reconciler.host().state, before);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_refused_start_leaves_nothing() {
        let directory = directory("refused");
        let before = host().state;
        let mut kernel = host();
        kernel.devices.remove(&tunnel());
        let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
        reconciler.apply(&desired()).await.unwrap_err();
        assert_eq!(reconciler.host().state, before);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Field row B9: who came to need forwarding meanwhile keeps it; whose rules were there before us
    /// did without it.
    #[tokio::test(flavor = "current_thread")]
    async fn forwarding_stays_on_for_others() {
        let directory = directory("forwarders");
        for (before, after, value) in [
            (&[][..], &[][..], "0"),
            (&[], &["chain POSTROUTING of table ip nat"], "1"),
            (&["chain FORWARD"], &["chain FORWARD"], "0"),
            (&["chain FORWARD"], &["chain FORWARD", "chain DOCKER"], "1"),
            (&["chain FORWARD"], &[], "0"),
        ] {
            let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
            reconciler.host().forwarders = before.iter().map(|it| (*it).to_owned()).collect();
            reconciler.apply(&desired()).await.unwrap();
            reconciler.host().forwarders = after.iter().map(|it| (*it).to_owned()).collect();
            reconciler.stop().await.unwrap();
            assert!(reconciler.host().state.contains(&setting(FORWARD, value)));
            assert!(!directory.join("nc0.baseline").exists());
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// While something fails, filters that may stand are remembered: the newest, and only so many.
    #[tokio::test(flavor = "current_thread")]
    async fn filters_of_failed_tries_are_few() {
        let directory = directory("filters");
        let mut kernel = host();
        kernel.devices.remove(&tunnel());
        let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
        let filter = |last: u8| Filter {
            tunnel: tunnel(),
            clauses: [FilterClause::SourceNat {
                device: tunnel(),
                address: [203, 0, 113, last].into(),
            }]
            .into(),
        };
        for last in 0..50 {
            let mut desired = desired();
            desired.insert(Resource::Filter(filter(last)));
            let _ = reconciler.apply(&desired).await;
            assert!(reconciler.filters.len() <= MOST_FILTERS);
            assert_eq!(reconciler.filters.last(), Some(&filter(last)));
        }
        assert_eq!(reconciler.filters.len(), MOST_FILTERS);
        reconciler.stop().await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_stop_tries_again() {
        let directory = directory("stop");
        let before = host().state;
        let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
        let steps = reconciler.apply(&desired()).await.unwrap().executed.len();
        reconciler.host().failing.insert(steps + 1);
        reconciler.stop().await.unwrap();
        assert_eq!(reconciler.host().state, before);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// What fails is told, and tried again after a pause although the kernel tells of changes all
    /// the time; a stop gives all back.
    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_loop_keeps_the_host() {
        let directory = directory("loop");
        let mut kernel = host();
        let notice = std::rc::Rc::clone(&kernel.notice);
        kernel.failing.insert(0);
        let reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
        let (commands, commanded) = mpsc::channel(1);
        let (tell, mut told) = mpsc::unbounded_channel();
        let kept = reconciler.run(|_| desired(), commanded, tell);
        let script = async {
            assert!(matches!(told.recv().await, Some(Event::Links(_))));
            let Some(Event::Failed(reason)) = told.recv().await else {
                panic!("the failure is not told");
            };
            assert!(matches!(told.recv().await, Some(Event::Looked)));
            assert!(reason.contains("as it was before"), "{reason}");
            let asked = clock::now();
            notice.notify_one();
            // While it rests, each look tells the failure again.
            let outcome = loop {
                match told.recv().await {
                    Some(Event::Changed(outcome)) => break outcome,
                    Some(Event::Failed(_) | Event::Looked) => {}
                    other => panic!("it is not tried again: {other:?}"),
                }
            };
            assert!(!outcome.executed.is_empty());
            let waited = asked.elapsed();
            let least = PAUSE_AFTER_FAILURE;
            assert!(waited >= least && waited < 2 * least, "{waited:?}");
            assert!(matches!(told.recv().await, Some(Event::Sound)));
            commands.send(Command::Stop).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(kept, script);
        assert!(!outcome.unwrap().executed.is_empty());
        assert!(!directory.join("nc0.baseline").exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
