//! What the LAN and this router reach beside the tunnel, by table main.
//!
//! The routes of a link are its DHCP server's (RFC 3442, and the netmask of the lease), and that may be
//! anybody's: a route for 8.8.8.8 there would take what is sent to it out of the tunnel. So what lies
//! behind a link is reached beside the tunnel only when it is a private network, which nobody on the
//! Internet has. Behind other devices, another LAN or somebody's VPN, every network is.

use super::border::uplinks;
use super::links::Observed;
use crate::config::Config;
use crate::config::units::{Family, IfName, Prefix, TableId};

/// Addresses of somebody's private network: RFC 1918, RFC 6598, and the link's own.
const PRIVATE_V4: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
];
/// The same (RFC 4193).
const PRIVATE_V6: [&str; 2] = ["fc00::/7", "fe80::/10"];

/// Networks that are not private, at most: each is some rules, which every packet is compared with.
const MOST_PUBLIC: usize = 32;

/// The private networks of a family.
pub(super) fn private(family: Family) -> Vec<Prefix> {
    let texts: &[&str] = match family {
        Family::V4 => &PRIVATE_V4,
        Family::V6 => &PRIVATE_V6,
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Everything that is reached beside the tunnel.
pub(super) fn beside(config: &Config, observed: &Observed, family: Family) -> Vec<Prefix> {
    let uplinks = uplinks(config, observed);
    let is_other = |device: &IfName| !uplinks.contains(device) && *device != config.name;
    // What is allowed to cross the tunnel goes into it, unless it is here.
    let here = |net: &Prefix| {
        let mut own = observed.links.iter().flat_map(|link| &link.addresses);
        own.any(|own| overlap(net, &own.network()))
    };
    let far = config.allow.iter().filter(|net| !here(net));
    let mut found = far.fold(private(family), |nets, hole| {
        nets.iter().flat_map(|net| without(*net, hole)).collect()
    });
    let all_private = private(family);
    let links = observed.links.iter().filter(|link| is_other(&link.device));
    let connected = links.flat_map(|link| link.addresses.iter().map(Prefix::network));
    let routed = observed.foreign_routes.iter().filter(|route| {
        let device = route.device.as_ref().and_then(|name| name.parse().ok());
        route.table == TableId::MAIN.0 && device.is_some_and(|device| is_other(&device))
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
        .filter(|it| !all_private.iter().any(|known| covers(known, it)))
        .collect();
    let most = found.len() + MOST_PUBLIC;
    // Wide ones first, which make others superfluous.
    public.sort_by_key(|it| (it.length(), *it));
    for network in public {
        let is_new = !found.iter().any(|known| covers(known, &network));
        if is_new && found.len() < most {
            found.push(network);
        }
    }
    found
}

fn overlap(one: &Prefix, other: &Prefix) -> bool {
    covers(one, other) || covers(other, one)
}

/// The parts of a network that lie outside of another.
fn without(net: Prefix, hole: &Prefix) -> Vec<Prefix> {
    if !overlap(&net, hole) {
        return vec![net];
    }
    let halves = net.halves().into_iter().flatten();
    halves
        .filter(|half| !covers(hole, half))
        .flat_map(|half| without(half, hole))
        .collect()
}

fn covers(wide: &Prefix, narrow: &Prefix) -> bool {
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

    /// A lease of a link brings routes and a wide network; the owner has a VPN and a public LAN.
    #[test]
    fn a_links_lease_takes_nothing_out_of_the_tunnel() {
        let mut observed = cases::router();
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
        let config = cases::local_nat();
        let state = crate::route::desired(&config, &observed);
        let main = rules(&state).filter(|rule| rule.table == TableId::MAIN);
        let mut asked: Vec<String> = main
            .map(|rule| rule.to.expect("table main is never asked for everything"))
            .map(|to| to.to_string())
            .collect();
        asked.sort();
        asked.dedup();
        let expected = [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.2.128/25",
            "192.168.0.0/16",
            "198.18.0.0/15",
        ];
        assert_eq!(asked, expected);
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
