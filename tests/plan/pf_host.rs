//! What FreeBSD's anchors do with what the host itself sends, and with what it would forward for others.

use netcombiner::config::{Role, WithoutTunnel};
use netcombiner::route::Observed;

use super::pf::{INTERNET, INTERNET6, PUBLIC, expect, into, passed, run};
use super::pf_model::{Anchor, Packet, Verdict};

/// Field row D2 on FreeBSD: the router's questions to name servers use the tunnel; the flows, servers on
/// private networks, and what is bound to another link do not.
#[test]
fn the_router_asks_name_servers_by_the_tunnel() {
    let anchor = Anchor::of("local-nat-forwards");
    let asks = |proto, to, port| {
        let packet = Packet::new("wan0", proto, "198.51.100.7", to).port(port);
        run(&anchor, packet.out("wan0"))
    };
    for (proto, port) in [("udp", 53), ("tcp", 53), ("tcp", 853)] {
        let (verdict, packet) = asks(proto, INTERNET, port);
        assert_eq!(verdict, into("nc0", true));
        assert_eq!(packet.from.to_string(), PUBLIC);
    }
    for (proto, to, port) in [
        ("udp", "192.168.178.1", 53),
        ("tcp", INTERNET, 443),
        ("icmp", INTERNET, 53),
        ("udp", PUBLIC, 53),
    ] {
        let (verdict, packet) = asks(proto, to, port);
        assert_eq!(verdict, Verdict::Nobody);
        assert_eq!(packet.from.to_string(), "198.51.100.7");
    }
    // Without the tunnel they go as ever.
    let down = Anchor::on("local-nat-forwards", |_, observed| {
        observed.tunnel_down = true
    });
    let packet = Packet::new("wan0", "udp", "198.51.100.7", INTERNET).port(53);
    expect(&down, packet.out("wan0"), &Verdict::Nobody);
}

/// Field row A1 on FreeBSD: forwarding that is switched on joins no networks that were not joined before.
#[test]
fn what_was_not_forwarded_is_not() {
    let through = |anchor: &Anchor, from: &'static str, to: &'static str, ends: [&str; 2]| {
        let (verdict, packet) = run(anchor, Packet::new(from, "tcp", ends[0], ends[1]));
        assert_ne!(verdict, Verdict::Blocked);
        run(anchor, packet.out(to)).0
    };
    let vps = Anchor::of("remote-v4-v6");
    let other = [INTERNET, "198.18.8.8"];
    assert_eq!(through(&vps, "eth0", "eth0", other), Verdict::Blocked);
    assert_eq!(
        through(&vps, "eth0", "eth0", [INTERNET6, "2001:db8:88::8"]),
        Verdict::Blocked
    );
    // What is for this host, or begins here, is not touched.
    let (verdict, packet) = run(&vps, Packet::new("eth0", "icmp6", INTERNET6, "fe80::1"));
    assert_eq!(verdict, Verdict::Nobody);
    expect(&vps, packet.out("eth0"), &Verdict::Nobody);
    let own = Packet::new("eth0", "tcp", "198.18.8.8", INTERNET).out("eth0");
    expect(&vps, own, &Verdict::Nobody);

    // The LAN's way to the tunnel stays open; to the others of this router it is closed.
    let home = Anchor::of("local-nat-two-lans");
    for (from, to, ends) in [
        ("lan", "guest", ["192.168.7.33", "192.168.8.33"]),
        ("lan", "cameras", ["192.168.7.33", "192.168.9.33"]),
        ("cameras", "wan0", ["192.168.9.33", INTERNET]),
        ("wan0", "lan", [INTERNET, "192.168.7.33"]),
    ] {
        assert_eq!(
            through(&home, from, to, ends),
            Verdict::Blocked,
            "{from} {to}"
        );
    }
    let lan = Packet::new("lan", "tcp", "192.168.7.33", INTERNET);
    expect(&home, lan, &into("nc0", true));

    // Where it was on before, or somebody came to need it, the user's rules judge.
    let opened: [fn(&mut Observed); 2] = [
        |observed| {
            let key = "net.inet.ip.forwarding".to_owned();
            observed.settings.insert(key, "1".to_owned());
        },
        |observed| observed.forwarders.push("gateway_enable".to_owned()),
    ];
    for open in opened {
        let vps = Anchor::on("remote-v4", |_, observed| open(observed));
        assert_eq!(through(&vps, "eth0", "eth0", other), Verdict::Nobody);
    }
    // Without the tunnel the LAN leaves by a link where it may.
    let direct = Anchor::on("local-nat-forwards", |config, observed| {
        observed.tunnel_down = true;
        if let Role::Local(role) = &mut config.role {
            role.without_tunnel = WithoutTunnel::Direct;
        }
    });
    let leaves = ["192.168.7.33", INTERNET];
    assert_eq!(through(&direct, "lan", "wan0", leaves), Verdict::Nobody);
    let enters = [INTERNET, "192.168.7.33"];
    assert_eq!(through(&direct, "wan0", "lan", enters), Verdict::Blocked);

    // A bridge passes on what its ports send each other, and nothing more.
    let bridge = Anchor::on("local-nat-two-lans", |_, observed| {
        observed.links[2].kind = "bridge".to_owned();
        observed.links[3].kind = "member".to_owned();
    });
    let within = ["192.168.9.33", "192.168.9.34"];
    for (from, to, verdict) in [
        ("cameras", "cameras", Verdict::Nobody),
        ("cameras", "wan0", Verdict::Nobody),
        ("wan0", "cameras", Verdict::Nobody),
        ("cameras", "wan1", Verdict::Blocked),
        ("wan1", "cameras", Verdict::Blocked),
    ] {
        assert_eq!(through(&bridge, from, to, within), verdict, "{from} {to}");
    }
}

/// Field row A1 on FreeBSD: an ICMP error of this router that belongs to no state does not leave by a link, by
/// which it would name the home's own address.
#[test]
fn errors_do_not_tell_whose_home_it_is() {
    for case in ["local-client-v4-v6", "local-none"] {
        let anchor = Anchor::of(case);
        let says = |proto, icmp, from, to| {
            let packet = Packet::new("wan0", proto, from, to).out("wan0");
            let ports = None;
            run(
                &anchor,
                Packet {
                    icmp,
                    ports,
                    ..packet
                },
            )
            .0
        };
        for icmp in ["unreach", "timex", "paramprob"] {
            let error = says("icmp", icmp, "198.51.100.7", INTERNET);
            assert_eq!(error, Verdict::Blocked);
        }
        let ping = says("icmp", "echorep", "198.51.100.7", INTERNET);
        assert_eq!(ping, Verdict::Nobody);
        let others = says("icmp", "unreach", "192.168.1.77", INTERNET);
        assert_eq!(others, Verdict::Nobody);
        if case == "local-client-v4-v6" {
            let error = says("icmp6", "toobig", "2001:db8:9::9", INTERNET6);
            assert_eq!(error, Verdict::Blocked);
            let on_lan = |to| {
                let packet = Packet::new("lan", "icmp", "192.168.1.1", to).out("lan");
                let ports = None;
                let icmp = "unreach";
                run(
                    &anchor,
                    Packet {
                        icmp,
                        ports,
                        ..packet
                    },
                )
                .0
            };
            assert_eq!(on_lan(PUBLIC), passed(false));
            assert_eq!(on_lan("192.168.1.77"), Verdict::Nobody);
            assert_eq!(on_lan(INTERNET), Verdict::Blocked);
        }
    }
}

/// Field row A1 on FreeBSD: where the administrator routes, packets for the public address follow no
/// default route, and no route of the flows, which leads to the same address.
#[test]
fn what_nobody_routes_does_not_leave() {
    let leaves = |anchor: &Anchor, by| {
        let (_, packet) = run(anchor, Packet::new("nc0", "tcp", INTERNET, PUBLIC));
        run(anchor, packet.out(by)).0
    };
    let anchor = Anchor::of("local-none");
    assert_eq!(leaves(&anchor, "wan0"), Verdict::Blocked);
    assert_eq!(leaves(&anchor, "lan"), Verdict::Nobody);
    let flow = Packet::new("wan0", "udp", "198.51.100.7", PUBLIC).port(4725);
    expect(&anchor, flow.out("wan0"), &into("wan0", true));
    // He routes it by a link, or its network is there.
    let routed = Anchor::on("local-none", |_, observed| {
        let more = r#"{"foreign_routes": [{"table": 254, "destination": "203.0.113.0/24", "device": "wan0"}]}"#;
        observed.foreign_routes = Observed::parse(more).unwrap().foreign_routes;
        observed.links[2].addresses = vec!["203.0.113.9/24".parse().unwrap()];
    });
    for by in ["wan0", "wan1"] {
        assert_eq!(leaves(&routed, by), Verdict::Nobody, "{by}");
    }
}
