//! Each change as operations on a Linux kernel, and each operation as the command that does the
//! same.

use std::fmt;

use super::nft;
use crate::config::PortProtocol;
use crate::config::units::{Family, Prefix, RulePref, TableId};
use crate::route::diff::Change;
use crate::route::operation::{Lookup, Operation};
use crate::route::resource::{Address, OUR_PROTOCOL, ProxyNeighbour, Resource, Route, Rule};

/// The operations of some changes, in their order.
pub fn lower(changes: &[Change]) -> Vec<Operation> {
    changes.iter().filter_map(operation).collect()
}

fn operation(change: &Change) -> Option<Operation> {
    Some(match change {
        Change::Put(resource) | Change::Add(resource) => match resource {
            Resource::Setting(setting) => Operation::Set(setting.clone()),
            Resource::Address(address) => Operation::AddAddress(address.clone()),
            Resource::Neighbour(neighbour) => Operation::AddNeighbour(neighbour.clone()),
            Resource::Route(route) => Operation::AddRoute(route.clone()),
            Resource::Filter(filter) => Operation::ReplaceFilter(filter.clone()),
            Resource::Rule(rule) => Operation::AddRule(rule.clone()),
            Resource::LocalTable(table) => Operation::AddLocalRule(table.clone()),
        },
        Change::Replace(route) => Operation::ReplaceRoute(route.clone()),
        Change::Remove(resource) => match resource {
            // A setting has no absence, and `diff` never asks for it.
            Resource::Setting(_) => return None,
            Resource::Address(address) => Operation::RemoveAddress(address.clone()),
            Resource::Neighbour(neighbour) => Operation::RemoveNeighbour(neighbour.clone()),
            Resource::Route(route) => Operation::RemoveRoute(route.clone()),
            Resource::Filter(filter) => Operation::RemoveFilter(filter.clone()),
            Resource::Rule(rule) => Operation::RemoveRule(rule.clone()),
            Resource::LocalTable(table) => Operation::RemoveLocalRule(table.clone()),
        },
        Change::Verify(lookup) => Operation::Verify(lookup.clone()),
    })
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(setting) => write!(f, "sysctl -w {}={}", setting.key, setting.value),
            Self::AddAddress(address) => write_address(f, "add", address),
            Self::RemoveAddress(address) => write_address(f, "del", address),
            Self::AddNeighbour(neighbour) => {
                write_neighbour(f, "add", neighbour)?;
                write!(f, " protocol {OUR_PROTOCOL}")
            }
            Self::RemoveNeighbour(neighbour) => write_neighbour(f, "del", neighbour),
            Self::AddRoute(route) => write_route(f, "add", route),
            Self::ReplaceRoute(route) => write_route(f, "replace", route),
            Self::RemoveRoute(route) => write_route(f, "del", route),
            Self::AddRule(rule) => write_rule(f, "add", rule),
            Self::RemoveRule(rule) => write_rule(f, "del", rule),
            Self::AddLocalRule(table) => write_local(f, "add", table.family, table.pref),
            Self::RemoveLocalRule(table) => write_local(f, "del", table.family, table.pref),
            Self::ReplaceFilter(filter) => {
                write!(f, "nft -f - <<'END'\n{}END", nft::script(filter))
            }
            Self::RemoveFilter(filter) => {
                write!(
                    f,
                    "nft delete table inet {}",
                    nft::table_name(&filter.tunnel)
                )
            }
            Self::Verify(lookup) => write_lookup(f, lookup),
        }
    }
}

/// `ip -4` or `ip -6`.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip -4",
        Family::V6 => "ip -6",
    }
}

fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    }
}

fn write_address(f: &mut fmt::Formatter<'_>, verb: &str, address: &Address) -> fmt::Result {
    let prefix = address.prefix;
    write!(f, "{} address {verb} ", ip(prefix.family()))?;
    match address.peer {
        Some(peer) => write!(f, "{} peer {peer}/{}", prefix.address(), prefix.length())?,
        None => write!(f, "{prefix}")?,
    }
    write!(f, " dev {}", address.device)
}

fn write_neighbour(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    neighbour: &ProxyNeighbour,
) -> fmt::Result {
    let ProxyNeighbour { device, address } = neighbour;
    let family = ip(Family::of(*address));
    write!(f, "{family} neighbour {verb} proxy {address} dev {device}")
}

fn write_route(f: &mut fmt::Formatter<'_>, verb: &str, route: &Route) -> fmt::Result {
    let family = ip(route.destination.family());
    let refused = if route.device.is_none() {
        "unreachable "
    } else {
        ""
    };
    write!(
        f,
        "{family} route {verb} {refused}{}",
        short(&route.destination)
    )?;
    match route.via {
        Some(via) if Family::of(via) != route.destination.family() => {
            write!(f, " via inet6 {via}")?;
        }
        Some(via) => write!(f, " via {via}")?,
        None => {}
    }
    if let Some(device) = &route.device {
        write!(f, " dev {device}")?;
    }
    if let Some(source) = route.source {
        write!(f, " src {source}")?;
    }
    if route.onlink {
        f.write_str(" onlink")?;
    }
    if route.metric != 0 {
        write!(f, " metric {}", route.metric)?;
    }
    write!(f, " table {} proto {OUR_PROTOCOL}", route.table)
}

fn write_rule(f: &mut fmt::Formatter<'_>, verb: &str, rule: &Rule) -> fmt::Result {
    write!(f, "{} rule {verb} pref {}", ip(rule.family), rule.pref)?;
    if let Some(from) = &rule.from {
        write!(f, " from {}", short(from))?;
    }
    if let Some(to) = &rule.to {
        write!(f, " to {}", short(to))?;
    }
    if let Some(iif) = &rule.iif {
        write!(f, " iif {iif}")?;
    }
    if let Some(oif) = &rule.oif {
        write!(f, " oif {oif}")?;
    }
    if let Some((mark, mask)) = rule.mark {
        write!(f, " fwmark {mark:#x}/{mask:#x}")?;
    }
    if let Some(name) = rule.protocol {
        write!(f, " ipproto {}", protocol(name))?;
    }
    match rule.ports {
        Some((first, last)) if first == last => write!(f, " dport {first}")?,
        Some((first, last)) => write!(f, " dport {first}-{last}")?,
        None => {}
    }
    write!(f, " lookup {}", rule.table)?;
    if let Some(length) = rule.suppress_prefix_length {
        write!(f, " suppress_prefixlength {length}")?;
    }
    write!(f, " protocol {OUR_PROTOCOL}")
}

fn write_local(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    family: Family,
    pref: RulePref,
) -> fmt::Result {
    let table = TableId::LOCAL;
    write!(
        f,
        "{} rule {verb} pref {pref} lookup {table} protocol kernel",
        ip(family)
    )
}

fn write_lookup(f: &mut fmt::Formatter<'_>, lookup: &Lookup) -> fmt::Result {
    let family = ip(Family::of(lookup.to));
    write!(f, "{family} route get fibmatch {}", lookup.to)?;
    if let Some(iif) = &lookup.iif {
        write!(f, " iif {iif}")?;
    }
    if let Some((name, port)) = lookup.port {
        write!(f, " ipproto {} dport {port}", protocol(name))?;
    }
    write!(f, "  # must answer from table {}", lookup.table)
}

/// A prefix as `ip` prints it.
fn short(prefix: &Prefix) -> String {
    if prefix.is_default() {
        "default".to_owned()
    } else if prefix.is_host() {
        prefix.address().to_string()
    } else {
        prefix.to_string()
    }
}
