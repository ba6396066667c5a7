//! The ways out of this host: a device, and of its gateways and addresses those that a link uses. Two
//! modems behind one card are two ways, each with a table of its own.

use std::net::IpAddr;

use super::link::automatic_links;
use super::links::{Observed, ObservedLink};
use crate::config::units::{Family, IfName, Prefix};
use crate::config::{Config, Link};

/// What tells the ways of one device apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) device: IfName,
    /// The next hop that the configuration names.
    pub(super) gateway: Option<IpAddr>,
    /// The own addresses that the configuration names.
    source: Option<Prefix>,
}

impl Way {
    fn of(link: &Link) -> Self {
        Self {
            device: link.device.clone(),
            gateway: link.gateway,
            source: link.source,
        }
    }

    /// True when the configuration says that this address is this way's: by its name, or by a
    /// gateway in its network.
    fn claims(&self, own: &Prefix) -> bool {
        match self.source {
            Some(source) => source.contains(own.address()),
            None => self.gateway.is_some_and(|gateway| own.contains(gateway)),
        }
    }

    /// True when nothing is said of it for a family.
    fn is_open(&self, family: Family) -> bool {
        self.source.is_none() && self.gateway.is_none_or(|it| Family::of(it) != family)
    }
}

/// All ways of a configuration, each once and in its order, which numbers their tables.
pub(super) fn ways(config: &Config, observed: &Observed) -> Vec<Way> {
    let mut ways = Vec::new();
    let mut add = |link: &Link| {
        let way = Way::of(link);
        if !ways.contains(&way) {
            ways.push(way);
        }
    };
    if config.links.is_empty() {
        automatic_links(config, observed).iter().for_each(add);
    } else {
        config.links.iter().for_each(&mut add);
    }
    ways
}

/// The addresses of a device that are a way's. Each is of one way: of that which claims it, else of
/// the first of which nothing is said.
pub(super) fn addresses<'a>(ways: &[Way], way: &Way, device: &'a ObservedLink) -> Vec<&'a Prefix> {
    let of_device: Vec<&Way> = ways.iter().filter(|it| it.device == way.device).collect();
    let owner = |own: &Prefix| match of_device.as_slice() {
        [only] => Some(*only),
        several => several
            .iter()
            .find(|it| it.claims(own))
            .or_else(|| several.iter().find(|it| it.is_open(own.family())))
            .copied(),
    };
    let own = device.addresses.iter();
    own.filter(|own| owner(own) == Some(way)).collect()
}

/// The addresses that a link may speak from. One of which nothing is said shares those of the
/// device's first way when others claim them all.
pub fn own_addresses(
    config: &Config,
    observed: &Observed,
    link: &Link,
    device: &ObservedLink,
) -> Vec<IpAddr> {
    let (ways, way) = (ways(config, observed), Way::of(link));
    let mut own = addresses(&ways, &way, device);
    if own.is_empty()
        && way.gateway.is_none()
        && way.source.is_none()
        && let Some(first) = ways.iter().find(|it| it.device == way.device)
    {
        own = addresses(&ways, first, device);
    }
    own.into_iter().map(Prefix::address).collect()
}

/// The next hop of a way: the named one, else the best of the device's that lies in a network of the
/// way, else the best.
pub(super) fn gateway(
    way: &Way,
    own: &[&Prefix],
    device: &ObservedLink,
    family: Family,
) -> Option<IpAddr> {
    let of_family = |it: &IpAddr| Family::of(*it) == family;
    let near = |it: &IpAddr| of_family(it) && own.iter().any(|prefix| prefix.contains(*it));
    let found = || device.gateways.iter().copied();
    way.gateway
        .filter(of_family)
        .or_else(|| found().find(near))
        .or_else(|| device.gateway(family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;
    use crate::route::diff::{routes, rules};

    /// Field row C4: two modems behind one card.
    #[test]
    fn two_ways_by_one_device() {
        let mut config = cases::local_client();
        let link = |gateway: Option<&str>| Link {
            gateway: gateway.map(|it| it.parse().unwrap()),
            ..cases::link("wan0")
        };
        let mut observed = cases::router();
        observed.links[1].addresses = ["10.0.1.2/24", "10.0.2.2/24"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        observed.links[1].gateways = vec!["10.0.1.1".parse().unwrap()];
        let first: IpAddr = "10.0.1.2".parse().unwrap();
        let second: IpAddr = "10.0.2.2".parse().unwrap();
        for names in [
            [Some("10.0.1.1"), Some("10.0.2.1")],
            [None, Some("10.0.2.1")],
        ] {
            config.links = names.map(link).to_vec();
            let state = crate::route::desired(&config, &observed);
            let sources = |place: usize| {
                own_addresses(&config, &observed, &config.links[place], &observed.links[1])
            };
            assert_eq!((sources(0), sources(1)), (vec![first], vec![second]));
            for (table, own, gateway) in [(28260, first, "10.0.1.1"), (28261, second, "10.0.2.1")] {
                let of_table = |route: &&crate::route::resource::Route| route.table.0 == table;
                let default = routes(&state)
                    .filter(of_table)
                    .find(|route| route.destination.is_default())
                    .unwrap();
                assert_eq!(default.via, Some(gateway.parse().unwrap()));
                assert_eq!(default.source, Some(own));
                let asks = rules(&state).filter(|rule| rule.table.0 == table);
                let froms: Vec<_> = asks.map(|rule| rule.from).collect();
                assert_eq!(froms, [Some(Prefix::host(own)), Some(Prefix::host(own))]);
            }
        }
    }

    /// Field row C4: told apart by their own addresses, in whatever order they stand on the device.
    #[test]
    fn two_ways_by_one_device_with_sources() {
        let mut config = cases::local_client();
        let link = |source: &str| Link {
            source: Some(source.parse().unwrap()),
            ..cases::link("wan0")
        };
        let mut observed = cases::router();
        observed.links[1].gateways = ["10.0.1.1", "10.0.2.1"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        config.links = vec![link("10.0.2.0/24"), link("10.0.1.2/32")];
        for addresses in [
            ["10.0.1.2/24", "10.0.2.2/24"],
            ["10.0.2.2/24", "10.0.1.2/24"],
        ] {
            observed.links[1].addresses = addresses.map(|it| it.parse().unwrap()).to_vec();
            let state = crate::route::desired(&config, &observed);
            for (place, own, gateway) in [(0, "10.0.2.2", "10.0.2.1"), (1, "10.0.1.2", "10.0.1.1")]
            {
                let own: IpAddr = own.parse().unwrap();
                let link = &config.links[place];
                assert_eq!(
                    own_addresses(&config, &observed, link, &observed.links[1]),
                    [own]
                );
                let table = 28260 + place as u32;
                let default = routes(&state)
                    .find(|route| route.table.0 == table && route.destination.is_default())
                    .unwrap();
                assert_eq!(default.via, Some(gateway.parse().unwrap()));
                assert_eq!(default.source, Some(own));
                let mut asks = rules(&state).filter(|rule| rule.table.0 == table);
                assert!(asks.all(|rule| rule.from == Some(Prefix::host(own))));
            }
        }
    }

    #[test]
    fn a_link_without_a_word_shares_what_there_is() {
        let mut config = cases::local_client();
        let observed = cases::router();
        let named = Link {
            gateway: Some("198.51.100.1".parse().unwrap()),
            ..cases::link("wan0")
        };
        config.links = vec![named, cases::link("wan0")];
        for link in &config.links {
            let own = own_addresses(&config, &observed, link, &observed.links[1]);
            assert_eq!(own, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
        }
        let state = crate::route::desired(&config, &observed);
        assert!(routes(&state).all(|route| route.table.0 <= 28260));
    }
}
