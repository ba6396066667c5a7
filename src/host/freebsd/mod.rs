//! FreeBSD: the commands and the pf anchor that [`route::lower::freebsd`] gives, by ifconfig(8),
//! route(8), sysctl(8) and pfctl(8).
//!
//! Simpler than Linux: what was done is remembered, not observed, so what somebody else takes away
//! is not noticed before the next change. Each step has its undoing; when one fails, those before
//! it are undone.
//!
//! [`route::lower::freebsd`]: crate::route::lower::freebsd

mod read;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{self, Stdio};

use socket2::{Domain, Socket, Type};
use sysctl::Sysctl as _;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::HostError;
use super::baseline::Baseline;
use super::converge::{Back, Cause, ConvergeError, Outcome};
use super::reconciler::{Command as Order, Event, Hold, keep};
use crate::config::Config;
use crate::config::units::{Family, IfName};
use crate::route::links::Observed;
use crate::route::lower::freebsd::{Command, anchor_name, down, up};
use crate::route::resource::Setting;
use crate::route::{HostState, Resource};

/// The settings that are borrowed.
const SETTINGS: [&str; 2] = ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"];

/// What is wanted of a host: steps, each with its undoing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired(Vec<(Command, Option<Command>)>);

/// What a FreeBSD host of this configuration should look like, given what was seen of it.
pub fn desired(config: &Config, observed: &Observed) -> Desired {
    // Steps without an undoing come first, so the two lists are paired from their ends.
    let mut undoing = down(config, observed).into_iter();
    let steps = up(config, observed).into_iter().rev();
    let mut steps: Vec<_> = steps.map(|step| (step, undoing.next())).collect();
    steps.reverse();
    Desired(steps)
}

/// The kernel's notices: a routing socket (route(4)).
#[derive(Debug)]
pub struct System(UdpSocket);

impl System {
    /// Opens it. Must be called within a tokio runtime.
    pub fn open() -> Result<Self, HostError> {
        let open = || {
            let socket = Socket::new(Domain::from(libc::PF_ROUTE), Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            // Only received from, which is the same for all sockets that keep messages apart.
            UdpSocket::from_std(socket.into())
        };
        let refuse = |error| HostError::read("the routing socket", error);
        open().map(Self).map_err(refuse)
    }

    /// What kind of device has this name, when it is none that this program makes: whoever asks
    /// for a tunnel of that name has mistaken somebody's device for it.
    pub async fn foreign_device(&mut self, name: &IfName) -> Result<Option<String>, HostError> {
        let has = |list: &str| list.split_whitespace().any(|word| word == name.as_str());
        let is_ours = || Ok(has(&print(&["ifconfig", "-g", "tun"])?));
        Ok(if has(&print(&["ifconfig", "-l"])?) && !is_ours()? {
            Some("network".to_owned())
        } else {
            None
        })
    }

    async fn changed(&mut self) -> io::Result<()> {
        // Longer messages are cut off: that there was one is enough.
        let mut message = [0; 64];
        self.0.recv(&mut message).await.map(drop)
    }
}

/// One tunnel's hold on the host.
#[derive(Debug)]
pub struct Reconciler {
    system: System,
    tunnel: IfName,
    baseline: Baseline,
    done: Desired,
    /// A killed instance may have left what it did.
    leftovers: bool,
}

impl Reconciler {
    /// Reads what a killed instance borrowed. Changes nothing.
    pub fn open(system: System, tunnel: &IfName, run_directory: &Path) -> Result<Self, HostError> {
        let baseline = Baseline::open(run_directory, tunnel)?;
        Ok(Self {
            system,
            tunnel: tunnel.clone(),
            leftovers: !baseline.is_empty(),
            baseline,
            done: Desired::default(),
        })
    }

    /// The links, and the settings as they were before us.
    pub async fn links(&mut self) -> Result<Observed, HostError> {
        let devices = print(&["ifconfig", "-a"])?;
        let mut observed = Observed {
            links: read::devices(&devices, &self.tunnel),
            ..Observed::default()
        };
        for (family, word) in [(Family::V4, "inet"), (Family::V6, "inet6")] {
            let routes = print(&["netstat", "-rn", "-f", word])?;
            read::add_gateways(&mut observed, family, &routes);
        }
        for resource in settings().iter().chain(self.baseline.state().iter()) {
            if let Resource::Setting(Setting { key, value }) = resource {
                observed.settings.insert(key.clone(), value.clone());
            }
        }
        Ok(observed)
    }

    /// Makes the host look like `desired`; on an error, what was done is undone.
    pub async fn apply(&mut self, desired: &Desired) -> Result<Outcome, ConvergeError> {
        if *desired == self.done {
            return Ok(Outcome::default());
        }
        let present = settings();
        let unchanged = |error| ConvergeError {
            cause: Cause::Host(error),
            back: Back::Restored,
        };
        self.baseline
            .borrow(&present, &present)
            .map_err(unchanged)?;
        if std::mem::take(&mut self.leftovers) {
            // They may be there or not.
            for undoing in desired
                .0
                .iter()
                .rev()
                .filter_map(|(_, undoing)| undoing.as_ref())
            {
                let _ = execute(undoing);
            }
        }
        let before = self.done.clone();
        let mut outcome = Outcome::default();
        match self.go(desired, &mut outcome) {
            Ok(()) => Ok(outcome),
            Err(error) => Err(ConvergeError {
                cause: Cause::Host(error),
                back: match self.go(&before, &mut Outcome::default()) {
                    Ok(()) => Back::Restored,
                    Err(error) => Back::Failed(Cause::Host(error)),
                },
            }),
        }
    }

    /// Undoes what is not wanted, backwards, and does what is wanted and not done. An undoing that
    /// is also wanted later (the anchor's) is left out: the new text takes the old one's place.
    fn go(&mut self, to: &Desired, outcome: &mut Outcome) -> Result<(), HostError> {
        while let Some(place) = self.done.0.iter().rposition(|step| !to.0.contains(step)) {
            if let Some(undoing) = &self.done.0[place].1
                && !to
                    .0
                    .iter()
                    .any(|(_, other)| other.as_ref() == Some(undoing))
            {
                execute(undoing)?;
                outcome.executed.push(first_line(undoing));
            }
            self.done.0.remove(place);
        }
        for step in &to.0 {
            if !self.done.0.contains(step) {
                execute(&step.0)?;
                outcome.executed.push(first_line(&step.0));
                self.done.0.push(step.clone());
            }
        }
        // The same steps in the order in which they are wanted, so that equality tells.
        self.done.clone_from(to);
        Ok(())
    }

    /// Undoes everything, and gives the borrowed settings back.
    pub async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        let mut outcome = Outcome::default();
        self.give_back(&mut outcome)
            .map_err(|error| ConvergeError {
                cause: Cause::Host(error),
                back: Back::Restored,
            })?;
        Ok(outcome)
    }

    fn give_back(&mut self, outcome: &mut Outcome) -> Result<(), HostError> {
        let mut undone = self.go(&Desired::default(), outcome);
        while undone.is_err() && self.done.0.pop().is_some() {
            // What cannot be undone (the tunnel is gone, and its address with it) must not keep
            // the rest from being undone.
            undone = self.go(&Desired::default(), outcome);
        }
        if self.leftovers {
            let anchor = anchor_name(&self.tunnel);
            execute(&command(&["pfctl", "-a", &anchor, "-F", "all"]))?;
        }
        let present = settings();
        for resource in self.baseline.state().iter() {
            if let Resource::Setting(Setting { key, value }) = resource
                && !present.contains(resource)
            {
                let set = command(&["sysctl", &format!("{key}={value}")]);
                execute(&set)?;
                outcome.executed.push(first_line(&set));
            }
        }
        self.baseline.remove()
    }

    /// Waits until the kernel tells of a change.
    pub async fn changed(&mut self) -> Result<(), HostError> {
        let lost = |error| HostError::read("the kernel's notices", error);
        self.system.changed().await.map_err(lost)
    }

    /// Keeps the host as `desired` says until it is told to stop, or nobody is left to tell it;
    /// then gives the host back.
    pub async fn run<D>(
        mut self,
        desired: D,
        commands: mpsc::Receiver<Order>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Outcome, ConvergeError>
    where
        D: FnMut(&Observed) -> Desired,
    {
        keep(&mut self, desired, commands, events).await
    }
}

impl Hold for Reconciler {
    type Desired = Desired;

    async fn links(&mut self) -> Result<Observed, HostError> {
        self.links().await
    }

    async fn apply(&mut self, desired: &Desired) -> Result<Outcome, ConvergeError> {
        self.apply(desired).await
    }

    async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        self.stop().await
    }

    async fn changed(&mut self) -> Result<(), HostError> {
        self.changed().await
    }
}

/// The settings that are borrowed, as they are; without IPv6 in the kernel there is only one.
fn settings() -> HostState {
    let value = |key: &str| sysctl::Ctl::new(key).ok()?.value_string().ok();
    let settings = SETTINGS.iter().filter_map(|key| {
        Some(Resource::Setting(Setting {
            key: (*key).to_owned(),
            value: value(key)?,
        }))
    });
    settings.collect()
}

fn command(words: &[&str]) -> Command {
    Command {
        argv: words.iter().map(ToString::to_string).collect(),
        input: None,
    }
}

fn first_line(command: &Command) -> String {
    command.argv.join(" ")
}

/// Runs a program and gives what it prints.
fn print(words: &[&str]) -> Result<String, HostError> {
    let command = command(words);
    run(&command).map_err(|error| HostError::read(first_line(&command), error))
}

fn execute(command: &Command) -> Result<(), HostError> {
    let failed = |error| HostError::step(command, error);
    run(command).map(drop).map_err(failed)
}

/// Runs a command without a shell; what it says on its standard error is the error.
fn run(command: &Command) -> io::Result<String> {
    let (program, arguments) = command
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("an empty command"))?;
    let mut child = process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), &command.input) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "{}: {}",
            output.status,
            said.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
