//! Keeps the host as desired while the daemon runs: looks at the whole of it whenever the kernel
//! tells of a change, and now and then without being told.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};

use super::HostError;
use super::converge::{Back, Cause, ConvergeError, Outcome};
use crate::io::clock;
use crate::route::links::Observed;

/// How long changes are collected before the host is looked at: a link that comes up changes its
/// device, address and routes within some ten milliseconds.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// At the latest after this time the host is looked at, whatever the kernel has told.
const RESYNC: Duration = Duration::from_secs(30);

/// How long nothing is tried after the host could not even be looked at.
const PAUSE: Duration = Duration::from_secs(1);

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
    Links(Box<Observed>),
    /// The host was not as desired and is now.
    Changed(Outcome),
    /// A part of the host could not be made as desired, for this reason. It is tried again a while
    /// later; all else is as desired.
    Failed(String),
    /// What had failed is as desired.
    Sound,
    /// The host was looked at, because the kernel sent a notice or it was time again.
    Looked,
}

/// What the loop needs of one tunnel's hold on a host.
#[expect(
    async_fn_in_trait,
    reason = "control runs on one thread: no future has to be Send"
)]
pub trait Hold {
    /// How this system says what is wanted.
    type Desired;

    /// See `Reconciler::links`.
    async fn links(&mut self) -> Result<Observed, HostError>;

    /// See `Reconciler::apply`.
    async fn apply(&mut self, desired: &Self::Desired) -> Result<Outcome, ConvergeError>;

    /// See `Reconciler::stop`.
    async fn stop(&mut self) -> Result<Outcome, ConvergeError>;

    /// See `Reconciler::changed`. May be dropped while it waits.
    async fn changed(&mut self) -> Result<(), HostError>;

    /// Sets the tunnel's device up where somebody set it down; an error ends the daemon.
    async fn raise(&mut self) -> Result<(), HostError> {
        Ok(())
    }

    /// What could not be made as desired, in words.
    fn failing(&self) -> Option<String> {
        None
    }

    /// How long until something of that is to be tried again.
    fn rest(&self) -> Option<Duration> {
        None
    }

    /// How often to take a glance; nothing where that would not see more than notices tell.
    fn glances(&self) -> Option<Duration> {
        None
    }

    /// True when something has changed of which no notice comes. May be dropped while it waits.
    async fn glance(&mut self) -> bool {
        false
    }
}

/// See `Reconciler::run`.
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
    let mut was_failing = false;
    // A daemon that no longer listens to events still wants its host kept.
    let tell = |event| drop(events.send(event));
    loop {
        if let Err(error) = hold.raise().await
            && !error.is_lost_answer()
        {
            let stopped = hold.stop().await;
            return Err(ConvergeError {
                cause: Cause::Host(error),
                back: stopped.map_or_else(|it| Back::Failed(it.cause), |_| Back::Restored),
            });
        }
        let failure = match hold.links().await {
            Ok(seen) => {
                let wanted = desired(&seen);
                if links.as_ref() != Some(&seen) {
                    tell(Event::Links(Box::new(seen.clone())));
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
        let pause = failure.as_ref().map_or(Duration::ZERO, |_| PAUSE);
        let failing = failure.or_else(|| hold.failing());
        if was_failing && failing.is_none() {
            tell(Event::Sound);
        }
        was_failing = failing.is_some();
        failing
            .into_iter()
            .for_each(|text| tell(Event::Failed(text)));
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
    let end = clock::now() + hold.rest().unwrap_or(RESYNC).min(RESYNC);
    loop {
        let turn = hold
            .glances()
            .map_or(end, |it| (clock::now() + it).min(end));
        match timeout_at(turn, hold.changed()).await {
            Ok(Ok(())) => {
                sleep(DEBOUNCE).await;
                return;
            }
            // Without notices there is the resync; without a pause a broken socket would spin.
            Ok(Err(_)) => {
                sleep(RESYNC).await;
                return;
            }
            Err(_) if turn == end || hold.glance().await => return,
            Err(_) => {}
        }
    }
}
