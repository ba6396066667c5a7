//! What ifconfig(8) and netstat(1) print, as links. Pure, so that it is tested on every system.

use crate::sorted::Map;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::units::{Family, IfName, Prefix, TableId};
use crate::route::links::{BRIDGED, Flaw, ForeignRoute, Observed, ObservedLink};
use crate::route::lower::freebsd::{Command, What};

/// What the programs print of a host.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// `ifconfig -a`.
    pub(super) devices: String,
    /// `netstat -rn -f inet`, and `-f inet6`.
    pub(super) routes: (String, String),
}

/// How something wanted stands on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not there.
    Absent,
    /// It is as wanted.
    AsWanted,
    /// There is another in its place.
    Other,
    /// These programs do not show it.
    Unseen,
}

impl Seen {
    /// How a step's work stands.
    pub(super) fn standing(&self, what: &What) -> Standing {
        let (there, as_wanted) = match what {
            What::Ipv6 { device, wanted } => {
                let lines = self.lines_of(device.as_str());
                let flags = lines.iter().find(|line| line.contains("nd6 options="));
                let flags = flags.copied().unwrap_or_default();
                let quiet = if *wanted {
                    !flags.contains("AUTO_LINKLOCAL")
                } else {
                    // A kernel without IPv6 says nothing of it.
                    flags.is_empty() || flags.contains("IFDISABLED")
                };
                (true, quiet)
            }
            What::Address { device, address } => {
                let there = self.has_address(device.as_str(), *address);
                (there, there)
            }
            What::Route {
                to,
                via,
                device,
                flows: _,
            } => match self.route(*to) {
                None => (false, false),
                Some((gateway, by)) => {
                    let same = match via {
                        // By which device is the kernel's to say.
                        Some(via) => without_zone(gateway).parse() == Ok(*via),
                        None => gateway.starts_with("link#") && by == device.as_str(),
                    };
                    (true, same)
                }
            },
            What::Anchor | What::Setting(_) => return Standing::Unseen,
        };
        match (there, as_wanted) {
            (false, _) => Standing::Absent,
            (true, true) => Standing::AsWanted,
            (true, false) => Standing::Other,
        }
    }

    /// Whether what this command takes away is still there, as far as can be seen.
    pub(super) fn stands(&self, undoing: &Command) -> bool {
        let words: Vec<&str> = undoing.argv.iter().map(String::as_str).collect();
        match words[..] {
            ["ifconfig", device, _, address, "-alias"] => address
                .parse()
                .is_ok_and(|address| self.has_address(device, address)),
            ["route", "delete", .., to] => {
                destination(to).is_some_and(|to| self.route(to).is_some())
            }
            _ => true,
        }
    }

    fn has_address(&self, device: &str, address: IpAddr) -> bool {
        self.lines_of(device).into_iter().any(|line| {
            let own = after(line, "inet").or_else(|| after(line, "inet6"));
            own.is_some_and(|own| without_zone(own).parse() == Ok(address))
        })
    }

    /// The route to a host or a network: its next hop and its device.
    fn route(&self, to: Prefix) -> Option<(&str, &str)> {
        let table = match to.family() {
            Family::V4 => &self.routes.0,
            Family::V6 => &self.routes.1,
        };
        let mut routes = table.lines().filter_map(route);
        let found = routes.find(|(destination, ..)| *destination == to)?;
        Some((found.1, found.2))
    }

    /// The routes of others, as far as they are no default routes: neither what is undone by one of these
    /// commands, nor what leads to the tunnel.
    pub(super) fn foreign_routes(&self, tunnel: &IfName, undoing: &[String]) -> Vec<ForeignRoute> {
        let ours = |to: &Prefix| {
            let undone = |line: &String| line.rsplit(' ').next().and_then(destination);
            let mut routes = undoing.iter().filter(|line| line.starts_with("route "));
            routes.any(|line| undone(line) == Some(*to))
        };
        let lines = self.routes.0.lines().chain(self.routes.1.lines());
        let routes = lines.filter_map(route).filter(|(to, _, device)| {
            *device != tunnel.as_str() && !device.starts_with("lo") && !ours(to)
        });
        let routes = routes.map(|(destination, _, device)| ForeignRoute {
            table: TableId::MAIN.0,
            destination,
            device: Some(device.to_owned()),
        });
        routes.take(MOST_ROUTES).collect()
    }

    /// Where the routes lead that go into the tunnel.
    pub(super) fn led_in(&self, tunnel: &IfName) -> Vec<Prefix> {
        let lines = self.routes.0.lines().chain(self.routes.1.lines());
        let routes = lines.filter_map(route);
        let routes = routes.filter(|(_, _, device)| *device == tunnel.as_str());
        routes.map(|(to, ..)| to).take(MOST_ROUTES).collect()
    }

    /// The lines of `ifconfig -a` that belong to a device.
    fn lines_of(&self, device: &str) -> Vec<&str> {
        let is_head = |line: &str| {
            let rest = line.strip_prefix(device);
            rest.is_some_and(|rest| rest.starts_with(": "))
        };
        let lines = self.devices.lines().skip_while(|line| !is_head(line));
        lines
            .skip(1)
            .take_while(|line| line.starts_with(char::is_whitespace))
            .collect()
    }
}

/// So many routes of others are looked at: a router with a full table of the Internet has a million.
const MOST_ROUTES: usize = 1000;

/// A line of `netstat -rn`: `192.0.2.0/25 link#15 U wan0`, `203.0.113.2 192.0.2.1 UGHS wan0`.
fn route(line: &str) -> Option<(Prefix, &str, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [to, gateway, _flags, device, ..] = words[..] else {
        return None;
    };
    Some((destination(to)?, gateway, device))
}

/// A network, or a host.
fn destination(text: &str) -> Option<Prefix> {
    let host = || text.parse().ok().map(Prefix::host);
    text.parse().ok().or_else(host)
}

/// The devices of `ifconfig -a`, without the loopback and the tunnel.
pub(super) fn devices(text: &str, tunnel: &IfName) -> Vec<ObservedLink> {
    let mut links: Vec<Option<ObservedLink>> = Vec::new();
    let mut ports = Vec::new();
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            links.push(device(line).filter(|link| link.device != *tunnel));
        } else if let Some(Some(link)) = links.last_mut() {
            // FreeBSD finds no route by a device without a carrier, though it is up and running.
            link.up &= line.trim() != "status: no carrier";
            ports.extend(after(line, "member:"));
            if let Some(prefix) = address(line) {
                if let Some(flaw) = flaw(line) {
                    link.flaws.insert(prefix.address(), flaw);
                }
                link.addresses.push(prefix);
            }
        }
    }
    let mut links: Vec<_> = links.into_iter().flatten().collect();
    for link in &mut links {
        if ports.contains(&link.device.as_str()) {
            link.kind = BRIDGED.to_owned();
        }
    }
    links
}

/// Whether a device of `ifconfig -a` is up; `None` when it is not there.
pub(super) fn is_up(text: &str, device: &IfName) -> Option<bool> {
    let flags = text.lines().find_map(|line| {
        let rest = line.strip_prefix(device.as_str())?;
        rest.strip_prefix(": flags=")?.split(['<', '>']).nth(1)
    });
    Some(flags?.split(',').any(|flag| flag == "UP"))
}

/// `em0: flags=8863<UP,BROADCAST,RUNNING> metric 0 mtu 1500`.
fn device(line: &str) -> Option<ObservedLink> {
    let (name, rest) = line.split_once(": ")?;
    let (_, flags) = rest.split_once('<')?;
    let (flags, rest) = flags.split_once('>')?;
    let has = |wanted| flags.split(',').any(|flag| flag == wanted);
    if has("LOOPBACK") {
        return None;
    }
    Some(ObservedLink {
        device: name.parse().ok()?,
        index: 0,
        kind: kind(name).to_owned(),
        up: has("UP") && has("RUNNING"),
        point_to_point: has("POINTOPOINT"),
        addresses: Vec::new(),
        flaws: Map::new(),
        gateways: Vec::new(),
        v4_by_v6: Vec::new(),
        advertised: false,
        mtu: after(rest, "mtu")?.parse().ok()?,
    })
}

/// What a device is, by the name of its driver, where that is no hardware: `wg0` is a `wg`.
fn kind(name: &str) -> &str {
    const KINDS: [&str; 10] = [
        "bridge", "enc", "epair", "gif", "gre", "ipsec", "ovpn", "stf", "tun", "wg",
    ];
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
    KINDS
        .iter()
        .find(|kind| **kind == driver)
        .map_or("", |kind| kind)
}

/// What is wrong with an address as a source: `deprecated`, `tentative`, `temporary`.
fn flaw(line: &str) -> Option<Flaw> {
    let has = |word| line.split_whitespace().any(|it| it == word);
    if has("tentative") {
        Some(Flaw::Tentative)
    } else if has("deprecated") {
        Some(Flaw::Deprecated)
    } else {
        has("temporary").then_some(Flaw::Temporary)
    }
}

/// `inet 192.0.2.5 netmask 0xffffff00 broadcast 192.0.2.255`, `inet6 2001:db8::5 prefixlen 64`.
fn address(line: &str) -> Option<Prefix> {
    if let Some(own) = after(line, "inet") {
        let mask = after(line, "netmask")?.strip_prefix("0x")?;
        let mask = u32::from_str_radix(mask, 16).ok()?;
        let length = u8::try_from(mask.leading_ones()).ok()?;
        return Prefix::new(own.parse::<Ipv4Addr>().ok()?.into(), length);
    }
    let own = without_zone(after(line, "inet6")?);
    let own = own.parse::<Ipv6Addr>().ok()?;
    if own.is_unicast_link_local() {
        return None;
    }
    Prefix::new(own.into(), after(line, "prefixlen")?.parse().ok()?)
}

/// Gives the devices their next hops from `netstat -rn -f inet` or `-f inet6`.
pub(super) fn add_gateways(observed: &mut Observed, family: Family, text: &str) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["default", gateway, _flags, device, ..] = words[..] else {
            continue;
        };
        // A route without a next hop names the link: `link#3`.
        let gateway: IpAddr = without_zone(gateway)
            .parse()
            .unwrap_or(Prefix::default_of(family).address());
        let link = observed
            .links
            .iter_mut()
            .find(|link| link.device.as_str() == device);
        if let Some(link) = link {
            link.gateways.push(gateway);
        }
    }
}

/// The word that follows `word`.
fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find(|found| *found == word)?;
    words.next()
}

/// `fe80::1%em0` without `%em0`.
fn without_zone(address: &str) -> &str {
    address.split('%').next().unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IFCONFIG: &str = "\
em0: flags=1008843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,LOWER_UP> metric 0 mtu 1500
\toptions=4e504bb<RXCSUM,TXCSUM,VLAN_MTU>
\tether 58:9c:fc:00:00:01
\tinet 192.0.2.5 netmask 0xffffff00 broadcast 192.0.2.255
\tinet6 fe80::5a9c:fcff:fe00:1%em0 prefixlen 64 scopeid 0x1
\tinet6 2001:db8::5 prefixlen 64 autoconf pltime 604800 vltime 2592000
\tstatus: active
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384
\tinet 127.0.0.1 netmask 0xff000000
ng0: flags=8890<POINTOPOINT,NOARP,SIMPLEX,MULTICAST> metric 0 mtu 1492
\tinet 100.64.0.7 --> 100.64.0.1 netmask 0xffffffff
nc0: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> metric 0 mtu 1400
\tinet 172.19.152.3 --> 172.19.152.2 netmask 0xffffffff
";

    #[test]
    fn devices_are_read() {
        let links = devices(IFCONFIG, &"nc0".parse().unwrap());
        assert_eq!(links.len(), 2, "{links:?}");
        assert_eq!((links[0].device.as_str(), links[0].mtu), ("em0", 1500));
        assert!(links[0].up && !links[0].point_to_point);
        let addresses: Vec<_> = links[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.5/24", "2001:db8::5/64"]);
        assert!(!links[1].up && links[1].point_to_point);
        let unplugged = IFCONFIG.replace("status: active", "status: no carrier");
        assert!(!devices(&unplugged, &"nc0".parse().unwrap())[0].up);
        assert_eq!(links[1].addresses[0].to_string(), "100.64.0.7/32");
        let bridged = format!(
            "{IFCONFIG}bridge0: flags=8843<UP,BROADCAST,RUNNING> metric 0 mtu 1500\n\tmember: em0 flags=143<LEARNING>\n"
        );
        let kinds = devices(&bridged, &"nc0".parse().unwrap());
        let kinds: Vec<_> = kinds.iter().map(|link| link.kind.as_str()).collect();
        assert_eq!(kinds, [BRIDGED, "", "bridge"]);
    }

    /// What a real FreeBSD 15.1 printed with the tunnel up, on either portal.
    #[test]
    fn a_real_host_is_read() {
        let read = |devices_text: &str, routes: &str| {
            let mut observed = Observed {
                links: devices(devices_text, &"nc0".parse().unwrap()),
                ..Observed::default()
            };
            let (v4, v6) = routes.split_once("Internet6:").unwrap_or((routes, ""));
            add_gateways(&mut observed, Family::V4, v4);
            add_gateways(&mut observed, Family::V6, v6);
            let link = |link: &ObservedLink| {
                let words = |it: &mut dyn Iterator<Item = String>| it.collect::<Vec<_>>().join(",");
                format!(
                    "{} {} {} via {}",
                    link.device,
                    link.up,
                    words(&mut link.addresses.iter().map(ToString::to_string)),
                    words(&mut link.gateways.iter().map(ToString::to_string)),
                )
            };
            observed.links.iter().map(link).collect::<Vec<_>>()
        };
        let local = read(
            include_str!("testdata/ifconfig-local.txt"),
            include_str!("testdata/netstat-local.txt"),
        );
        assert_eq!(
            local,
            [
                "lan true 192.168.1.1/24 via ",
                "wan0 true 192.0.2.10/25,2001:db8:a::10/64 via 192.0.2.1,2001:db8:a::1",
                "wan1 true 192.0.2.130/25,2001:db8:b::10/64 via ",
                "tun1 false  via ",
            ]
        );
        let remote = read(
            include_str!("testdata/ifconfig-remote.txt"),
            include_str!("testdata/netstat-remote.txt"),
        );
        let ext = "ext0 true 203.0.113.2/24,2001:db8:203::2/64 via 203.0.113.1,2001:db8:203::1";
        assert_eq!(remote, [ext]);
    }

    #[test]
    fn what_stands_is_seen() {
        let routes = include_str!("testdata/netstat-local.txt").to_owned();
        let seen = Seen {
            devices: include_str!("testdata/ifconfig-local.txt").to_owned(),
            routes: (routes.clone(), routes),
        };
        let address = |device: &str, address: &str| What::Address {
            device: device.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        let route = |to: &str, via: Option<&str>, device: &str| What::Route {
            to: destination(to).unwrap(),
            via: via.map(|via| via.parse().unwrap()),
            device: device.parse().unwrap(),
            flows: false,
        };
        let ipv6 = |device: &str, wanted| What::Ipv6 {
            device: device.parse().unwrap(),
            wanted,
        };
        for (what, standing) in [
            (address("nc0", "172.19.152.3"), Standing::AsWanted),
            (
                address("nc0", "fd6e:6362:172:19:152::3"),
                Standing::AsWanted,
            ),
            (address("lan", "172.19.152.3"), Standing::Absent),
            (route("203.0.113.2", None, "lan"), Standing::AsWanted),
            (
                route("203.0.113.2", Some("192.0.2.1"), "wan0"),
                Standing::Other,
            ),
            (route("2001:db8:203::2", None, "lan"), Standing::AsWanted),
            (route("203.0.113.3", None, "lan"), Standing::Absent),
            // As the kernel makes it: with a link-local address of its own.
            (ipv6("nc0", true), Standing::Other),
            (ipv6("nc0", false), Standing::Other),
            (ipv6("tun1", false), Standing::AsWanted),
            (What::Anchor, Standing::Unseen),
        ] {
            assert_eq!(seen.standing(&what), standing, "{what:?}");
        }
        let undoing = ["route delete -host 203.0.113.2".to_owned()];
        let foreign = seen.foreign_routes(&"nc0".parse().unwrap(), &undoing);
        let foreign = |to: &str| {
            foreign
                .iter()
                .any(|it| Some(it.destination) == destination(to))
        };
        assert!(foreign("192.0.2.128/25") && foreign("2001:db8:203::2"));
        let inside = seen.led_in(&"nc0".parse().unwrap());
        assert!(inside.contains(&Prefix::host("172.19.152.2".parse().unwrap())));
        assert!(!inside.contains(&"192.0.2.128/25".parse().unwrap()));
        for ours in ["203.0.113.2", "172.19.152.2", "0.0.0.0/0", "127.0.0.1"] {
            assert!(!foreign(ours), "{ours}");
        }
        for (undoing, stands) in [
            ("route delete -host 203.0.113.2", true),
            ("route delete -inet6 -host 2001:db8:203::2", true),
            ("route delete -host 203.0.113.9", false),
            ("ifconfig lan inet 192.168.1.1 -alias", true),
            ("ifconfig lan inet 192.168.1.9 -alias", false),
            ("ifconfig gone inet 192.168.1.1 -alias", false),
            ("pfctl -a netcombiner/nc0 -f /dev/null", true),
        ] {
            assert_eq!(seen.stands(&Command::of(undoing)), stands, "{undoing}");
        }
    }

    #[test]
    fn gateways_are_read() {
        let mut observed = Observed {
            links: devices(IFCONFIG, &"nc0".parse().unwrap()),
            ..Observed::default()
        };
        let text = "Routing tables\n\nInternet:\n\
            Destination        Gateway            Flags     Netif Expire\n\
            default            192.0.2.1          UGS         em0\n\
            default            link#3             US          ng0\n\
            192.0.2.0/24       link#1             U           em0\n";
        add_gateways(&mut observed, Family::V4, text);
        let text = "Internet6:\ndefault fe80::1%em0 UG em0\n";
        add_gateways(&mut observed, Family::V6, text);
        let gateways = |link: usize| {
            let gateways = observed.links[link].gateways.iter();
            gateways.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(gateways(0), ["192.0.2.1", "fe80::1"]);
        assert_eq!(gateways(1), ["0.0.0.0"]);
    }
}
