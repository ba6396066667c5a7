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

use std::net::{IpAddr, Ipv4Addr};

use super::steps::scoped;
use super::{closed, crossing, own};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{
    Config, Deliver, Forward, Keep, Local, NativeV6, PortProtocol, Remote, Role, Taken, Transport,
    WithoutTunnel,
};
use crate::route::border::{near, uplinks};
use crate::route::link::{self, Hop};
use crate::route::links::Observed;
use crate::route::remote::{FIRST_SHARED, kept};
use crate::sorted::Set;

/// The rules of one tunnel: translation first.
pub(super) struct Rules {
    translation: Vec<String>,
    filter: Vec<String>,
    /// The tag of packets that came by the tunnel.
    pub(super) tag: String,
    /// How the packets of the public address are passed: who translates needs their states.
    pub(super) state: &'static str,
}

impl Rules {
    pub(super) fn pass(&mut self, rule: impl AsRef<str>) {
        self.filter.push(format!("pass {}", rule.as_ref()));
    }

    pub(super) fn block(&mut self, rule: impl AsRef<str>) {
        self.filter.push(format!("block drop {}", rule.as_ref()));
    }

    /// A rule that decides nothing (since FreeBSD 14).
    pub(super) fn tag(&mut self, rule: impl AsRef<str>) {
        self.filter.push(format!("match {}", rule.as_ref()));
    }

    /// The tag of what the LANs send into the tunnel.
    fn shared(&self) -> String {
        format!("{}-shared", self.tag)
    }

    pub(super) fn say(&mut self, comment: &str) {
        self.filter.push(format!("# {comment}"));
    }
}

/// The whole text of the anchor.
pub fn anchor(config: &Config, observed: &Observed) -> String {
    let translates = matches!(
        &config.role,
        Role::Local(role) if matches!(role.deliver, Deliver::Nat { .. })
    );
    let mut rules = Rules {
        translation: Vec::new(),
        filter: Vec::new(),
        tag: format!("netcombiner-{}", config.name),
        state: if translates { "keep state" } else { "no state" },
    };
    flows(&mut rules, config, observed);
    for family in link::FAMILIES {
        if !link::tunnel_families(config).any(|it| it == family) {
            crossing::refuse(&mut rules, config, family);
            continue;
        }
        crossing::begin(&mut rules, config, observed, family);
        if matches!(&config.role, Role::Local(role) if role.deliver == Deliver::Nothing) {
            crossing::routed(&mut rules, config, observed, family);
            continue;
        }
        let address = config.public.iter().find(|it| Family::of(*it) == family);
        if let Some(address) = address {
            public(&mut rules, config, observed, address);
        }
        crossing::end(&mut rules, config, family);
        closed::close(&mut rules, config, observed, family);
    }
    if let Role::Local(role) = &config.role
        && role.native_ipv6 == NativeV6::Block
        && !config.carries_v6()
    {
        let lans = link::delivery_devices(config).iter();
        let tag = format!("{}-lan", rules.tag);
        rules.say("the LAN's own IPv6 stays at home");
        for lan in lans.clone() {
            rules.tag(format!("in on {lan} inet6 tag {tag}"));
        }
        for lan in lans {
            rules.tag(format!("out on {lan} inet6 tagged {tag} tag {tag}-stays"));
        }
        rules.block(format!("out quick inet6 tagged {tag}"));
    }
    let mut lines = rules.translation;
    lines.append(&mut rules.filter);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// All about one public address.
fn public(rules: &mut Rules, config: &Config, observed: &Observed, address: IpAddr) {
    crossing::before(rules, config, address);
    match &config.role {
        Role::Remote(role) => remote(rules, config, role, observed, address),
        Role::Local(role) => match &role.deliver {
            Deliver::Client { device, .. } => {
                client(rules, config, device, address);
                crossing::strangers(rules, device, Family::of(address));
            }
            Deliver::Nat { devices, forwards } => {
                translate(rules, config, devices, forwards, address);
                own::translate(&mut rules.translation, config, observed, address);
                shared(rules, config, (role, devices, forwards), observed, address);
            }
            Deliver::Nothing => {}
        },
    }
}

/// The flows' own packets leave by the link whose address they carry, wherever the routing table
/// would send them: the other portal's address may be the public one, which is the client's here.
fn flows(rules: &mut Rules, config: &Config, observed: &Observed) {
    let ports: Set<u16> = config
        .links
        .iter()
        .filter_map(|link| link.remote.as_ref())
        .chain(&config.remote)
        .map(|endpoint| endpoint.port)
        .collect();
    for used in link::used(config, observed) {
        let device = &used.link.device;
        let mut transports: Set<Transport> = config
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
    let (tunnel, tag) = (&config.name, rules.tag.clone());
    let (inet, peer) = (inet(address), link::tunnel_peer(config, family));
    rules.say("what stays on this host; also connections older than this rule");
    for keep in kept(config, role, address) {
        let (proto, options) = (proto(keep.protocol), state(keep.protocol));
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
    for keep in &role.keep {
        shared_ports(rules, (&outside, tunnel, peer), address, *keep);
    }
    rules.pass(format!(
        "out quick on {outside} {inet} from {address} to any no state tagged {tag}"
    ));
    if !outside.starts_with('!') {
        rules.block(format!(
            "out quick on ! {outside} {inet} from {address} to any tagged {tag}"
        ));
    }
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

/// Kept ports that the client's system may choose for any of its sockets: what it begins from
/// there has a state, and the answers follow that back into the tunnel.
fn shared_ports(
    rules: &mut Rules,
    (outside, tunnel, peer): (&str, &IfName, IpAddr),
    address: IpAddr,
    keep: Keep,
) {
    if keep.last < FIRST_SHARED {
        return;
    }
    let (inet, proto, tag) = (inet(address), proto(keep.protocol), rules.tag.clone());
    let ports = port(&Keep {
        first: keep.first.max(FIRST_SHARED),
        ..keep
    });
    let state = state(keep.protocol);
    rules.pass(format!(
        "out quick on {outside} reply-to ({tunnel} {peer}) {inet} proto {proto} from {address} port {ports} to any {state} tagged {tag}"
    ));
}

/// How a state is made for connections that may be older than the rule.
pub(super) fn state(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "flags any keep state (sloppy)",
        PortProtocol::Udp => "keep state",
    }
}

/// The local portal that hands the address to a client.
fn client(rules: &mut Rules, config: &Config, device: &IfName, address: IpAddr) {
    let tunnel = &config.name;
    let (inet, peer) = (
        inet(address),
        link::tunnel_peer(config, Family::of(address)),
    );
    rules.say("the client, this router and their neighbours");
    rules.pass(format!(
        "in quick on {device} {inet} from {address} to {{ ({device}) ({device}:network) }} no state"
    ));
    // Neighbour discovery goes to link-local and multicast addresses: in the tunnel it would find
    // nobody, and the client could begin nothing.
    let on_link = on_link(Family::of(address));
    rules.pass(format!(
        "in quick on {device} {inet} from {address} to {{ {on_link} }} no state"
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
    let away = format!("! ({device}:network)");
    let error = own::error(Family::of(address), &away);
    rules.block(format!("out quick on {device} {error}"));
    if config.listen.is_empty() {
        rules.say("and never out elsewhere, whatever becomes of its device");
        rules.block(format!(
            "out quick on ! {device} {inet} from any to {address}"
        ));
    }
}

/// Destinations that never leave a link.
pub(super) fn on_link(family: Family) -> String {
    match family {
        Family::V4 => format!("{} 224.0.0.0/4", Ipv4Addr::BROADCAST),
        Family::V6 => "fe80::/10 ff00::/8".to_owned(),
    }
}

/// The address shared by a LAN. No interface holds it: FreeBSD would send the flows' own packets,
/// which go to that address, to itself, and drop what comes from there
/// (`net.inet.ip.source_address_validation`). So the router's own part is translated too.
///
/// What the LAN sends to that address goes where the tunnel's packets would: to the machine of a
/// forward, by this router, so that the answers come back by it; all else to the other portal,
/// which keeps ports of the same address.
fn translate(
    rules: &mut Rules,
    config: &Config,
    lans: &[IfName],
    forwards: &[Forward],
    address: IpAddr,
) {
    let tunnel = &config.name;
    let family = Family::of(address);
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    let (inet, shared) = (inet(address), rules.shared());
    let translation = &mut rules.translation;
    translation.push(format!(
        "nat on {tunnel} {inet} from any to {peer} -> {own}"
    ));
    // Nobody else has the address, wherever the routing table leads.
    for from in [
        format!("{own} to any"),
        format!("any to any tagged {shared}"),
    ] {
        translation.push(format!("nat on {tunnel} {inet} from {from} -> {address}"));
    }
    let (handed, takes_all) = handed(forwards, family);
    for lan in lans {
        for Handed { proto, to, at, .. } in &handed {
            translation.push(format!(
                "nat on {lan} {inet}{proto} from ({lan}:network) to {to}{at} -> ({lan}:0)"
            ));
        }
    }
    for device in std::iter::once(tunnel).chain(lans) {
        let rest = if device == tunnel { own } else { peer };
        if takes_all {
            let icmp = icmp(family);
            translation.push(format!(
                "rdr on {device} {inet} proto {icmp} from any to {address} -> {rest}"
            ));
        }
        for Handed {
            proto,
            ports,
            to,
            moved,
            ..
        } in &handed
        {
            translation.push(format!(
                "rdr on {device} {inet}{proto} from any to {address}{ports} -> {to}{moved}"
            ));
        }
        if !takes_all {
            translation.push(format!(
                "rdr on {device} {inet} from any to {address} -> {rest}"
            ));
        }
    }
}

/// One forward in pf's words, each with a space before it.
struct Handed {
    proto: String,
    /// The ports of the public address.
    ports: String,
    to: IpAddr,
    /// Where they are moved to; pf moves a range as a whole (`port 9000:*`).
    moved: String,
    /// The ports of the machine.
    at: String,
}

/// The forwards of a family, the one that takes all else last, and whether there is one.
fn handed(forwards: &[Forward], family: Family) -> (Vec<Handed>, bool) {
    let mut handed = Vec::new();
    let forwards = || forwards.iter().filter(|it| Family::of(it.to) == family);
    for forward in forwards() {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let Some((first, last, to_first)) = forward.ports(protocol) else {
                continue;
            };
            let range = |first: u16, last: u16| {
                let keep = Keep {
                    protocol,
                    first,
                    last,
                };
                format!(" port {}", port(&keep))
            };
            handed.push(Handed {
                proto: format!(" proto {}", proto(protocol)),
                ports: range(first, last),
                to: forward.to,
                moved: if first == last {
                    format!(" port {to_first}")
                } else {
                    format!(" port {to_first}:*")
                },
                at: range(to_first, to_first.saturating_add(last - first)),
            });
        }
    }
    let rest = forwards().find(|forward| forward.taken == Taken::Rest);
    handed.extend(rest.map(|rest| Handed {
        proto: String::new(),
        ports: String::new(),
        to: rest.to,
        moved: String::new(),
        at: String::new(),
    }));
    (handed, rest.is_some())
}

pub(super) fn icmp(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "icmp6",
    }
}

pub(super) fn proto(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    }
}

/// The LANs behind the shared address.
///
/// With `without_tunnel = "direct"` their packets find the ordinary default route while the tunnel is
/// down. A killed daemon cannot change the rule: then they stay.
fn shared(
    rules: &mut Rules,
    config: &Config,
    (role, lans, forwards): (&Local, &[IfName], &[Forward]),
    observed: &Observed,
    address: IpAddr,
) {
    let (tunnel, tag) = (&config.name, rules.tag.clone());
    let family = Family::of(address);
    let (inet, peer) = (inet(address), link::tunnel_peer(config, family));
    own::pass(rules, config, observed, address);
    rules.say("nobody else speaks by a link as this address");
    for device in uplinks(config, observed) {
        rules.block(format!(
            "out quick on {device} {inet} from {address} to any"
        ));
    }
    rules.say("new from the tunnel: what is handed on; answers go back there");
    let handed = handed(forwards, family).0;
    for Handed { proto, to, at, .. } in &handed {
        rules.pass(format!(
            "in quick on {tunnel} {inet}{proto} from any to {to}{at} keep state tag {tag}"
        ));
    }
    rules.block(format!("in quick on {tunnel} {inet}"));
    for lan in lans {
        rules.pass(format!(
            "out quick on {lan} reply-to ({tunnel} {peer}) {inet} from any to any keep state tagged {tag}"
        ));
    }
    // Also where a route says that a machine of a LAN is elsewhere.
    rules.block(format!("out quick {inet} tagged {tag}"));
    let (on_link, shared) = (on_link(family), rules.shared());
    let of_family = |network: &Prefix| network.family() == family;
    let near: Vec<Prefix> = near(config, observed)
        .into_iter()
        .filter(of_family)
        .collect();
    for lan in lans {
        rules.say(
            "the LAN's packets: to this router and its neighbours, all others into the tunnel",
        );
        rules.pass(format!(
            "in quick on {lan} {inet} from any to {{ ({lan}) ({lan}:network) }}"
        ));
        rules.pass(format!(
            "in quick on {lan} {inet} from any to {{ {on_link} }}"
        ));
        if role.without_tunnel == WithoutTunnel::Direct && observed.tunnel_down {
            continue;
        }
        // What is handed on, asked for from another LAN.
        for Handed { proto, to, at, .. } in handed.iter().filter(|_| lans.len() > 1) {
            rules.pass(format!(
                "in quick on {lan} {inet}{proto} from any to {to}{at} keep state"
            ));
        }
        // Between this router's networks the user's rules judge.
        let own = observed
            .link(lan)
            .into_iter()
            .flat_map(|link| &link.addresses);
        let own: Vec<Prefix> = own.map(Prefix::network).collect();
        let mut except = String::new();
        for network in near.iter().filter(|network| !own.contains(network)) {
            except = format!(" ! tagged {tag}-near");
            rules.tag(format!(
                "in on {lan} {inet} from any to {network} tag {tag}-near"
            ));
        }
        rules.pass(format!(
            "in quick on {lan} route-to ({tunnel} {peer}) {inet} from any to any{except} keep state tag {shared}"
        ));
    }
    let own = link::tunnel_own(config, family);
    rules.pass(format!(
        "out quick on {tunnel} {inet} from {{ {address} {own} }} to any keep state"
    ));
}

/// Where `route-to` sends: pf's own way to name a device and a next hop.
fn route_to(device: &IfName, hop: Hop) -> String {
    match hop {
        Hop::Via(gateway) => format!("({device} {})", scoped(gateway, device)),
        Hop::Direct => device.to_string(),
    }
}

pub(super) fn inet(address: IpAddr) -> &'static str {
    word(Family::of(address))
}

/// pf's word for a family.
pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    }
}

pub(super) fn port(keep: &Keep) -> String {
    if keep.first == keep.last {
        keep.first.to_string()
    } else {
        format!("{}:{}", keep.first, keep.last)
    }
}
