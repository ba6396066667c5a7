//! What may cross the tunnel, as the core holds it too: what comes out of it is for an address of
//! ours, what goes into it is from one. All else that the tunnel's device gives or takes is
//! dropped, whatever the user's own rules say.

use std::net::IpAddr;

use super::anchor::{Rules, icmp, inet, port, proto, state, word};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Config, Deliver, Local, Role};
use crate::route::beside::{is_private, overlap, private};
use crate::route::border::{near, uplinks};
use crate::route::link;
use crate::route::links::Observed;

/// Neither a source nor a destination of a packet that crosses: they mean something on one link
/// only, or no single host (RFC 6890, RFC 4291).
fn never(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/3",
        Family::V6 => "::/16 fe80::/9 ff00::/8",
    }
}

/// The private networks as a list of pf's, without the link's own, which never cross.
fn private_list(family: Family) -> String {
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
    let towards_internet = match &config.role {
        Role::Local(role) => {
            router(rules, config, role, observed, family);
            links(rules, config, observed, family);
            "out"
        }
        Role::Remote(_) => "in",
    };
    let allowed = config.allow.iter().filter(|it| it.family() == family);
    for network in allowed.clone() {
        rules.pass(format!(
            "in quick on {tunnel} {inet} from any to {network} keep state"
        ));
        // A private network at home is the VPS's to reach, not its neighbours'.
        let mut sources = vec!["any".to_owned()];
        let holds_private = private(family).iter().any(|it| overlap(it, network));
        if holds_private && matches!(config.role, Role::Remote(_)) {
            sources = vec!["(self)".to_owned()];
            sources.extend(allowed.clone().map(Prefix::to_string));
        }
        for source in sources {
            rules.pass(format!(
                "out quick on {tunnel} {inet} from {source} to {network} keep state"
            ));
        }
    }
    for network in allowed {
        rules.block(format!(
            "{towards_internet} quick on {tunnel} {inet} from {network} to {{ {private_list} }}"
        ));
        rules.pass(format!(
            "{towards_internet} quick on {tunnel} {inet} from {network} to any keep state"
        ));
    }
}

/// What the router itself takes from the tunnel: pings, and the ports that it keeps. Nobody on the
/// other side speaks as a machine that is at home.
fn router(rules: &mut Rules, config: &Config, role: &Local, observed: &Observed, family: Family) {
    let tunnel = &config.name;
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    let (inet, icmp) = (word(family), icmp(family));
    let public = config.public.iter().find(|it| Family::of(*it) == family);
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
    let comes = format!("in quick on {tunnel} reply-to ({tunnel} {peer}) {inet} proto");
    let mut ends = Vec::new();
    if let Deliver::Nat { .. } = role.deliver {
        // The public address was translated to this one.
        ends.push(format!("any to {own}"));
    } else {
        // Nobody else knows its address inside the tunnel.
        let allowed = config.allow.iter().filter(|it| it.family() == family);
        let knows = allowed.map(|network| format!("{network} to {own}"));
        ends.push(format!("{peer} to {own}"));
        ends.extend(knows);
    }
    // With "none" the administrator may have given the router the public address.
    if let (Deliver::Nothing, Some(public)) = (&role.deliver, public) {
        ends.push(format!("any to {public}"));
    }
    for ends in ends {
        rules.pass(format!("{comes} {icmp} from {ends} keep state"));
        for keep in &role.keep {
            let (proto, port, state) = (proto(keep.protocol), port(keep), state(keep.protocol));
            rules.pass(format!("{comes} {proto} from {ends} port {port} {state}"));
        }
    }
    rules.block(format!("in quick on {tunnel} {inet} from any to (self)"));
}

/// What has no business on a link: the portals' addresses inside the tunnel, and packets for the client that
/// come around the tunnel.
fn links(rules: &mut Rules, config: &Config, observed: &Observed, family: Family) {
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    let public = config.public.iter().find(|it| Family::of(*it) == family);
    // With "none" the administrator may have it there.
    let delivers = !link::delivery_devices(config).is_empty();
    let public = public
        .filter(|_| delivers)
        .map(|public| format!("{public} "));
    let (inet, public) = (word(family), public.unwrap_or_default());
    rules.say("the tunnel's addresses stay inside");
    for device in uplinks(config, observed) {
        rules.block(format!(
            "in quick on {device} {inet} from any to {{ {public}{own} {peer} }}"
        ));
        rules.block(format!("out quick on {device} {inet} from {own} to any"));
        rules.block(format!("out quick on {device} {inet} from any to {peer}"));
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
pub(super) fn routed(rules: &mut Rules, config: &Config, family: Family) {
    let (tunnel, inet) = (&config.name, word(family));
    let public = config.public.iter().find(|it| Family::of(*it) == family);
    rules.say("nothing else but packets for the public address; answers to this router come back");
    rules.block(match public {
        Some(public) => format!("in quick on {tunnel} {inet} from any to ! {public}"),
        None => format!("in quick on {tunnel} {inet}"),
    });
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
    match &config.role {
        Role::Local(_) => {
            rules.block(format!(
                "out quick on {tunnel} {inet} from {address} to {{ {address} {own} }}"
            ));
        }
        Role::Remote(_) => {
            rules.block(format!(
                "in quick on {tunnel} {inet} from {address} to {{ {address} {peer} }}"
            ));
            rules.block(format!(
                "out quick on {tunnel} {inet} from {{ {address} {peer} }} to {address}"
            ));
        }
    }
    // The way into a private network is never meant; the other portal has an address of one.
    let (direction, from, portal) = match &config.role {
        Role::Local(_) => ("out", address, peer),
        Role::Remote(_) => ("in", address, own),
    };
    if is_private(&Prefix::host(portal)) {
        let tag = match &config.role {
            Role::Local(_) => String::new(),
            Role::Remote(_) => format!(" tag {}", rules.tag),
        };
        let state = rules.state;
        rules.pass(format!(
            "{direction} quick on {tunnel} {inet} from {from} to {portal} {state}{tag}"
        ));
    }
    rules.block(format!(
        "{direction} quick on {tunnel} {inet} from {from} to {{ {private_list} }}"
    ));
}

/// After all other rules: nothing else crosses except what the two portals say to each other by their
/// addresses inside the tunnel. On the VPS the user's rules judge that.
pub(super) fn end(rules: &mut Rules, config: &Config, family: Family) {
    let tunnel = &config.name;
    let inet = word(family);
    let (own, peer) = (
        link::tunnel_own(config, family),
        link::tunnel_peer(config, family),
    );
    rules.say("nothing else, but the portals themselves");
    match &config.role {
        Role::Local(_) => {
            rules.block(format!("in quick on {tunnel} {inet}"));
            rules.pass(format!(
                "out quick on {tunnel} {inet} from {own} to {peer} flags any keep state (sloppy)"
            ));
            rules.block(format!("out quick on {tunnel} {inet}"));
        }
        Role::Remote(_) => {
            rules.block(format!("in quick on {tunnel} {inet} from ! {peer} to any"));
            rules.block(format!(
                "in quick on {tunnel} {inet} from {peer} to ! {own}"
            ));
            rules.block(format!("out quick on {tunnel} {inet} from ! {own} to any"));
            rules.block(format!(
                "out quick on {tunnel} {inet} from {own} to ! {peer}"
            ));
        }
    }
}
