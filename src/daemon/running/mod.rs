//! The life of a tunnel between "up" and "down": links come and go, names get addresses, people
//! ask, and at the end the host is given back.

mod flows;
mod told;

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::filters::{Filters, PULSE};
use super::flaps::Flaps;
use super::links::{Flow, LinkIds, Plan, Resolved};
use super::listeners::Listeners;
use super::names::known::Known as Names;
use super::names::{Answer as Address, Resolver, memory, ways};
use super::packet_loop::{Command, News, PacketThread};
use super::reload::may_reload;
use super::settings;
use super::sockets::Note;
use super::status::{Known, status};
use super::{DaemonError, HOST_PATIENCE, Options, notify};
use crate::config::units::Mtu;
use crate::config::{Config, Warning};
use crate::control::{Answer, Asked, Form, Request};
use crate::host::{self, Reconciler};
use crate::io::Clock;
use crate::io::tun;
use crate::proto::Instant;
use crate::proto::event::{Event, LinkId, PathState};
use crate::route::links::Observed;
use crate::route::{awaited, misplaced};
use crate::sorted::{Map, Set};

/// How often a link whose socket could not be opened is tried again: an IPv6 address that is being
/// tested for duplicates (RFC 4862) cannot be bound for a second.
const RETRY: Duration = Duration::from_secs(2);

/// So long without a path the tunnel counts as down.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(10);

/// So many sockets for one path in trouble are told at `info`, the others at `debug`.
const LOGGED_ATTEMPTS: u32 = 4;

/// The signals that the daemon obeys.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    /// Begins to catch them.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What the desired state of the host is made from, shared with the reconciler's loop.
#[derive(Debug, Clone)]
pub(super) struct Desired(Rc<RefCell<(Config, Resolved, bool)>>);

impl Desired {
    pub(super) fn new(config: &Config) -> Self {
        Self(Rc::new(RefCell::new((
            config.clone(),
            Resolved::new(),
            true,
        ))))
    }

    /// The host as it should be.
    pub(super) fn state(&self, observed: &Observed) -> host::Desired {
        let (config, resolved, tunnel_down) = &*self.0.borrow();
        let mut observed = observed.clone();
        observed.tunnel_down = *tunnel_down;
        observed.remotes = resolved.values().flatten().copied().collect();
        host::desired(config, &observed)
    }
}

/// A tunnel that is up.
pub(super) struct Running<'a> {
    options: &'a Options,
    config: Config,
    /// The TUN's MTU.
    mtu: Mtu,
    packets: PacketThread,
    desired: Desired,
    observed: Observed,
    clock: Clock,
    since: Instant,
    ids: LinkIds,
    plans: Vec<Plan>,
    /// The flows that the packet thread was told to open.
    open: Map<LinkId, Open>,
    /// The links whose path is usable.
    usable: Set<LinkId>,
    /// The links whose socket has a fixed port and was not closed yet.
    closing: Set<LinkId>,
    names: Names,
    /// The addresses of the names, as they are tried.
    resolved: Resolved,
    resolver: Resolver,
    addresses_out: mpsc::UnboundedSender<Address>,
    addresses: mpsc::UnboundedReceiver<Address>,
    routing_error: Option<String>,
    listeners: Listeners,
    /// What is not there yet.
    awaited: Vec<String>,
    /// What is wrong with the place of the public address.
    misplaced: Vec<Warning>,
    /// The tunnel carries nothing, for a while already.
    tunnel_down: bool,
    /// Since when it has had no path.
    lost_at: Option<Instant>,
    flaps: Flaps,
    filters: Filters,
}

/// A flow that the packet thread was told to open.
struct Open {
    flow: Flow,
    plan: Plan,
    /// Since when its path has not been usable by this socket, as far as it is not now.
    waiting_since: Instant,
    /// How many sockets were opened since it was usable.
    attempts: u32,
    /// The resolvers no longer give its remote address for the name.
    is_doubted: bool,
    /// False while the socket before it, with the same fixed port, is being closed.
    opened: bool,
}

/// This system's hold on the host.
#[cfg(target_os = "linux")]
pub(super) type Hold = Reconciler<host::System>;
#[cfg(target_os = "freebsd")]
pub(super) type Hold = Reconciler;

/// What made the daemon end.
enum End {
    Asked(&'static str),
    Packets,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        options: &'a Options,
        config: Config,
        mtu: Mtu,
        (packets, listeners): (PacketThread, Listeners),
        desired: Desired,
        observed: Observed,
    ) -> Self {
        let (addresses_out, addresses) = mpsc::unbounded_channel();
        let clock = Clock::start();
        let hosts = config.remote_hosts();
        let names = Names::load(&memory::file_of(&options.config), &hosts);
        let resolved = names.all();
        let resolver = Resolver::start(hosts, ways(&config, &observed), &addresses_out);
        let misplaced = misplaced(&config, &observed);
        let mut running = Self {
            options,
            config,
            mtu,
            packets,
            desired,
            observed,
            clock,
            since: clock.now(),
            ids: LinkIds::default(),
            plans: Vec::new(),
            open: Map::new(),
            usable: Set::new(),
            closing: Set::new(),
            names,
            resolved,
            resolver,
            addresses_out,
            addresses,
            routing_error: None,
            listeners,
            awaited: Vec::new(),
            // Said at the start already.
            misplaced,
            tunnel_down: true,
            lost_at: None,
            flaps: Flaps::default(),
            filters: Filters::default(),
        };
        // Remotes given as addresses are there at once.
        while let Ok((host, found)) = running.addresses.try_recv() {
            running.take_addresses(host, found);
        }
        running.publish();
        running.update_links();
        running.look_for_awaited();
        running.look_at_filters();
        running
    }

    pub(super) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    /// Serves until the end, and gives the host back.
    pub(super) async fn serve(
        mut self,
        reconciler: Hold,
        mut stop: Stop,
        mut events: mpsc::Receiver<News>,
        mut asked: mpsc::Receiver<Asked>,
    ) -> Result<(), DaemonError> {
        let (commands, commands_in) = mpsc::channel(8);
        let (host_out, mut host_events) = mpsc::unbounded_channel();
        let desired = self.desired.clone();
        let mut reconciling = pin!(reconciler.run(
            move |observed| desired.state(observed),
            commands_in,
            host_out
        ));
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let refresh = tokio::select! {
                // It ends only when it is told to.
                result = &mut reconciling => {
                    self.packets.tell(Command::Stop);
                    return result.map(|_| ()).map_err(DaemonError::from);
                }
                _ = stop.terminate.recv() => break End::Asked("SIGTERM"),
                _ = stop.interrupt.recv() => break End::Asked("SIGINT"),
                _ = stop.hangup.recv() => self.reload(),
                news = events.recv() => match news {
                    Some(news) => self.heed_packets(news),
                    None => break End::Packets,
                },
                Some(event) = host_events.recv() => { self.heed(event); false }
                Some((host, found)) = self.addresses.recv() => {
                    self.take_addresses(host, found);
                    self.update_links();
                    self.publish();
                    true
                }
                Some(Asked { request, answer }) = asked.recv() => {
                    let (reply, ends) = match request {
                        Request::Show(form) => (self.show(form).await, false),
                        Request::Down => (Answer::Stopping, true),
                    };
                    // Who asked may have gone.
                    let _ = answer.send(reply);
                    if ends {
                        break End::Asked("down");
                    }
                    false
                }
                _ = pulse.tick(), if self.filters.may_drop() => { self.count_packets().await; false }
                _ = retry.tick(), if self.is_waiting()
                    || self.flaps.is_counting()
                    || self.lost_at.is_some() => self.retry(),
            };
            if refresh {
                // A full queue holds a refresh already.
                let _ = commands.try_send(host::Command::Refresh);
            }
        };

        if let End::Asked(by) = end {
            log::info!("{} goes down ({by})", self.name());
        }
        notify::notify("STOPPING=1");
        // The peer hears it first, while the links' routing still stands.
        let tun = self.packets.stop().await;
        // A dropped sender says the same, should the loop be busy.
        let _ = commands.try_send(host::Command::Stop);
        drop(commands);
        let restored = timeout(HOST_PATIENCE, reconciling)
            .await
            .map_err(|_| DaemonError::HostHangs("giving the host back"));
        let ended = match (end, tun) {
            (End::Asked(_), Ok(_)) => Ok(()),
            (End::Packets, Ok(_)) => Err("the packet thread ended".to_owned()),
            (End::Asked(_) | End::Packets, Err(error)) => Err(error),
        };
        let outcome = restored??;
        for operation in &outcome.executed {
            log::debug!("{operation}");
        }
        ended.map_err(DaemonError::Packets)?;
        log::info!("the host is as it was before");
        Ok(())
    }

    /// Gives the TUN the MTU that the paths carry, also when somebody else has changed it.
    fn keep_mtu(&mut self) {
        match tun::follow_mtu(&self.config.name, self.mtu) {
            Ok(false) => {}
            Ok(true) => log::debug!("ip link set {} mtu {}", self.name(), self.mtu),
            Err(error) => log::debug!("cannot set the MTU of {}: {error}", self.name()),
        }
    }

    /// Makes the addresses of the names and the configuration known to the reconciler.
    fn publish(&self) {
        let mut resolved = self.resolved.clone();
        // Paths that work stay where they are although the name is elsewhere now.
        let in_use = self.open.values().map(|open| open.flow.remote.ip());
        resolved.insert(String::new(), in_use.collect());
        *self.desired.0.borrow_mut() = (self.config.clone(), resolved, self.tunnel_down);
    }

    /// A name has other addresses than before. A flow that does not work, to an address that the name no
    /// longer has, does not wait for its turn.
    fn take_addresses(&mut self, host: String, found: Vec<IpAddr>) {
        let before = self.resolved.get(&host).cloned().unwrap_or_default();
        for (id, open) in self.open.iter_mut() {
            let remote = open.flow.remote.ip();
            if !self.usable.contains(id) && before.contains(&remote) && !found.contains(&remote) {
                open.is_doubted = true;
            }
        }
        self.names.answer(host, found);
        self.resolved = self.names.all();
    }

    /// No path works, and one of them has been tried long enough.
    fn doubts_names(&self) -> bool {
        self.usable.is_empty() && self.open.values().any(|open| open.attempts > 0)
    }

    /// Writes where the peer was, for a start without DNS.
    fn remember(&self) {
        let file = memory::file_of(&self.options.config);
        if let Err(error) = memory::save(&file, self.names.proven()) {
            log::debug!("cannot write {}: {error}", file.display());
        }
    }

    /// A link whose socket could not be opened has a plan without a flow as well.
    fn has_unopened(&self) -> bool {
        self.plans.iter().any(|plan| plan.flow.is_err())
    }

    /// Some link is not usable. While all are, nobody has to wake up for them.
    fn is_waiting(&self) -> bool {
        self.listeners.is_waiting()
            || self.has_unopened()
            || self.open.keys().any(|id| !self.usable.contains(id))
    }

    /// Opens the listeners whose address has come, and says what is still waited for.
    fn look_for_awaited(&mut self) {
        self.listeners.retry(&self.packets);
        let awaited = awaited(&self.config, &self.observed).into_iter();
        let awaited: Vec<String> = awaited.chain(self.listeners.awaited()).collect();
        for text in awaited.iter().filter(|text| !self.awaited.contains(text)) {
            log::info!("{} waits: {text}", self.name());
        }
        self.awaited = awaited;
    }

    /// Says it when a link has come to hold the public address.
    fn look_for_misplaced(&mut self) {
        let misplaced = misplaced(&self.config, &self.observed);
        for warning in misplaced.iter().filter(|it| !self.misplaced.contains(it)) {
            log::warn!("{warning}");
        }
        self.misplaced = misplaced;
    }

    /// Keeps in mind which links are usable, and since when the others are not.
    fn note_path(&mut self, event: &Event) {
        let &Event::Path {
            link: Some(link),
            state,
            remote,
            ..
        } = event
        else {
            return;
        };
        if state == PathState::Up
            && let Some(remote) = remote
            && self.names.prove(remote.ip())
        {
            self.resolved = self.names.all();
            self.remember();
        }
        if matches!(state, PathState::Up | PathState::Suspect) {
            if let Some(open) = self.open.get_mut(&link) {
                open.attempts = 0;
                self.usable.insert(link);
            }
        } else if self.usable.remove(&link)
            && let Some(open) = self.open.get_mut(&link)
        {
            open.waiting_since = self.clock.now();
        }
        self.resolver.doubt(self.doubts_names());
    }

    /// Keeps in mind whether the tunnel carries anything. True: the host is to be looked at for it.
    fn note_tunnel(&mut self, event: &Event) -> bool {
        match event {
            Event::Connected => {
                self.lost_at = None;
                self.set_tunnel_down(false)
            }
            Event::Disconnected => {
                self.lost_at = Some(self.clock.now());
                false
            }
            Event::Rekeyed
            | Event::Path { .. }
            | Event::Roamed { .. }
            | Event::Mtu(_)
            | Event::SecurityMismatch { .. } => false,
        }
    }

    /// The same, after a while without a path.
    fn is_lost_for_long(&mut self) -> bool {
        let now = self.clock.now();
        let lost = |at: &mut Instant| now.since(*at) >= TUNNEL_PATIENCE;
        self.lost_at.take_if(lost).is_some() && self.set_tunnel_down(true)
    }

    fn set_tunnel_down(&mut self, down: bool) -> bool {
        let changed = std::mem::replace(&mut self.tunnel_down, down) != down;
        if changed {
            self.publish();
        }
        changed
    }

    /// What the packet thread tells. True: the host is to be looked at for it.
    fn heed_packets(&mut self, news: News) -> bool {
        match news {
            News::Tunnel(event) => {
                self.note_path(&event);
                self.log(&event);
                if let Event::Mtu(mtu) = event {
                    self.mtu = mtu;
                    self.keep_mtu();
                }
                return self.note_tunnel(&event);
            }
            News::Closed(link) => {
                self.closing.remove(&link);
                self.update_links();
            }
            News::Note(Note { level, text }) => log::log!(level, "{text}"),
        }
        false
    }

    /// Tries again what waits. True: the host is to be looked at for it.
    fn retry(&mut self) -> bool {
        if self.is_waiting() {
            self.look_for_awaited();
            self.update_links();
            self.resolver.doubt(self.doubts_names());
        }
        self.log_flaps();
        self.is_lost_for_long()
    }

    /// What the reconciler tells.
    fn heed(&mut self, event: host::Event) {
        match event {
            host::Event::Links(observed) => {
                self.observed = *observed;
                self.resolver.follow(ways(&self.config, &self.observed));
                self.update_links();
                self.look_for_awaited();
                self.look_for_misplaced();
                self.look_at_filters();
            }
            host::Event::Sound => {
                self.routing_error = None;
                log::info!("routing: all is as it should be again");
            }
            host::Event::Changed(outcome) => {
                let level = self.level_of_repairs();
                log::log!(level, "routing: {} operations", outcome.executed.len());
                for operation in &outcome.executed {
                    log::debug!("{operation}");
                }
            }
            host::Event::Failed(reason) => {
                if self.routing_error.as_ref() != Some(&reason) {
                    log::warn!("routing: {reason}");
                }
                self.routing_error = Some(reason);
            }
            host::Event::Looked => self.keep_mtu(),
        }
    }

    fn look_at_filters(&mut self) {
        let mut observed = self.observed.clone();
        observed.remotes = self.resolved.values().flatten().copied().collect();
        self.filters.look(&self.config, &observed);
    }

    async fn count_packets(&mut self) {
        // A thread that does not answer is noticed elsewhere.
        let Ok(report) = self.packets.report().await else {
            return;
        };
        if self
            .filters
            .count(report.stats.packets_in, report.stats.packets_out)
        {
            self.filters.accuse(self.config.name.as_str());
        }
    }

    async fn show(&self, form: Form) -> Answer {
        let report = match self.packets.report().await {
            Ok(report) => report,
            Err(reason) => return Answer::Error(reason.to_owned()),
        };
        let known = Known {
            config: &self.config,
            mtu: settings::mtu(&self.config),
            uptime: self.clock.now().since(self.since),
            routing_error: self.routing_error.as_deref(),
            awaited: &self.awaited,
            plans: &self.plans,
            filters: self.filters.lines(self.config.name.as_str()),
        };
        match status(&known, &report).text(form) {
            Ok(text) => Answer::Text(text),
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    /// Reads the configuration again. True: the host is to be looked at again.
    fn reload(&mut self) -> bool {
        let new = match Config::read(&self.options.config) {
            Ok((new, warnings)) => {
                for warning in warnings {
                    log::warn!("{warning}");
                }
                new
            }
            Err(errors) => {
                log::error!("the configuration stays as it was:\n{errors}");
                return false;
            }
        };
        if new == self.config {
            log::info!("the configuration is unchanged");
            return false;
        }
        if !may_reload(self.options, &self.config, &new, &self.observed) {
            return false;
        }
        log::info!("the new configuration is in use");
        let hosts = new.remote_hosts();
        self.names.retain(&hosts);
        self.resolved = self.names.all();
        let ways = ways(&new, &self.observed);
        self.resolver = Resolver::start(hosts, ways, &self.addresses_out);
        log::debug!("{} names are watched", self.resolver.names());
        if new.redundant != self.config.redundant {
            self.packets.tell(Command::Redundant(new.redundant.clone()));
        }
        self.config = new;
        self.packets.tell(Command::Admit(self.config.crossing()));
        self.publish();
        self.update_links();
        self.look_for_awaited();
        self.look_at_filters();
        true
    }
}
