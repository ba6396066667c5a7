//! A small model of pf (pf.conf(5)): as much of its grammar as the anchors use, and what it does
//! with a packet that has no state yet.

use std::net::IpAddr;

use netcombiner::cli::plan::{System, Wish, write};
use netcombiner::config::{Config, Role};
use netcombiner::route::Observed;

use crate::case;

/// One packet on its way in or out of a device.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    /// `in` or `out`.
    pub(super) direction: &'static str,
    /// The device.
    pub(super) on: &'static str,
    /// The protocol, and its ports; a fragment has none.
    pub(super) proto: &'static str,
    pub(super) ports: Option<(u16, u16)>,
    /// The type of ICMP or ICMPv6 by pf's name.
    pub(super) icmp: &'static str,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// The tag that an earlier rule gave it.
    pub(super) tag: Option<String>,
}

/// What the rules do with a packet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// No rule of ours: the user's decide.
    Nobody,
    /// Dropped.
    Blocked,
    /// Passed.
    Passed {
        /// `route-to`, or nothing: the routing table.
        by: Option<String>,
        /// It makes a state.
        state: bool,
        /// `reply-to`: the answers follow the state there.
        back: Option<String>,
    },
}

/// An anchor, and the addresses of the devices it speaks of.
pub(super) struct Anchor {
    rules: Vec<Vec<String>>,
    /// Device, address, prefix length.
    addresses: Vec<(String, IpAddr, u8)>,
}

impl Packet {
    /// A packet between two addresses and ports, in by `on`.
    pub(super) fn new(on: &'static str, proto: &'static str, from: &str, to: &str) -> Self {
        Self {
            direction: "in",
            on,
            proto,
            ports: Some((40000, 40001)),
            icmp: "",
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            tag: None,
        }
    }

    /// To this port.
    pub(super) fn port(self, port: u16) -> Self {
        Self {
            ports: Some((40000, port)),
            ..self
        }
    }

    /// The same on its way out.
    pub(super) fn out(self, on: &'static str) -> Self {
        Self {
            direction: "out",
            on,
            ..self
        }
    }
}

impl Anchor {
    /// The anchor of a case.
    pub(super) fn of(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// The anchor of a case whose configuration is changed.
    pub(super) fn with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(name, |config, _| change(config))
    }

    /// The anchor of a case whose configuration and host are changed.
    pub(super) fn on(name: &str, change: impl FnOnce(&mut Config, &mut Observed)) -> Self {
        let (mut config, mut observed) = case(name);
        change(&mut config, &mut observed);
        let wish = Wish {
            system: System::FreeBsd,
            down: false,
            json: false,
        };
        let mut plan = Vec::new();
        write(&mut plan, &config, &observed, None, wish).unwrap();
        let plan = String::from_utf8(plan).unwrap();
        let (_, rest) = plan.split_once("<<'END'\n").unwrap();
        let (anchor, _) = rest.split_once("END\n").unwrap();
        let rules = anchor.lines().filter(|line| !line.starts_with('#'));
        let addresses = observed.links.iter().flat_map(|link| {
            link.addresses.iter().map(|prefix| {
                let device = link.device.to_string();
                (device, prefix.address(), prefix.length())
            })
        });
        let tunnel = match config.role {
            Role::Local(_) => config.tunnel.local,
            Role::Remote(_) => config.tunnel.remote,
        };
        let tunnel = (config.name.to_string(), IpAddr::V4(tunnel), 32);
        Self {
            rules: rules.map(words).collect(),
            addresses: addresses.chain([tunnel]).collect(),
        }
    }

    /// The same host with another address of its own.
    pub(super) fn holding(mut self, address: &str) -> Self {
        let own = ("lo1".to_owned(), address.parse().unwrap(), 32);
        self.addresses.push(own);
        self
    }

    /// Runs a packet through: translation first, then the first rule that matches, for all are
    /// quick. Changes the packet as pf would.
    pub(super) fn run(&self, packet: &mut Packet) -> Verdict {
        let kind = if packet.direction == "in" {
            "rdr"
        } else {
            "nat"
        };
        let is_of_kind = |rule: &&Vec<String>| rule[usize::from(rule[0] == "no")] == kind;
        let mut translations = self.rules.iter().filter(is_of_kind);
        if let Some(rule) = translations.find(|rule| self.matches(rule, packet))
            && rule[0] != "no"
        {
            self.translate(rule, packet);
        }
        let mut decides = None;
        for rule in &self.rules {
            let is_filter = ["match", "pass", "block"].contains(&rule[0].as_str());
            if !is_filter || !self.matches(rule, packet) {
                continue;
            }
            if rule[0] != "match" {
                decides = Some(rule);
                break;
            }
            // It decides nothing: it gives a tag.
            packet.tag = after(rule, "tag").map(str::to_owned);
        }
        let Some(rule) = decides else {
            return Verdict::Nobody;
        };
        assert!(rule.iter().any(|word| word == "quick"), "{rule:?}");
        if rule[0] == "block" {
            return Verdict::Blocked;
        }
        if let Some(tag) = after(rule, "tag") {
            packet.tag = Some(tag.to_owned());
        }
        let device = |word: &str| after(rule, word).map(|it| it.trim_matches('(').to_owned());
        Verdict::Passed {
            by: device("route-to"),
            back: device("reply-to"),
            state: !rule.windows(2).any(|pair| pair == ["no", "state"]),
        }
    }

    fn translate(&self, rule: &[String], packet: &mut Packet) {
        let to = after(rule, "->").unwrap();
        let address = match to.parse() {
            Ok(address) => address,
            Err(_) => {
                let device = to.trim_matches(['(', ')']).trim_end_matches(":0");
                let mut own = self.addresses.iter().filter(|it| it.0 == device);
                own.find(|it| it.1.is_ipv4() == packet.to.is_ipv4())
                    .unwrap()
                    .1
            }
        };
        if rule[0] == "nat" {
            packet.from = address;
            return;
        }
        packet.to = address;
        let mut words = rule.iter().skip_while(|word| *word != "->");
        if words.any(|word| word == "port")
            && let (Some(port), Some((_, to))) = (words.next(), &mut packet.ports)
        {
            *to = port.parse().unwrap();
        }
    }

    fn matches(&self, rule: &[String], packet: &Packet) -> bool {
        let rule: Vec<_> = rule
            .iter()
            .take_while(|word| *word != "->")
            .cloned()
            .collect();
        let rule = rule.as_slice();
        let has = |word: &str| rule.iter().any(|it| it == word);
        if has("in") && packet.direction != "in" || has("out") && packet.direction != "out" {
            return false;
        }
        let device = match after(rule, "on") {
            Some("!") => after(rule, "!") != Some(packet.on),
            Some(_) => list(rule, "on").iter().any(|device| device == packet.on),
            None => true,
        };
        let family = if packet.to.is_ipv4() { "inet" } else { "inet6" };
        let protos = list(rule, "proto");
        let proto = protos.is_empty() || protos.iter().any(|proto| proto == packet.proto);
        let family = has(family) || !has("inet") && !has("inet6");
        let untagged = rule.windows(2).any(|pair| pair == ["!", "tagged"]);
        let tagged = after(rule, "tagged")
            .is_none_or(|tag| (packet.tag.as_deref() == Some(tag)) != untagged);
        let icmp = [list(rule, "icmp-type"), list(rule, "icmp6-type")].concat();
        let icmp = icmp.is_empty() || icmp.iter().any(|it| it == packet.icmp);
        let leads_there = |(name, own, length): &(String, IpAddr, u8)| {
            name == packet.on && inside(packet.from, *own, *length)
        };
        let reverse = !has("urpf-failed") || !self.addresses.iter().any(leads_there);
        device
            && reverse
            && family
            && proto
            && tagged
            && icmp
            && self.end(rule, "from", packet.from, packet.ports.map(|it| it.0))
            && self.end(rule, "to", packet.to, packet.ports.map(|it| it.1))
    }

    /// Whether one end of a packet is as a rule wants it: its address and its port.
    fn end(&self, rule: &[String], word: &str, address: IpAddr, port: Option<u16>) -> bool {
        let addresses = list(rule, word);
        let negated = addresses.first().is_some_and(|it| it == "!");
        let found = addresses.is_empty()
            || addresses
                .iter()
                .any(|it| ["any", "urpf-failed"].contains(&it.as_str()) || self.is_in(it, address));
        let mut rest = rule.iter().skip_while(|it| *it != word).skip(1);
        let rest = rest.by_ref().skip_while(|it| {
            let end = ["to", "port", "flags", "keep", "no", "tag", "tagged"];
            !end.contains(&it.as_str())
        });
        let rest: Vec<String> = rest.cloned().collect();
        let wanted = match rest.first().map(String::as_str) {
            Some("port") => list(&rest, "port"),
            _ => Vec::new(),
        };
        // Without reassembly pf sees no port in a fragment.
        let has = |ports: &String| {
            let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
            port.is_some_and(|it| (first.parse().unwrap()..=last.parse().unwrap()).contains(&it))
        };
        let port = wanted.is_empty() || wanted.iter().any(has);
        found != negated && port
    }

    fn is_in(&self, text: &str, address: IpAddr) -> bool {
        if let Some(device) = text.strip_prefix('(') {
            let device = device.trim_end_matches(')');
            let (device, network) = match device.split_once(":network") {
                Some((device, _)) => (device, true),
                None => (device, false),
            };
            return self.addresses.iter().any(|(name, own, length)| {
                (name == device || device == "self")
                    && if network {
                        inside(address, *own, *length)
                    } else {
                        *own == address
                    }
            });
        }
        match text.split_once('/') {
            Some((network, length)) => {
                inside(address, network.parse().unwrap(), length.parse().unwrap())
            }
            None => text.parse() == Ok(address),
        }
    }
}

/// Words, with brackets as words of their own except for a device in brackets.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The word behind another.
fn after<'a>(rule: &'a [String], word: &str) -> Option<&'a str> {
    let place = rule.iter().position(|it| it == word)?;
    rule.get(place + 1).map(String::as_str)
}

/// The word behind another, or the list in braces; `!` first when it is negated.
fn list(rule: &[String], word: &str) -> Vec<String> {
    let mut rest = rule.iter().skip_while(|it| *it != word).skip(1);
    let Some(first) = rest.next() else {
        return Vec::new();
    };
    match first.as_str() {
        "{" => rest
            .take_while(|it| *it != "}")
            .map(|it| it.trim_end_matches(',').to_owned())
            .collect(),
        "!" => vec![first.clone(), rest.next().cloned().unwrap()],
        _ => vec![first.clone()],
    }
}

fn inside(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let (bits, address, network) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (
            32,
            u128::from(address.to_bits()),
            u128::from(network.to_bits()),
        ),
        (IpAddr::V6(address), IpAddr::V6(network)) => (128, address.to_bits(), network.to_bits()),
        _ => return false,
    };
    length == 0 || (address ^ network) >> (bits - u32::from(length)) == 0
}
