use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
const PUBLIC: &str = "203.0.113.2";
const PUBLIC_V6: &str = "2001:db8:113::2";

fn crossing(v6: bool, allow: &[&str]) -> Crossing {
    let public = PublicAddresses {
        v4: Some(PUBLIC.parse().unwrap()),
        v6: v6.then(|| PUBLIC_V6.parse().unwrap()),
    };
    let allow: Vec<Prefix> = allow.iter().map(|text| text.parse().unwrap()).collect();
    Crossing::new(&public, &TunnelAddresses::default(), &allow)
}

fn packet(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut packet = match source {
        IpAddr::V4(_) => vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0],
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, 17, 64],
    };
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => packet.extend(address.octets()),
            IpAddr::V6(address) => packet.extend(address.octets()),
        }
    }
    packet
}

fn crosses(crossing: &Crossing, towards: Towards, source: &str, destination: &str) -> bool {
    let packet = packet(source.parse().unwrap(), destination.parse().unwrap());
    crossing.admits(towards, &packet)
}

/// Field row A1: the remote portal reaches neither the LAN nor, through it, the Internet.
#[test]
fn towards_home_goes_what_is_for_home() {
    let plain = crossing(true, &[]);
    let goes = |source, destination| crosses(&plain, Towards::Home, source, destination);
    assert!(goes("198.51.100.2", PUBLIC));
    assert!(goes("10.55.0.2", PUBLIC));
    assert!(goes("172.19.152.2", "172.19.152.3"));
    assert!(goes("172.19.152.2", PUBLIC));
    // Nobody else knows the router: its answers would leave in clear.
    for source in ["198.51.100.2", "10.55.0.2", "172.19.152.4", PUBLIC] {
        assert!(!goes(source, "172.19.152.3"), "{source}");
    }
    assert!(!goes("2001:db8:51::2", "fd6e:6362:172:19:152::3"));
    assert!(goes("2001:db8:51::2", PUBLIC_V6));
    assert!(goes("fd6e:6362:172:19:152::2", "fd6e:6362:172:19:152::3"));
    // Networks of the house, and the rest of the world.
    for destination in ["192.168.1.1", "10.10.0.1", "198.51.100.2", "203.0.113.3"] {
        assert!(!goes("172.19.152.2", destination), "{destination}");
    }
    // Nobody outside has these.
    for source in [PUBLIC, "172.19.152.3", "127.0.0.1", "0.0.0.0", "224.0.0.1"] {
        assert!(!goes(source, PUBLIC), "{source}");
    }
    for source in ["255.255.255.255", "169.254.7.7", "240.0.0.1"] {
        assert!(!goes(source, PUBLIC), "{source}");
    }
    for source in ["::", "::1", "fe80::1", "ff02::1", PUBLIC_V6] {
        assert!(!goes(source, PUBLIC_V6), "{source}");
    }
}

/// Field row A1: the router sends nobody else's addresses, and none into the VPS's private network.
#[test]
fn towards_the_internet_goes_what_comes_from_home() {
    let plain = crossing(true, &[]);
    let goes = |source, destination| crosses(&plain, Towards::Internet, source, destination);
    assert!(goes(PUBLIC, "198.51.100.2"));
    assert!(goes(PUBLIC, "172.19.152.2"));
    assert!(goes("172.19.152.3", "172.19.152.2"));
    assert!(goes("172.19.152.3", PUBLIC));
    for destination in ["198.51.100.2", "10.55.0.2", "172.19.152.3", "192.168.1.1"] {
        assert!(!goes("172.19.152.3", destination), "{destination}");
    }
    assert!(!goes("fd6e:6362:172:19:152::3", "2001:db8:51::2"));
    assert!(goes(PUBLIC_V6, "2001:db8:51::2"));
    assert!(goes(PUBLIC_V6, "64:ff9b::8.8.8.8"));
    for source in ["9.9.9.9", "192.168.1.20", "172.19.152.2", "127.0.0.1"] {
        assert!(!goes(source, "198.51.100.2"), "{source}");
    }
    for destination in [
        "10.55.0.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.251",
        "255.255.255.255",
        "0.0.0.0",
        "172.19.152.3",
        PUBLIC,
    ] {
        assert!(!goes(PUBLIC, destination), "{destination}");
    }
    for destination in [
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "11.0.0.1",
    ] {
        assert!(goes(PUBLIC, destination), "{destination}");
    }
    for destination in ["fe80::1", "fec0::1", "ff02::2", "::1", "fd00::1", "fc00::1"] {
        assert!(!goes(PUBLIC_V6, destination), "{destination}");
    }
}

#[test]
fn more_networks_on_request() {
    let wide = crossing(false, &["192.168.1.0/24", "10.55.0.0/16", "fd00:7::/64"]);
    let home = |source, destination| crosses(&wide, Towards::Home, source, destination);
    let out = |source, destination| crosses(&wide, Towards::Internet, source, destination);
    assert!(home("172.19.152.2", "192.168.1.20") && out("192.168.1.20", "172.19.152.2"));
    assert!(home("10.55.0.2", "192.168.1.20") && out("192.168.1.20", "10.55.0.2"));
    assert!(out(PUBLIC, "10.55.0.2"));
    let router = "172.19.152.3";
    assert!(home("10.55.0.2", router) && out(router, "10.55.0.2"));
    assert!(!home("198.51.100.2", router) && !out(router, "198.51.100.2"));
    // A network around the router's own address opens that to nobody else.
    let around = crossing(false, &["172.16.0.0/12"]);
    assert!(!crosses(&around, Towards::Home, "198.51.100.2", router));
    assert!(!crosses(&around, Towards::Internet, router, "198.51.100.2"));
    assert!(!home("172.19.152.2", "192.168.2.20") && !out("192.168.2.20", "8.8.8.8"));
    assert!(home("2001:db8::1", "fd00:7::1") && out("fd00:7::1", "2001:db8::1"));
    assert!(!out("fd00:8::1", "2001:db8::1"));
    let all = crossing(true, &["0.0.0.0/0", "::/0"]);
    assert!(crosses(&all, Towards::Internet, "9.9.9.9", "10.0.0.1"));
    assert!(!crosses(&all, Towards::Internet, "9.9.9.9", "224.0.0.1"));
    assert!(!crosses(&all, Towards::Home, PUBLIC, "192.168.1.1"));
}

/// Field row A3: without a public IPv6 address no IPv6 packet crosses.
#[test]
fn no_ipv6_where_none_is_wanted() {
    let plain = crossing(false, &[]);
    for (source, destination) in [
        ("2001:db8:51::2", PUBLIC_V6),
        (PUBLIC_V6, "2001:db8:51::2"),
        ("fd6e:6362:172:19:152::2", "fd6e:6362:172:19:152::3"),
        ("fd6e:6362:172:19:152::3", "fd6e:6362:172:19:152::2"),
        ("fe80::1", "ff02::1"),
    ] {
        for towards in [Towards::Home, Towards::Internet] {
            assert!(!crosses(&plain, towards, source, destination));
        }
    }
}

#[test]
fn a_packet_that_names_its_way_is_refused() {
    let plain = crossing(false, &[]);
    for (options, goes) in [
        (&[131, 7, 4, 192, 168, 1, 1, 0][..], false),
        (&[1, 1, 137, 7, 4, 192, 168, 1, 1, 0, 0, 0], false),
        (&[148, 4, 0, 0, 131, 3, 4, 0], false),
        (&[148, 4, 131, 137], true),
        // Record route, and timestamps with addresses.
        (&[7, 7, 4, 0, 0, 0, 0, 0], false),
        (&[1, 68, 4, 5, 1, 0, 0, 0], false),
        (&[0, 131, 3, 4], true),
        (&[1, 1, 1, 1], true),
        (&[148, 1, 0, 0], true),
    ] {
        let mut packet = packet("198.51.100.2".parse().unwrap(), PUBLIC.parse().unwrap());
        packet[0] = 0x45 + (options.len() / 4) as u8;
        packet[3] += options.len() as u8;
        packet.extend(options);
        assert_eq!(plain.admits(Towards::Home, &packet), goes, "{options:?}");
    }
}

/// Field row A1: an IPv6 routing header of any type, wherever it stands.
#[test]
fn a_routing_header_is_refused() {
    let carried = crossing(true, &[]);
    let of_kind = |kind| [17, 0, kind, 0, 0, 0, 0, 0];
    let filled = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let cases: [(u8, Vec<u8>, bool); 13] = [
        (17, vec![0; 8], true),
        (43, of_kind(0).to_vec(), false),
        (43, of_kind(4).to_vec(), false),
        (0, filled(17).to_vec(), true),
        (0, [filled(43), of_kind(0)].concat(), false),
        (60, [filled(43), of_kind(2)].concat(), false),
        // The first fragment, and a later one whose bytes are no header.
        (44, [[43, 0, 0, 1, 0, 0, 0, 1], of_kind(0)].concat(), false),
        (44, [[17, 0, 0, 9, 0, 0, 0, 1], of_kind(0)].concat(), true),
        (
            51,
            [&[43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &of_kind(0)].concat(),
            false,
        ),
        (50, vec![43; 8], true),
        (59, Vec::new(), true),
        // Cut off, and without end.
        (60, vec![43], false),
        (60, filled(60).repeat(9), false),
    ];
    for (next, rest, goes) in cases {
        let mut packet = packet("2001:db8::1".parse().unwrap(), PUBLIC_V6.parse().unwrap());
        packet[6] = next;
        packet[5] = rest.len() as u8;
        packet.extend(&rest);
        assert_eq!(
            carried.admits(Towards::Home, &packet),
            goes,
            "{next}: {rest:?}"
        );
    }
}

/// Field row A3: nobody behind the tunnel redirects a host here.
#[test]
fn redirects_are_refused() {
    let plain = crossing(false, &[]);
    for (kind, goes) in [(5, false), (8, true), (3, true)] {
        let mut packet = packet("198.51.100.2".parse().unwrap(), PUBLIC.parse().unwrap());
        packet[3] += 8;
        packet[9] = 1;
        packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain.admits(Towards::Home, &packet), goes, "{kind}");
    }
}

/// Addresses near the borders of what is told apart, and any others.
fn address() -> impl Strategy<Value = IpAddr> {
    let known = prop::sample::select(vec![
        PUBLIC,
        "172.19.152.2",
        "172.19.152.3",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "192.168.1.7",
        "8.8.8.8",
        "127.0.0.1",
        "239.1.1.1",
    ]);
    prop_oneof![
        known.prop_map(|text| text.parse().unwrap()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
    ]
}

proptest! {
    /// The rules once more, in the words of the standard library.
    #[test]
    fn it_is_as_the_document_says(source in address(), destination in address()) {
        let allow: Prefix = "192.168.1.0/24".parse().unwrap();
        let crossing = crossing(false, &["192.168.1.0/24"]);
        let v4 = |address| match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let named = |address: IpAddr| [PUBLIC, "172.19.152.3"].contains(&&*address.to_string());
        let is = |address: IpAddr, text: &str| address.to_string() == text;
        let (local, remote) = ("172.19.152.3", "172.19.152.2");
        let home = |address: IpAddr| is(address, PUBLIC) || allow.contains(address);
        let knows_router = |address: IpAddr| is(address, remote) || allow.contains(address);
        let never = |address: IpAddr| {
            let address = v4(address);
            address.is_multicast() || address.is_loopback() || address.is_link_local()
                || address.octets()[0] == 0 || address.octets()[0] >= 240
        };
        let private = |address: IpAddr| {
            let octets = v4(address).octets();
            v4(address).is_private() || octets[0] == 100 && octets[1] & 0xc0 == 64
        };
        let packet = packet(source, destination);
        prop_assert_eq!(
            crossing.admits(Towards::Home, &packet),
            (home(destination) || is(destination, local) && knows_router(source))
                && !named(source) && !never(source)
        );
        let far = !private(destination) || knows_router(destination);
        let by_router = is(destination, PUBLIC) || knows_router(destination);
        prop_assert_eq!(
            crossing.admits(Towards::Internet, &packet),
            !never(destination)
                && (home(source) && !named(destination) && far
                    || is(source, local) && by_router)
        );
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let crossing = crossing(true, &["::/0"]);
        crossing.admits(Towards::Home, &bytes);
        crossing.admits(Towards::Internet, &bytes);
        concerns_its_way(&bytes);
    }

    #[test]
    fn masks_are_those_of_prefixes(bits: u128, length in 0_u8..=128, other: u128) {
        let prefix = Prefix::new(Ipv6Addr::from_bits(bits).into(), length).unwrap();
        let network = network(&prefix);
        let other_address = IpAddr::V6(Ipv6Addr::from_bits(other));
        prop_assert_eq!(
            other & network.mask == network.first,
            prefix.contains(other_address)
        );
    }
}
