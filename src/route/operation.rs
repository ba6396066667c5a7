//! The smallest steps on a Linux host: each is one request to the kernel, and prints as the equal
//! command of `ip`, `sysctl` or `nft`.

use std::net::IpAddr;

use super::resource::{Address, Filter, ProxyNeighbour, Route, Rule, Setting};
use crate::config::PortProtocol;
use crate::config::units::{IfName, TableId};

/// One step on a Linux host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Write a kernel setting.
    Set(Setting),
    /// Add an address to a device.
    AddAddress(Address),
    /// Take an address from a device.
    RemoveAddress(Address),
    /// Let a device answer for an address, marked as ours.
    AddNeighbour(ProxyNeighbour),
    /// Let it answer no more.
    RemoveNeighbour(ProxyNeighbour),
    /// Add a route.
    AddRoute(Route),
    /// Put a route in the place of the one of the same table and destination, in one step
    /// (NLM_F_REPLACE), so that its table is never empty.
    ReplaceRoute(Route),
    /// Remove a route.
    RemoveRoute(Route),
    /// Add a policy rule, marked as ours.
    AddRule(Rule),
    /// Remove a policy rule that is ours.
    RemoveRule(Rule),
    /// Add or remove the kernel's own rule `from all lookup local`: it carries the kernel's mark
    /// (RTPROT_KERNEL), not ours, so that it looks untouched once it is back at preference 0.
    AddLocalRule(super::resource::LocalTable),
    /// See [`Operation::AddLocalRule`].
    RemoveLocalRule(super::resource::LocalTable),
    /// Replace the packet filter's table, whole, in one transaction.
    ReplaceFilter(Filter),
    /// Delete the packet filter's table.
    RemoveFilter(Filter),
    /// Ask the kernel how it would route a packet, and refuse to go on when the answer differs.
    Verify(Lookup),
}

/// A question to the kernel's routing (RTM_GETROUTE) and the answer that must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The packet's destination.
    pub to: IpAddr,
    /// The device it comes in by.
    pub iif: Option<IfName>,
    /// Its protocol and destination port.
    pub port: Option<(PortProtocol, u16)>,
    /// The table that must answer: `local` for what stays on the host.
    pub table: TableId,
}
