//! Tests of the bytes that go to the kernel: what is written is read, and lies where it belongs.

use std::net::IpAddr;

use super::attributes::Attributes;
use super::links::Names;
use super::netlink::{Header, Message};
use super::rules::{Listed, fra};
use super::{addresses, neighbours, routes, rules};
use crate::config::PortProtocol;
use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
use crate::route::operation::Lookup;
use crate::route::resource::{Address, LocalTable, ProxyNeighbour, Route, Rule};

const INDEX: u32 = 7;

fn device() -> IfName {
    "wan0".parse().unwrap()
}

fn names() -> Names {
    Names::one(INDEX, &device())
}

fn prefix(text: &str, length: u8) -> Prefix {
    Prefix::new(text.parse().unwrap(), length).unwrap()
}

/// As the kernel would list it: by way of its bytes.
fn listed<H: Header>(message: &Message<H>) -> Message<H> {
    Message::parse(&message.to_bytes()).unwrap()
}

/// The message with one attribute more.
fn with<H: Header>(mut message: Message<H>, kind: u16, value: &[u8]) -> Message<H> {
    message.attributes = message.attributes.bytes(kind, value);
    message
}

fn contains<H: Header>(message: &Message<H>, parts: &[&[u8]]) -> bool {
    let wanted = parts.concat();
    let bytes = message.to_bytes();
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Every selector of a rule alone.
fn rule_cases() -> Vec<Rule> {
    let mut cases = Vec::new();
    for (family, from, to) in [
        (
            Family::V4,
            prefix("192.0.2.0", 24),
            prefix("198.51.100.1", 32),
        ),
        (
            Family::V6,
            prefix("2001:db8::", 64),
            prefix("2001:db8::1", 128),
        ),
    ] {
        // A table of 8 bits and one of 32.
        let plain = Rule::new(family, RulePref(19), TableId(254));
        let wide = Rule::new(family, RulePref(70_000), TableId(70_001));
        let mut one = |change: &dyn Fn(&mut Rule)| {
            let mut rule = plain.clone();
            change(&mut rule);
            cases.push(rule);
        };
        one(&|rule| *rule = wide.clone());
        one(&|_| {});
        one(&|rule| rule.from = Some(from));
        one(&|rule| rule.to = Some(to));
        one(&|rule| rule.iif = Some(device()));
        one(&|rule| rule.oif = Some(device()));
        one(&|rule| rule.mark = Some((0x100, 0xff00)));
        one(&|rule| rule.protocol = Some(PortProtocol::Tcp));
        one(&|rule| rule.protocol = Some(PortProtocol::Udp));
        one(&|rule| rule.ports = Some((22, 80)));
        one(&|rule| rule.suppress_prefix_length = Some(0));
    }
    cases
}

#[test]
fn rules() {
    for rule in rule_cases() {
        let message = listed(&rules::encode(&rule));
        assert_eq!(rules::decode(&message), Listed::Ours(rule));
    }
    let local = LocalTable {
        family: Family::V6,
        pref: RulePref(19),
    };
    let message = listed(&rules::encode_local(&local));
    assert_eq!(rules::decode(&message), Listed::Local(local));
    // A selector that cannot be read: it is not the kernel's rule.
    for (kind, value) in [(fra::SRC, &[1; 5][..]), (fra::DPORT_RANGE, &[1])] {
        let broken = with(message.clone(), kind, value);
        assert_eq!(rules::decode(&broken), Listed::Foreign);
    }
}

#[test]
fn ports_of_a_rule_are_in_the_hosts_order() {
    let mut rule = Rule::new(Family::V4, RulePref(19), TableId(254));
    rule.ports = Some((22, 4725));
    let parts = [8, fra::DPORT_RANGE, 22, 4725].map(u16::to_ne_bytes);
    let parts = parts.each_ref().map(|part| &part[..]);
    assert!(contains(&rules::encode(&rule), &parts));
}

#[test]
fn port_of_a_look_up_is_in_the_networks_order() {
    for (to, protocol, number) in [
        ("192.0.2.9", PortProtocol::Udp, 17),
        ("2001:db8::9", PortProtocol::Tcp, 6),
    ] {
        let lookup = Lookup {
            to: to.parse().unwrap(),
            iif: Some(device()),
            port: Some((protocol, 4725)),
            table: TableId(254),
        };
        let message = routes::question(&names(), &lookup).unwrap();
        // RTA_IP_PROTO is 27, RTA_DPORT 29; each is filled to four bytes.
        let [five, kind] = [5_u16, 27].map(u16::to_ne_bytes);
        assert!(contains(&message, &[&five, &kind, &[number, 0, 0, 0]]));
        let [six, kind] = [6_u16, 29].map(u16::to_ne_bytes);
        assert!(contains(&message, &[&six, &kind, &[0x12, 0x75, 0, 0]]));
    }
}

#[test]
fn routes() {
    let gateways = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
    for (family, gateway) in [Family::V4, Family::V6].into_iter().zip(gateways) {
        for destination in [Prefix::default_of(family), Prefix::host(gateway)] {
            let direct = Route::direct(TableId(70_000), destination, &device());
            let by = Route {
                via: Some(gateway),
                source: Some(gateway),
                onlink: true,
                metric: 7,
                ..direct.clone()
            };
            // Field row C3: RTA_VIA.
            let crossed = Route {
                via: Some("fe80::1".parse().unwrap()),
                ..direct.clone()
            };
            let unreachable = Route::unreachable(TableId(21), destination);
            for route in [direct, by, crossed, unreachable] {
                let message = listed(&routes::encode(&route, &names()).unwrap());
                assert!(routes::is_ours(&message));
                assert_eq!(routes::decode(&message, &names()), Some(route));
                let broken = with(message, libc::RTA_GATEWAY, &[1; 5]);
                assert_eq!(routes::decode(&broken, &names()), None);
            }
        }
    }
}

#[test]
fn addresses() {
    for (own, length, peer) in [
        ("192.0.2.1", 24, None),
        ("192.0.2.1", 32, Some("192.0.2.2")),
        ("2001:db8::1", 64, None),
        ("2001:db8::1", 128, Some("2001:db8::2")),
    ] {
        let address = Address {
            device: device(),
            prefix: prefix(own, length),
            peer: peer.map(|peer| peer.parse().unwrap()),
        };
        let message = listed(&addresses::encode(&address, INDEX));
        assert_eq!(addresses::decode(&message, &names()), Some(address));
        let broken = with(message, libc::IFA_ADDRESS, &[]);
        assert_eq!(addresses::decode(&broken, &names()), None);
    }
}

#[test]
fn neighbours() {
    for address in ["192.0.2.1", "2001:db8::1"] {
        let neighbour = ProxyNeighbour {
            device: device(),
            address: address.parse().unwrap(),
        };
        let mut message = listed(&neighbours::encode(&neighbour, INDEX));
        assert!(neighbours::is_ours(&message));
        assert_eq!(neighbours::decode(&message, &names()), Some(neighbour));
        message.attributes = Attributes::new().bytes(libc::NDA_DST, &[1; 5]);
        assert_eq!(neighbours::decode(&message, &names()), None);
    }
}
