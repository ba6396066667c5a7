//! The same on FreeBSD: addresses, routes and settings as commands, and all that Linux does by
//! rules and tables as one pf anchor, `netcombiner/nc0`, replaced whole.
//!
//! The user's pf.conf names the anchors once ([`ANCHOR_LINES`]); no program edits it.

mod anchor;

use std::fmt;
use std::net::IpAddr;

pub use anchor::anchor;

use crate::config::units::{Family, IfName};
use crate::config::{Config, Deliver, Role};
use crate::route::link;
use crate::route::links::Observed;

/// What pf.conf must hold, in its translation and filter sections (pf.conf(5), ANCHORS).
pub const ANCHOR_LINES: [&str; 3] = [
    "nat-anchor \"netcombiner/*\"",
    "rdr-anchor \"netcombiner/*\"",
    "anchor \"netcombiner/*\"",
];

/// One command, its arguments as they are (no shell), and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What it reads from its standard input: an anchor's text.
    pub input: Option<String>,
}

/// The commands that make a FreeBSD host look as desired.
pub fn up(config: &Config, observed: &Observed) -> Vec<Command> {
    steps(config, observed)
        .into_iter()
        .map(|(up, _)| up)
        .collect()
}

/// The commands that undo [`up`], backwards.
pub fn down(config: &Config, observed: &Observed) -> Vec<Command> {
    let down = steps(config, observed).into_iter().rev();
    down.filter_map(|(_, down)| down).collect()
}

/// The name of a tunnel's anchor.
pub fn anchor_name(tunnel: &IfName) -> String {
    format!("netcombiner/{tunnel}")
}

/// Each step, and what undoes it.
fn steps(config: &Config, observed: &Observed) -> Vec<(Command, Option<Command>)> {
    let mut steps = Vec::new();
    if config.manage_routing && delivers(config) {
        for address in config.public.iter() {
            let key = match Family::of(address) {
                Family::V4 => "net.inet.ip.forwarding",
                Family::V6 => "net.inet6.ip6.forwarding",
            };
            let before = observed.settings.get(key);
            steps.push((
                command(format!("sysctl {key}=1")),
                before.map(|value| command(format!("sysctl {key}={value}"))),
            ));
        }
    }
    for family in link::tunnel_families(config) {
        steps.push(tunnel_address(config, family));
    }
    if !config.manage_routing {
        return steps;
    }
    if let Some((device, gateway)) = client(config)
        && let Some(link) = observed.link(device)
    {
        let gateway = IpAddr::V4(gateway);
        if link.holds(gateway).is_none_or(|prefix| prefix.is_host()) {
            steps.push((
                command(format!(
                    "ifconfig {device} inet {gateway} netmask 255.255.255.255 alias"
                )),
                Some(command(format!("ifconfig {device} inet {gateway} -alias"))),
            ));
        }
        for address in config.public.iter() {
            let family = match Family::of(address) {
                Family::V4 => "",
                Family::V6 => "-inet6 ",
            };
            let route = |verb| {
                command(format!(
                    "route {verb} {family}-host {address} -interface {device}"
                ))
            };
            steps.push((route("add"), Some(route("delete"))));
        }
    }
    let name = anchor_name(&config.name);
    steps.push((
        Command {
            input: Some(anchor(config, observed)),
            ..command(format!("pfctl -a {name} -f -"))
        },
        Some(command(format!("pfctl -a {name} -F all"))),
    ));
    steps
}

/// Its own two addresses on the tunnel.
fn tunnel_address(config: &Config, family: Family) -> (Command, Option<Command>) {
    let device = &config.name;
    let own = link::tunnel_own(config, family);
    let peer = link::tunnel_peer(config, family);
    match family {
        Family::V4 => (
            command(format!(
                "ifconfig {device} inet {own} {peer} netmask 255.255.255.255"
            )),
            Some(command(format!("ifconfig {device} inet {own} -alias"))),
        ),
        Family::V6 => (
            command(format!(
                "ifconfig {device} inet6 {own} {peer} prefixlen 128"
            )),
            Some(command(format!("ifconfig {device} inet6 {own} -alias"))),
        ),
    }
}

/// This host forwards packets.
fn delivers(config: &Config) -> bool {
    match &config.role {
        Role::Local(local) => local.deliver != Deliver::Nothing,
        Role::Remote(_) => true,
    }
}

fn client(config: &Config) -> Option<(&IfName, std::net::Ipv4Addr)> {
    match &config.role {
        Role::Local(local) => match &local.deliver {
            Deliver::Client { device, gateway } => Some((device, *gateway)),
            Deliver::Nat { .. } | Deliver::Nothing => None,
        },
        Role::Remote(_) => None,
    }
}

/// A command of words without spaces: addresses, numbers and device names have none.
fn command(line: impl AsRef<str>) -> Command {
    Command {
        argv: line.as_ref().split(' ').map(str::to_owned).collect(),
        input: None,
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))?;
        match &self.input {
            Some(input) => write!(f, " <<'END'\n{input}END"),
            None => Ok(()),
        }
    }
}
