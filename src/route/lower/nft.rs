//! The packet filter's table as text for nft(8). `host` sends the same rules by netlink.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::config::PortProtocol;
use crate::config::units::{Family, IfName};
use crate::route::resource::{Filter, FilterClause};

/// The name of a tunnel's table (family `inet`).
pub fn table_name(tunnel: &IfName) -> String {
    format!("netcombiner-{tunnel}")
}

/// The rules of each chain.
#[derive(Default)]
struct Chains {
    /// Before routing, after connection tracking.
    mark_prerouting: Vec<String>,
    mark_input: Vec<String>,
    forward: Vec<String>,
    mark_output: Vec<String>,
    nat_prerouting: Vec<String>,
    nat_postrouting: Vec<String>,
}

/// A script that puts the table in the place of the one before, in one transaction.
pub fn script(filter: &Filter) -> String {
    let name = table_name(&filter.tunnel);
    let mut chains = Chains::default();
    for clause in &filter.clauses {
        match clause {
            FilterClause::MarkOwn {
                address,
                mark,
                mask,
            } => mark_own(&mut chains, *address, *mark, *mask),
            FilterClause::HoldClient {
                device,
                address,
                mark,
                mask,
            } => hold_client(&mut chains, device, *address, (*mark, *mask)),
            FilterClause::KeepInside {
                client,
                device,
                address,
            } => chains.forward.push(format!(
                "iifname \"{client}\" {} saddr {address} oifname != \"{device}\" drop",
                ip(*address)
            )),
            FilterClause::SourceNat { device, address } => {
                let ip = ip(*address);
                chains.nat_postrouting.push(format!(
                    "oifname \"{device}\" {ip} saddr != {address} snat {ip} to {address}"
                ));
            }
            FilterClause::Forward {
                device,
                address,
                forward,
            } => {
                let (ip, port) = (ip(*address), forward.port);
                let protocol = match forward.protocol {
                    PortProtocol::Tcp => "tcp",
                    PortProtocol::Udp => "udp",
                };
                let target = std::net::SocketAddr::new(forward.to, forward.to_port);
                chains.nat_prerouting.push(format!(
                    "iifname \"{device}\" {ip} daddr {address} {protocol} dport {port} \
                     dnat {ip} to {target}"
                ));
            }
        }
    }
    // The first line makes the second work when there is no such table yet.
    let mut text = format!("table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
    for (chain, hook, rules) in [
        (
            "prerouting",
            "filter hook prerouting priority mangle",
            chains.mark_prerouting,
        ),
        (
            "input",
            "filter hook input priority mangle",
            chains.mark_input,
        ),
        (
            "forward",
            "filter hook forward priority mangle",
            chains.forward,
        ),
        (
            "output",
            "filter hook output priority mangle",
            chains.mark_output,
        ),
        (
            "dstnat",
            "nat hook prerouting priority dstnat",
            chains.nat_prerouting,
        ),
        (
            "srcnat",
            "nat hook postrouting priority srcnat",
            chains.nat_postrouting,
        ),
    ] {
        if !rules.is_empty() {
            let body = rules.join("\n\t\t");
            // Writing to a String does not fail.
            let _ = write!(
                text,
                "\tchain {chain} {{\n\t\ttype {hook}; policy accept;\n\t\t{body}\n\t}}\n"
            );
        }
    }
    text.push_str("}\n");
    text
}

/// A connection that is the host's own gets the mark: what this host sends itself (output), or
/// ended here at a kept port (input), so that the ICMP errors about it (path MTU) are the host's
/// too. What comes back on it carries the mark before it is routed.
///
/// Output takes established connections too: where somebody else's firewall tracked connections
/// before us, the host's older ones are new no more. It does not take related packets: the ICMP
/// errors that this host sends about the client's connections.
///
/// Neighbour discovery is not tracked and is the host's always: solicitations and advertisements
/// go to the public address itself when the host asked with it as source (RFC 4861 7.2.2).
fn mark_own(chains: &mut Chains, address: IpAddr, mark: u32, mask: u32) {
    let ip = ip(address);
    let rest = !mask;
    let save = format!("ct mark set ct mark & {rest:#010x} | {mark:#010x}");
    let set = format!("meta mark set meta mark & {rest:#010x} | {mark:#010x}");
    chains.mark_output.push(format!(
        "{ip} saddr {address} ct state established,new {save}"
    ));
    chains
        .mark_input
        .push(format!("{ip} daddr {address} ct state new {save}"));
    chains.mark_prerouting.push(format!(
        "{ip} daddr {address} ct mark & {mask:#010x} == {mark:#010x} {set}"
    ));
    if address.is_ipv6() {
        chains.mark_prerouting.push(format!(
            "{ip} daddr {address} ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, \
             nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }} {set}"
        ));
    }
}

/// A TCP connection that is forwarded to or from the tunnel is the client's, unless it is the
/// host's already: both may use the same ports. While the daemon is dead its packets find table
/// local; they are dropped, and both ends send them again until there is a tunnel once more.
///
/// TCP alone: nothing else is ended by one answer, and the host is to answer pings by then.
fn hold_client(chains: &mut Chains, device: &IfName, address: IpAddr, (mark, mask): (u32, u32)) {
    let ip = ip(address);
    let rest = !mask;
    for (by, end) in [("oifname", "daddr"), ("iifname", "saddr")] {
        chains.forward.push(format!(
            "{by} \"{device}\" {ip} {end} {address} meta l4proto tcp \
             ct mark & {mask:#010x} == 0x00000000 ct mark set ct mark & {rest:#010x} | {mark:#010x}"
        ));
    }
    chains.mark_input.push(format!(
        "{ip} daddr {address} meta l4proto tcp ct mark & {mask:#010x} == {mark:#010x} drop"
    ));
}

fn ip(address: IpAddr) -> &'static str {
    match Family::of(address) {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
