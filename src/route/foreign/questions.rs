//! Which packets have to pass on this host, and what stands in their way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::advice::line;
use super::probe::{ESTABLISHED, NEW};
use super::{Device, Dropper, Probe, Ruleset, Way};
use crate::config::units::{Family, IfName};
use crate::config::{
    Config, Deliver, Endpoint, Forward, PortProtocol, Role, Taken, Transport, Warning,
};
use crate::plain::plain;
use crate::route::link;
use crate::route::links::Observed;
use crate::sorted::sort_by_key;

/// Somebody on the Internet: no address that lists of the impossible ones hold.
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
/// The same for IPv6.
const SOMEBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 9);
/// What people let pass first, so that a filter which lets pass only that is not complained about.
const PORT: u16 = 443;
/// A port that nobody waits at (RFC 6335: dynamic).
pub(super) const OTHER_PORT: u16 = 50_001;

/// Of thousands of handed-on ports so many are tried: they share their fate, as a rule.
const MOST_FORWARDS: usize = 16;

/// A chain of somebody else's that drops packets of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// It does; else it may, which a part of it decides that is not understood.
    pub certain: bool,
    /// Which chain, what, and the line that mends it.
    pub text: String,
}

impl From<Finding> for Warning {
    fn from(finding: Finding) -> Self {
        Self {
            place: "the packet filter of this host".to_owned(),
            text: finding.text,
        }
    }
}

/// What has to pass, in words, and a packet of it.
struct Question {
    what: String,
    probe: Probe,
}

/// What the packet filters of others drop of what has to pass; what is certain first.
pub fn findings(config: &Config, observed: &Observed, rules: &Ruleset) -> Vec<Finding> {
    let mut found: Vec<(&str, Way, String, Finding)> = Vec::new();
    for question in Asker::new(config, observed, rules).ask() {
        for dropper in rules.droppers(&question.probe) {
            let tunnel = config.name.as_str();
            let line = line(rules, tunnel, &dropper, &question.probe);
            let base = dropper.base.name.as_str();
            let finding = Finding {
                certain: dropper.certain,
                text: text(&dropper, &question.what, &line),
            };
            // One line mends several: they are one fault, of which the first is named.
            let way = question.probe.way;
            let same = found.iter_mut().find(|(chain, other, mended, _)| {
                (*chain, *other, mended.as_str()) == (base, way, line.as_str())
            });
            match same {
                Some((.., other)) if !other.certain && finding.certain => *other = finding,
                Some(_) => {}
                None => found.push((base, way, line, finding)),
            }
        }
    }
    let mut findings: Vec<_> = found.into_iter().map(|(.., finding)| finding).collect();
    for finding in &mut findings {
        finding.text = plain(&finding.text);
    }
    sort_by_key(&mut findings, |finding| !finding.certain);
    if rules.unread {
        findings.push(Finding {
            certain: false,
            text: "there are rules of ip_tables that cannot be read without iptables-legacy-save: \
                   they may drop the tunnel's packets"
                .to_owned(),
        });
    }
    findings
}

/// True when it matters to the packet filters of others that connections to this port of the host are
/// tracked (`ct state new udp dport 4725 accept`): what is untracked would be dropped.
pub fn needs_state(
    config: &Config,
    observed: &Observed,
    rules: &Ruleset,
    protocol: PortProtocol,
    port: u16,
) -> bool {
    let asker = Asker::new(config, observed, rules);
    config.public.iter().any(|public| {
        let uplinks = asker.uplinks(public).into_iter();
        uplinks
            .map(|uplink| incoming(uplink, public, number(protocol), port))
            .any(|probe| rules.needs_state(&probe))
    })
}

/// Somebody's first packet to a port of this host.
fn incoming(uplink: Device, own: IpAddr, protocol: u8, port: u16) -> Probe {
    Probe {
        way: Way::In,
        iif: Some(uplink),
        oif: None,
        from: somebody(own),
        to: own,
        protocol,
        ports: [OTHER_PORT, port],
        state: NEW,
        translated: false,
    }
}

fn text(dropper: &Dropper<'_>, what: &str, line: &str) -> String {
    let verb = if dropper.certain { "drops" } else { "may drop" };
    let by = if dropper.by_policy {
        " by its policy"
    } else {
        ""
    };
    let inner = if std::ptr::eq(dropper.base, dropper.chain) || dropper.by_policy {
        String::new()
    } else {
        format!(" (in chain {})", dropper.chain.name)
    };
    let title = dropper.base.title();
    format!("{title} {verb} {what}{by}{inner}: `{line}`")
}

struct Asker<'a> {
    config: &'a Config,
    observed: &'a Observed,
    rules: &'a Ruleset,
    questions: Vec<Question>,
}

impl<'a> Asker<'a> {
    fn new(config: &'a Config, observed: &'a Observed, rules: &'a Ruleset) -> Self {
        Self {
            config,
            observed,
            rules,
            questions: Vec::new(),
        }
    }

    fn ask(mut self) -> Vec<Question> {
        self.listeners();
        self.flows();
        for public in self.config.public.iter() {
            match &self.config.role {
                Role::Remote(_) => {
                    for uplink in self.uplinks(public) {
                        self.client("the Internet", &uplink, public);
                    }
                }
                Role::Local(role) => match &role.deliver {
                    Deliver::Client { device, .. } => {
                        let device = self.device(device);
                        self.client("the client", &device, public);
                    }
                    Deliver::Nat { devices, .. } => {
                        for device in devices {
                            self.lan(device, public);
                        }
                    }
                    Deliver::Nothing => {}
                },
            }
        }
        self.questions
    }

    fn device(&self, name: &IfName) -> Device {
        let link = self.observed.link(name);
        Device {
            name: name.to_string(),
            // Nobody's, where it is not there.
            index: link.map_or(u32::MAX, |link| link.index),
        }
    }

    fn tunnel(&self) -> Device {
        Device {
            name: self.config.name.to_string(),
            index: self.rules.tunnel_index.unwrap_or(u32::MAX),
        }
    }

    /// The devices towards the Internet.
    fn uplinks(&self, public: IpAddr) -> Vec<Device> {
        let holds = self.observed.holders(public).map(|link| &link.device);
        let mut devices: Vec<_> = holds.collect();
        if devices.is_empty() {
            let links = self.observed.links.iter();
            devices.extend(links.filter(|it| it.has_default()).map(|it| &it.device));
        }
        devices.into_iter().map(|it| self.device(it)).collect()
    }

    fn push(&mut self, what: impl Into<String>, probe: Probe) {
        self.questions.push(Question {
            what: what.into(),
            probe,
        });
    }

    /// Between the tunnel and a device, both ways. `place` is what lies behind the device.
    fn client(&mut self, place: &str, device: &Device, public: IpAddr) {
        let is_client = matches!(self.config.role, Role::Local(_));
        let (outward, inward, first) = if is_client {
            (
                format!("what {place} sends into the tunnel"),
                format!("what comes out of the tunnel for {place}"),
                format!("new connections out of the tunnel to {place}"),
            )
        } else {
            (
                "what comes out of the tunnel".to_owned(),
                format!("what comes from {place} for the client"),
                format!("new connections from {place} to the client"),
            )
        };
        let tunnel = self.tunnel();
        // Away from the client: by the tunnel into the Internet, or by its device into the tunnel.
        let (near, far) = if is_client {
            (device, &tunnel)
        } else {
            (&tunnel, device)
        };
        let away = |protocol, state| Probe {
            way: Way::Through,
            iif: Some(near.clone()),
            oif: Some(far.clone()),
            from: public,
            to: somebody(public),
            protocol,
            ports: [OTHER_PORT, PORT],
            state,
            translated: false,
        };
        // Where all is dropped, no more is said of what is new.
        for (protocol, state) in [(TCP, ESTABLISHED), (TCP, NEW), (UDP, NEW)] {
            self.push(outward.clone(), away(protocol, state));
            let mut back = away(protocol, state);
            std::mem::swap(&mut back.iif, &mut back.oif);
            std::mem::swap(&mut back.from, &mut back.to);
            if state == ESTABLISHED {
                back.ports.reverse();
                self.push(inward.clone(), back);
            } else if protocol == TCP {
                self.push(first.clone(), back);
            }
        }
    }

    /// Between the tunnel and a LAN that shares the address.
    fn lan(&mut self, device: &IfName, public: IpAddr) {
        let Role::Local(role) = &self.config.role else {
            return;
        };
        let Deliver::Nat { devices, forwards } = &role.deliver else {
            return;
        };
        let is_first = devices.first() == Some(device);
        let name = match devices.len() {
            1 => "the LAN".to_owned(),
            _ => format!("the LAN behind {device}"),
        };
        let family = Family::of(public);
        let inside = self.observed.link(device).and_then(|link| {
            let prefix = link.addresses_of(family).next()?;
            Some(neighbour(prefix.address()))
        });
        let inside = inside.unwrap_or(match family {
            Family::V4 => Ipv4Addr::new(192, 168, 1, 77).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77).into(),
        });
        let (lan, tunnel) = (self.device(device), self.tunnel());
        let out = |protocol, state| Probe {
            way: Way::Through,
            iif: Some(lan.clone()),
            oif: Some(tunnel.clone()),
            from: inside,
            to: somebody(public),
            protocol,
            ports: [OTHER_PORT, PORT],
            state,
            translated: false,
        };
        let back = |to: IpAddr, protocol, port, state, translated| Probe {
            iif: Some(tunnel.clone()),
            oif: Some(lan.clone()),
            from: somebody(public),
            to,
            ports: [PORT, port],
            translated,
            ..out(protocol, state)
        };
        let mut all = Vec::new();
        for (protocol, state) in [(TCP, NEW), (UDP, NEW), (TCP, ESTABLISHED)] {
            all.push((
                format!("what {name} sends into the tunnel"),
                out(protocol, state),
            ));
        }
        let answer = back(inside, TCP, OTHER_PORT, ESTABLISHED, false);
        all.push((format!("the answers to {name} out of the tunnel"), answer));
        let is_here = |forward: &&Forward| {
            let behind = |device: &IfName| {
                let link = self.observed.link(device);
                link.is_some_and(|link| link.addresses.iter().any(|it| it.contains(forward.to)))
            };
            Family::of(forward.to) == family
                && (behind(device) || is_first && !devices.iter().any(behind))
        };
        let here = forwards.iter().filter(is_here);
        for forward in here.take(MOST_FORWARDS) {
            let (protocol, port) = match forward.taken {
                Taken::Ports {
                    tcp: true,
                    to_first,
                    ..
                } => (TCP, to_first),
                Taken::Ports { to_first, .. } => (UDP, to_first),
                Taken::Rest => (TCP, PORT),
            };
            let probe = back(forward.to, protocol, port, NEW, true);
            all.push((format!("what `forwards` hands to {name}"), probe));
        }
        for (what, probe) in all {
            self.push(what, probe);
        }
    }

    /// Where flows are waited for.
    fn listeners(&mut self) {
        for listen in self.config.listen.clone() {
            let own = listen.address.or(self.config.public.iter().next());
            let Some(own) = own.filter(|own| !own.is_loopback()) else {
                continue;
            };
            for uplink in self.uplinks(own) {
                let come = |state| Probe {
                    state,
                    ..incoming(uplink.clone(), own, carrier(listen.transport), listen.port)
                };
                let what = format!("the other portal's flows to {listen}");
                self.push(what.clone(), come(NEW));
                self.push(what, come(ESTABLISHED));
                self.push(
                    format!("the answers from {listen}"),
                    answer_of(&come(ESTABLISHED)),
                );
            }
        }
    }

    /// Flows that are opened from here.
    fn flows(&mut self) {
        for used in link::used(self.config, self.observed) {
            let configured = self.config.links.iter();
            let configured = configured.clone().find(|it| it.device == used.link.device);
            let named = configured.and_then(|it| it.remote.as_ref());
            let Some(remote) = named.or(self.config.remote.as_ref()) else {
                continue;
            };
            let transport = configured.map_or(Transport::Udp, |it| it.transport);
            let Some((own, to)) = self.ends(remote, &used.link.device) else {
                continue;
            };
            let device = self.device(&used.link.device);
            let leave = |state| Probe {
                way: Way::Out,
                iif: None,
                oif: Some(device.clone()),
                from: own,
                to,
                protocol: carrier(transport),
                ports: [OTHER_PORT, remote.port],
                state,
                translated: false,
            };
            let port = remote.port;
            let what = format!(
                "the flow of link {} to {transport} port {port}",
                device.name
            );
            self.push(what.clone(), leave(NEW));
            self.push(what, leave(ESTABLISHED));
            let back = answer_of(&leave(ESTABLISHED));
            self.push(format!("the answers to link {}", device.name), back);
        }
    }

    /// The addresses of a flow; where a name has none yet, somebody's.
    fn ends(&self, remote: &Endpoint, device: &IfName) -> Option<(IpAddr, IpAddr)> {
        let own = |family| {
            let link = self.observed.link(device)?;
            let prefix = link.addresses_of(family).next()?;
            Some(prefix.address())
        };
        let known: Option<IpAddr> = remote.host.parse().ok();
        let mut targets: Vec<_> = known.into_iter().collect();
        if known.is_none() {
            targets.extend(&self.observed.remotes);
            targets.push(SOMEBODY.into());
        }
        let ends = |to: IpAddr| Some((own(Family::of(to))?, to));
        targets.into_iter().find_map(ends)
    }
}

/// IPPROTO_TCP.
const TCP: u8 = 6;
/// IPPROTO_UDP.
const UDP: u8 = 17;

fn number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => TCP,
        PortProtocol::Udp => UDP,
    }
}

fn carrier(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

fn somebody(beside: IpAddr) -> IpAddr {
    match beside {
        IpAddr::V4(_) => SOMEBODY.into(),
        IpAddr::V6(_) => SOMEBODY_V6.into(),
    }
}

/// Another machine of the same network.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() ^ 2).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() ^ 2).into(),
    }
}

/// The other direction of what comes to this host, or leaves it.
pub(super) fn answer_of(probe: &Probe) -> Probe {
    let [from, to] = probe.ports;
    Probe {
        way: match probe.way {
            Way::In => Way::Out,
            Way::Out => Way::In,
            Way::Through => Way::Through,
        },
        iif: probe.oif.clone(),
        oif: probe.iif.clone(),
        from: probe.to,
        to: probe.from,
        ports: [to, from],
        ..probe.clone()
    }
}
