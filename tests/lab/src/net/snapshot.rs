//! The network state of a namespace as sorted text, to compare before with after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Namespace, Netlink};
use crate::error::{Context, Error};

/// Rules, routes of all tables, addresses, devices, sysctls and the nft rule set: one sorted line
/// each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    lines: BTreeSet<String>,
}

impl HostState {
    /// The lines, sorted.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// One line for each difference: `- what is gone`, `+ what is new`.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let gone = self
            .lines
            .difference(&after.lines)
            .map(|line| format!("- {line}"));
        let new = after
            .lines
            .difference(&self.lines)
            .map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

/// The state of a namespace now.
pub fn host_state(namespace: &Namespace) -> Result<HostState, Error> {
    let mut lines = BTreeSet::new();
    let mut netlink = namespace.netlink()?;
    let names = devices(&mut netlink, &mut lines)?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        addresses(&mut netlink, family, &names, &mut lines)?;
        routes(&mut netlink, family, &names, &mut lines)?;
        rules(&mut netlink, family, &mut lines)?;
    }
    namespace.run(|| {
        sysctls(&mut lines);
        nft_rules(&mut lines)
    })??;
    Ok(HostState { lines })
}

type Names = BTreeMap<u32, String>;

fn devices(netlink: &mut Netlink, lines: &mut BTreeSet<String>) -> Result<Names, Error> {
    let mut names = Names::new();
    for link in netlink.links()? {
        let mut name = String::new();
        let mut mtu = 0;
        for attribute in &link.attributes {
            if let LinkAttribute::IfName(text) = attribute {
                name.clone_from(text);
            } else if let LinkAttribute::Mtu(value) = attribute {
                mtu = *value;
            }
        }
        let up = link.header.flags.contains(LinkFlags::Up);
        lines.insert(format!(
            "device {name} mtu {mtu} {}",
            if up { "up" } else { "down" }
        ));
        names.insert(link.header.index, name);
    }
    Ok(names)
}

fn addresses(
    netlink: &mut Netlink,
    family: AddressFamily,
    names: &Names,
    lines: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let mut request = AddressMessage::default();
    request.header.family = family;
    for answer in netlink.dump(RouteNetlinkMessage::GetAddress(request))? {
        let RouteNetlinkMessage::NewAddress(message) = answer else {
            continue;
        };
        // Lifetimes count down, and flags follow duplicate address detection.
        let stable: Vec<_> = message
            .attributes
            .iter()
            .filter(|a| {
                !matches!(
                    a,
                    AddressAttribute::CacheInfo(_) | AddressAttribute::Flags(_)
                )
            })
            .collect();
        let device = names.get(&message.header.index).map_or("?", String::as_str);
        lines.insert(format!(
            "address {device} /{} {stable:?}",
            message.header.prefix_len
        ));
    }
    Ok(())
}

fn routes(
    netlink: &mut Netlink,
    family: AddressFamily,
    names: &Names,
    lines: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    for answer in netlink.dump(RouteNetlinkMessage::GetRoute(request))? {
        let RouteNetlinkMessage::NewRoute(message) = answer else {
            continue;
        };
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) {
            continue; // a cached exception, e.g. of path MTU discovery
        }
        if header.kind == RouteType::Multicast {
            continue; // the kernel's own, which comes a moment after a device is up
        }
        let mut text = format!(
            "route {:?} /{} {:?} scope {:?} proto {:?}",
            header.address_family,
            header.destination_prefix_length,
            header.kind,
            header.scope,
            header.protocol
        );
        for attribute in &message.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                text += &format!(" dev {}", names.get(index).map_or("?", String::as_str));
            } else if !matches!(
                attribute,
                RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_)
            ) {
                text += &format!(" {attribute:?}");
            }
        }
        lines.insert(text);
    }
    Ok(())
}

fn rules(
    netlink: &mut Netlink,
    family: AddressFamily,
    lines: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    for answer in netlink.dump(RouteNetlinkMessage::GetRule(request))? {
        let RouteNetlinkMessage::NewRule(message) = answer else {
            continue;
        };
        let header = &message.header;
        lines.insert(format!(
            "rule {:?} {:?} from /{} to /{} tos {} {:?} {:?}",
            header.family,
            header.action,
            header.src_len,
            header.dst_len,
            header.tos,
            header.flags,
            message.attributes
        ));
    }
    Ok(())
}

/// Settings below `/proc/sys/net` that a portal may change or that change what it does.
const SYSCTLS: [&str; 14] = [
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "disable_ipv6",
    "forwarding",
    "ip_forward",
    "proxy_arp",
    "rp_filter",
    "send_redirects",
    "src_valid_mark",
    "route_localnet",
];

fn sysctls(lines: &mut BTreeSet<String>) {
    let base = Path::new("/proc/sys/net");
    let mut dirs: Vec<PathBuf> = vec![base.join("ipv4")];
    for family in ["ipv4", "ipv6"] {
        let devices = fs::read_dir(base.join(family).join("conf"))
            .into_iter()
            .flatten()
            .flatten();
        dirs.extend(devices.map(|device| device.path()));
    }
    for dir in dirs {
        for key in SYSCTLS {
            let path = dir.join(key);
            if let Ok(value) = fs::read_to_string(&path) {
                let name = path.strip_prefix(base).unwrap_or(&path).display();
                lines.insert(format!("sysctl {name} = {}", value.trim()));
            }
        }
    }
}

/// The nft rule set of the calling thread's namespace, if there is an `nft` to ask.
fn nft_rules(lines: &mut BTreeSet<String>) -> Result<(), Error> {
    let output = match Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("cannot run nft"),
    };
    // The same line may stand in two chains: the headers it stands below tell them apart.
    let mut path: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::trim)
    {
        if line == "}" {
            path.pop();
            continue;
        }
        if !line.is_empty() {
            lines.insert(format!("nft {} {line}", path.join(" ")));
        }
        if let Some(header) = line.strip_suffix('{') {
            path.push(header.trim().to_owned());
        }
    }
    Ok(())
}
