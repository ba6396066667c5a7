//! Linux: routes, rules and addresses over rtnetlink, settings in /proc/sys, marks and NAT over
//! nf_tables' netlink. No binary is run.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's attributes are non-exhaustive enums of dozens, and what is not named here \
              is of no meaning here"
)]

mod addresses;
mod attributes;
mod links;
mod message;
mod neighbours;
mod netlink;
mod nft;
mod routes;
mod rules;
mod sockets;
mod sysctl;
mod watch;
#[cfg(test)]
mod wire;

use std::io;
use std::time::Duration;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteType;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::{Host, HostError, Scope};
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, TableId};
use crate::io::clock;
use crate::route::foreign::Ruleset;
use crate::route::links::Observed;
use crate::route::resource::Setting;
use crate::route::{HostState, Lookup, Operation, Resource, diff, lower};
use crate::sorted::Set;
use links::Names;
use netlink::Handle;
use rules::Listed;
use watch::Watch;

pub use sockets::{holders, sockets};
/// How often a request is made whose answer is lost. Doing something a second time is answered by
/// "it is there already", which is as good.
const TRIES: u32 = 3;

/// The kernel of this host, or of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct System {
    handle: Handle,
    watch: Watch,
    /// The packet filters of others, and when they were read.
    filters: Option<Filters>,
    /// When they are to be read again.
    owed: Option<Instant>,
}

/// The packet filters of others.
#[derive(Debug)]
struct Filters {
    /// Of nf_tables, whose notices tell of a change.
    generation: Option<u32>,
    read: Instant,
    rules: Ruleset,
}

impl Filters {
    /// When they are to be read again; `None` while nothing can have changed.
    fn due(&self, generation: Option<u32>, has_legacy: bool) -> Option<Instant> {
        if self.generation != generation {
            Some(self.read + LEAST_AGE)
        } else {
            has_legacy.then(|| self.read + LEGACY_AGE)
        }
    }
}

/// The least time between two reads, however often something changes: a read takes a small router a while.
const LEAST_AGE: Duration = Duration::from_secs(2);
/// How long the rules of the older ip_tables are taken as unchanged: the kernel gives no notice of them, and
/// another program has to be run to read them.
const LEGACY_AGE: Duration = Duration::from_secs(30);

impl System {
    /// Opens the netlink sockets. Must be called within a tokio runtime, whose one thread stays
    /// in the network namespace.
    pub fn open() -> Result<Self, HostError> {
        let open = |error| HostError::read("netlink (is this Linux without rtnetlink?)", error);
        Ok(Self {
            handle: Handle::open().map_err(open)?,
            watch: Watch::open().map_err(open)?,
            filters: None,
            owed: None,
        })
    }

    /// The socket to ask by; a new one when the last is broken.
    fn handle(&mut self) -> io::Result<&Handle> {
        if self.handle.is_broken() {
            self.handle = Handle::open()?;
        }
        Ok(&self.handle)
    }

    /// The packet filters of others, read again when they may have changed, at most once in [`LEAST_AGE`].
    /// A ruleset that says it is unknown where they cannot be read. Other tasks run meanwhile.
    async fn filters(&mut self, tunnel: &IfName) -> &Ruleset {
        let (generation, now) = (nft::ruleset::generation(), clock::now());
        let has_legacy = nft::ruleset::has_legacy();
        let known = self.filters.as_ref();
        let due = known.map_or(Some(now), |it| it.due(generation, has_legacy));
        if due.is_some_and(|due| due <= now) {
            let tunnel = tunnel.clone();
            let read = spawn_blocking(move || nft::ruleset::read(&tunnel)).await;
            self.filters = Some(Filters {
                generation,
                read: now,
                rules: read.ok().and_then(Result::ok).unwrap_or_else(|| {
                    let mut rules = Ruleset::default();
                    rules.unknown = true;
                    rules
                }),
            });
            self.owed = None;
        } else {
            self.owed = due;
        }
        let nothing = || Filters {
            generation,
            read: now,
            rules: Ruleset::default(),
        };
        &self.filters.get_or_insert_with(nothing).rules
    }

    /// What kind of device has this name, when it is none that this program makes: whoever asks
    /// for a tunnel of that name has mistaken somebody's device for it.
    pub async fn foreign_device(&mut self, name: &IfName) -> Result<Option<String>, HostError> {
        let read = |error| HostError::read("the devices", error);
        let handle = self.handle().map_err(read)?;
        links::foreign_kind(handle, name).await.map_err(read)
    }

    async fn try_execute(&mut self, operation: &Operation) -> io::Result<()> {
        let handle = self.handle()?;
        match operation {
            Operation::Set(setting) => sysctl::write(setting),
            Operation::AddAddress(address) => {
                addresses::add(handle, &Names::read(handle).await?, address).await
            }
            Operation::RemoveAddress(address) => {
                addresses::delete(handle, &Names::read(handle).await?, address).await
            }
            Operation::AddNeighbour(neighbour) => {
                neighbours::add(handle, &Names::read(handle).await?, neighbour).await
            }
            Operation::RemoveNeighbour(neighbour) => {
                neighbours::delete(handle, &Names::read(handle).await?, neighbour).await
            }
            Operation::AddRoute(route) => {
                let names = Names::read(handle).await?;
                routes::add(handle, &routes::encode(route, &names)?).await
            }
            Operation::ReplaceRoute(route) => {
                routes::replace(handle, &Names::read(handle).await?, route).await
            }
            Operation::RemoveRoute(route) => {
                routes::delete(handle, &Names::read(handle).await?, route).await
            }
            Operation::AddRule(rule) => rules::add(handle, &rules::encode(rule)).await,
            Operation::RemoveRule(rule) => {
                rules::delete(handle, rule.family, |message| {
                    rules::decode(message) == Listed::Ours(rule.clone())
                })
                .await
            }
            Operation::AddLocalRule(local) => rules::add(handle, &rules::encode_local(local)).await,
            Operation::RemoveLocalRule(local) => {
                rules::delete(handle, local.family, |message| {
                    rules::decode(message) == Listed::Local(local.clone())
                })
                .await
            }
            Operation::ReplaceFilter(filter) => nft::replace(filter),
            Operation::RemoveFilter(filter) => nft::remove(&filter.tunnel),
            Operation::Verify(_) => Ok(()),
        }
    }

    async fn verify(&mut self, operation: &Operation, lookup: &Lookup) -> Result<(), HostError> {
        let step = |error| HostError::step(operation, error);
        let handle = self.handle().map_err(step)?;
        let names = Names::read(handle).await.map_err(step)?;
        let (table, kind) = routes::look_up(handle, &names, lookup)
            .await
            .map_err(step)?;
        // Until the first rule is added, the kernel keeps table local within main and says so
        // (fib_trie.c, fib_unmerge): then the route's kind alone tells.
        let table = match kind {
            RouteType::Local if table == TableId::MAIN => TableId::LOCAL,
            _ => table,
        };
        if table == lookup.table {
            return Ok(());
        }
        Err(HostError::Verify {
            question: operation.to_string(),
            answer: format!("table {table}, {kind:?}"),
        })
    }
}

/// Asks, and asks again where the answer was lost.
macro_rules! again {
    ($ask:expr) => {{
        let mut tries = 1;
        loop {
            match $ask {
                Err(error) if error.is_lost_answer() && tries < TRIES => tries += 1,
                answer => break answer,
            }
        }
    }};
}

impl Host for System {
    type Step = Operation;

    fn plan(&self, from: &HostState, to: &HostState) -> Vec<Operation> {
        lower::linux::lower(&diff(from, to))
    }

    async fn observe(&mut self, scope: &Scope) -> Result<HostState, HostError> {
        again!(self.try_observe(scope).await)
    }

    async fn execute(&mut self, operation: &Operation) -> Result<(), HostError> {
        again!(if let Operation::Verify(lookup) = operation {
            self.verify(operation, lookup).await
        } else {
            let done = self.try_execute(operation).await;
            done.map_err(|error| HostError::step(operation, error))
        })
    }

    async fn links(&mut self, tunnel: &IfName) -> Result<Observed, HostError> {
        self.watch.set_tunnel(tunnel);
        let read = |error| HostError::read("the devices and their gateways", error);
        let mut observed = again!(match self.handle() {
            Ok(handle) => links::observe(handle, tunnel).await.map_err(read),
            Err(error) => Err(read(error)),
        })?;
        let filters = self.filters(tunnel).await;
        observed.forwarders = filters.forwarders(tunnel.as_str());
        observed.filters = filters.clone();
        Ok(observed)
    }

    async fn changed(&mut self) -> Result<(), HostError> {
        let changed = self.watch.changed();
        let changed = match self.owed {
            Some(at) => timeout_at(at, changed).await.unwrap_or(Ok(())),
            None => changed.await,
        };
        changed.map_err(|error| HostError::read("the kernel's notices", error))
    }

    async fn glance(&mut self, scope: &Scope) -> Result<HostState, HostError> {
        let mut state = settings(scope)?;
        if !scope.neighbours.is_empty() {
            let read = |error| HostError::read("the proxy neighbours", error);
            let handle = self.handle().map_err(read)?;
            let names = Names::read(handle).await.map_err(read)?;
            add_neighbours(handle, &names, scope, &mut state)
                .await
                .map_err(read)?;
        }
        Ok(state)
    }

    async fn raise(&mut self, tunnel: &IfName) -> Result<bool, HostError> {
        let read = |error| HostError::read(format!("the device {tunnel}"), error);
        let raised = again!(match self.handle() {
            Ok(handle) => links::raise(handle, tunnel).await.map_err(read),
            Err(error) => Err(read(error)),
        });
        raised?.ok_or_else(|| HostError::Gone(tunnel.clone()))
    }

    fn last_to_change(&self) -> Option<String> {
        self.watch.last_to_change()
    }
}

impl System {
    async fn try_observe(&mut self, scope: &Scope) -> Result<HostState, HostError> {
        let mut state = settings(scope)?;
        let devices = |error| HostError::read("the devices", error);
        let handle = self.handle().map_err(devices)?;
        let names = Names::read(handle).await.map_err(devices)?;
        let listed = addresses::list(handle)
            .await
            .map_err(|error| HostError::read("the addresses", error))?;
        for address in listed.iter().filter_map(|m| addresses::decode(m, &names)) {
            if scope.addresses.contains(&address) {
                state.insert(Resource::Address(address));
            }
        }
        add_neighbours(handle, &names, scope, &mut state)
            .await
            .map_err(|error| HostError::read("the proxy neighbours", error))?;
        for family in [Family::V4, Family::V6] {
            let listed = routes::list_ours(handle, family)
                .await
                .map_err(|error| HostError::read("the routes", error))?;
            for message in listed.iter().filter(|_| scope.marked) {
                if let Some(route) = routes::decode(message, &names) {
                    state.insert(Resource::Route(route));
                }
            }
            let listed = rules::list(handle, family)
                .await
                .map_err(|error| HostError::read("the policy rules", error))?;
            let mut locals = Set::new();
            for message in &listed {
                match rules::decode(message) {
                    Listed::Ours(rule) if scope.marked => state.insert(Resource::Rule(rule)),
                    Listed::Local(local) => drop(locals.insert(local.pref)),
                    Listed::Ours(_) | Listed::Foreign => {}
                }
            }
            for local in scope.local_tables(family, &locals) {
                state.insert(local);
            }
        }
        let filter = nft::observe(&scope.tunnel, &scope.filters)
            .map_err(|error| HostError::read("the packet filter (nf_tables)", error))?;
        if let Some(filter) = filter.filter(|_| scope.marked) {
            state.insert(Resource::Filter(filter));
        }
        Ok(state)
    }
}

/// The settings of a scope, as far as this kernel has them now.
fn settings(scope: &Scope) -> Result<HostState, HostError> {
    let mut state = HostState::new();
    for key in &scope.settings {
        let value = sysctl::read(key).map_err(|error| HostError::read(key, error))?;
        if let Some(value) = value {
            state.insert(Resource::Setting(Setting {
                key: key.clone(),
                value,
            }));
        }
    }
    Ok(state)
}

/// Adds the proxy neighbours of a scope, and all that are ours.
async fn add_neighbours(
    handle: &Handle,
    names: &Names,
    scope: &Scope,
    state: &mut HostState,
) -> io::Result<()> {
    for message in &neighbours::list(handle).await? {
        if let Some(neighbour) = neighbours::decode(message, names)
            && scope.marked
            && (neighbours::is_ours(message) || scope.neighbours.contains(&neighbour))
        {
            state.insert(Resource::Neighbour(neighbour));
        }
    }
    Ok(())
}

/// The kernel's number of a family.
fn family_number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// IPPROTO_*, a byte of the IP header.
fn protocol_number(protocol: PortProtocol) -> u8 {
    let number = match protocol {
        PortProtocol::Tcp => libc::IPPROTO_TCP,
        PortProtocol::Udp => libc::IPPROTO_UDP,
    };
    u8::try_from(number).unwrap_or_default()
}

/// A list from the kernel: empty where it was built without what is listed, for example without IPv6
/// or without policy routing.
fn or_none<T>(listed: io::Result<Vec<T>>) -> io::Result<Vec<T>> {
    let unsupported = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
        )
    };
    match listed {
        Err(error) if unsupported(&error) => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who changes a rule a hundred times a second costs a read in two seconds, and the last change
    /// is seen.
    #[test]
    fn packet_filters_are_read_only_now_and_then() {
        let start = clock::now();
        let mut known = Filters {
            generation: Some(0),
            read: start,
            rules: Ruleset::default(),
        };
        assert_eq!(known.due(Some(0), false), None);
        assert_eq!(known.due(Some(0), true), Some(start + LEGACY_AGE));
        let (mut reads, mut now) = (0, start);
        for generation in 1..=1000 {
            now += Duration::from_millis(10);
            let due = known.due(Some(generation), true).unwrap();
            if due <= now {
                reads += 1;
                (known.generation, known.read) = (Some(generation), now);
            }
        }
        assert_eq!(reads, 5);
        assert_eq!(known.due(Some(1001), false), Some(known.read + LEAST_AGE));
    }

    /// Field row B7: an answer that is lost costs a second, and not the whole of what was asked.
    #[tokio::test(flavor = "current_thread")]
    async fn a_lost_answer_is_asked_for_again() {
        let mut system = System::open().unwrap();
        let tunnel: IfName = "nc0".parse().unwrap();
        let scope = Scope::of(&tunnel, []);
        let start = clock::now();
        system.handle = Handle::mute();
        system.observe(&scope).await.unwrap();
        system.handle = Handle::mute();
        assert!(!system.links(&tunnel).await.unwrap().settings.is_empty());
        system.handle = Handle::mute();
        let no_device: IfName = "no-such-device".parse().unwrap();
        let raised = system.raise(&no_device).await;
        assert!(matches!(raised, Err(HostError::Gone(_))), "{raised:?}");
        // Three answers lost: three times the patience, of which the daemon has ten.
        assert!(start.elapsed() >= 3 * netlink::PATIENCE);
    }
}
