//! Keeps the host as desired while the daemon runs: looks at the whole of it whenever the kernel
//! tells of a change, and now and then without being told.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::baseline::Baseline;
use super::converge::{Back, Cause, ConvergeError, Outcome, converge};
use super::{Host, HostError};
use crate::config::units::IfName;
use crate::route::HostState;
use crate::route::forwarding::written_over;
use crate::route::links::Observed;
use crate::route::resource::Filter;

/// How long changes are collected before the host is looked at: a link that comes up changes its
/// device, address and routes within some ten milliseconds.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// At the latest after this time the host is looked at, whatever the kernel has told: its notices
/// can be lost, and there are none of nf_tables' and of settings.
const RESYNC: Duration = Duration::from_secs(30);

/// How long nothing is tried after a failure: what was done and driven back is a change as well,
/// and would set off the next try at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How often giving the host back is tried: nobody tries again after us.
const TRIES_TO_STOP: u32 = 3;

/// What the daemon asks of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// What the desired state is made from has changed.
    Refresh,
    /// Give the host back and end.
    Stop,
}

/// What the loop tells the daemon.
#[derive(Debug)]
pub enum Event {
    /// The links are others than before; told before the host is changed to suit them.
    Links(Observed),
    /// The host was not as desired and is now.
    Changed(Outcome),
    /// The host could not be made as desired, for this reason. It is tried again a while later.
    Failed(String),
    /// The host was looked at, because the kernel told of a change or it was time again.
    Looked,
}

/// One tunnel's hold on the host.
#[derive(Debug)]
pub struct Reconciler<H = super::System> {
    host: H,
    tunnel: IfName,
    baseline: Baseline,
    /// The packet filters that were put last: what stands there is compared with them too.
    filters: BTreeSet<Filter>,
}

impl<H: Host> Reconciler<H> {
    /// Reads what a killed instance borrowed. Changes nothing.
    pub fn open(host: H, tunnel: &IfName, run_directory: &Path) -> Result<Self, HostError> {
        Ok(Self {
            host,
            tunnel: tunnel.clone(),
            baseline: Baseline::open(run_directory, tunnel)?,
            filters: BTreeSet::new(),
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
        for (key, present) in &mut observed.settings {
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

    /// Makes the host look like `desired`; on an error it looks as before.
    pub async fn apply(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        let nothing_was_borrowed = self.baseline.is_empty();
        let unchanged = |error| ConvergeError {
            cause: Cause::Host(error),
            back: Back::Restored,
        };
        let mut scope = self.baseline.scope(desired);
        let wanted = std::mem::take(&mut scope.filters);
        scope.filters = wanted.union(&self.filters).cloned().collect();
        let present = self.host.observe(&scope).await.map_err(unchanged)?;
        self.baseline.borrow(desired, &present).map_err(unchanged)?;
        let target = self.baseline.complete(desired, &present);
        let result = converge(&mut self.host, &self.tunnel, &present, &target).await;
        if result.is_ok() {
            self.filters = wanted;
            self.baseline
                .settle(desired)
                .map_err(|error| ConvergeError {
                    cause: Cause::Host(error),
                    back: Back::Restored,
                })?;
        }
        if let Err(ConvergeError {
            back: Back::Restored,
            ..
        }) = &result
            && nothing_was_borrowed
        {
            // Everything borrowed has been given back. The error at hand says more than one of
            // this file would.
            let _ = self.baseline.remove();
        }
        result
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

/// What the loop needs of one tunnel's hold on a host.
#[expect(
    async_fn_in_trait,
    reason = "control runs on one thread: no future has to be Send"
)]
pub trait Hold {
    /// How this system says what is wanted.
    type Desired;

    /// See [`Reconciler::links`].
    async fn links(&mut self) -> Result<Observed, HostError>;

    /// See [`Reconciler::apply`].
    async fn apply(&mut self, desired: &Self::Desired) -> Result<Outcome, ConvergeError>;

    /// See [`Reconciler::stop`].
    async fn stop(&mut self) -> Result<Outcome, ConvergeError>;

    /// See [`Reconciler::changed`]. May be dropped while it waits.
    async fn changed(&mut self) -> Result<(), HostError>;
}

impl<H: Host> Hold for Reconciler<H> {
    type Desired = HostState;

    async fn links(&mut self) -> Result<Observed, HostError> {
        self.links().await
    }

    async fn apply(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        self.apply(desired).await
    }

    async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        self.stop().await
    }

    async fn changed(&mut self) -> Result<(), HostError> {
        self.changed().await
    }
}

/// See [`Reconciler::run`].
pub(crate) async fn keep<K, D>(
    hold: &mut K,
    mut desired: D,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Outcome, ConvergeError>
where
    K: Hold,
    D: FnMut(&Observed) -> K::Desired,
{
    let mut links = None;
    // A daemon that no longer listens to events still wants its host kept.
    let tell = |event| drop(events.send(event));
    loop {
        let seen = hold.links().await;
        let failure = match seen {
            Ok(seen) => {
                let wanted = desired(&seen);
                if links.as_ref() != Some(&seen) {
                    tell(Event::Links(seen.clone()));
                    links = Some(seen);
                }
                match hold.apply(&wanted).await {
                    Ok(outcome) if outcome.executed.is_empty() => None,
                    Ok(outcome) => {
                        tell(Event::Changed(outcome));
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        let pause = match failure {
            None => Duration::ZERO,
            Some(reason) => {
                tell(Event::Failed(reason));
                PAUSE_AFTER_FAILURE
            }
        };
        tell(Event::Looked);
        let command = tokio::select! {
            () = wait(hold, pause) => None,
            command = commands.recv() => Some(command.unwrap_or(Command::Stop)),
        };
        if command == Some(Command::Stop) {
            return hold.stop().await;
        }
    }
}

/// Waits for a reason to look at the host again, after a pause.
async fn wait<K: Hold>(hold: &mut K, pause: Duration) {
    sleep(pause).await;
    match timeout(RESYNC, hold.changed()).await {
        Ok(Ok(())) => sleep(DEBOUNCE).await,
        // Without notices there is the resync; without a pause a broken socket would spin.
        Ok(Err(_)) => sleep(RESYNC).await,
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::units::{Family, RulePref, TableId};
    use crate::host::fake::{Fake, setting};
    use crate::route::Resource;
    use crate::route::resource::{LocalTable, Route, Rule};

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
        let prefs = |state: &BTreeSet<Resource>| -> Vec<u32> {
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
            let asked = tokio::time::Instant::now();
            notice.notify_one();
            let Some(Event::Changed(outcome)) = told.recv().await else {
                panic!("it is not tried again");
            };
            assert!(!outcome.executed.is_empty());
            let waited = asked.elapsed();
            let least = PAUSE_AFTER_FAILURE + DEBOUNCE;
            assert!(waited >= least && waited < 2 * least, "{waited:?}");
            commands.send(Command::Stop).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(kept, script);
        assert!(!outcome.unwrap().executed.is_empty());
        assert!(!directory.join("nc0.baseline.json").exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
