//! A kernel in memory that fails on demand, and that refuses what a real one refuses.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a part of the tests, which picks one kind of resource at a time"
)]

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use super::{Host, HostError, Scope};
use crate::config::units::{Family, IfName, RulePref, TableId};
use crate::route::forwarding::written_over;
use crate::route::links::{Observed, ObservedLink};
use crate::route::lower::linux;
use crate::route::resource::{LocalTable, Route, Rule};
use crate::route::{HostState, Lookup, Operation, Resource, diff};
use crate::sorted::{Map, Set};

/// A kernel in memory.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// All of it, ours and others'.
    pub(crate) state: Set<Resource>,
    /// The devices.
    pub(crate) devices: Set<IfName>,
    /// Addresses of the host that are not in `state`.
    pub(crate) own: Set<IpAddr>,
    /// The operations, counted from 0 over the fake's life, that fail.
    pub(crate) failing: Set<usize>,
    /// The operations that are carried out and yet reported as failed by "File exists".
    pub(crate) doubtful: Set<usize>,
    /// How many operations were asked for.
    pub(crate) count: usize,
    /// The chains of others who forward.
    pub(crate) forwarders: Vec<String>,
    /// Tells of changes.
    pub(crate) notice: Rc<Notify>,
}

impl Fake {
    /// A host with these devices, settings at 0 and the local table's rules where the kernel puts
    /// them.
    pub(crate) fn new(devices: &[&str], settings: &[&str]) -> Self {
        let local = [Family::V4, Family::V6].map(|family| {
            Resource::LocalTable(LocalTable {
                family,
                pref: RulePref(0),
            })
        });
        let settings = settings.iter().map(|key| setting(key, "0"));
        Self {
            state: local.into_iter().chain(settings).collect(),
            devices: devices.iter().map(|name| name.parse().unwrap()).collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, resource: Resource) -> io::Result<()> {
        if self.state.insert(resource) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EEXIST))
        }
    }

    fn remove(&mut self, resource: &Resource, error: i32) -> io::Result<()> {
        if self.state.remove(resource) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(error))
        }
    }

    fn has_device(&self, device: &IfName) -> io::Result<()> {
        if self.devices.contains(device) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ENODEV))
        }
    }

    fn add_route(&mut self, route: &Route) -> io::Result<()> {
        if let Some(device) = &route.device {
            self.has_device(device)?;
        }
        let place = |other: &Route| (other.table, other.destination, other.metric);
        if self.routes().any(|other| place(other) == place(route)) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let reachable = route.via.is_none_or(|via| {
            route.onlink
                || self.state.iter().any(|resource| {
                    matches!(resource, Resource::Address(address)
                        if Some(&address.device) == route.device.as_ref()
                            && (address.prefix.contains(via) || address.peer == Some(via)))
                })
        });
        if !reachable {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        self.add(Resource::Route(route.clone()))
    }

    /// A switch of forwarding writes over other settings, as in the real kernel.
    fn write_over(&mut self, switch: &str, on: bool) {
        let state = std::mem::take(&mut self.state).into_iter();
        self.state = state
            .map(|resource| match &resource {
                Resource::Setting(other) => match written_over(&other.key, on) {
                    Some((by, value)) if by == switch => setting(&other.key, value),
                    _ => resource,
                },
                _ => resource,
            })
            .collect();
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        self.state.iter().filter_map(|resource| match resource {
            Resource::Route(route) => Some(route),
            _ => None,
        })
    }

    fn try_execute(&mut self, operation: &Operation) -> io::Result<()> {
        match operation.clone() {
            Operation::Set(setting) => {
                let same = |resource: &Resource| matches!(resource, Resource::Setting(s) if s.key == setting.key);
                if !self.state.iter().any(same) {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                }
                if self.state.contains(&Resource::Setting(setting.clone())) {
                    return Ok(());
                }
                self.state.retain(|resource| !same(resource));
                self.write_over(&setting.key, setting.value != "0");
                self.add(Resource::Setting(setting))
            }
            Operation::AddAddress(address) => {
                self.has_device(&address.device)?;
                self.add(Resource::Address(address))
            }
            Operation::RemoveAddress(address) => {
                self.remove(&Resource::Address(address.clone()), libc::EADDRNOTAVAIL)?;
                // The kernel takes the routes with this source with it.
                self.state.retain(|resource| {
                    !matches!(resource, Resource::Route(route)
                        if route.source == Some(address.prefix.address()))
                });
                Ok(())
            }
            Operation::AddNeighbour(neighbour) => {
                self.has_device(&neighbour.device)?;
                self.add(Resource::Neighbour(neighbour))
            }
            Operation::RemoveNeighbour(neighbour) => {
                self.remove(&Resource::Neighbour(neighbour), libc::ENOENT)
            }
            Operation::AddRoute(route) => self.add_route(&route),
            Operation::ReplaceRoute(route) => {
                let old = self
                    .routes()
                    .find(|old| {
                        (old.table, old.destination, old.metric)
                            == (route.table, route.destination, route.metric)
                    })
                    .cloned();
                let old = old.map(Resource::Route);
                if let Some(old) = &old {
                    self.state.remove(old);
                }
                self.add_route(&route)
                    .inspect_err(|_| self.state.extend(old))
            }
            Operation::RemoveRoute(route) => self.remove(&Resource::Route(route), libc::ESRCH),
            Operation::AddRule(rule) => self.add(Resource::Rule(rule)),
            Operation::RemoveRule(rule) => self.remove(&Resource::Rule(rule), libc::ENOENT),
            Operation::AddLocalRule(local) => self.add(Resource::LocalTable(local)),
            Operation::RemoveLocalRule(local) => {
                self.remove(&Resource::LocalTable(local), libc::ENOENT)
            }
            Operation::ReplaceFilter(filter) => {
                self.state.retain(|resource| {
                    !matches!(resource, Resource::Filter(f) if f.tunnel == filter.tunnel)
                });
                self.add(Resource::Filter(filter))
            }
            Operation::RemoveFilter(filter) => {
                self.state.retain(|resource| {
                    !matches!(resource, Resource::Filter(f) if f.tunnel == filter.tunnel)
                });
                Ok(())
            }
            Operation::Verify(lookup) => {
                let table = self.look_up(&lookup);
                if table == Some(lookup.table) {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("answered by {table:?}")))
                }
            }
        }
    }

    /// The table that answers: the rules in order, as fib_rules.c asks them.
    fn look_up(&self, lookup: &Lookup) -> Option<TableId> {
        let family = Family::of(lookup.to);
        let matches = |rule: &&Rule| {
            let port = |(first, last)| lookup.port.is_some_and(|(_, p)| first <= p && p <= last);
            rule.family == family
                && rule.from.is_none()
                && rule.oif.is_none()
                && rule.mark.is_none()
                && (rule.iif.is_none() || rule.iif == lookup.iif)
                && rule.to.is_none_or(|to| to.contains(lookup.to))
                && (rule.protocol.is_none() || rule.protocol == lookup.port.map(|(p, _)| p))
                && rule.ports.is_none_or(port)
        };
        let mut tables = Map::<_, Vec<TableId>>::new();
        for resource in &self.state {
            let (pref, table) = match resource {
                Resource::Rule(rule) if matches(&rule) => (rule.pref, rule.table),
                Resource::LocalTable(local) if local.family == family => {
                    (local.pref, TableId::LOCAL)
                }
                _ => continue,
            };
            tables.get_or_insert_with(pref, Vec::new).push(table);
        }
        tables.into_values().flatten().find(|table| {
            let local = *table == TableId::LOCAL && self.own.contains(&lookup.to);
            let routed =
                |route: &Route| route.table == *table && route.destination.contains(lookup.to);
            local || self.routes().any(routed)
        })
    }

    /// What must hold after every single step, whatever happens next.
    fn assert_safe(&self) {
        for family in [Family::V4, Family::V6] {
            let asked = self.state.iter().any(
                |resource| matches!(resource, Resource::LocalTable(local) if local.family == family),
            );
            assert!(asked, "nobody asks the local table: the host is cut off");
        }
        for resource in &self.state {
            if let Resource::Rule(rule) = resource {
                assert!(
                    [TableId::LOCAL, TableId::MAIN].contains(&rule.table)
                        || self.routes().any(|route| route.table == rule.table),
                    "a rule asks an empty table: {rule:?}"
                );
            }
        }
    }
}

impl Host for Fake {
    type Step = Operation;

    fn plan(&self, from: &HostState, to: &HostState) -> Vec<Operation> {
        linux::lower(&diff(from, to))
    }

    async fn observe(&mut self, scope: &Scope) -> Result<HostState, HostError> {
        let locals = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            let of_family = self
                .state
                .iter()
                .filter_map(move |resource| match resource {
                    Resource::LocalTable(local) if local.family == family => Some(local.pref),
                    _ => None,
                });
            scope.local_tables(family, &of_family.collect())
        });
        let seen = self.state.iter().filter(|resource| match resource {
            Resource::Setting(setting) => scope.settings.contains(&setting.key),
            Resource::LocalTable(_) => false,
            Resource::Address(address) => scope.addresses.contains(address),
            Resource::Filter(filter) => scope.marked && filter.tunnel == scope.tunnel,
            Resource::Neighbour(_) | Resource::Route(_) | Resource::Rule(_) => scope.marked,
        });
        Ok(seen.cloned().chain(locals).collect())
    }

    async fn execute(&mut self, operation: &Operation) -> Result<(), HostError> {
        let number = self.count;
        self.count += 1;
        let failed = |errno| HostError::step(operation, io::Error::from_raw_os_error(errno));
        if self.failing.contains(&number) {
            return Err(failed(libc::EPERM));
        }
        self.try_execute(operation)
            .map_err(|error| HostError::step(operation, error))?;
        self.assert_safe();
        if self.doubtful.contains(&number) {
            return Err(failed(libc::EEXIST));
        }
        Ok(())
    }

    async fn links(&mut self, tunnel: &IfName) -> Result<Observed, HostError> {
        let link = |device: &IfName| ObservedLink {
            device: device.clone(),
            index: 0,
            kind: String::new(),
            up: true,
            point_to_point: false,
            addresses: Vec::new(),
            flaws: Map::new(),
            gateways: Vec::new(),
            v4_by_v6: Vec::new(),
            advertised: false,
            mtu: 1500,
        };
        let settings = self.state.iter().filter_map(|resource| match resource {
            Resource::Setting(setting) => Some((setting.key.clone(), setting.value.clone())),
            _ => None,
        });
        Ok(Observed {
            links: self
                .devices
                .iter()
                .filter(|d| *d != tunnel)
                .map(link)
                .collect(),
            settings: settings.collect(),
            forwarders: self.forwarders.clone(),
            ..Observed::default()
        })
    }

    async fn changed(&mut self) -> Result<(), HostError> {
        self.notice.notified().await;
        Ok(())
    }

    async fn glance(&mut self, scope: &Scope) -> Result<HostState, HostError> {
        let state = self.observe(scope).await?;
        let quiet = |it: &&Resource| matches!(it, Resource::Setting(_) | Resource::Neighbour(_));
        Ok(state.iter().filter(quiet).cloned().collect())
    }

    async fn raise(&mut self, _: &IfName) -> Result<bool, HostError> {
        Ok(false)
    }

    fn last_to_change(&self) -> Option<String> {
        Some("meddler".to_owned())
    }
}

/// A setting of this value.
pub(crate) fn setting(key: &str, value: &str) -> Resource {
    Resource::Setting(crate::route::resource::Setting {
        key: key.into(),
        value: value.into(),
    })
}
