use super::*;
use crate::config::units::TableId;
use crate::config::{Deliver, Keep, PortProtocol, Remote, Role, WithoutTunnel};
use crate::route::cases;
use crate::route::links::{ForeignRoute, ForeignRule};

/// One warning of `conflicts` that says this word.
fn said(config: &Config, observed: &Observed, place: &str, word: &str) {
    let warnings = conflicts(config, observed);
    assert!(
        warnings
            .iter()
            .any(|warning| warning.place == place && warning.text.contains(word)),
        "{place}: {word} is not in {warnings:#?}"
    );
}

#[test]
fn good_hosts_have_none() {
    for (config, observed) in [
        (cases::remote(), cases::vps()),
        (cases::local_client(), cases::router()),
        (cases::local_nat(), cases::router()),
    ] {
        assert_eq!(conflicts(&config, &observed), []);
    }
}

/// A lease of a link gives a route for just the public address, which is the administrator's to route.
#[test]
fn a_route_of_a_link_for_the_public_address_is_noted() {
    let config = cases::local(Deliver::Nothing);
    let mut observed = cases::router();
    let noted = |observed: &Observed| {
        let mut notes = notes(&config, observed).into_iter();
        notes.any(|note| note.text.contains("by the link wan1"))
    };
    let mut route = |device: &str| {
        observed.foreign_routes = vec![ForeignRoute {
            table: TableId::MAIN.0,
            destination: "203.0.113.2/32".parse().unwrap(),
            device: Some(device.to_owned()),
        }];
        noted(&observed)
    };
    assert!(route("wan1"));
    assert!(!route("lan"));
}

#[test]
fn preferences_tables_and_marks_of_others() {
    let rule = |pref, mark| ForeignRule {
        family: Family::V4,
        pref,
        table: Some(7),
        mark,
    };
    let mut observed = cases::vps();
    observed.foreign_rules = vec![rule(19, None), rule(5210, Some((0x0200_0000, 0xff00_0000)))];
    observed.foreign_routes = vec![ForeignRoute {
        table: 19,
        destination: "10.0.0.0/8".parse().unwrap(),
        device: None,
    }];
    let config = cases::remote();
    said(&config, &observed, "table_base", "preference 19");
    said(&config, &observed, "table_base", "table 19 already");
    said(&config, &observed, "mark_mask", "preference 5210");
    let moved = Config {
        numbers: cases::moved(),
        ..config
    };
    // Field row D11: table local moves to 5501, behind both.
    for (place, word) in [
        ("mark_mask", "preference 5210"),
        (
            "table_base",
            "preference 19 will be asked before table local, which moves to 5501",
        ),
        (
            "table_base",
            "preference 5210 will be asked before table local",
        ),
    ] {
        said(&moved, &observed, place, word);
    }
    assert_eq!(conflicts(&moved, &observed).len(), 3);
}

#[test]
fn the_public_address_is_the_vpss_and_nobody_elses() {
    let mut observed = cases::vps();
    observed.links[0].addresses = vec!["10.0.0.5/24".parse().unwrap()];
    for word in [
        "public_address = \"10.0.0.5\" on both portals",
        "remote = \"203.0.113.2\" on the local one",
    ] {
        said(&cases::remote(), &observed, "public_address", word);
    }
    observed.links[0]
        .addresses
        .push("10.0.0.6/24".parse().unwrap());
    let both = "they hold 10.0.0.5, 10.0.0.6";
    said(&cases::remote(), &observed, "public_address", both);
    let mut observed = cases::router();
    observed.links[0]
        .addresses
        .push("203.0.113.2/32".parse().unwrap());
    said(
        &cases::local_client(),
        &observed,
        "public_address",
        "lan of this router",
    );
    let line = "belongs to the client: `ip -4 address del 203.0.113.2/32 dev lan`";
    said(&cases::local_client(), &observed, "public_address", line);
    let owner = "belongs to the tunnel's device";
    said(&cases::local_nat(), &observed, "public_address", owner);
    observed.foreign_routes = vec![ForeignRoute {
        table: TableId::MAIN.0,
        destination: "203.0.113.2/32".parse().unwrap(),
        device: Some("wan0".into()),
    }];
    said(
        &cases::local_client(),
        &observed,
        "public_address",
        "table main",
    );
}

#[test]
fn links_without_a_way_out() {
    let mut config = cases::local_client();
    config.links = ["wan0", "wan1", "wan2", "lan"].map(cases::link).to_vec();
    let mut observed = cases::router();
    observed.links[1].up = false;
    observed.links[2].gateways.clear();
    said(&config, &observed, "link[1].device", "wan0 is down");
    said(
        &config,
        &observed,
        "link",
        "wan1 has no address with a way out",
    );
    let there = "no device wan2; there is lan, wan0, wan1";
    said(&config, &observed, "link[3].device", there);
    said(&config, &observed, "link[4].device", "client's device");
    config.links.clear();
    observed.links.truncate(1);
    said(&config, &observed, "link", "no device has a default route");
    observed.links.clear();
    said(&config, &observed, "client.device", "no device lan");
}

#[test]
fn one_address_on_two_links() {
    let mut observed = cases::router();
    observed.links[2].addresses = observed.links[1].addresses.clone();
    said(
        &cases::local_client(),
        &observed,
        "link",
        "wan0, wan1 all hold 198.51.100.7",
    );
}

#[test]
fn strict_filters_that_are_left_alone() {
    let config = Config {
        manage_routing: false,
        ..cases::local_client()
    };
    said(
        &config,
        &cases::router(),
        "manage_routing",
        "net.ipv4.conf.wan1.rp_filter=2",
    );
}

/// Field row D1.
#[test]
fn kept_ranges_among_the_ports_of_the_clients_sockets() {
    let mut config = cases::remote();
    for (first, last, warned) in [
        (60000, 61000, true),
        (1024, 65535, true),
        (32767, 32768, true),
        (61000, 62000, false),
        (27000, 32767, false),
        (51820, 51820, false),
    ] {
        let Role::Remote(role) = &mut config.role else {
            panic!("a remote portal");
        };
        role.keep.truncate(1);
        role.keep.push(Keep {
            protocol: PortProtocol::Udp,
            first,
            last,
        });
        let warnings = conflicts(&config, &cases::vps());
        assert_eq!(!warnings.is_empty(), warned, "{first}-{last}: {warnings:?}");
        assert!(warnings.iter().all(|it| it.text.contains("32768-60999")));
    }
}

/// Field rows A2, D6 and D7.
#[test]
fn what_is_open_and_what_stays_outside() {
    let mut config = cases::local_nat();
    let Role::Local(local) = &mut config.role else {
        panic!("a local portal");
    };
    local.keep = vec!["tcp:8081".parse().unwrap()];
    let mut observed = cases::router();
    observed.links[0]
        .addresses
        .push("2001:db8:77::1/64".parse().unwrap());
    let mut guest = observed.links[0].clone();
    guest.device = cases::name("guest");
    guest.addresses = vec!["192.168.8.1/24".parse().unwrap()];
    observed.links.push(guest);
    said(&config, &observed, "keep", "tcp:8081 of this router");
    said(
        &config,
        &observed,
        "native_ipv6",
        "around the tunnel, by wan1",
    );
    said(&config, &observed, "lan", "192.168.8.0/24 behind guest");
    // Down, or the network of a VPN's clients: it is outside all the same.
    observed.links[3].up = false;
    said(&config, &observed, "lan", "192.168.8.0/24 behind guest");
    observed.links[3].up = true;
    observed.links[3].point_to_point = true;
    said(&config, &observed, "lan", "192.168.8.0/24 behind guest");
    let line = "lan = { devices = [\"lan\", \"guest\"] }";
    said(&config, &observed, "lan", line);
    // The line has been typed.
    let mut deliver = |devices: &[&str]| {
        let Role::Local(local) = &mut config.role else {
            panic!("a local portal");
        };
        local.deliver = Deliver::Nat {
            devices: devices.iter().map(|it| cases::name(it)).collect(),
            forwards: Vec::new(),
        };
        let warnings = conflicts(&config, &observed).into_iter();
        let warnings = warnings.filter(|it| it.place == "lan");
        warnings.map(|it| it.text).collect::<Vec<_>>()
    };
    assert_eq!(deliver(&["lan", "guest"]), [""; 0]);
    let warnings = deliver(&["guest", "iot"]);
    assert!(warnings[0].starts_with("there is no device iot; there is lan,"));
    assert!(warnings[1].contains("192.168.7.0/24 behind lan does not use the tunnel"));
    assert!(warnings[1].contains("devices = [\"guest\", \"iot\", \"lan\"]"));
}

/// Field rows D4 and D6: in client mode only the client uses the tunnel, and the VPS is reached from
/// home by its address inside the tunnel.
#[test]
fn what_the_client_does_not_expect_is_noted() {
    let noted = |config: &Config, observed: &Observed| -> Vec<String> {
        let notes = notes(config, observed).into_iter();
        notes.map(|it| it.to_string()).collect()
    };
    let mut config = cases::remote();
    let said = noted(&config, &cases::vps());
    assert_eq!(said.len(), 1, "{said:?}");
    for word in ["keep: ", "tcp:22", "udp:27000-27100", "172.19.152.2"] {
        assert!(said[0].contains(word), "{said:?}");
    }
    config.role = Role::Remote(Remote { keep: Vec::new() });
    let mut observed = cases::vps();
    assert_eq!(noted(&config, &observed), [""; 0]);
    // FreeBSD alone has this one.
    observed.settings.clear();
    let switch = "net.inet.ip.forwarding";
    observed.settings.insert(switch.to_owned(), "0".to_owned());
    assert_eq!(noted(&config, &observed), [""; 0]);
    let said = noted(&cases::local_nat(), &observed);
    assert!(
        said.len() == 1 && said[0].contains("name servers"),
        "{said:?}"
    );

    let mut config = cases::local_client();
    let said = noted(&config, &cases::router());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("at 172.19.152.2, not at 203.0.113.2, which"));
    for word in ["192.168.7.0/24 behind lan", "lan = { devices = [\"lan\"] }"] {
        assert!(said[1].contains(word), "{said:?}");
    }
    config.public.v6 = Some("2001:db8:2::2".parse().unwrap());
    let said = noted(&config, &cases::router());
    assert!(said[0].contains("172.19.152.2 and fd6e:6362:172:19:152::2"));
    // Behind a shared address the public one works for both.
    let mut config = cases::local_nat();
    let said = noted(&config, &cases::router());
    assert_eq!(said.len(), 1, "{said:?}");
    // Field row D2.
    for word in ["deliver: ", "only IPv4 uses the tunnel", "IPv6"] {
        assert!(said[0].contains(word), "{said:?}");
    }
    let Role::Local(local) = &mut config.role else {
        panic!("a local portal");
    };
    local.without_tunnel = WithoutTunnel::Direct;
    let said = noted(&config, &cases::router());
    assert!(said[0].starts_with("without_tunnel: ") && said[0].contains("in clear"));
    // With "none" this router may hold the address; the VPS has it at the other end.
    local_none(&mut config);
    let mut observed = cases::router();
    let held = "203.0.113.2/32".parse().unwrap();
    observed.links[0].addresses.push(held);
    assert_eq!(conflicts(&config, &observed), []);
    assert_eq!(noted(&config, &observed).len(), 1);
}

fn local_none(config: &mut Config) {
    if let Role::Local(local) = &mut config.role {
        local.deliver = Deliver::Nothing;
    }
}

/// The LAN does not use a route by a link, and `check` names the route.
#[test]
fn routes_by_a_link_are_named() {
    let mut observed = cases::router();
    let add = |observed: &mut Observed, destination: &str, device: &str| {
        observed.foreign_routes.push(ForeignRoute {
            table: TableId::MAIN.0,
            destination: destination.parse().unwrap(),
            device: Some(device.to_owned()),
        });
    };
    // What is connected, private, or not by a link is not named.
    add(&mut observed, "198.51.100.0/24", "wan0");
    add(&mut observed, "10.9.0.0/16", "wan0");
    add(&mut observed, "198.18.0.0/15", "wg0");
    let config = cases::local_nat();
    assert_eq!(conflicts(&config, &observed), []);
    add(&mut observed, "9.9.9.0/24", "wan1");
    for words in [
        "table main leads to 9.9.9.0/24 by a link",
        "`ip -4 rule add pref 18 iif lan to 9.9.9.0/24 lookup main`",
    ] {
        said(&config, &observed, "lan", words);
    }
    assert_eq!(conflicts(&config, &observed).len(), 1);
    assert_eq!(conflicts(&cases::local_client(), &observed), []);
    // Only half of this one is private.
    add(&mut observed, "192.168.0.0/15", "wan1");
    let words = "table main leads to 9.9.9.0/24, 192.168.0.0/15 by a link";
    said(&config, &observed, "lan", words);
    // The line has been typed.
    observed.foreign_rules.push(ForeignRule {
        family: Family::V4,
        pref: 18,
        table: Some(TableId::MAIN.0),
        mark: None,
    });
    assert_eq!(conflicts(&config, &observed), []);
}

/// Field row D8: what others route for the LAN, and our rule hides.
#[test]
fn hidden_routes_of_others_are_named() {
    let mut observed = cases::router();
    observed.foreign_rules = vec![ForeignRule {
        family: Family::V4,
        pref: 220,
        table: Some(220),
        mark: None,
    }];
    let route = |destination: &str| ForeignRoute {
        table: 220,
        destination: destination.parse().unwrap(),
        device: Some("vpn0".to_owned()),
    };
    // A default route, its halves, and what is connected here hide nothing.
    observed.foreign_routes = ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.168.7.0/24"]
        .map(route)
        .to_vec();
    let config = cases::local_nat();
    assert_eq!(conflicts(&config, &observed), []);
    for third in 0..6 {
        let destination = format!("10.8.{third}.0/24");
        observed.foreign_routes.push(route(&destination));
    }
    for words in [
        "preference 220 is hidden from the LAN by ours at 20",
        "10.8.0.0/24, 10.8.1.0/24, 10.8.2.0/24, 10.8.3.0/24 and 2 more (table 220)",
        "`ip -4 rule add pref 18 iif lan lookup 220 suppress_prefixlength 1`",
    ] {
        said(&config, &observed, "table_base", words);
    }
    assert_eq!(conflicts(&config, &observed).len(), 1);
    // The client has nothing to do with it.
    assert_eq!(conflicts(&cases::local_client(), &observed), []);
    // The line has been typed.
    let mut before = observed.foreign_rules[0].clone();
    before.pref = 18;
    observed.foreign_rules.push(before);
    assert_eq!(conflicts(&config, &observed), []);
}
