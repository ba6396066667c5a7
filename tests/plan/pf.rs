//! What FreeBSD's anchors do with packets, by a model of pf.

use netcombiner::config::{Config, Keep, NativeV6, PortProtocol, Role};

use super::pf_model::{Anchor, Packet, Verdict};

pub(super) const INTERNET: &str = "198.18.7.7";
pub(super) const PUBLIC: &str = "203.0.113.2";
const PUBLIC6: &str = "2001:db8:2::2";
pub(super) const INTERNET6: &str = "2001:db8:77::7";

pub(super) fn passed(state: bool) -> Verdict {
    Verdict::Passed {
        by: None,
        state,
        back: None,
    }
}

/// Passed, and the answers go by this device.
fn answered_by(device: &str) -> Verdict {
    Verdict::Passed {
        by: None,
        state: true,
        back: Some(device.to_owned()),
    }
}

pub(super) fn into(device: &str, state: bool) -> Verdict {
    Verdict::Passed {
        by: Some(device.to_owned()),
        state,
        back: None,
    }
}

pub(super) fn run(anchor: &Anchor, mut packet: Packet) -> (Verdict, Packet) {
    let verdict = anchor.run(&mut packet);
    (verdict, packet)
}

pub(super) fn expect(anchor: &Anchor, packet: Packet, verdict: &Verdict) {
    let found = anchor.run(&mut packet.clone());
    assert_eq!(found, *verdict, "{packet:?}");
}

/// Field row F7: what the client asks its neighbours stays on the link; all else goes into the
/// tunnel.
#[test]
fn the_client_finds_its_neighbours() {
    let anchor = Anchor::of("local-client-v4-v6");
    let client = |to| Packet::new("lan", "icmp6", PUBLIC6, to);
    for to in ["ff02::1:ff00:1", "ff02::2", "fe80::1"] {
        let asks = Packet {
            icmp: "neighbrsol",
            ports: None,
            ..client(to)
        };
        expect(&anchor, asks, &passed(false));
    }
    expect(&anchor, client(INTERNET6), &into("nc0", false));
    let client = |to| Packet::new("lan", "tcp", PUBLIC, to);
    expect(&anchor, client(INTERNET), &into("nc0", false));
    for to in ["192.168.1.1", "192.168.1.77", "255.255.255.255"] {
        expect(&anchor, client(to), &passed(false));
    }
    // Field row B3: without that device they never leave by a link, as the flows do.
    let lost = Packet::new("nc0", "tcp", INTERNET, PUBLIC).out("wan0");
    expect(&anchor, lost, &Verdict::Blocked);
    let flow = Packet::new("wan0", "udp", "198.51.100.7", PUBLIC).port(4725);
    expect(&anchor, flow.out("wan0"), &into("wan0", true));
    // Others on that device are not ours.
    let other = Packet::new("lan", "tcp", "192.168.1.77", INTERNET);
    expect(&anchor, other, &Verdict::Nobody);
}

/// Field row A1 on FreeBSD: the other portal reaches the client and this router's address inside
/// the tunnel, and nothing else; the client reaches the Internet, and nobody's private network.
#[test]
fn only_what_may_cross_crosses_at_home() {
    let anchor = Anchor::of("local-client-v4-v6");
    let comes = |from, to| Packet::new("nc0", "tcp", from, to);
    expect(&anchor, comes(INTERNET, PUBLIC), &passed(false));
    expect(&anchor, comes(INTERNET6, PUBLIC6), &passed(false));
    let ping = Packet::new("nc0", "icmp", "172.19.152.2", "172.19.152.3");
    expect(&anchor, ping, &answered_by("nc0"));
    for (from, to) in [
        ("172.19.152.2", "172.19.152.3"),
        ("192.168.1.20", PUBLIC),
        (PUBLIC, "172.19.152.3"),
        (INTERNET, "192.168.1.1"),
        (INTERNET, "192.168.1.77"),
        (INTERNET, "198.18.9.9"),
        (INTERNET, "172.19.152.3"),
        ("172.19.152.2", "192.168.1.77"),
        (PUBLIC, PUBLIC),
        ("127.0.0.1", PUBLIC),
        ("0.0.0.0", PUBLIC),
        ("224.0.0.5", PUBLIC),
        ("169.254.1.1", PUBLIC),
        ("fe80::1", PUBLIC6),
        ("fe80::1", "ff02::1"),
        (INTERNET6, "2001:db8:9::9"),
    ] {
        expect(&anchor, comes(from, to), &Verdict::Blocked);
    }
    let goes = |from, to| Packet::new("nc0", "tcp", from, to).out("nc0");
    expect(&anchor, goes(PUBLIC, INTERNET), &passed(false));
    expect(&anchor, goes(PUBLIC, "172.19.152.2"), &passed(false));
    let portals = goes("172.19.152.3", "172.19.152.2");
    expect(&anchor, portals, &passed(true));
    for (from, to) in [
        ("172.19.152.3", INTERNET),
        ("9.9.9.9", INTERNET),
        ("192.168.1.77", INTERNET),
        (PUBLIC, "10.55.0.2"),
        (PUBLIC, "192.168.7.7"),
        (PUBLIC, "224.0.0.251"),
        (PUBLIC6, "fd00::1"),
        ("fe80::2", "ff02::16"),
    ] {
        expect(&anchor, goes(from, to), &Verdict::Blocked);
    }
}

/// The same at the other end: only the public address reaches the Internet.
#[test]
fn only_what_may_cross_crosses_at_the_vps() {
    let anchor = Anchor::of("remote-v4-v6");
    let comes = |from, to| Packet::new("nc0", "tcp", from, to);
    expect(&anchor, comes(PUBLIC, INTERNET), &passed(false));
    // The VPS itself takes pings and what it keeps, and answers by the tunnel.
    let anchor = anchor.holding("198.51.100.77").holding("10.55.0.1");
    for from in [PUBLIC, "172.19.152.3"] {
        for to in ["172.19.152.2", "198.51.100.77"] {
            expect(&anchor, comes(from, to).port(22), &answered_by("nc0"));
            expect(&anchor, comes(from, to).port(80), &Verdict::Blocked);
            let ping = Packet::new("nc0", "icmp", from, to);
            expect(&anchor, ping, &answered_by("nc0"));
        }
    }
    let own = Packet::new("nc0", "tcp", "172.19.152.2", "172.19.152.3");
    expect(&anchor, own.out("nc0"), &passed(true));
    for (from, to) in [
        (PUBLIC, "10.55.0.1"),
        ("9.9.9.9", "172.19.152.2"),
        (PUBLIC, PUBLIC),
        ("172.19.152.3", PUBLIC),
    ] {
        let blocked = from != "172.19.152.3";
        let verdict = match blocked {
            true => Verdict::Blocked,
            false => answered_by("nc0"),
        };
        expect(&anchor, comes(from, to).port(22), &verdict);
    }
    for (from, to) in [
        ("9.9.9.9", INTERNET),
        ("192.168.1.77", INTERNET),
        (PUBLIC, "10.55.0.2"),
        (PUBLIC, "127.0.0.1"),
        (PUBLIC, PUBLIC),
        ("172.19.152.3", "10.55.0.2"),
        ("172.19.152.3", INTERNET),
        ("172.19.152.3", PUBLIC),
        ("fe80::1", "ff02::1"),
        (PUBLIC6, "fd00::1"),
        ("2001:db8:9::9", INTERNET6),
    ] {
        expect(&anchor, comes(from, to), &Verdict::Blocked);
    }
    let goes = |from, to| Packet::new("nc0", "tcp", from, to).out("nc0");
    expect(&anchor, goes(INTERNET, PUBLIC), &passed(false));
    expect(&anchor, goes(INTERNET, "192.168.1.1"), &Verdict::Blocked);
    expect(&anchor, goes("127.0.0.1", PUBLIC), &Verdict::Blocked);
    // What came by the tunnel leaves by the device of the public address alone.
    let (_, came) = run(&anchor, comes(PUBLIC, INTERNET));
    expect(&anchor, came.clone().out("eth0"), &passed(false));
    expect(&anchor, came.out("eth1"), &Verdict::Blocked);
}

/// Networks that the configuration allows cross beside the public address, both ways, and no others
/// with them.
#[test]
fn what_is_allowed_crosses() {
    let allowing = |config: &mut Config| {
        config.allow = ["192.168.1.0/24", "10.55.0.0/16"]
            .map(|it| it.parse().unwrap())
            .to_vec();
    };
    let home = Anchor::with("local-client-v4-v6", allowing);
    let vps = Anchor::with("remote-v4-v6", allowing);
    let packet = |from, to| Packet::new("nc0", "tcp", from, to);
    for (from, to) in [("192.168.1.77", "10.55.0.2"), (PUBLIC, "10.55.0.2")] {
        let goes = packet(from, to).out("nc0");
        assert!(
            matches!(home.run(&mut goes.clone()), Verdict::Passed { .. }),
            "{goes:?}"
        );
        let comes = packet(from, to);
        assert!(
            matches!(vps.run(&mut comes.clone()), Verdict::Passed { .. }),
            "{comes:?}"
        );
    }
    for (from, to) in [("10.55.0.2", "192.168.1.77"), ("10.55.0.2", PUBLIC)] {
        let goes = packet(from, to).out("nc0");
        assert!(
            matches!(vps.run(&mut goes.clone()), Verdict::Passed { .. }),
            "{goes:?}"
        );
        let comes = packet(from, to);
        assert!(
            matches!(home.run(&mut comes.clone()), Verdict::Passed { .. }),
            "{comes:?}"
        );
    }
    expect(
        &home,
        packet(PUBLIC, "10.56.0.2").out("nc0"),
        &Verdict::Blocked,
    );
    expect(
        &home,
        packet("192.168.1.77", "10.56.0.2").out("nc0"),
        &Verdict::Blocked,
    );
    expect(&home, packet(INTERNET, "192.168.2.1"), &Verdict::Blocked);
    expect(&vps, packet("192.168.1.77", "10.56.0.2"), &Verdict::Blocked);
    // What is allowed at home is the VPS's to reach, and nobody's beside it.
    let own = packet("172.19.152.2", "192.168.1.77").out("nc0");
    expect(&vps, own, &passed(true));
    let neighbour = packet(INTERNET, "192.168.1.77").out("nc0");
    expect(&vps, neighbour, &Verdict::Blocked);
    // Nor does anybody there speak as a machine at home, when the VPS knows by its routes who is.
    let vps = Anchor::on("remote-v4-v6", |config, observed| {
        allowing(config);
        observed.into_tunnel = vec!["192.168.1.0/24".parse().unwrap()];
    });
    for (from, verdict) in [
        ("192.168.1.80", Verdict::Blocked),
        ("10.55.0.2", passed(true)),
        ("172.19.152.2", passed(true)),
    ] {
        let goes = packet(from, "192.168.1.77").out("nc0");
        expect(&vps, goes, &verdict);
    }
    // The router's address inside the tunnel is for those who are allowed.
    let ping = |from| Packet::new("nc0", "icmp", from, "172.19.152.3");
    expect(&home, ping("10.55.0.2"), &answered_by("nc0"));
    expect(&home, ping("10.56.0.2"), &Verdict::Blocked);
    expect(&vps, packet("192.168.2.77", INTERNET), &Verdict::Blocked);
    expect(
        &vps,
        packet(INTERNET, "192.168.2.1").out("nc0"),
        &Verdict::Blocked,
    );
}

/// Field row A1 on FreeBSD: who is on a link speaks neither to the client nor into the tunnel, and the
/// addresses inside the tunnel do not leave by a link.
#[test]
fn links_and_the_tunnel_are_kept_apart() {
    for (case, to_public) in [
        ("local-client-v4-v6", Verdict::Blocked),
        ("local-nat-forwards", Verdict::Blocked),
        ("local-none", Verdict::Nobody),
    ] {
        let anchor = Anchor::of(case);
        let comes = |to| Packet::new("wan0", "udp", INTERNET, to);
        expect(&anchor, comes(PUBLIC), &to_public);
        expect(&anchor, comes("172.19.152.3"), &Verdict::Blocked);
        expect(&anchor, comes("172.19.152.2"), &Verdict::Blocked);
        expect(&anchor, comes("198.51.100.7"), &Verdict::Nobody);
        let goes = |from, to| Packet::new("wan0", "udp", from, to).out("wan0");
        let link = "198.51.100.7";
        expect(&anchor, goes("172.19.152.3", INTERNET), &Verdict::Blocked);
        expect(&anchor, goes(link, "172.19.152.2"), &Verdict::Blocked);
        expect(&anchor, goes(link, INTERNET), &Verdict::Nobody);
    }
}

/// Field row A1 on FreeBSD: what the client sends by somebody else's address does not leave in clear.
#[test]
fn strangers_on_the_clients_device_go_no_further() {
    let anchor = Anchor::of("local-client-v4-v6");
    let sends = |from, to| Packet::new("lan", "udp", from, to);
    for from in ["9.9.9.9", "203.0.113.3", "198.51.100.9"] {
        expect(&anchor, sends(from, INTERNET), &Verdict::Blocked);
    }
    let v6 = |to| sends("2001:db8:ffff::1", to);
    expect(&anchor, v6(INTERNET6), &Verdict::Blocked);
    expect(&anchor, v6("ff02::1:ff00:1"), &Verdict::Nobody);
    expect(&anchor, sends("192.168.1.77", INTERNET), &Verdict::Nobody);
    expect(
        &anchor,
        sends("0.0.0.0", "255.255.255.255"),
        &Verdict::Nobody,
    );
}

/// What the host keeps, and what is the client's.
#[test]
fn the_host_and_the_client_are_told_apart() {
    let anchor = Anchor::of("remote-v4-v6");
    let syn = |port| Packet::new("eth0", "tcp", INTERNET, PUBLIC).port(port);
    expect(&anchor, syn(22), &passed(true));
    expect(&anchor, syn(80), &into("nc0", false));
    let datagram = Packet::new("eth0", "udp", INTERNET, PUBLIC).port(4725);
    expect(&anchor, datagram.clone(), &passed(true));
    // The client's answer makes no state, so that the next packet is the client's too; the host's
    // own does, so that its answer is the host's.
    let (_, answer) = run(&anchor, Packet::new("nc0", "tcp", PUBLIC, INTERNET));
    expect(&anchor, answer.out("eth0"), &passed(false));
    let own = Packet::new("eth0", "tcp", PUBLIC, INTERNET).out("eth0");
    expect(&anchor, own, &passed(true));
    // Field row F8: a fragment has no port, and would go to the client. Reassembled it stays.
    let fragment = Packet {
        ports: None,
        ..datagram
    };
    expect(&anchor, fragment, &into("nc0", false));
}

/// Field row D1 on FreeBSD: what the client begins from a kept port of those that systems choose
/// from stays the client's.
#[test]
fn a_kept_range_is_shared_with_the_client() {
    let anchor = Anchor::of("remote-v4");
    let mut begun = Packet::new("nc0", "udp", PUBLIC, INTERNET);
    begun.ports = Some((60_500, 53));
    let (_, begun) = run(&anchor, begun);
    expect(&anchor, begun.clone().out("eth0"), &answered_by("nc0"));
    let other = Packet {
        ports: Some((50_500, 53)),
        ..begun
    };
    expect(&anchor, other.out("eth0"), &passed(false));
    // What comes from outside first is the host's.
    let new = Packet::new("eth0", "udp", INTERNET, PUBLIC).port(60_500);
    expect(&anchor, new, &passed(true));
}

/// Field rows A2 and F10: behind the shared address nothing is open but what is handed on, and the
/// LAN reaches that by the public address too.
#[test]
fn the_shared_address_opens_what_is_named() {
    let anchor = Anchor::of("local-nat-forwards");
    let comes = |proto, port| Packet::new("nc0", proto, INTERNET, PUBLIC).port(port);
    for (proto, port) in [("tcp", 80), ("tcp", 22), ("udp", 443), ("gre", 0)] {
        expect(&anchor, comes(proto, port), &Verdict::Blocked);
    }
    expect(&anchor, comes("icmp", 0), &answered_by("nc0"));
    let (verdict, web) = run(&anchor, comes("tcp", 443));
    assert_eq!(
        (verdict, web.to.to_string().as_str()),
        (passed(true), "192.168.7.20")
    );
    expect(&anchor, web.out("lan"), &answered_by("nc0"));
    for to in ["192.168.7.1", "192.168.7.20", "172.19.152.3"] {
        let direct = Packet::new("nc0", "tcp", INTERNET, to).port(80);
        expect(&anchor, direct, &Verdict::Blocked);
    }

    let lan = |to| Packet::new("lan", "tcp", "192.168.7.33", to);
    expect(&anchor, lan(INTERNET), &into("nc0", true));
    let (_, entered) = run(&anchor, lan(INTERNET));
    let (verdict, leaves) = run(&anchor, entered.out("nc0"));
    assert_eq!(
        (verdict, leaves.from.to_string().as_str()),
        (passed(true), PUBLIC)
    );
    // Who is no machine of the LAN does not get there, whatever the routing table says.
    expect(&anchor, lan(INTERNET).out("nc0"), &Verdict::Blocked);
    // Hairpin: to the machine, and back by the router.
    let (verdict, web) = run(&anchor, lan(PUBLIC).port(443));
    assert_eq!(
        (verdict, web.to.to_string().as_str()),
        (passed(true), "192.168.7.20")
    );
    let (_, web) = run(&anchor, web.out("lan"));
    assert_eq!(web.from.to_string(), "192.168.7.1");
    // Field row D4: what no forward takes is the other portal's, asked for from inside the tunnel.
    let (verdict, ssh) = run(&anchor, lan(PUBLIC).port(22));
    assert_eq!(
        (verdict, ssh.to.to_string().as_str()),
        (into("nc0", true), "172.19.152.2")
    );
    let (verdict, ssh) = run(&anchor, ssh.out("nc0"));
    assert_eq!(
        (verdict, ssh.from.to_string().as_str()),
        (passed(true), "172.19.152.3")
    );
}

fn keeps(config: &mut Config) {
    if let Role::Local(role) = &mut config.role {
        role.keep = vec![Keep {
            protocol: PortProtocol::Tcp,
            first: 22,
            last: 23,
        }];
    }
}

/// Field row A2 on FreeBSD: what the router keeps open to the tunnel, and nothing beside it.
#[test]
fn the_router_keeps_what_is_named() {
    for (case, to) in [
        ("local-nat-forwards", PUBLIC),
        ("local-client-two-links", "172.19.152.3"),
        ("local-none", "172.19.152.3"),
        ("local-none", PUBLIC),
    ] {
        let anchor = Anchor::with(case, keeps).holding(to);
        let from = if to == PUBLIC {
            INTERNET
        } else {
            "172.19.152.2"
        };
        let comes = |port| Packet::new("nc0", "tcp", from, to).port(port);
        expect(&anchor, comes(22), &answered_by("nc0"));
        expect(&anchor, comes(23), &answered_by("nc0"));
        expect(&anchor, comes(24), &Verdict::Blocked);
        let elsewhere = Packet::new("nc0", "tcp", INTERNET, "192.168.7.1").port(22);
        expect(&anchor, elsewhere, &Verdict::Blocked);
    }
}

/// Field row A1 on FreeBSD: where the administrator routes, the public address is his, and nothing
/// else comes out of the tunnel.
#[test]
fn who_routes_himself_gets_the_public_address_alone() {
    let anchor = Anchor::of("local-none");
    let comes = |from, to| Packet::new("nc0", "tcp", from, to);
    expect(&anchor, comes(INTERNET, PUBLIC), &Verdict::Nobody);
    for (from, to) in [
        (INTERNET, "192.168.7.1"),
        (INTERNET, "192.168.7.20"),
        (INTERNET, "198.18.9.9"),
        ("172.19.152.2", "172.19.152.3"),
        ("192.168.7.20", PUBLIC),
        (PUBLIC, PUBLIC),
        ("172.19.152.3", PUBLIC),
        ("169.254.1.1", PUBLIC),
    ] {
        expect(&anchor, comes(from, to), &Verdict::Blocked);
    }
    let ping = |from| Packet::new("nc0", "icmp", from, "172.19.152.3");
    expect(&anchor, ping("172.19.152.2"), &answered_by("nc0"));
    expect(&anchor, ping(INTERNET), &Verdict::Blocked);
    // He may have it behind a link.
    let link = Packet::new("wan0", "udp", INTERNET, PUBLIC);
    expect(&anchor, link, &Verdict::Nobody);
    // What this router asks has a state, so that the answers come in.
    let goes = |from| Packet::new("nc0", "tcp", from, INTERNET).out("nc0");
    expect(&anchor, goes("172.19.152.3"), &passed(true));
    expect(&anchor, goes(PUBLIC), &Verdict::Nobody);
    let held = Anchor::of("local-none").holding(PUBLIC);
    expect(&held, comes(INTERNET, PUBLIC), &Verdict::Blocked);
    expect(&held, goes(PUBLIC), &passed(true));
}

/// Field row D6 on FreeBSD: two LANs share the address, the third network does not, and none of them
/// reaches another but by what the user's rules say.
#[test]
fn two_lans_share_the_address() {
    let anchor = Anchor::of("local-nat-two-lans");
    let goes = |on, from, to| Packet::new(on, "tcp", from, to);
    for (on, from, other) in [
        ("lan", "192.168.7.33", "192.168.8.33"),
        ("guest", "192.168.8.33", "192.168.7.33"),
    ] {
        expect(&anchor, goes(on, from, INTERNET), &into("nc0", true));
        for near in [other, "192.168.9.33"] {
            expect(&anchor, goes(on, from, near), &Verdict::Nobody);
        }
        let (verdict, web) = run(&anchor, goes(on, from, PUBLIC).port(443));
        assert_eq!(
            (verdict, web.to.to_string().as_str()),
            (passed(true), "192.168.7.20")
        );
        let (verdict, _) = run(&anchor, goes(on, from, PUBLIC).port(22));
        assert_eq!(verdict, into("nc0", true));
        let comes = Packet::new("nc0", "tcp", INTERNET, from);
        expect(&anchor, comes.clone(), &Verdict::Blocked);
        let asked = Packet {
            tag: Some("netcombiner-nc0".to_owned()),
            ..comes.out(on)
        };
        expect(&anchor, asked, &answered_by("nc0"));
        // Its own IPv6 stays, and may cross between the two.
        let (_, v6) = run(&anchor, goes(on, "2001:db8:9:1::7", INTERNET6));
        expect(&anchor, v6.clone().out("wan0"), &Verdict::Blocked);
        expect(&anchor, v6.clone().out("lan"), &Verdict::Nobody);
        expect(&anchor, v6.out("guest"), &Verdict::Nobody);
    }
    let outside = goes("cameras", "192.168.9.33", INTERNET);
    expect(&anchor, outside, &Verdict::Nobody);
    let (_, v6) = run(&anchor, goes("cameras", "2001:db8:9:1::7", INTERNET6));
    expect(&anchor, v6.out("wan0"), &Verdict::Nobody);
}

/// Field row D7 on FreeBSD: the LAN's own IPv6 leaves by a link unless it is to stay.
#[test]
fn the_lans_own_ipv6_can_be_kept_at_home() {
    let open = Anchor::of("local-nat-forwards");
    let closed = Anchor::with("local-nat-forwards", |config| {
        if let Role::Local(role) = &mut config.role {
            role.native_ipv6 = NativeV6::Block;
        }
    });
    let packet = Packet::new("lan", "tcp", "2001:db8:9:1::7", INTERNET6);
    for (anchor, verdict) in [(&open, Verdict::Nobody), (&closed, Verdict::Blocked)] {
        let (first, packet) = run(anchor, packet.clone());
        assert_eq!(first, Verdict::Nobody);
        expect(anchor, packet.out("wan0"), &verdict);
    }
}

/// Field row A3 on FreeBSD: without public IPv6 none crosses.
#[test]
fn a_family_without_an_address_stays_out() {
    for case in [
        "local-nat-forwards",
        "local-none",
        "remote-v4",
        "local-client-two-links",
    ] {
        let anchor = Anchor::of(case);
        let packet = Packet::new("nc0", "icmp6", "fe80::1", "ff02::1");
        expect(&anchor, packet.clone(), &Verdict::Blocked);
        expect(&anchor, packet.out("nc0"), &Verdict::Blocked);
    }
}
