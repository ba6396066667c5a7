//! What the LAN and this router reach beside the tunnel, by table main.
//!
//! The routes of a link are its DHCP server's (RFC 3442, and the netmask of the lease), and that may be
//! anybody's: a route for 8.8.8.8 there would take what is sent to it out of the tunnel. So what lies
//! behind a link is reached beside the tunnel only when it is a private network, which nobody on the
//! Internet has. Behind other devices, another LAN or somebody's VPN, every network is. Where no links are
//! configured, a link whose lease has no default route looks like a LAN: then every network is only
//! behind VPNs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::border::uplinks;
use super::kinds::is_tunnel;
use super::links::Observed;
use crate::config::Config;
use crate::config::units::{Family, IfName, Prefix, TableId};

/// Addresses of somebody's private network: RFC 1918, RFC 6598, and the link's own.
const PRIVATE_V4: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];
/// The same (RFC 4193).
const PRIVATE_V6: [(Ipv6Addr, u8); 2] = [
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// At most so many networks that are not private: each is some rules, which every packet is compared with.
const MOST_PUBLIC: usize = 32;

/// The private networks of a family.
pub(super) fn private(family: Family) -> Vec<Prefix> {
    let all: &[(IpAddr, u8)] = match family {
        Family::V4 => &PRIVATE_V4.map(|(address, length)| (address.into(), length)),
        Family::V6 => &PRIVATE_V6.map(|(address, length)| (address.into(), length)),
    };
    let networks = all.iter();
    let networks = networks.filter_map(|(address, length)| Prefix::new(*address, *length));
    networks.collect()
}

/// True for a network that lies within a private one.
pub(super) fn is_private(network: &Prefix) -> bool {
    let known = private(network.family());
    known.iter().any(|known| covers(known, network))
}

/// Everything that is reached beside the tunnel.
pub(super) fn beside(config: &Config, observed: &Observed, family: Family) -> Vec<Prefix> {
    let uplinks = uplinks(config, observed);
    let is_other = |device: &IfName| !uplinks.contains(device) && *device != config.name;
    let others = || observed.links.iter().filter(|it| is_other(&it.device));
    // What is allowed to cross the tunnel goes into it, unless it is here.
    let here = |net: &Prefix| {
        let mut own = others().flat_map(|link| &link.addresses);
        own.any(|own| overlap(net, &own.network()))
    };
    let far = config.allow.iter().filter(|net| !here(net));
    let mut found = far.fold(private(family), |nets, hole| {
        nets.iter().flat_map(|net| without(*net, hole)).collect()
    });
    let believed: Vec<_> = others()
        .filter(|link| !config.links.is_empty() || is_tunnel(link))
        .collect();
    let connected = believed.iter().flat_map(|link| &link.addresses);
    let connected = connected.map(Prefix::network);
    let routed = observed.foreign_routes.iter().filter(|route| {
        let leaves_by = |device: &IfName| route.device.as_deref() == Some(device.as_str());
        route.table == TableId::MAIN.0 && believed.iter().any(|link| leaves_by(&link.device))
    });
    let mut public: Vec<Prefix> = connected
        .filter(|network| !network.is_host())
        .chain(routed.map(|route| route.destination))
        .filter(|it| it.family() == family && !it.is_default())
        .filter(|it| {
            !config
                .public
                .iter()
                .any(|address| *it == Prefix::host(address))
        })
        .filter(|it| !is_private(it))
        .collect();
    let most = found.len() + MOST_PUBLIC;
    // Wide ones first, which make others superfluous.
    public.sort_unstable_by_key(|it| (it.length(), *it));
    for network in public {
        let is_new = !found.iter().any(|known| covers(known, &network));
        if is_new && found.len() < most {
            found.push(network);
        }
    }
    found
}

pub(super) fn overlap(one: &Prefix, other: &Prefix) -> bool {
    covers(one, other) || covers(other, one)
}

/// The parts of a network that lie outside of another.
pub(super) fn without(net: Prefix, hole: &Prefix) -> Vec<Prefix> {
    if !overlap(&net, hole) {
        return vec![net];
    }
    let halves = net.halves().into_iter().flatten();
    halves
        .filter(|half| !covers(hole, half))
        .flat_map(|half| without(half, hole))
        .collect()
}

pub(super) fn covers(wide: &Prefix, narrow: &Prefix) -> bool {
    wide.family() == narrow.family()
        && wide.length() <= narrow.length()
        && wide.contains(narrow.address())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;
    use crate::route::diff::rules;
    use crate::route::links::ForeignRoute;

    fn routes(observed: &mut Observed, routes: &[(&str, &str)]) {
        for (destination, device) in routes {
            observed.foreign_routes.push(ForeignRoute {
                table: TableId::MAIN.0,
                destination: destination.parse().unwrap(),
                device: Some((*device).to_owned()),
            });
        }
    }

    /// What table main is asked for.
    fn asked(config: &Config, observed: &Observed) -> Vec<String> {
        let state = crate::route::desired(config, observed);
        let main = rules(&state).filter(|rule| rule.table == TableId::MAIN);
        let mut asked: Vec<String> = main
            .map(|rule| rule.to.expect("table main is never asked for everything"))
            .map(|to| to.to_string())
            .collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    }

    fn with_vpn(mut observed: Observed) -> Observed {
        let mut vpn = observed.links[0].clone();
        vpn.device = cases::name("wg0");
        vpn.kind = "wireguard".to_owned();
        vpn.addresses = Vec::new();
        observed.links.push(vpn);
        observed
    }

    /// The configuration names no links, and the lease of one has routes but no default one: it is a link
    /// all the same, whether it had one before or never. A netmask alone makes no network of home either.
    #[test]
    fn a_lease_without_a_default_route_takes_nothing_out_of_the_tunnel() {
        let config = cases::local_nat();
        let private = private(Family::V4);
        let mut private: Vec<_> = private.iter().map(ToString::to_string).collect();
        private.sort_unstable();
        for lie in [&["0.0.0.0/1", "128.0.0.0/1"][..], &["8.8.8.8/32"], &[]] {
            let mut observed = with_vpn(cases::router());
            observed.links[2].gateways.clear();
            observed.links[2].addresses = vec!["8.8.0.9/15".parse().unwrap()];
            let lies: Vec<_> = lie.iter().map(|to| (*to, "wan1")).collect();
            routes(&mut observed, &lies);
            assert_eq!(asked(&config, &observed), private, "{lie:?}");
            let border = crate::route::border::border(&config, &observed);
            assert_eq!(border.near, ["192.168.7.0/24".parse().unwrap()]);
            let wans = ["wan0", "wan1"].map(cases::name);
            assert_eq!(border.uplinks == wans, !lie.is_empty(), "{lie:?}");
            // It had a default route before.
            let mut before = vec![cases::name("wan1")];
            observed.remember_links(&mut before);
            let border = crate::route::border::border(&config, &observed);
            assert_eq!(border.uplinks, wans);
        }
        // Other devices than links are none: a VPN, another LAN with a network that everybody can reach.
        let mut observed = with_vpn(cases::router());
        let mut guest = observed.links[0].clone();
        guest.device = cases::name("guest");
        guest.addresses = vec!["2001:db8:7::1/64".parse().unwrap()];
        observed.links.push(guest);
        let more = [("198.18.0.0/15", "wg0"), ("2001:db8:7::/64", "guest")];
        routes(&mut observed, &more);
        assert_eq!(
            uplinks(&config, &observed),
            ["wan0", "wan1"].map(cases::name)
        );
        assert!(asked(&config, &observed).contains(&"198.18.0.0/15".to_owned()));
    }

    /// A lease covers an address of the tunnel: what comes from it by the tunnel is no forgery.
    #[test]
    fn a_lease_does_not_cut_the_portals_off() {
        let mut config = cases::local_nat();
        let lan: Prefix = "192.168.7.0/24".parse().unwrap();
        let mut observed = cases::router();
        observed.links[2].gateways.clear();
        for (local, remote) in [("172.19.152.3", "172.19.152.2"), ("10.9.0.1", "10.10.0.1")] {
            config.tunnel.local = local.parse().unwrap();
            config.tunnel.remote = remote.parse().unwrap();
            for address in [local, remote] {
                for length in [8, 16, 31] {
                    let lease = format!("{address}/{length}").parse().unwrap();
                    observed.links[2].addresses = vec![lease];
                    let near = crate::route::border::near(&config, &observed);
                    assert_eq!(near, [lan], "{lease}");
                }
            }
        }
        observed.links[2].addresses = vec!["fd00::9/8".parse().unwrap()];
        config.tunnel.remote_v6 = "fd19::2".parse().unwrap();
        assert_eq!(crate::route::border::near(&config, &observed), [lan]);
        // Any other one is at home.
        observed.links[2].addresses = vec!["10.77.0.9/16".parse().unwrap()];
        let near = crate::route::border::near(&config, &observed);
        assert_eq!(near, ["10.77.0.0/16".parse().unwrap(), lan]);
    }

    /// A network at home that may be asked from beyond the tunnel is no source there; one of which a part lies
    /// beyond may be.
    #[test]
    fn a_network_that_may_be_asked_stays_at_home() {
        let mut config = cases::local_nat();
        let lan: Prefix = "192.168.7.0/24".parse().unwrap();
        for (allow, near) in [
            ("192.168.7.0/24", vec![lan]),
            ("192.168.0.0/16", vec![lan]),
            ("192.168.7.64/26", vec![]),
        ] {
            config.allow = vec![allow.parse().unwrap()];
            let found = crate::route::border::near(&config, &cases::router());
            assert_eq!(found, near, "{allow}");
        }
    }

    /// What is routed at home, behind another router or a VPN, is at home: no machine of it is beyond the tunnel.
    #[test]
    fn a_network_that_is_routed_at_home_is_near() {
        let mut config = cases::local_nat();
        let mut observed = with_vpn(cases::router());
        let told = [
            ("10.20.0.0/16", "lan"),
            ("10.30.0.0/16", "wg0"),
            ("10.40.0.7/32", "lan"),
            ("10.50.0.0/16", "wan0"),
            ("198.18.0.0/15", "wg0"),
            ("172.16.0.0/12", "wg0"),
        ];
        routes(&mut observed, &told);
        let near = |config: &Config| -> Vec<String> {
            let near = crate::route::border::near(config, &observed);
            near.iter().map(ToString::to_string).collect()
        };
        let lan = "192.168.7.0/24".to_owned();
        let both = [
            "10.20.0.0/16".to_owned(),
            "10.30.0.0/16".to_owned(),
            lan.clone(),
        ];
        assert_eq!(near(&config), both);
        // What may cross may come from beyond.
        config.allow = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(near(&config), [lan]);
        // Without a configured link nobody else's device is believed.
        let mut other = observed.links[0].clone();
        other.device = cases::name("other");
        other.addresses = Vec::new();
        observed.links.push(other);
        routes(&mut observed, &[("10.60.0.0/16", "other")]);
        config.allow = Vec::new();
        let found = |config: &Config| crate::route::border::near(config, &observed).len();
        assert_eq!(found(&config), 3);
        config.links = vec![cases::link("wan0"), cases::link("wan1")];
        assert_eq!(found(&config), 4);
    }

    /// IPv6 by advertisements alone, beside an IPv4 network (DS-Lite and the modem's page): what is closed
    /// is closed there too, before and after the advertisement, and nobody is advised to take it for a LAN.
    #[test]
    fn a_device_with_an_advertised_default_route_leads_out() {
        use crate::route::{conflicts, link};
        let config = cases::local_nat();
        let mut observed = cases::router();
        let mut wan2 = observed.links[2].clone();
        wan2.device = cases::name("wan2");
        wan2.addresses = vec!["192.168.100.2/24".parse().unwrap()];
        wan2.gateways = vec!["fe80::1".parse().unwrap()];
        wan2.advertised = true;
        observed.links.push(wan2);
        observed.remember_links(&mut Vec::new());
        let wans = ["wan0", "wan1", "wan2"].map(cases::name);
        let said = conflicts(&config, &observed);
        assert!(
            !said.iter().any(|it| it.to_string().contains("wan2")),
            "{said:?}"
        );
        let judged = link::judge_links(&config, &observed);
        assert!(
            judged[3]
                .1
                .as_ref()
                .is_err_and(|why| why.contains("only advertised"))
        );
        for gateways in [observed.links[3].gateways.clone(), Vec::new()] {
            observed.links[3].gateways = gateways;
            let border = crate::route::border::border(&config, &observed);
            assert_eq!(border.uplinks, wans);
            assert_eq!(border.near, ["192.168.7.0/24".parse().unwrap()]);
        }
    }

    /// A network that may cross the tunnel, and that a link's lease claims to be here.
    #[test]
    fn a_lease_takes_no_allowed_network_out_of_the_tunnel() {
        let mut config = cases::local_nat();
        config.allow = vec!["10.55.0.0/16".parse().unwrap()];
        let mut observed = cases::router();
        for lease in ["10.55.0.9/16", "10.0.0.9/8", "10.55.7.9/24"] {
            observed.links[1].addresses = vec![lease.parse().unwrap()];
            let all = beside(&config, &observed, Family::V4);
            let address = "10.55.7.2".parse().unwrap();
            assert!(!all.iter().any(|net| net.contains(address)), "{lease}");
        }
        observed.links[0].addresses = vec!["10.55.7.1/24".parse().unwrap()];
        let all = beside(&config, &observed, Family::V4);
        assert!(all.contains(&"10.0.0.0/8".parse().unwrap()));
    }

    /// A lease of a link brings routes and a wide network; the owner has a VPN and a public LAN.
    #[test]
    fn a_links_lease_takes_nothing_out_of_the_tunnel() {
        let mut observed = with_vpn(cases::router());
        observed.links[1].addresses = vec!["8.8.0.7/16".parse().unwrap()];
        let mut dmz = observed.links[0].clone();
        dmz.device = cases::name("dmz");
        dmz.addresses = vec!["192.0.2.129/25".parse().unwrap()];
        observed.links.push(dmz);
        routes(
            &mut observed,
            &[
                ("9.9.9.9/32", "wan0"),
                ("64.0.0.0/2", "wan1"),
                ("198.18.0.0/15", "wg0"),
                ("198.18.7.0/24", "wg0"),
            ],
        );
        let mut config = cases::local_nat();
        config.links = vec![cases::link("wan0"), cases::link("wan1")];
        let expected = [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.2.128/25",
            "192.168.0.0/16",
            "198.18.0.0/15",
        ];
        assert_eq!(asked(&config, &observed), expected);
        // What may cross the tunnel, and is not here, is not looked for in table main.
        let mut allowing = config.clone();
        allowing.allow = vec![
            "10.55.0.0/16".parse().unwrap(),
            "192.168.7.0/24".parse().unwrap(),
        ];
        let all = beside(&allowing, &observed, Family::V4);
        let reached = |address: &str| {
            let address = address.parse().unwrap();
            all.iter().filter(|net| net.contains(address)).count()
        };
        assert_eq!((reached("10.55.0.2"), reached("10.55.255.255")), (0, 0));
        assert_eq!((reached("10.54.255.255"), reached("10.56.0.0")), (1, 1));
        assert_eq!((reached("10.0.0.1"), reached("192.168.7.20")), (1, 1));
        // A router with a thousand routes of its own has some rules, and no thousands.
        let many: Vec<String> = (0..999)
            .map(|n| format!("198.{}.{}.0/24", 20 + n / 250, n % 250))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|it| (it.as_str(), "wg0")).collect();
        routes(&mut observed, &many);
        let all = beside(&config, &observed, Family::V4);
        assert_eq!(all.len(), PRIVATE_V4.len() + MOST_PUBLIC);
    }
}
