//! The public addresses and those inside the tunnel.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::reader::Fields;
use super::report::Report;
use super::units::{Prefix, UnitError};
use super::words::quoted;
use super::{PublicAddresses, TunnelAddresses, schema};

/// An address that one host can have, of one family or of any.
pub(super) struct HostAddress<A>(pub(super) A);

impl<A: FromStr + Copy + Into<IpAddr>> FromStr for HostAddress<A> {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not {} of one host",
                quoted(text),
                match size_of::<A>() {
                    4 => "an IPv4 address",
                    16 => "an IPv6 address",
                    _ => "an IPv4 or IPv6 address",
                }
            ))
        };
        let address: A = text.parse().map_err(|_| refuse())?;
        let ip: IpAddr = address.into();
        let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
            return Err(refuse());
        }
        Ok(Self(address))
    }
}

/// The addresses inside the tunnel, all of them there and different.
pub(super) fn tunnel(fields: &Fields<'_>, report: &mut Report<'_>) -> TunnelAddresses {
    let mut tunnel = TunnelAddresses::default();
    if let Some(own) = fields.table("tunnel", &schema::TUNNEL, report) {
        if let Some(HostAddress(address)) = own.word("local", report) {
            tunnel.local = address;
        }
        if let Some(HostAddress(address)) = own.word("remote", report) {
            tunnel.remote = address;
        }
        if let Some(HostAddress(address)) = own.word("local_v6", report) {
            tunnel.local_v6 = address;
        }
        if let Some(HostAddress(address)) = own.word("remote_v6", report) {
            tunnel.remote_v6 = address;
        }
        if tunnel.local == tunnel.remote {
            report.error(
                own.own_at(),
                format!("both portals have {} (each has its own)", tunnel.local),
            );
        }
        if tunnel.local_v6 == tunnel.remote_v6 {
            report.error(
                own.own_at(),
                format!("both portals have {} (each has its own)", tunnel.local_v6),
            );
        }
    }
    tunnel
}

/// What is inside the tunnel cannot be outside of it.
pub(super) fn is_inside(tunnel: &TunnelAddresses, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => [tunnel.local, tunnel.remote].contains(&address),
        IpAddr::V6(address) => [tunnel.local_v6, tunnel.remote_v6].contains(&address),
    }
}

pub(super) fn public(
    fields: &Fields<'_>,
    tunnel: &TunnelAddresses,
    report: &mut Report<'_>,
) -> Option<PublicAddresses> {
    const NEED: &str =
        "the address on the remote portal's interface, or a list of an IPv4 and an IPv6 one";
    let field = fields.need("public_address", NEED, report)?;
    if field.is_empty_list() {
        report.error(&field.at, format!("is empty ({NEED})"));
    }
    let found = field.words::<HostAddress<IpAddr>>(report);
    let mut public = PublicAddresses { v4: None, v6: None };
    let mut good = true;
    for (at, HostAddress(address)) in &found {
        if is_inside(tunnel, *address) {
            report.error(
                at,
                format!("{address} is an address inside the tunnel (change one of the two)"),
            );
        }
        let second = match address {
            IpAddr::V4(address) => public.v4.replace(*address).is_some(),
            IpAddr::V6(address) => public.v6.replace(*address).is_some(),
        };
        if second {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            report.error(
                at,
                format!("{address} is a second {family} address (at most one of each family)"),
            );
            good = false;
        }
    }
    (good && public.iter().next().is_some()).then_some(public)
}

/// Networks that may cross the tunnel too. Every packet from or to another than the usual addresses
/// is looked up in it: the list is short.
pub(super) fn allowed_networks(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Prefix> {
    const MOST: usize = 32;
    let Some(field) = fields.get("allow") else {
        return Vec::new();
    };
    let found = field.words::<Prefix>(report);
    if let Some((at, _)) = found.get(MOST) {
        report.error(at, format!("is one too many (at most {MOST})"));
    }
    let mut networks = Vec::new();
    for (at, prefix) in found {
        let network = prefix.network();
        let first = network.address();
        let link_local = match first {
            IpAddr::V4(first) => first.is_link_local(),
            IpAddr::V6(first) => first.is_unicast_link_local(),
        };
        if first.is_multicast() || first.is_loopback() || link_local {
            report.error(
                &at,
                format!("{network} never crosses (only addresses of single hosts do)"),
            );
        }
        networks.push(network);
    }
    networks
}
