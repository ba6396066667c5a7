//! What this router sends itself: its questions to name servers, and its ICMP errors.

use std::net::IpAddr;

use super::anchor::{Rules, icmp, inet, word};
use super::crossing::private_list;
use crate::config::Config;
use crate::config::units::{Family, IfName};
use crate::route::border::uplinks;
use crate::route::link;
use crate::route::links::Observed;

/// What is asked of name servers (RFC 1035, RFC 7858). Nothing else goes this way: pf does not cut
/// the large TCP segments that the kernel makes for a link (TSO) and pf sends elsewhere.
const QUESTIONS: (&str, &str) = ("proto { tcp udp }", "to any port { 53 853 }");

/// The links by which this router's own packets leave while they could use the tunnel. IPv6 leaves by
/// the links on every system.
fn links(config: &Config, observed: &Observed, address: IpAddr) -> Vec<IfName> {
    let mut links = uplinks(config, observed);
    let family = Family::of(address);
    links.retain(|device| {
        let link = observed.link(device);
        let has_default = link.is_some_and(|link| link.gateway(family).is_some());
        has_default && family == Family::V4 && !observed.tunnel_down
    });
    links
}

/// The questions have the public address before they leave for the tunnel: pf translates where a
/// packet would leave by the routing table. The flows, and servers on private networks, are left alone.
pub(super) fn translate(
    translation: &mut Vec<String>,
    config: &Config,
    observed: &Observed,
    address: IpAddr,
) {
    let (proto, questions) = QUESTIONS;
    let (family, inet) = (Family::of(address), inet(address));
    for link in links(config, observed, address) {
        let targets = link::flow_targets(config, observed);
        let targets = targets.iter().filter(|it| Family::of(**it) == family);
        let beside: Vec<_> = targets
            .map(ToString::to_string)
            .chain([private_list(family)])
            .collect();
        translation.push(format!(
            "no nat on {link} {inet} {proto} from ({link}) to {{ {} }}",
            beside.join(" ")
        ));
        translation.push(format!(
            "nat on {link} {inet} {proto} from ({link}) {questions} -> {address}"
        ));
    }
}

/// What was translated goes into the tunnel. The answers come back by the state.
pub(super) fn pass(rules: &mut Rules, config: &Config, observed: &Observed, address: IpAddr) {
    let (proto, questions) = QUESTIONS;
    let (tunnel, inet) = (&config.name, inet(address));
    let peer = link::tunnel_peer(config, Family::of(address));
    for link in links(config, observed, address) {
        rules.say("this router's questions to name servers");
        rules.pass(format!(
            "out quick on {link} route-to ({tunnel} {peer}) {inet} {proto} from {address} {questions} keep state (floating)"
        ));
    }
}

/// An ICMP error of this router that belongs to no state: it may be about a packet for the public
/// address, and leaving by a link it would name the home's own address.
pub(super) fn error(family: Family, to: &str) -> String {
    let types = match family {
        Family::V4 => "icmp-type { unreach, timex, paramprob }",
        Family::V6 => "icmp6-type { unreach, toobig, timex, paramprob }",
    };
    format!(
        "{} proto {} from (self) to {to} {types}",
        word(family),
        icmp(family)
    )
}
