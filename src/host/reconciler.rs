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

/// How often we glance at what changes without a notice from the kernel, so that it is put back within a
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
    /// The devices that were seen with a default route.
    were_links: Vec<IfName>,
    /// Who forwards since forwarding was switched on, as it was said last.
    newcomers: Vec<String>,
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
            were_links: Vec::new(),
            newcomers: Vec::new(),
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
        observed.remember_links(&mut self.were_links);
        self.baseline.keep_newcomers(&mut observed);
        if self.newcomers != observed.forwarders {
            self.newcomers.clone_from(&observed.forwarders);
            if let Some(who) = self.newcomers.first() {
                log::warn!(
                    "{who} came after netcombiner switched forwarding on, and forwards by its own devices ({}); \
                     the others stay closed",
                    observed.opened.join(", ")
                );
            }
        }
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

    /// Makes each group of the host look like `desired`, except those that rest after a failure.
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
        self.heed_forwarders(desired).await.map_err(unchanged)?;
        self.baseline.borrow(desired, &present).map_err(unchanged)?;
        let target = self.baseline.complete(desired, &present);
        let groups = Groups::of(&self.tunnel, [&present, &target]);
        let scope = Scope::of(&self.tunnel, [&target, &present]);
        let order = groups.order(&present, &target);
        self.troubles.keep(&order, clock::now());
        self.reached.retain(|(group, _)| order.contains(group));
        let mut outcome = Outcome::default();
        let mut quiet = Vec::new();
        // The filter stands before anything attracts or forwards packets, and until nothing does.
        let (mut bare, mut shielded) = (present.clone(), target.clone());
        let first = filter(&target)
            .filter(|_| filter(&present).is_none() && self.reached.is_empty())
            .inspect(|it| bare.insert((*it).clone()));
        let last = filter(&present)
            .filter(|_| filter(&target).is_none())
            .inspect(|it| shielded.insert((*it).clone()));
        let (tunnel, looking) = (Group::Tunnel, (&groups, &scope));
        let ends = |from, to| (groups.part(&tunnel, from), groups.part(&tunnel, to));
        let put = ends(&present, &bare);
        let stands =
            first.is_none() || self.apply_group(looking, &tunnel, &put, &mut outcome).await;
        let steps_to_put = outcome.executed.len();
        for group in order.iter().filter(|_| stands) {
            let ends = (groups.part(group, &bare), groups.part(group, &shielded));
            let reached = self.apply_group(looking, group, &ends, &mut outcome);
            let there = if reached.await { &ends.1 } else { &ends.0 };
            quiet.extend(there.iter().filter(|it| is_quiet(it)).cloned());
        }
        let has_failed = outcome.failed.iter().any(|(of, _)| *of == tunnel);
        if last.is_some() && !has_failed {
            let take = ends(&shielded, &target);
            self.apply_group(looking, &tunnel, &take, &mut outcome)
                .await;
        } else if first.is_some() && stands && has_failed {
            let view = View {
                scope: &scope,
                part: &|state| groups.part(&tunnel, state),
            };
            // What is wrong is known already.
            let back = converge(&mut self.host, &view, &put.1, &put.0).await;
            outcome.executed.drain(..back.map_or(0, |_| steps_to_put));
        }
        let quiet: HostState = quiet.into_iter().collect();
        self.quiet = (!quiet.is_empty()).then(|| (Scope::of(&self.tunnel, [&quiet]), quiet));
        if self.troubles.text().is_none() {
            self.filters = wanted;
            self.baseline.settle(desired).map_err(unchanged)?;
        } else {
            // Some of these may stand there now. A filter that is not remembered would be replaced by an empty one.
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
    async fn heed_forwarders(&mut self, desired: &HostState) -> Result<(), HostError> {
        if self.baseline.switches_on(desired) {
            let before = self.host.links(&self.tunnel).await?;
            self.baseline
                .set_forwarders(before.forwarders, &before.links);
        } else if !self.baseline.switches_back(desired).is_empty() {
            let observed = self.links().await?;
            self.baseline.leave_switches_to(&observed, desired)?;
        }
        Ok(())
    }

    /// Makes one group look as it shall; true when it does.
    async fn apply_group(
        &mut self,
        (groups, scope): (&Groups, &Scope),
        group: &Group,
        (from, to): &(HostState, HostState),
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

/// The tunnel's packet filter.
fn filter(state: &HostState) -> Option<&Resource> {
    state.iter().find(|it| matches!(it, Resource::Filter(_)))
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
        let group = Group::Tunnel;
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
#[path = "reconciler_tests.rs"]
mod tests;
