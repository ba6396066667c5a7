//! FreeBSD: the commands and the pf anchor that [`route::lower::freebsd`] gives, by ifconfig(8),
//! route(8), sysctl(8) and pfctl(8).
//!
//! What is ours carries no mark here. So the command that undoes each step is written to the
//! baseline file before the step is done, and stays there until it is undone: by this instance, or
//! by the one after a kill. What is wanted is compared with the host each time it is looked at.
//!
//! Only the routing socket needs FreeBSD; all else is tested everywhere, on programs that answer
//! as a real host did.
//!
//! [`route::lower::freebsd`]: crate::route::lower::freebsd

mod programs;
mod read;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::HostError;
use super::baseline::Baseline;
use super::converge::{Back, Cause, ConvergeError, Outcome};
use super::keep::{Command as Order, Event, Hold, keep};
use crate::config::Config;
use crate::config::units::{Family, IfName};
use crate::route::forwarding::SWITCHES;
use crate::route::links::Observed;
use crate::route::lower::freebsd::{
    Command, PF_HINT, Step, What, anchor_name, pf_conf_lines, steps,
};
use crate::route::resource::Setting;
use crate::route::{HostState, Resource};
use programs::has_no_pf;
pub use programs::{Pf, Programs};
use read::{Seen, Standing};

/// How often the anchor and the settings are looked at, of whose change FreeBSD gives no notice: two
/// processes, three where addresses are translated, of some milliseconds each.
const GLANCE: Duration = Duration::from_secs(1);

/// What is wanted of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    steps: Vec<Step>,
    /// What pf.conf must hold for that.
    lines: Vec<&'static str>,
}

/// What a FreeBSD host of this configuration should look like, given what was seen of it.
pub fn desired(config: &Config, observed: &Observed) -> Desired {
    Desired {
        steps: steps(config, observed),
        lines: pf_conf_lines(Some(config)),
    }
}

/// The programs, and the kernel's notices: a routing socket (route(4)).
#[derive(Debug)]
pub struct System {
    programs: Programs,
    notices: Option<UdpSocket>,
}

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
        Ok(Self {
            programs: Programs::default(),
            notices: Some(open().map_err(refuse)?),
        })
    }

    /// What kind of device has this name, when it is none that this program makes: whoever asks
    /// for a tunnel of that name has mistaken somebody's device for it.
    pub async fn foreign_device(&mut self, name: &IfName) -> Result<Option<String>, HostError> {
        let has = |list: String| list.split_whitespace().any(|word| word == name.as_str());
        let is_there = has(self.programs.print("ifconfig -l").await?);
        if !is_there || has(self.programs.print("ifconfig -g tun").await?) {
            return Ok(None);
        }
        Ok(Some("network".to_owned()))
    }

    async fn changed(&mut self) -> io::Result<()> {
        let Some(notices) = &self.notices else {
            return std::future::pending().await;
        };
        loop {
            // Longer messages are cut off: their type is enough.
            let mut message = [0; 64];
            let length = notices.recv(&mut message).await?;
            if matters(&message[..length]) {
                return Ok(());
            }
        }
    }
}

/// Whether a message of the routing socket tells of a change. Others are answers to questions, and
/// one for each packet without a route. The type is its fourth byte (`struct rt_msghdr`).
fn matters(message: &[u8]) -> bool {
    const RTM_GET: u8 = 4;
    const RTM_LOSING: u8 = 5;
    const RTM_MISS: u8 = 7;
    const RTM_IEEE80211: u8 = 18;
    !matches!(
        message.get(3),
        Some(&(RTM_GET | RTM_LOSING | RTM_MISS | RTM_IEEE80211))
    )
}

/// One tunnel's hold on the host.
#[derive(Debug)]
pub struct Reconciler {
    system: System,
    tunnel: IfName,
    baseline: Baseline,
    done: Desired,
    /// The anchor's text, and how pf printed it right after it was loaded.
    loaded: Option<(String, String)>,
    /// What the administrator has been told of pf.
    told: Vec<String>,
    /// The devices that were seen with a default route.
    were_links: Vec<IfName>,
}

impl Reconciler {
    /// Reads what a killed instance borrowed. Changes nothing.
    pub fn open(system: System, tunnel: &IfName, run_directory: &Path) -> Result<Self, HostError> {
        Ok(Self {
            system,
            tunnel: tunnel.clone(),
            baseline: Baseline::open(run_directory, tunnel)?,
            done: Desired::default(),
            loaded: None,
            told: Vec::new(),
            were_links: Vec::new(),
        })
    }

    /// The links, and the settings as they were before us.
    pub async fn links(&mut self) -> Result<Observed, HostError> {
        let seen = self.look().await?;
        let mut observed = Observed {
            links: read::devices(&seen.devices, &self.tunnel),
            ..Observed::default()
        };
        let (v4, v6) = &seen.routes;
        read::add_gateways(&mut observed, Family::V4, v4);
        read::add_gateways(&mut observed, Family::V6, v6);
        observed.foreign_routes = seen.foreign_routes(&self.tunnel, self.baseline.undoing());
        observed.into_tunnel = seen.led_in(&self.tunnel);
        observed.remember_links(&mut self.were_links);
        if SWITCHES
            .iter()
            .any(|key| self.baseline.setting(key).is_some())
        {
            observed.forwarders = self.forwarders().await;
            self.baseline.keep_newcomers(&mut observed);
        }
        for key in &SWITCHES[2..] {
            let before = self.baseline.setting(key).map(str::to_owned);
            if let Some(value) = match before {
                Some(before) => Some(before),
                None => self.setting(key).await,
            } {
                observed.settings.insert((*key).to_owned(), value);
            }
        }
        Ok(observed)
    }

    async fn look(&self) -> Result<Seen, HostError> {
        let programs = &self.system.programs;
        Ok(Seen {
            devices: programs.print("ifconfig -a").await?,
            routes: (
                programs.print("netstat -rn -f inet").await?,
                programs.print("netstat -rn -f inet6").await?,
            ),
        })
    }

    /// Who is set up to forward packets: by rc.conf(5), and by the rules of pf.conf that translate. That may
    /// come while forwarding is on because of us, and is not seen then.
    async fn forwarders(&self) -> Vec<String> {
        let programs = &self.system.programs;
        let mut found = Vec::new();
        for key in ["gateway_enable", "ipv6_gateway_enable"] {
            let value = programs.print(&format!("sysrc -n {key}")).await;
            let value = value.map(|it| it.trim().to_lowercase());
            if value.is_ok_and(|it| ["yes", "true", "on", "1"].contains(&it.as_str())) {
                found.push(format!("{key} of /etc/rc.conf"));
            }
        }
        let rules = programs.print("pfctl -s nat").await.unwrap_or_default();
        for rule in rules.lines() {
            // Without the addresses, which change.
            let words: Vec<&str> = rule.split_whitespace().collect();
            let on = words.iter().position(|word| *word == "on");
            let translates = ["nat", "rdr", "binat"].contains(words.first().unwrap_or(&""));
            let words = on.and_then(|on| words.get(..on + 2)).filter(|_| translates);
            found.extend(words.map(|words| format!("`{}` of pf", words.join(" "))));
        }
        found.sort();
        found.dedup();
        found
    }

    /// The value of a setting; a kernel without IPv6 has only one of them.
    async fn setting(&self, key: &str) -> Option<String> {
        let line = format!("sysctl -n {key}");
        let value = self.system.programs.print(&line).await.ok()?;
        Some(value.trim().to_owned())
    }

    /// Makes the host look like `desired`; on an error it looks as before.
    pub async fn apply(&mut self, desired: &Desired) -> Result<Outcome, ConvergeError> {
        let before = self.done.clone();
        let mut outcome = Outcome::default();
        match self.go(desired, &mut outcome).await {
            Ok(()) => {
                self.tell_of_pf(desired).await;
                Ok(outcome)
            }
            Err(error) => Err(ConvergeError {
                cause: Cause::Host(error),
                back: match self.go(&before, &mut Outcome::default()).await {
                    Ok(()) => Back::Restored,
                    Err(error) => Back::Failed(Cause::Host(error)),
                },
            }),
        }
    }

    /// Says what keeps pf from heeding the rules, once until it changes.
    async fn tell_of_pf(&mut self, desired: &Desired) {
        let notices = self.system.programs.ask_pf(&desired.lines).await.notices();
        if notices != self.told {
            for notice in &notices {
                log::warn!("{notice}");
            }
            self.told = notices;
        }
    }

    /// Undoes what is not wanted, backwards, and does what is wanted and not there.
    async fn go(&mut self, to: &Desired, outcome: &mut Outcome) -> Result<(), HostError> {
        let mut seen = self.look().await?;
        self.give_settings_back(to, outcome).await?;
        let mut moved = false;
        for undoing in self.baseline.undoing().to_vec().iter().rev() {
            let step = to.steps.iter().find(|step| undone_by(step, undoing));
            // The anchor's new text takes the old one's place.
            let stays = step.is_some_and(|step| match seen.standing(&step.what) {
                Standing::AsWanted | Standing::Unseen => true,
                Standing::Absent | Standing::Other => false,
            });
            if !stays {
                self.take_away(undoing, Some(&seen), outcome).await?;
                moved = true;
            }
        }
        if moved {
            seen = self.look().await?;
        }
        for step in &to.steps {
            self.establish(step, &seen, outcome).await?;
        }
        self.done.clone_from(to);
        Ok(())
    }

    /// Does a step, unless the host is so already.
    async fn establish(
        &mut self,
        step: &Step,
        seen: &Seen,
        outcome: &mut Outcome,
    ) -> Result<(), HostError> {
        if self.holds(step, seen).await {
            return Ok(());
        }
        match &step.what {
            What::Setting(key) => {
                let one = |value| HostState::from_iter([setting(key, value)]);
                let present = self.setting(key).await.map_or_else(HostState::new, one);
                if self.baseline.switches_on(&one("1".to_owned())) {
                    self.baseline.set_forwarders(self.forwarders().await, &[]);
                }
                self.baseline.borrow(&one("1".to_owned()), &present)?;
            }
            What::Ipv6 { .. } | What::Address { .. } | What::Route { .. } | What::Anchor => {
                if let Some(down) = &step.down {
                    self.baseline.remember(down.line())?;
                }
            }
        }
        let programs = &self.system.programs;
        match programs.execute(&step.up).await {
            // A kernel without IPv6 knows none of this.
            Err(error) if matches!(step.what, What::Ipv6 { .. }) => log::debug!("{error}"),
            Err(HostError::Step { step, error }) if has_no_pf(&error.to_string()) => {
                let error = io::Error::other(format!("{error} ({PF_HINT})"));
                return Err(HostError::Step { step, error });
            }
            result => {
                result?;
                outcome.executed.push(step.up.line());
            }
        }
        if step.what == What::Anchor {
            let text = step.up.input.clone().unwrap_or_default();
            self.loaded = self.anchor(&text).await.map(|printed| (text, printed));
        }
        Ok(())
    }

    /// Whether the host is as a step makes it.
    async fn holds(&self, step: &Step, seen: &Seen) -> bool {
        match &step.what {
            What::Setting(key) => self.setting(key).await.as_deref() == Some("1"),
            What::Anchor => match (&self.loaded, &step.up.input) {
                (Some((text, printed)), Some(wanted)) if text == wanted => {
                    self.anchor(text).await.as_ref() == Some(printed)
                }
                _ => false,
            },
            What::Ipv6 { .. } | What::Address { .. } | What::Route { .. } => {
                match seen.standing(&step.what) {
                    Standing::AsWanted => true,
                    // The administrator has given the flows a route: they may have his.
                    Standing::Other => matches!(step.what, What::Route { flows: true, .. }),
                    Standing::Absent | Standing::Unseen => false,
                }
            }
        }
    }

    /// The anchor as pf prints it; its translations only where `text`, which was loaded, has some.
    async fn anchor(&self, text: &str) -> Option<String> {
        let name = anchor_name(&self.tunnel);
        let programs = &self.system.programs;
        let show = |what: &str| format!("pfctl -a {name} -s {what}");
        let rules = programs.print(&show("rules")).await.ok()?;
        if !text.starts_with("nat ") {
            return Some(rules);
        }
        Some(rules + &programs.print(&show("nat")).await.ok()?)
    }

    /// Whether somebody has changed a setting or the anchor. What cannot be asked waits for the next
    /// look.
    async fn has_moved(&self) -> bool {
        let settings = self.done.steps.iter().filter_map(|step| match step.what {
            What::Setting(key) => Some(key),
            What::Ipv6 { .. } | What::Address { .. } | What::Route { .. } | What::Anchor => None,
        });
        let settings: Vec<&str> = settings.collect();
        if !settings.is_empty() {
            let line = format!("sysctl -n {}", settings.join(" "));
            let values = self.system.programs.print(&line).await;
            if values.is_ok_and(|values| values.lines().any(|value| value.trim() != "1")) {
                return true;
            }
        }
        match &self.loaded {
            Some((text, printed)) => {
                let now = self.anchor(text).await;
                now.is_some_and(|now| now != *printed)
            }
            None => false,
        }
    }

    /// Undoes one thing, and forgets it. On a host that cannot be looked at, it is tried.
    async fn take_away(
        &mut self,
        undoing: &str,
        seen: Option<&Seen>,
        outcome: &mut Outcome,
    ) -> Result<(), HostError> {
        let command = Command::of(undoing);
        if seen.is_none_or(|seen| seen.stands(&command)) {
            match self.system.programs.execute(&command).await {
                Ok(()) => outcome.executed.push(command.line()),
                // It went meanwhile: an address with its device, the anchor with pf's module.
                Err(HostError::Step { error, .. }) if has_no_pf(&error.to_string()) => {}
                Err(error) => {
                    if self.look().await.map_or(true, |seen| seen.stands(&command)) {
                        return Err(error);
                    }
                }
            }
        }
        if command
            .argv
            .first()
            .is_some_and(|program| program == "pfctl")
        {
            self.loaded = None;
        }
        self.baseline.forget(undoing)
    }

    /// Gives the settings back that are not wanted.
    async fn give_settings_back(
        &mut self,
        to: &Desired,
        outcome: &mut Outcome,
    ) -> Result<(), HostError> {
        let settings = to.steps.iter().filter_map(|step| match step.what {
            What::Setting(key) => Some(setting(key, "1".to_owned())),
            What::Ipv6 { .. } | What::Address { .. } | What::Route { .. } | What::Anchor => None,
        });
        let wanted: HostState = settings.collect();
        if !self.baseline.switches_back(&wanted).is_empty() {
            let observed = self.links().await?;
            self.baseline.leave_switches_to(&observed, &wanted)?;
        }
        let mut kept = HostState::new();
        for resource in self.baseline.state().iter() {
            let Resource::Setting(Setting { key, value }) = resource else {
                continue;
            };
            if wanted.contains(&setting(key, "1".to_owned())) {
                kept.insert(resource.clone());
            } else if self.setting(key).await.is_some_and(|it| it != *value) {
                let set = Command::of(format!("sysctl {key}={value}"));
                self.system.programs.execute(&set).await?;
                outcome.executed.push(set.line());
            }
        }
        self.baseline.settle(&kept)
    }

    /// Undoes everything, and gives the borrowed settings back. What cannot be undone keeps nothing
    /// else from being undone; it is named, and remembered for the next try.
    pub async fn stop(&mut self) -> Result<Outcome, ConvergeError> {
        let mut outcome = Outcome::default();
        let mut left = Vec::new();
        let nothing = Desired::default();
        if let Err(error) = self.give_settings_back(&nothing, &mut outcome).await {
            left.push(error.to_string());
        }
        let seen = self.look().await.ok();
        for undoing in self.baseline.undoing().to_vec().iter().rev() {
            let undone = self.take_away(undoing, seen.as_ref(), &mut outcome);
            if let Err(error) = undone.await {
                left.push(error.to_string());
            }
        }
        self.done = nothing;
        if left.is_empty() {
            match self.baseline.remove() {
                Ok(()) => return Ok(outcome),
                Err(error) => left.push(error.to_string()),
            }
        }
        Err(ConvergeError {
            cause: Cause::Host(HostError::Left(left)),
            back: Back::AllElse,
        })
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

    async fn raise(&mut self) -> Result<(), HostError> {
        let programs = &self.system.programs;
        // A host that cannot be looked at says so at the next step.
        let Ok(devices) = programs.print("ifconfig -a").await else {
            return Ok(());
        };
        match read::is_up(&devices, &self.tunnel) {
            Some(true) => Ok(()),
            Some(false) => {
                let up = Command::of(format!("ifconfig {} up", self.tunnel));
                log::info!("{up}");
                programs.execute(&up).await
            }
            None => Err(HostError::Gone(self.tunnel.clone())),
        }
    }

    fn glances(&self) -> Option<Duration> {
        Some(GLANCE)
    }

    async fn glance(&mut self) -> bool {
        self.has_moved().await
    }
}

fn undone_by(step: &Step, undoing: &str) -> bool {
    step.down
        .as_ref()
        .is_some_and(|down| down.line() == undoing)
}

fn setting(key: &str, value: String) -> Resource {
    Resource::Setting(Setting {
        key: key.to_owned(),
        value,
    })
}
