//! What ifconfig(8) and netstat(1) print, as links. Pure, so that it is tested on every system.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::units::{Family, IfName, Prefix};
use crate::route::links::{Observed, ObservedLink};

/// The devices of `ifconfig -a`, without the loopback and the tunnel.
pub(super) fn devices(text: &str, tunnel: &IfName) -> Vec<ObservedLink> {
    let mut links: Vec<Option<ObservedLink>> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            links.push(device(line).filter(|link| link.device != *tunnel));
        } else if let (Some(Some(link)), Some(prefix)) = (links.last_mut(), address(line)) {
            link.addresses.push(prefix);
        }
    }
    links.into_iter().flatten().collect()
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
        up: has("UP") && has("RUNNING"),
        point_to_point: has("POINTOPOINT"),
        addresses: Vec::new(),
        gateways: Vec::new(),
        v4_by_v6: Vec::new(),
        mtu: after(rest, "mtu")?.parse().ok()?,
    })
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
        assert_eq!(links[1].addresses[0].to_string(), "100.64.0.7/32");
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
