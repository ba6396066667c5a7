//! Keeps the host as desired while the daemon runs: looks at the whole of it whenever the kernel
//! tells of a change, and now and then without being told.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::baseline::Baseline;
use super::converge::{Back, Cause, ConvergeError, Outcome, converge};
use super::{Host, HostError};
use crate::config::units::IfName;
use crate::route::HostState;
use crate::route::links::Observed;

/// How long changes are collected before the host is looked at: a link that comes up changes its
/// device, address and routes within some ten milliseconds.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// At the latest after this time the host is looked at, whatever the kernel has told: its notices
/// can be lost, and there are none of nf_tables' and of settings.
const RESYNC: Duration = Duration::from_secs(30);

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
    /// The host could not be made as desired, for this reason. It is tried again at the next
    /// change or resync.
    Failed(String),
}

/// One tunnel's hold on the host.
#[derive(Debug)]
pub struct Reconciler<H> {
    host: H,
    tunnel: IfName,
    baseline: Baseline,
}

impl<H: Host> Reconciler<H> {
    /// Reads what a killed instance borrowed. Changes nothing.
    pub fn open(host: H, tunnel: &IfName, run_directory: &Path) -> Result<Self, HostError> {
        Ok(Self {
            host,
            tunnel: tunnel.clone(),
            baseline: Baseline::open(run_directory, tunnel)?,
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
        for (key, value) in self.baseline.settings() {
            if let Some(present) = observed.settings.get_mut(key) {
                present.clone_from(value);
            }
        }
        Ok(observed)
    }

    /// Makes the host look like `desired`; on an error it looks as before.
    pub async fn apply(&mut self, desired: &HostState) -> Result<Outcome, ConvergeError> {
        let nothing_was_borrowed = self.baseline.is_empty();
        let unchanged = |error| ConvergeError {
            cause: Cause::Host(error),
            back: Back::Restored,
        };
        let scope = self.baseline.scope(desired);
        let present = self.host.observe(&scope).await.map_err(unchanged)?;
        self.baseline.borrow(desired, &present).map_err(unchanged)?;
        let target = self.baseline.complete(desired, &present);
        let result = converge(&mut self.host, &self.tunnel, &present, &target).await;
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

    /// Keeps the host as `desired` says until it is told to stop, or nobody is left to tell it;
    /// then gives the host back.
    pub async fn run<D>(
        mut self,
        mut desired: D,
        mut commands: mpsc::Receiver<Command>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Outcome, ConvergeError>
    where
        D: FnMut(&Observed) -> HostState,
    {
        let mut links = None;
        // A daemon that no longer listens to events still wants its host kept.
        let tell = |event| drop(events.send(event));
        loop {
            match self.links().await {
                Ok(seen) => {
                    let wanted = desired(&seen);
                    if links.as_ref() != Some(&seen) {
                        tell(Event::Links(seen.clone()));
                        links = Some(seen);
                    }
                    match self.apply(&wanted).await {
                        Ok(outcome) if outcome.executed.is_empty() => {}
                        Ok(outcome) => tell(Event::Changed(outcome)),
                        Err(error) => tell(Event::Failed(error.to_string())),
                    }
                }
                Err(error) => tell(Event::Failed(error.to_string())),
            }
            if self.wait(&mut commands).await == Some(Command::Stop) {
                return self.stop().await;
            }
        }
    }

    /// Waits for a reason to look at the host again.
    async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let changed = async {
            let change = timeout(RESYNC, self.host.changed()).await;
            // Without notices there is the resync; without a pause a broken socket would spin.
            let pause = if matches!(change, Ok(Err(_))) {
                RESYNC
            } else {
                DEBOUNCE
            };
            sleep(pause).await;
        };
        tokio::select! {
            () = changed => None,
            command = commands.recv() => Some(command.unwrap_or(Command::Stop)),
        }
    }
}
