//! Between which addresses a link's flow runs: every pair of an own address and one of the remote's, best
//! first, and when a pair or a port is given up.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Link;
use crate::config::units::Family;
use crate::route::links::{Flaw, ObservedLink};
use crate::sorted::sort_by_key;

/// Pairs that are tried at most: a host may have sixteen temporary addresses.
const MOST_PAIRS: usize = 16;

/// A path that is not usable after so long at one pair of addresses is tried at the next: two handshakes
/// (5 s apart) and a connection's three SYNs have had their chance.
const PAIR_PATIENCE: Duration = Duration::from_secs(10);
/// Where there is one pair only, a path that is dead for so long is tried from another port: a modem that
/// changed its own address keeps the old mapping of ours for as long as we use it.
const PORT_PATIENCE: Duration = Duration::from_secs(25);
/// And again and again after this.
const NEXT_PORT_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of a flow that is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    /// How long it has not been, since its socket was opened.
    pub(super) waited: Duration,
    /// How many sockets were opened since it was usable.
    pub(super) attempts: u32,
    /// The resolvers no longer give its remote address for the name.
    pub(super) is_doubted: bool,
}

/// What is changed about a flow that is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing yet.
    Nothing,
    /// The next pair of addresses.
    NextPair,
    /// A new socket between the same addresses, so from another port.
    NewPort,
}

/// What is to be changed, with so many pairs to choose from.
pub(super) fn change(trouble: Trouble, pairs: usize, fixed_port: bool) -> Change {
    let waited = trouble.waited;
    let patience = if trouble.attempts == 0 {
        PORT_PATIENCE
    } else {
        NEXT_PORT_PATIENCE
    };
    if pairs > 1 {
        if trouble.is_doubted || waited >= PAIR_PATIENCE {
            return Change::NextPair;
        }
    } else if !fixed_port && waited >= patience {
        return Change::NewPort;
    }
    Change::Nothing
}

/// The addresses that the link may speak from and to, in the order in which they are tried. Pairs of a
/// family that has a way out of the device come first. Of the sources for one target the first is the one
/// that the kernel itself would choose (RFC 6724 section 5), or, by preference, one of the gateway's
/// network.
pub(super) fn pairs(
    link: &Link,
    device: &ObservedLink,
    ours: &[IpAddr],
    targets: &[IpAddr],
) -> Vec<(IpAddr, IpAddr)> {
    let gateways = || device.gateways.iter().chain(&link.gateway);
    let has_way_out = |family| {
        device.point_to_point
            || device.gateway(family).is_some()
            || link.gateway.map(Family::of) == Some(family)
    };
    let near_gateway = |source: IpAddr| {
        let network = device.holds(source);
        network.is_some_and(|network| {
            gateways().any(|gateway| !gateway.is_unspecified() && network.contains(*gateway))
        })
    };
    let mut pairs = Vec::new();
    for &target in targets {
        let family = Family::of(target);
        let mut sources: Vec<IpAddr> = ours
            .iter()
            .filter(|source| Family::of(**source) == family)
            .copied()
            .collect();
        sort_by_key(&mut sources, |&source| {
            let flaw = device.flaws.get(&source);
            (
                !has_scope(source, target),
                flaw == Some(&Flaw::Deprecated),
                !near_gateway(source),
                label(source) != label(target),
                flaw == Some(&Flaw::Temporary),
                Reverse(common_bits(source, target)),
            )
        });
        let ranked = sources.into_iter().enumerate();
        pairs.extend(ranked.map(|(rank, source)| ((!has_way_out(family), rank), source, target)));
    }
    sort_by_key(&mut pairs, |(key, ..)| *key);
    pairs.truncate(MOST_PAIRS);
    pairs
        .into_iter()
        .map(|(_, source, target)| (source, target))
        .collect()
}

/// False for an address that only counts on its link, towards one that counts everywhere (rule 2).
fn has_scope(source: IpAddr, target: IpAddr) -> bool {
    let is_local = |address| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    is_local(target) || !is_local(source)
}

/// The label of RFC 6724 section 2.1 (rule 6), as far as it tells IPv6 addresses apart.
fn label(address: IpAddr) -> u8 {
    let IpAddr::V6(v6) = address else { return 1 };
    match v6.segments() {
        [0x2001, 0, ..] => 5,
        [0x2002, ..] => 2,
        [first, ..] if first & 0xfe00 == 0xfc00 => 13,
        _ => 1,
    }
}

/// How many bits two IPv6 addresses begin with in common (rule 8), of their network parts. The kernel
/// keeps to the order of the addresses for IPv4.
fn common_bits(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros().min(64),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(waited: u64, attempts: u32) -> Trouble {
        Trouble {
            waited: Duration::from_secs(waited),
            attempts,
            is_doubted: false,
        }
    }

    fn device(addresses: &[&str], gateways: &[&str], flaws: &[(&str, Flaw)]) -> ObservedLink {
        ObservedLink {
            device: "wan0".parse().unwrap(),
            index: 3,
            kind: String::new(),
            up: true,
            point_to_point: false,
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            flaws: flaws
                .iter()
                .map(|(address, flaw)| (address.parse().unwrap(), *flaw))
                .collect(),
            gateways: gateways.iter().map(|it| it.parse().unwrap()).collect(),
            v4_by_v6: Vec::new(),
            advertised: false,
            mtu: 1500,
        }
    }

    fn sources(device: &ObservedLink, target: &str) -> Vec<String> {
        let link = Link::by("wan0".parse().unwrap());
        let ours: Vec<IpAddr> = device.addresses.iter().map(|it| it.address()).collect();
        let pairs = pairs(&link, device, &ours, &[target.parse().unwrap()]);
        pairs.iter().map(|(source, _)| source.to_string()).collect()
    }

    /// Field row C1: 25 s, then each minute; never with a port of the administrator's.
    #[test]
    fn a_dead_path_changes_its_port_and_then_each_minute() {
        assert_eq!(change(seconds(24, 0), 1, false), Change::Nothing);
        assert_eq!(change(seconds(25, 0), 1, false), Change::NewPort);
        assert_eq!(change(seconds(59, 1), 1, false), Change::Nothing);
        assert_eq!(change(seconds(60, 1), 1, false), Change::NewPort);
        assert_eq!(change(seconds(60, 99), 1, false), Change::NewPort);
        assert_eq!(change(seconds(6000, 1), 1, true), Change::Nothing);
        // Another pair comes with another port.
        assert_eq!(change(seconds(9, 0), 2, false), Change::Nothing);
        assert_eq!(change(seconds(10, 3), 2, false), Change::NextPair);
        assert_eq!(change(seconds(10, 3), 2, true), Change::NextPair);
        let doubted = Trouble {
            is_doubted: true,
            ..seconds(0, 0)
        };
        assert_eq!(change(doubted, 2, false), Change::NextPair);
        assert_eq!(change(doubted, 1, false), Change::Nothing);
    }

    /// Field row C2.
    #[test]
    fn the_source_is_the_one_that_the_kernel_would_choose() {
        let good = "2001:db8:1::5";
        let device = device(
            &[
                "2001:db8:1::5/64",
                "2001:db8:1::dead/64",
                "2001:db8:1::7e0/64",
                "fd00::5/64",
                "2001:db8:2::5/64",
            ],
            &["fe80::1"],
            &[
                ("2001:db8:1::dead", Flaw::Deprecated),
                ("2001:db8:1::7e0", Flaw::Temporary),
            ],
        );
        let tried = sources(&device, "2001:db8:1:ffff::2");
        assert_eq!(
            tried,
            [
                good,
                "2001:db8:2::5",
                "2001:db8:1::7e0",
                "fd00::5",
                "2001:db8:1::dead"
            ]
        );
        // A unique local target is reached from such an address.
        assert_eq!(sources(&device, "fd00:1::2")[0], "fd00::5");
    }

    #[test]
    fn with_two_networks_the_source_is_of_the_gateways() {
        let addresses = ["192.0.2.5/24", "198.51.100.5/24", "169.254.1.1/16"];
        let two = device(&addresses, &["198.51.100.1"], &[]);
        let tried = sources(&two, "203.0.113.2");
        assert_eq!(tried, ["198.51.100.5", "192.0.2.5", "169.254.1.1"]);
        let unnumbered = device(&addresses, &["0.0.0.0"], &[]);
        assert_eq!(sources(&unnumbered, "203.0.113.2")[0], "192.0.2.5");
    }

    #[test]
    fn every_pair_is_tried_and_their_number_is_bounded() {
        let two = device(&["192.0.2.5/24", "192.0.2.6/24"], &["192.0.2.1"], &[]);
        let link = Link::by("wan0".parse().unwrap());
        let ours: Vec<IpAddr> = two.addresses.iter().map(|it| it.address()).collect();
        let [a, b] = ["203.0.113.2", "203.0.113.3"].map(|it| it.parse().unwrap());
        let tried = pairs(&link, &two, &ours, &[a, b]);
        let expected = [(ours[0], a), (ours[0], b), (ours[1], a), (ours[1], b)];
        assert_eq!(tried, expected);
        let many: Vec<IpAddr> = (1..=99).map(|n| IpAddr::from([203, 0, 113, n])).collect();
        assert_eq!(pairs(&link, &two, &ours, &many).len(), MOST_PAIRS);
    }
}
