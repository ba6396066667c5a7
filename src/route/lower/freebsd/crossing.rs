//! What may cross the tunnel, as the core holds it too: what comes out of it is for an address of
//! ours, what goes into it is from one. All else that the tunnel's device gives or takes is
//! dropped, whatever the user's own rules say.

use std::fmt::Display;
use std::net::IpAddr;

use super::anchor::{Rules, icmp, inet, port, proto, state, word};
use super::own;
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Config, Deliver, Keep, Local, Remote, Role};
use crate::route::beside::{is_private, overlap, private};
use crate::route::border::{near, uplinks};
use crate::route::insiders::beyond;
use crate::route::link;
use crate::route::links::{BRIDGED, Observed};

/// Neither a source nor a destination of a packet that crosses: they mean something on one link
/// only, or no single host (RFC 6890, RFC 4291).
fn never(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/3",
        Family::V6 => "::/16 fe80::/9 ff00::/8",
    }
}

/// The private networks as a list of pf's, without the link's own, which never cross.
pub(super) fn private_list(family: Family) -> String {
    let link_local = |network: &Prefix| match network.address() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let networks = private(family).into_iter().filter(|it| !link_local(it));
    let networks: Vec<_> = networks.map(|it| it.to_string()).collect();
    networks.join(" ")
}

/// A family that has no business in the tunnel.
pub(super) fn refuse(rules: &mut Rules, config: &Config, family: Family) {
    let tunnel = &config.name;
    let inet = word(family);
    rules.say("never in the tunnel");
    rules.block(format!("in quick on {tunnel} {inet}"));
    rules.block(format!("out quick on {tunnel} {inet}"));
}

/// What never crosses, and the networks that the configuration allows beside the public address.
pub(super) fn begin(rules: &mut Rules, config: &Config, observed: &Observed, family: Family) {
    let tunnel = &config.name;
    let (inet, private_list) = (word(family), private_list(family));
    // Lists of six and more would become tables of pf's.
    let never = never(family);
    rules.say("what may not cross the tunnel, and what more may");
    for (direction, ends) in [("in", "from"), ("in", "to"), ("out", "from"), ("out", "to")] {
        let ends = match ends {
            "from" => format!("from {{ {never} }} to any"),
            _ => format!("from any to {{ {never} }}"),
        };
        rules.block(format!("{direction} quick on {tunnel} {inet} {ends}"));
    }
    let (towards_internet, back) = match &config.role {
        Role::Local(role) => {
            router(rules, config, role, observed, family);
            links(rules, config, role, observed, family);
            ("out", String::new())
        }
        Role::Remote(role) => {
            host(rules, config, role, family);
            // Answers to the public address would stay here.
            let peer = link::tunnel_peer(config, family);
            ("in", format!("reply-to ({tunnel} {peer}) "))
        }
    };
    let allowed = config.allow.iter().filter(|it| it.family() == family);
    let beyond = beyond(config, observed);
    for network in allowed.clone() {
        rules.pass(format!(
            "in quick on {tunnel} {back}{inet} from any to {network} keep state"
        ));
        let speak = |source: &dyn Display| {
            format!("out quick on {tunnel} {inet} from {source} to {network}")
        };
        // A private network at home is the VPS's to reach, not its neighbours'.
        let holds_private = private(family).iter().any(|it| overlap(it, network));
        if !holds_private || matches!(config.role, Role::Local(_)) {
            rules.pass(format!("{} keep state", speak(&"any")));
            continue;
        }
        rules.pass(format!("{} keep state", speak(&"(self)")));
        let at_home = beyond.iter().filter(|it| it.family() == family);
        at_home.for_each(|source| rules.block(speak(source)));
        for source in allowed.clone() {
            rules.pass(format!("{} keep state", speak(source)));
        }
    }
    for network in allowed.clone() {
        // The VPS has said what it takes.
        if let Role::Local(_) = config.role {
            let peer = link::tunnel_peer(config, family);
            rules.pass(format!(
                "out quick on {tunnel} {inet} from {network} to {peer} keep state"
            ));
        }
        rules.block(format!(
            "{towards_internet} quick on {tunnel} {inet} from {network} to {{ {private_list} }}"
        ));
    }
    if let Role::Remote(role) = &config.role {
        if let Some(public) = public_of(config, family) {
            rules.block(format!(
                "in quick on {tunnel} {inet} from {public} to {{ {private_list} }}"
            ));
        }
        open(rules, config, role, family, "(self)");
        rules.say("and nothing else of this host");
        rules.block(format!("in quick on {tunnel} {inet} from any to (self)"));
    }
    for network in allowed {
        rules.pass(format!(
            "{towards_internet} quick on {tunnel} {inet} from {network} to any keep state"
        ));
    }
}

/// What the VPS itself takes from home: pings, and the ports that it keeps; at its address inside the tunnel
/// first, which lies in a private network.
fn host(rules: &mut Rules, config: &Config, role: &Remote, family: Family) {
    let (tunnel, inet) = (&config.name, word(family));
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    if let Some(public) = public_of(config, family) {
        rules.block(format!(
            "in quick on {tunnel} {inet} from {public} to {{ {public} {peer} }}"
        ));
    }
    rules.say("this host itself: pings, and what it keeps; answers go back there");
    open(rules, config, role, family, &own.to_string());
}

/// What home reaches of the VPS at these addresses.
fn open(rules: &mut Rules, config: &Config, role: &Remote, family: Family, to: &str) {
    let peer = link::tunnel_peer(config, family);
    let allowed = config.allow.iter().filter(|it| it.family() == family);
    let home = public_of(config, family).into_iter().chain([peer]);
    let home = home.map(|it| it.to_string());
    for from in home.chain(allowed.map(Prefix::to_string)) {
        taken(
            rules,
            config,
            family,
            &role.keep,
            &format!("{from} to {to}"),
        );
    }
}

/// Pings and kept ports of this host, between these ends.
fn taken(rules: &mut Rules, config: &Config, family: Family, keep: &[Keep], ends: &str) {
    let (tunnel, inet, icmp) = (&config.name, word(family), icmp(family));
    let peer = link::tunnel_peer(config, family);
    let comes = format!("in quick on {tunnel} reply-to ({tunnel} {peer}) {inet} proto");
    rules.pass(format!("{comes} {icmp} from {ends} keep state"));
    for keep in keep {
        let (proto, port, state) = (proto(keep.protocol), port(keep), state(keep.protocol));
        rules.pass(format!("{comes} {proto} from {ends} port {port} {state}"));
    }
}

fn public_of(config: &Config, family: Family) -> Option<IpAddr> {
    config.public.iter().find(|it| Family::of(*it) == family)
}

/// What the router itself takes from the tunnel: pings, and the ports that it keeps. Nobody on the
/// other side speaks as a machine that is at home.
fn router(rules: &mut Rules, config: &Config, role: &Local, observed: &Observed, family: Family) {
    let tunnel = &config.name;
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    let inet = word(family);
    let public = public_of(config, family);
    let both = match public {
        Some(public) => format!("{{ {public} {own} }}"),
        None => own.to_string(),
    };
    for network in near(config, observed) {
        if network.family() == family {
            rules.block(format!("in quick on {tunnel} {inet} from {network} to any"));
        }
    }
    rules.block(format!("in quick on {tunnel} {inet} from {both} to any"));
    rules.say("this router itself: pings, and what it keeps; answers go back there");
    let mut ends = Vec::new();
    let allowed = || config.allow.iter().filter(|it| it.family() == family);
    if let Deliver::Nat { .. } = role.deliver {
        // The public address was translated to this one.
        ends.push(format!("any to {own}"));
    } else {
        // Nobody else knows its address inside the tunnel.
        ends.push(format!("{peer} to {own}"));
        ends.extend(allowed().map(|network| format!("{network} to {own}")));
    }
    // With "none" the administrator may have given the router the public address.
    if let (Deliver::Nothing, Some(public)) = (&role.deliver, public) {
        ends.push(format!("any to {public}"));
    }
    for ends in ends {
        taken(rules, config, family, &role.keep, &ends);
    }
    rules.block(format!("in quick on {tunnel} {inet} from any to {own}"));
    for network in allowed() {
        let ends = format!("any to {network}");
        taken(rules, config, family, &role.keep, &ends);
    }
    rules.block(format!("in quick on {tunnel} {inet} from any to (self)"));
}

/// What has no business on a link: the portals' addresses inside the tunnel, packets for the client that
/// come around the tunnel, and what tells of the home's own address.
fn links(rules: &mut Rules, config: &Config, role: &Local, observed: &Observed, family: Family) {
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    // With "none" the administrator may have it there.
    let delivers = role.deliver != Deliver::Nothing;
    let translates = matches!(role.deliver, Deliver::Nat { .. });
    let owns = public_of(config, family);
    let held = owns.filter(|_| delivers);
    let public = held.map(|public| format!("{public} "));
    let (inet, public) = (word(family), public.unwrap_or_default());
    let uplinks = uplinks(config, observed);
    rules.say("the tunnel's addresses stay inside");
    for device in &uplinks {
        rules.block(format!(
            "in quick on {device} {inet} from any to {{ {public}{own} {peer} }}"
        ));
        // With "nat" the router's own questions come by with the public one.
        let from = match held.filter(|_| !translates) {
            Some(public) => format!("{{ {public} {own} }}"),
            None => own.to_string(),
        };
        rules.block(format!("out quick on {device} {inet} from {from} to any"));
        rules.block(format!("out quick on {device} {inet} from any to {peer}"));
        if owns.is_some() && !translates {
            let error = own::error(family, "any");
            rules.block(format!("out quick on {device} {error}"));
        }
    }
    let Some(public) = held else { return };
    let allows = config.allow.iter().any(|it| it.family() == family);
    let others = observed.links.iter().filter(|link| {
        let device = &link.device;
        link.kind != BRIDGED
            && !link::delivery_devices(config).contains(device)
            && !uplinks.contains(device)
    });
    for device in others.map(|link| &link.device) {
        rules.say("another network uses neither");
        rules.block(format!("in quick on {device} {inet} from {public} to any"));
        if translates && !allows {
            rules.block(format!("in quick on {device} {inet} from any to {peer}"));
        }
    }
}

/// What comes from the client's device has an address that leads there, or goes no further: the tunnel does
/// not take somebody else's, and a link must not either. Broadcasts and what neighbours ask each other come
/// by any address.
pub(super) fn strangers(rules: &mut Rules, device: &IfName, family: Family) {
    let (inet, far) = match family {
        Family::V4 => ("inet", "{ 0.0.0.0/1 128.0.0.0/2 192.0.0.0/3 }"),
        Family::V6 => ("inet6", "2000::/3"),
    };
    rules.say("nobody else speaks there");
    rules.block(format!(
        "in quick on {device} {inet} from urpf-failed to {far}"
    ));
}

/// Where the administrator routes: only packets for the public address come out of the tunnel. What
/// goes into it is checked by the tunnel alone, as on Linux.
pub(super) fn routed(rules: &mut Rules, config: &Config, observed: &Observed, family: Family) {
    let (tunnel, inet, tag) = (&config.name, word(family), rules.tag.clone());
    let public = public_of(config, family);
    rules.say("nothing else but packets for the public address; answers to this router come back");
    rules.block(match public {
        Some(public) => format!("in quick on {tunnel} {inet} from any to ! {public}"),
        None => format!("in quick on {tunnel} {inet}"),
    });
    if let Some(public) = public {
        rules.say("they follow no default route, which would bring them back");
        rules.tag(format!(
            "in on {tunnel} {inet} from any to {public} tag {tag}"
        ));
        let mut links = uplinks(config, observed);
        links.retain(|link| !observed.leads_to(public, link));
        for link in links {
            rules.block(format!(
                "out quick on {link} {inet} from any to {public} tagged {tag}"
            ));
        }
    }
    rules.pass(format!(
        "out quick on {tunnel} {inet} from (self) to any flags any keep state (sloppy)"
    ));
}

/// Before the rules of a public address: what would cross by mistake or malice.
pub(super) fn before(rules: &mut Rules, config: &Config, address: IpAddr) {
    let tunnel = &config.name;
    let family = Family::of(address);
    let (inet, private_list) = (inet(address), private_list(family));
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    if let Role::Remote(_) = config.role {
        return rules.block(format!(
            "out quick on {tunnel} {inet} from {{ {address} {peer} }} to {address}"
        ));
    }
    rules.block(format!(
        "out quick on {tunnel} {inet} from {address} to {{ {address} {own} }}"
    ));
    // The way into a private network is never meant; the other portal has an address of one.
    if is_private(&Prefix::host(peer)) {
        let state = rules.state;
        rules.pass(format!(
            "out quick on {tunnel} {inet} from {address} to {peer} {state}"
        ));
    }
    rules.block(format!(
        "out quick on {tunnel} {inet} from {address} to {{ {private_list} }}"
    ));
}

/// After all other rules: nothing else crosses except what the two portals say to each other by their
/// addresses inside the tunnel, and to the networks that the configuration allows.
pub(super) fn end(rules: &mut Rules, config: &Config, family: Family) {
    let (tunnel, inet) = (&config.name, word(family));
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    rules.say("nothing else, but the portals themselves");
    rules.block(format!("in quick on {tunnel} {inet}"));
    let mut speakers = vec![own.to_string()];
    if let Role::Remote(_) = config.role {
        let allowed = config.allow.iter().filter(|it| it.family() == family);
        speakers.extend(allowed.map(Prefix::to_string));
    }
    for from in speakers {
        rules.pass(format!(
            "out quick on {tunnel} {inet} from {from} to {peer} flags any keep state (sloppy)"
        ));
    }
    rules.block(format!("out quick on {tunnel} {inet}"));
}
