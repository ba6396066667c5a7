//! The text of the pf anchor. It begins from the dissertation's rules (3.3.1, 3.3.2), in the old
//! grammar that FreeBSD 13 to 15 accept; translation comes before filtering.
//!
//! What differs from the dissertation, and why:
//! - Its remote portal passes the rest `out` on the tunnel's device, where a packet to an address
//!   of the host never comes: it is `route-to` on the way in that sends it there.
//! - Its rules have no word for connections of the remote portal itself. Here they are stateful,
//!   and what belongs to the client is stateless: so an answer that meets a state is the host's,
//!   and all others are the client's.
//! - Its local portal names no links: here each has its `route-to`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::units::{Family, IfName};
use crate::config::{Config, Deliver, Forward, Keep, PortProtocol, Remote, Role, Taken, Transport};
use crate::route::link::{self, Hop};
use crate::route::links::Observed;
use crate::route::remote::kept;

/// The rules of one tunnel: translation first.
#[derive(Default)]
struct Rules {
    translation: Vec<String>,
    filter: Vec<String>,
}

impl Rules {
    fn pass(&mut self, rule: impl AsRef<str>) {
        self.filter.push(format!("pass {}", rule.as_ref()));
    }

    fn say(&mut self, comment: &str) {
        self.filter.push(format!("# {comment}"));
    }
}

/// The whole text of the anchor.
pub fn anchor(config: &Config, observed: &Observed) -> String {
    let mut rules = Rules::default();
    flows(&mut rules, config, observed);
    for address in config.public.iter() {
        match &config.role {
            Role::Remote(role) => remote(&mut rules, config, role, observed, address),
            Role::Local(role) => match &role.deliver {
                Deliver::Client { device, .. } => client(&mut rules, config, device, address),
                Deliver::Nat { device, forwards } => {
                    translate(&mut rules, config, forwards, address);
                    shared(&mut rules, config, device, address);
                }
                Deliver::Nothing => {}
            },
        }
    }
    let mut lines = rules.translation;
    lines.append(&mut rules.filter);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The flows' own packets leave by the link whose address they carry, wherever the routing table
/// would send them: the other portal's address may be the public one, which is the client's here.
fn flows(rules: &mut Rules, config: &Config, observed: &Observed) {
    let ports: BTreeSet<u16> = config
        .links
        .iter()
        .filter_map(|link| link.remote.as_ref())
        .chain(&config.remote)
        .map(|endpoint| endpoint.port)
        .collect();
    for used in link::used(config, observed) {
        let device = &used.link.device;
        let mut transports: BTreeSet<Transport> = config
            .links
            .iter()
            .filter(|link| link.device == *device)
            .map(|link| link.transport)
            .collect();
        if transports.is_empty() {
            transports.insert(Transport::Udp);
        }
        for target in link::flow_targets(config, observed) {
            let Some(hop) = used.hop(Family::of(target)) else {
                continue;
            };
            let (inet, hop) = (inet(target), route_to(device, hop));
            for (transport, port) in transports
                .iter()
                .flat_map(|transport| ports.iter().map(move |port| (*transport, port)))
            {
                let proto = match transport {
                    Transport::Udp => "udp",
                    Transport::Tcp => "tcp",
                };
                rules.say(&format!("flows by {device}"));
                rules.pass(format!(
                    "out quick route-to {hop} {inet} proto {proto} from ({device}) to {target} port {port} keep state"
                ));
                rules.pass(format!(
                    "in quick on {device} {inet} proto {proto} from {target} port {port} to ({device}) keep state"
                ));
            }
        }
    }
}

/// The remote portal, for one public address.
fn remote(rules: &mut Rules, config: &Config, role: &Remote, observed: &Observed, address: IpAddr) {
    let family = Family::of(address);
    let of_family = |gateway: &IpAddr| Family::of(*gateway) == family;
    let outside = observed
        .holders(address)
        .next()
        .or_else(|| {
            observed
                .links
                .iter()
                .find(|l| l.gateways.iter().any(of_family))
        })
        .map_or_else(|| format!("! {}", config.name), |l| l.device.to_string());
    let (tunnel, tag) = (&config.name, tag(config));
    let (inet, peer) = (inet(address), link::tunnel_peer(config, family));
    rules.say("what stays on this host; also connections older than this rule");
    for keep in kept(config, role, address) {
        let (proto, options) = match keep.protocol {
            PortProtocol::Tcp => ("tcp", "flags any keep state (sloppy)"),
            PortProtocol::Udp => ("udp", "keep state"),
        };
        let port = port(&keep);
        rules.pass(format!(
            "in quick on {outside} {inet} proto {proto} from any to {address} port {port} {options}"
        ));
    }
    if family == Family::V6 {
        rules.pass(format!(
            "in quick on {outside} inet6 proto icmp6 from any to {address} icmp6-type {{ routersol, routeradv, neighbrsol, neighbradv, redir }} no state"
        ));
    }
    rules.say("from the client: without state, so that the answers are the client's");
    rules.pass(format!(
        "in quick on {tunnel} {inet} from {address} to any no state tag {tag}"
    ));
    rules.pass(format!(
        "out quick on {outside} {inet} from {address} to any no state tagged {tag}"
    ));
    rules.say("from this host: with state, so that the answers are its own");
    rules.pass(format!(
        "out quick on {outside} {inet} from {address} to any flags any keep state (sloppy)"
    ));
    rules.say("all others to the client");
    rules.pass(format!(
        "in quick on {outside} route-to ({tunnel} {peer}) {inet} from any to {address} no state"
    ));
    rules.pass(format!(
        "out quick on {tunnel} {inet} from any to {address} no state"
    ));
}

/// The local portal that hands the address to a client.
fn client(rules: &mut Rules, config: &Config, device: &IfName, address: IpAddr) {
    let tunnel = &config.name;
    let (inet, peer) = (
        inet(address),
        link::tunnel_peer(config, Family::of(address)),
    );
    rules.say("the client and this router");
    rules.pass(format!(
        "in quick on {device} {inet} from {address} to ({device}) no state"
    ));
    rules.say("the client's packets into the tunnel");
    rules.pass(format!(
        "in quick on {device} route-to ({tunnel} {peer}) {inet} from {address} to any no state"
    ));
    rules.pass(format!(
        "out quick on {tunnel} {inet} from {address} to any no state"
    ));
    rules.say("the tunnel's packets to the client");
    rules.pass(format!(
        "in quick on {tunnel} {inet} from any to {address} no state"
    ));
    rules.pass(format!(
        "out quick on {device} {inet} from any to {address} no state"
    ));
}

/// The address shared by a LAN. No interface holds it: FreeBSD would send the flows' own packets,
/// which go to that address, to itself, and drop what comes from there
/// (`net.inet.ip.source_address_validation`). So the router's own part is translated too.
fn translate(rules: &mut Rules, config: &Config, forwards: &[Forward], address: IpAddr) {
    let tunnel = &config.name;
    let own = link::tunnel_own(config, Family::of(address));
    let inet = inet(address);
    let translation = &mut rules.translation;
    translation.push(format!(
        "nat on {tunnel} {inet} from any to any -> {address}"
    ));
    for forward in forwards {
        if Family::of(forward.to) != Family::of(address) {
            continue;
        }
        hand_on(translation, tunnel, address, forward);
    }
    let rest = |forward: &&Forward| {
        forward.taken == Taken::Rest && Family::of(forward.to) == Family::of(address)
    };
    if let Some(rest) = forwards.iter().find(rest) {
        hand_on_rest(translation, tunnel, (address, own), rest.to);
    } else {
        translation.push(format!(
            "rdr on {tunnel} {inet} from any to {address} -> {own}"
        ));
    }
}

/// One forward: pf moves a range as a whole (`port 9000:*`).
fn hand_on(translation: &mut Vec<String>, tunnel: &IfName, address: IpAddr, forward: &Forward) {
    let (inet, to) = (inet(address), forward.to);
    for (protocol, proto) in [(PortProtocol::Tcp, "tcp"), (PortProtocol::Udp, "udp")] {
        let Some((first, last, to_first)) = forward.ports(protocol) else {
            continue;
        };
        let (ports, to_ports) = if first == last {
            (first.to_string(), to_first.to_string())
        } else {
            (format!("{first}:{last}"), format!("{to_first}:*"))
        };
        translation.push(format!(
            "rdr on {tunnel} {inet} proto {proto} from any to {address} port {ports} -> {to} port {to_ports}"
        ));
    }
}

/// All that no forward takes, except ICMP, which is the router's.
fn hand_on_rest(
    translation: &mut Vec<String>,
    tunnel: &IfName,
    (address, own): (IpAddr, IpAddr),
    to: IpAddr,
) {
    let inet = inet(address);
    let icmp = match Family::of(address) {
        Family::V4 => "icmp",
        Family::V6 => "icmp6",
    };
    translation.push(format!(
        "rdr on {tunnel} {inet} proto {icmp} from any to {address} -> {own}"
    ));
    translation.push(format!(
        "rdr on {tunnel} {inet} from any to {address} -> {to}"
    ));
}

/// The LAN behind the shared address.
fn shared(rules: &mut Rules, config: &Config, lan: &IfName, address: IpAddr) {
    let (tunnel, tag) = (&config.name, tag(config));
    let family = Family::of(address);
    let own = link::tunnel_own(config, family);
    let (inet, peer) = (inet(address), link::tunnel_peer(config, family));
    rules.say("from the tunnel: answers go back there");
    rules.pass(format!(
        "in quick on {tunnel} reply-to ({tunnel} {peer}) {inet} from any to {own} keep state"
    ));
    rules.pass(format!(
        "in quick on {tunnel} {inet} from any to any keep state tag {tag}"
    ));
    rules.pass(format!(
        "out quick on {lan} reply-to ({tunnel} {peer}) {inet} from any to any keep state tagged {tag}"
    ));
    rules.say("the LAN's packets: to this router and its neighbours, all others into the tunnel");
    rules.pass(format!(
        "in quick on {lan} {inet} from any to {{ ({lan}) ({lan}:network) }}"
    ));
    if family == Family::V4 {
        let (broadcast, groups) = (Ipv4Addr::BROADCAST, "224.0.0.0/4");
        rules.pass(format!(
            "in quick on {lan} inet from any to {{ {broadcast} {groups} }}"
        ));
    } else {
        rules.pass(format!(
            "in quick on {lan} inet6 from any to {{ fe80::/10 ff00::/8 }}"
        ));
    }
    rules.pass(format!(
        "in quick on {lan} route-to ({tunnel} {peer}) {inet} from any to any keep state"
    ));
    rules.pass(format!(
        "out quick on {tunnel} {inet} from any to any keep state"
    ));
}

/// Where `route-to` sends: pf's own way to name a device and a next hop.
fn route_to(device: &IfName, hop: Hop) -> String {
    match hop {
        Hop::Via(IpAddr::V6(gateway)) if gateway.is_unicast_link_local() => {
            format!("({device} {gateway}%{device})")
        }
        Hop::Via(gateway) => format!("({device} {gateway})"),
        Hop::Direct => device.to_string(),
    }
}

/// The tag of packets that came by the tunnel.
fn tag(config: &Config) -> String {
    format!("netcombiner-{}", config.name)
}

fn inet(address: IpAddr) -> &'static str {
    match Family::of(address) {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    }
}

fn port(keep: &Keep) -> String {
    if keep.first == keep.last {
        keep.first.to_string()
    } else {
        format!("{}:{}", keep.first, keep.last)
    }
}
