//! The parts of a host's state that stand and fall on their own: the tunnel, each link, each other
//! device. What fails in one is driven back and tried again there, and holds up no other.

use crate::config::units::{IfName, TableId};
use crate::route::{HostState, Resource};

/// A part of the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The tunnel's addresses, the tables and rules of the public addresses, forwarding, the packet
    /// filter, and the place of table local: a host with a half of these could be cut off.
    Tunnel,
    /// A link's table and the rules that ask it.
    Link(TableId),
    /// What stands on one device: its settings, our addresses, the client's routes.
    Device(IfName),
}

/// Says of each resource which group it is in.
#[derive(Debug)]
pub struct Groups {
    tunnel: IfName,
    /// The tables that are a link's: none of the tunnel's routes stands there, and none ends.
    links: Vec<TableId>,
}

impl Groups {
    /// The groups of a host on its way from one state to another.
    pub fn of(tunnel: &IfName, states: [&HostState; 2]) -> Self {
        let routes = || {
            states
                .iter()
                .flat_map(|state| state.iter())
                .filter_map(|resource| {
                    if let Resource::Route(route) = resource {
                        Some(route)
                    } else {
                        None
                    }
                })
                .filter(|route| route.table != TableId::MAIN)
        };
        let is_ours = |table| {
            routes().any(|route| {
                route.table == table && route.device.as_ref().is_none_or(|device| device == tunnel)
            })
        };
        let mut links: Vec<_> = routes().map(|route| route.table).collect();
        links.dedup();
        links.retain(|table| !is_ours(*table));
        Self {
            tunnel: tunnel.clone(),
            links,
        }
    }

    /// The group of a resource.
    pub fn group(&self, resource: &Resource) -> Group {
        let of_device = |device: &IfName| {
            if *device == self.tunnel {
                Group::Tunnel
            } else {
                Group::Device(device.clone())
            }
        };
        match resource {
            Resource::Setting(setting) => match device_of(&setting.key) {
                Some(device) => of_device(&device),
                None => Group::Tunnel,
            },
            Resource::Address(address) => of_device(&address.device),
            Resource::Route(route) if self.links.contains(&route.table) => Group::Link(route.table),
            Resource::Route(route) => match &route.device {
                Some(device) => of_device(device),
                None => Group::Tunnel,
            },
            Resource::Rule(rule) if self.links.contains(&rule.table) => Group::Link(rule.table),
            // Without the neighbour the gateway would lose the host that hands its address over.
            Resource::Rule(_)
            | Resource::Neighbour(_)
            | Resource::Filter(_)
            | Resource::LocalTable(_) => Group::Tunnel,
        }
    }

    /// The groups that there are, in the order in which they are to be changed. Flows must find
    /// their way before the public address is routed by the tunnel, and the other way round when
    /// that ends.
    pub fn order(&self, from: &HostState, to: &HostState) -> Vec<Group> {
        let mut groups: Vec<_> = from
            .iter()
            .chain(to.iter())
            .map(|it| self.group(it))
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let routed = to.iter().any(|resource| {
            matches!(resource, Resource::Rule(_)) && self.group(resource) == Group::Tunnel
        });
        if routed && groups.first() == Some(&Group::Tunnel) {
            groups.rotate_left(1);
        }
        groups
    }

    /// A group's part of a state.
    pub fn part(&self, group: &Group, state: &HostState) -> HostState {
        let inside = state.iter().filter(|it| self.group(it) == *group);
        inside.cloned().collect()
    }
}

/// The device that a setting is of alone. What a switch of forwarding writes over goes with the
/// switch, and the neighbours' with the public address.
fn device_of(key: &str) -> Option<IfName> {
    let rest = key
        .strip_prefix("net.ipv4.conf.")
        .or_else(|| key.strip_prefix("net.ipv6.conf."))?;
    let (device, name) = rest.rsplit_once('.')?;
    let shared = ["all", "default"].contains(&device)
        || ["forwarding", "accept_ra", "accept_redirects"].contains(&name);
    if shared {
        return None;
    }
    device.replace('/', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::{Family, Prefix, RulePref};
    use crate::host::fake::setting;
    use crate::route::resource::{Route, Rule};

    #[test]
    fn each_resource_has_its_group() {
        let name = |text: &str| text.parse::<IfName>().unwrap();
        let everything = Prefix::default_of(Family::V4);
        let public: Prefix = "203.0.113.2/32".parse().unwrap();
        let route = |table, device: &str| {
            Resource::Route(Route::direct(TableId(table), everything, &name(device)))
        };
        let rule =
            |pref, table| Resource::Rule(Rule::new(Family::V4, RulePref(pref), TableId(table)));
        let client = |table| Resource::Route(Route::direct(table, public, &name("lan")));
        let end = |table| Resource::Route(Route::unreachable(TableId(table), public));
        let link = |table| Group::Link(TableId(table));
        let lan = || Group::Device(name("lan"));
        let cases = [
            (route(28260, "wan0"), link(28260)),
            (rule(10, 28260), link(28260)),
            (route(20, "nc0"), Group::Tunnel),
            (rule(20, 20), Group::Tunnel),
            (client(TableId(21)), lan()),
            (client(TableId::MAIN), lan()),
            (end(21), Group::Tunnel),
            (rule(21, 21), Group::Tunnel),
            // Its table is empty: the device of a killed instance is gone.
            (rule(10, 28261), Group::Tunnel),
            (
                setting("net.ipv4.conf.wan0/7.rp_filter", "2"),
                Group::Device(name("wan0.7")),
            ),
            (setting("net.ipv4.conf.wan0.forwarding", "1"), Group::Tunnel),
            (setting("net.ipv4.conf.all.arp_ignore", "1"), Group::Tunnel),
            (setting("net.ipv4.ip_forward", "1"), Group::Tunnel),
        ];
        let state: HostState = cases.iter().map(|(resource, _)| resource.clone()).collect();
        let nothing = HostState::new();
        let groups = Groups::of(&name("nc0"), [&nothing, &state]);
        for (resource, group) in &cases {
            assert_eq!(groups.group(resource), *group, "{resource:?}");
        }
        // The tunnel comes last and goes first.
        assert_eq!(groups.order(&nothing, &state).last(), Some(&Group::Tunnel));
        assert_eq!(groups.order(&state, &nothing).first(), Some(&Group::Tunnel));
    }
}
