//! Who sits outside of the tunnel, on a link at home or beside the VPS, gets nothing by it and hears nothing
//! about it.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use netcombiner::packet::ecn::Codepoint;
use netcombiner_lab::prelude::*;

use super::crossing::{home_router, pings};
use super::ipv6;
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::wire::{Datagram, Forger};
use super::support::{Case, LOCAL, Outcome, REMOTE, Setup, Watch, case, eventually};

const MS: Duration = Duration::from_millis(1);
const NAT: &str = "deliver = \"nat\"\nlan = { device = \"lan\" }";

/// A lab whose local portal delivers so, or to the client.
fn delivering(deliver: Option<&str>) -> Setup {
    deliver.map(Setup::delivering).unwrap_or_default()
}

fn forged(from: Ipv4Addr, to: Ipv4Addr) -> Datagram {
    Datagram {
        from: (from, 5555),
        to: (to, 9),
        codepoint: Codepoint::NotCapable,
        payload: b"not from here".to_vec(),
    }
}

/// Field row A1: a neighbour on a link speaks as the public address, and comes out at the VPS.
#[test]
fn nobody_on_a_link_speaks_by_the_tunnel() {
    for deliver in [Some(NAT), None] {
        case(delivering(deliver), |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if deliver.is_some() {
                into_a_lan(lab)?;
            }
            let _portals = case.up()?;
            let far = Ipv4Addr::new(198, 51, 100, 77);
            for target in [far, REMOTE] {
                let line = format!("ip route add {target}/32 via 10.10.0.2");
                sh(&lab.internet, &line)?;
            }
            let come = Watch::start(&lab.local, "prerouting", "iifname wan0 udp sport 5555")?;
            let seen = Watch::start(&lab.remote, "prerouting", "iifname nc0 udp sport 5555")?;
            let forger = Forger::start(&lab.internet)?;
            for target in [far, REMOTE] {
                (0..5).for_each(|_| forger.send(&forged(PUBLIC, target)));
            }
            eventually("the router hears them", || Ok(come.packets()? >= 10))?;
            assert_eq!(case.pings(&lab.client, SERVER)?, 20);
            assert_eq!(seen.packets()?, 0, "{deliver:?}");
            // The filter does it, and the counter would tell.
            eventually("the VPS hears it", || {
                for chain in ["prerouting", "forward"] {
                    let line = format!("nft flush chain inet netcombiner-nc0 {chain}");
                    sh(&lab.local, &line)?;
                }
                forger.send(&forged(PUBLIC, REMOTE));
                std::thread::sleep(200 * MS);
                Ok(seen.packets()? > 0)
            })
            .map_err(|error| error.to_string().into())
        });
    }
}

/// Field row A1: a traceroute to the public address does not show the addresses of the links.
#[test]
fn errors_about_the_public_address_do_not_leave_by_a_link() {
    for deliver in [None, Some("deliver = \"none\"")] {
        case(delivering(deliver), |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            let _portals = case.up()?;
            if deliver.is_some() {
                sh(&lab.local, "ip route add 203.0.113.2/32 dev lan")?;
            }
            let packets = "iifname link* meta l4proto icmp";
            let clear = Watch::start(&lab.internet, "prerouting", packets)?;
            // On its way to a link, before our filter.
            let said = "oifname wan* icmp type time-exceeded";
            let said = Watch::start(&lab.local, "output", said)?;
            let socket = lab.server.run(|| UdpSocket::bind((SERVER, 0)))??;
            let trace = || -> Outcome {
                for hops in 2..6 {
                    socket.set_ttl(hops)?;
                    let _ = socket.send_to(b"where are you", (PUBLIC, 33434));
                    std::thread::sleep(200 * MS);
                }
                Ok(())
            };
            trace()?;
            eventually("the router says it", || Ok(said.packets()? > 0))?;
            assert_eq!(clear.packets()?, 0, "{deliver:?}");
            // What is wrong with the router's own packets is said as before.
            sh(&lab.server, "ip route add 10.10.0.2/32 via 198.51.100.1")?;
            let _ = socket.send_to(b"nobody listens", ("10.10.0.2", 33434));
            eventually("other errors leave", || Ok(clear.packets()? == 1))?;
            Ok(())
        });
    }
}

/// Field row A1: the same in IPv6.
#[test]
fn errors_about_the_public_ipv6_address_do_not_leave_by_a_link() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        ipv6::furnish(case)?;
        ipv6::both_addresses(case)?;
        for (host, line) in [
            (&lab.local, "address add 2001:db8:10::2/64 dev wan0 nodad"),
            (
                &lab.internet,
                "address add 2001:db8:10::1/64 dev link0 nodad",
            ),
            (&lab.local, "address add fe80::a/64 dev wan0 nodad"),
            (&lab.internet, "address add fe80::b/64 dev link0 nodad"),
            (&lab.local, "route add default via 2001:db8:10::1"),
        ] {
            sh(host, &format!("ip -6 {line}"))?;
        }
        let _portals = case.up()?;
        let packets = "iifname link* icmpv6 type { 1, 2, 3, 4 }";
        let clear = Watch::start(&lab.internet, "prerouting", packets)?;
        let said = "oifname wan* icmpv6 type time-exceeded";
        let said = Watch::start(&lab.local, "output", said)?;
        let trace = || -> Outcome {
            for hops in 2..6 {
                let line = format!("ping -6 -c 1 -W 1 -t {hops} {}", ipv6::PUBLIC_V6);
                let _ = sh(&lab.server, &line);
            }
            Ok(())
        };
        eventually("the router says it", || {
            trace().map_err(|error| Error::failed(error.to_string()))?;
            Ok(said.packets()? > 0)
        })?;
        assert_eq!(clear.packets()?, 0);
        Ok(())
    });
}

/// A router's LAN that the VPS may reach, and a neighbour of the VPS who sends there by it.
fn allowing(networks: &str, test: impl FnOnce(&Case) -> Outcome) {
    let mut setup = delivering(Some(NAT));
    let allow = format!("allow = [{networks}]");
    setup.options.local.clone_from(&allow);
    setup.options.remote = allow;
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let _portals = case.up()?;
        sh(&lab.remote, "ip route add 192.168.7.0/24 dev nc0")?;
        for network in ["192.168.7.0/24", "172.19.152.3/32"] {
            let line = format!("ip route add {network} via {PUBLIC}");
            sh(&lab.internet, &line)?;
        }
        test(case)
    });
}

/// Field row A1: `allow` opens the LAN to the VPS, not to everybody beside the VPS.
#[test]
fn neighbours_of_the_vps_reach_no_network_that_is_allowed() {
    allowing("\"192.168.7.0/24\"", |case| -> Outcome {
        let lab = &case.lab;
        assert_eq!(pings(&lab.internet, LAN_MACHINE)?, 0);
        assert_eq!(pings(&lab.internet, LOCAL)?, 0);
        // The VPS itself, and answers to home.
        assert_eq!(pings(&lab.remote, LAN_MACHINE)?, 5);
        assert_eq!(pings(&lab.remote, LOCAL)?, 5);
        assert_eq!(pings(&lab.client, SERVER)?, 5);
        // The filter does it.
        sh(&lab.remote, "nft flush chain inet netcombiner-nc0 forward")?;
        assert_eq!(pings(&lab.internet, LAN_MACHINE)?, 5);
        Ok(())
    });
}

/// Field row A1: nor one who forges an address of that network, whatever the VPS's own check of sources does.
#[test]
fn neighbours_of_the_vps_do_not_speak_as_a_machine_at_home() {
    allowing(
        "\"192.168.0.0/16\", \"203.0.113.0/24\"",
        |case| -> Outcome {
            let lab = &case.lab;
            let forger = Forger::start(&lab.internet)?;
            let packets = "oifname nc0 udp sport 5555";
            let sent = Watch::start(&lab.remote, "postrouting", packets)?;
            let say = |from: Ipv4Addr| -> Result<u64, Error> {
                let before = sent.packets()?;
                let allowed = Ipv4Addr::new(203, 0, 113, 77);
                (0..5).for_each(|_| forger.send(&forged(from, LAN_MACHINE)));
                (0..5).for_each(|_| forger.send(&forged(allowed, LAN_MACHINE)));
                eventually("who is allowed is led into the tunnel", || {
                    Ok(sent.packets()? >= before + 5)
                })?;
                std::thread::sleep(300 * MS);
                Ok(sent.packets()? - before - 5)
            };
            let neighbour = Ipv4Addr::new(192, 168, 7, 77);
            eventually("the route is known", || Ok(say(neighbour)? == 0))?;
            assert_eq!(say(neighbour)?, 0);
            // A part of that network that is not at home is somebody else's.
            assert_eq!(say(Ipv4Addr::new(192, 168, 8, 77))?, 5);
            let line = "ip route add 192.168.7.76/30 via 203.0.113.1";
            sh(&lab.remote, line)?;
            eventually("the longer route is known", || Ok(say(neighbour)? == 5))?;
            sh(&lab.remote, &line.replace(" add ", " del "))?;
            eventually("it is gone", || Ok(say(neighbour)? == 0))?;
            Ok(())
        },
    );
}

/// Who is named may.
#[test]
fn a_neighbour_of_the_vps_that_is_allowed_reaches_the_lan() {
    let both = "\"192.168.7.0/24\", \"203.0.113.1/32\"";
    allowing(both, |case| -> Outcome {
        assert_eq!(pings(&case.lab.internet, LAN_MACHINE)?, 5);
        Ok(())
    });
}

/// Field row A1: the addresses inside the tunnel stay inside, whatever a link's DHCP server says of them,
/// and when the daemon is dead.
#[test]
fn addresses_of_the_portals_do_not_leave_by_a_link() {
    for deliver in [None, Some(NAT), Some("deliver = \"none\"")] {
        case(delivering(deliver), |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if deliver == Some(NAT) {
                into_a_lan(lab)?;
            }
            let (_remote, local) = case.up()?;
            let clear = "iifname link* udp dport 9";
            let clear = Watch::start(&lab.internet, "prerouting", clear)?;
            let router = lab.local.run(|| UdpSocket::bind((LOCAL, 0)))??;
            let anybody = lab.local.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
            let say = || -> Outcome {
                for _ in 0..5 {
                    let _ = router.send_to(b"from LOCAL", (SERVER, 9));
                    let _ = anybody.send_to(b"to REMOTE", (REMOTE, 9));
                }
                std::thread::sleep(500 * MS);
                Ok(())
            };
            sh(
                &lab.local,
                "ip route replace 172.19.152.2/32 via 10.10.0.1 dev wan0",
            )?;
            assert_eq!(pings(&lab.local, REMOTE)?, 5, "{deliver:?}");
            assert_eq!(pings(&lab.remote, LOCAL)?, 5, "{deliver:?}");
            say()?;
            assert_eq!(clear.packets()?, 0, "{deliver:?}");
            sh(
                &lab.local,
                "ip route del 172.19.152.2/32 via 10.10.0.1 dev wan0",
            )?;
            local.kill();
            say()?;
            assert_eq!(clear.packets()?, 0, "{deliver:?}");
            // It starts again with all that still there.
            let _local = case.start(Side::Local)?;
            case.wait_for_paths(2)?;
            eventually("they talk again", || Ok(pings(&lab.local, REMOTE)? == 5))
                .map_err(|error| error.to_string().into())
        });
    }
}

/// The router answers who is allowed by the tunnel.
#[test]
fn answers_to_an_allowed_network_go_by_the_tunnel() {
    let mut setup = delivering(None);
    setup.options.local = "allow = [\"10.55.0.0/16\"]".into();
    setup.options.remote = setup.options.local.clone();
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.remote, "ip address add 10.55.0.2/32 dev lo")?;
        let _portals = case.up()?;
        let line = format!("ping -c 3 -i 0.2 -W 5 -I 10.55.0.2 {LOCAL}");
        assert!(sh(&lab.remote, &line)?.contains(" 0% packet loss"));
        Ok(())
    });
}

/// Field row A1: while the administrator has no route for the public address, its packets did not end: they
/// left by the default route, and came back by the tunnel.
#[test]
fn what_the_administrator_does_not_route_goes_nowhere() {
    case(delivering(Some("deliver = \"none\"")), |case| -> Outcome {
        let lab = &case.lab;
        home_router(case)?;
        let _portals = case.up()?;
        let packets = "ip daddr 203.0.113.2 udp dport 9";
        let clear = format!("iifname link* {packets}");
        let clear = Watch::start(&lab.internet, "prerouting", &clear)?;
        let come = Watch::start(&lab.local, "prerouting", packets)?;
        let client = Watch::start(&lab.client, "prerouting", packets)?;
        let socket = lab.server.run(|| UdpSocket::bind((SERVER, 0)))??;
        let reaches = |seen: &Watch<'_>, what: &str| {
            let before = seen.packets()?;
            eventually(what, || {
                let _ = socket.send_to(b"for whom", (PUBLIC, 9));
                std::thread::sleep(50 * MS);
                Ok(seen.packets()? > before)
            })
        };
        for _ in 0..5 {
            reaches(&come, "the router gets it")?;
        }
        assert_eq!(clear.packets()?, 0);
        // Wherever he routes it, and by which table.
        let route = "203.0.113.2/32 dev lan";
        let rule = "pref 30000 to 203.0.113.2 lookup 77";
        sh(&lab.local, &format!("ip route add {route}"))?;
        reaches(&client, "the client gets it")?;
        sh(&lab.local, &format!("ip route del {route}"))?;
        sh(&lab.local, &format!("ip route add {route} table 77"))?;
        sh(&lab.local, &format!("ip rule add {rule}"))?;
        reaches(&client, "the client gets it by another table")?;
        sh(&lab.local, &format!("ip rule del {rule}"))?;
        assert_eq!(clear.packets()?, 0);
        sh(
            &lab.local,
            "ip route add 203.0.113.2/32 via 10.10.0.1 dev wan0",
        )?;
        reaches(&clear, "a link gets it")?;
        Ok(())
    });
}

/// The machine of the LAN asks an FTP server to connect to it (RFC 959 section 4.1.2), and the kernel's
/// helper translates that. Whether the server gets there, after the router did what `before` says.
fn connects_back(
    case: &Case,
    mut control: &TcpStream,
    server: &mut impl BufRead,
    before: &str,
) -> Result<bool, Box<dyn std::error::Error>> {
    let lab = &case.lab;
    let data = lab.client.run(|| TcpListener::bind((LAN_MACHINE, 0)))??;
    let port = data.local_addr()?.port();
    let command = format!("PORT 192,168,7,20,{},{}\r\n", port >> 8, port & 255);
    let command = command.as_str();
    let mut said = String::new();
    for line in ["NOOP\r\n", "NOOP\r\n", command, command, command, command] {
        control.write_all(line.as_bytes())?;
        said.clear();
        server.read_line(&mut said)?;
        // The helper reads no line whose one before is on its way.
        std::thread::sleep(300 * MS);
        if said.starts_with("PORT 203,") {
            break;
        }
    }
    let numbers = said.trim_start_matches("PORT ").trim().split(',');
    let numbers = numbers.map(str::parse).collect::<Result<Vec<u8>, _>>()?;
    let [a, b, c, d, high, low] = numbers[..] else {
        return Err(said.into());
    };
    assert_eq!(Ipv4Addr::new(a, b, c, d), PUBLIC, "the helper is at work");
    let place = SocketAddr::from((PUBLIC, u16::from_be_bytes([high, low])));
    sh(&lab.local, before)?;
    let connect = move || TcpStream::connect_timeout(&place, 2000 * MS);
    Ok(lab.server.run(connect)?.is_ok())
}

/// Field row A2: what a machine of the LAN says, or was made to say, opens no port to the tunnel.
#[test]
fn helpers_of_connection_tracking_open_nothing() {
    case(delivering(Some(NAT)), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        sh(
            &lab.local,
            "nft add table ip helpers { ct helper ftp { type \"ftp\" protocol tcp ; } ; chain pre { \
             type filter hook prerouting priority -150 ; \
             iifname lan tcp dport 21 ct helper set \"ftp\" ; } ; }",
        )?;
        let _portals = case.up()?;
        let listener = lab.server.run(|| TcpListener::bind((SERVER, 21)))??;
        let control = lab.client.run(|| TcpStream::connect((SERVER, 21)))??;
        let mut server = BufReader::new(listener.accept()?.0);
        assert!(!connects_back(case, &control, &mut server, "true")?);
        // The filter does it.
        let open = "nft flush chain inet netcombiner-nc0 forward";
        assert!(connects_back(case, &control, &mut server, open)?);
        Ok(())
    });
}
