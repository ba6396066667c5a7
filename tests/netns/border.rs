//! The tunnel's border as the packet filter and the routes hold it: what is closed, what stays inside,
//! and whose a packet is when a daemon comes or goes.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;

use super::crossing::{home_router, pings};
use super::lans::checked;
use super::modes::into_a_lan;
use super::support::case::PATIENCE;
use super::support::kernel::sh;
use super::support::{
    Answers, Case, LOCAL, Outcome, REMOTE, Setup, Talk, Watch, case, eventually, is_open,
};

const MS: Duration = Duration::from_millis(1);

/// Field row A2: the router's own services are closed to the tunnel except for those that are named,
/// at the public address and at the one inside the tunnel.
#[test]
fn the_router_is_closed_except_for_what_is_kept() {
    case(Setup::nat("keep = [\"tcp:8081\"]"), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let _portals = case.up()?;
        let any = Ipv4Addr::UNSPECIFIED;
        let _page = Answers::start(&lab.local, any, 80)?;
        let _kept = Answers::start(&lab.local, any, 8081)?;
        assert!(is_open(&lab.server, PUBLIC, 8081));
        assert!(is_open(&lab.remote, LOCAL, 8081));
        assert!(!is_open(&lab.server, PUBLIC, 80));
        assert!(!is_open(&lab.remote, LOCAL, 80));
        // The LAN has it as before, pings are answered, and so is what the router asks itself.
        assert!(is_open(&lab.client, Ipv4Addr::new(192, 168, 7, 1), 80));
        assert_eq!(pings(&lab.server, PUBLIC)?, 5);
        assert_eq!(pings(&lab.local, REMOTE)?, 5);
        Ok(())
    });
}

/// Field row A2: in the other two modes only the tunnel's own address is the router's.
#[test]
fn the_router_is_closed_in_client_mode_too() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let _page = Answers::start(&case.lab.local, Ipv4Addr::UNSPECIFIED, 80)?;
        assert!(!is_open(&case.lab.remote, LOCAL, 80));
        assert_eq!(pings(&case.lab.remote, LOCAL)?, 5);
        Ok(())
    });
}

/// The client sends by an address that is not its own. Gives how many such packets the links saw.
fn forge(case: &Case, source: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let lab = &case.lab;
    let packets = "iifname link* udp dport 9";
    let seen = Watch::start(&lab.internet, "prerouting", packets)?;
    let come = Watch::start(&lab.local, "prerouting", "iifname lan udp dport 9")?;
    sh(&lab.client, &format!("ip address add {source}/32 dev eth0"))?;
    let forger = lab.client.run(|| UdpSocket::bind((source, 0)))??;
    for _ in 0..5 {
        let _ = forger.send_to(b"not mine", (SERVER, 9));
    }
    assert_eq!(pings(&lab.client, SERVER)?, 5);
    assert_eq!(come.packets()?, 5, "the router gets them");
    Ok(seen.packets()?)
}

/// Field row A1: what the client sends by somebody else's address does not leave in clear either.
#[test]
fn forged_packets_of_the_client_do_not_leave_by_a_link() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        assert_eq!(forge(case, "9.9.9.9")?, 0);
        Ok(())
    });
}

/// Field row A1: and so on a router that forwarded before.
#[test]
fn forged_packets_of_the_client_do_not_leave_a_router() {
    case(Setup::default(), |case| -> Outcome {
        home_router(case)?;
        let _portals = case.up()?;
        assert_eq!(forge(case, "9.9.9.9")?, 0);
        Ok(())
    });
}

/// Field row A1: switching forwarding on makes nobody else's subnet routed.
#[test]
fn nobody_elses_subnet_is_routed() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.local, "ip address add 192.168.1.1/24 dev lan")?;
        sh(&lab.client, "ip address add 192.168.1.50/24 dev eth0")?;
        let (_remote, local) = case.up()?;
        let packets = "iifname link* udp dport 9";
        let seen = Watch::start(&lab.internet, "prerouting", packets)?;
        let neighbour = lab.client.run(|| UdpSocket::bind(("192.168.1.50", 0)))??;
        let say = || {
            for _ in 0..5 {
                let _ = neighbour.send_to(b"not routed before", (SERVER, 9));
            }
            std::thread::sleep(500 * MS);
        };
        say();
        assert_eq!(seen.packets()?, 0);
        // The filter does it, and the counter would tell.
        local.kill();
        sh(&lab.local, "nft delete table inet netcombiner-nc0")?;
        say();
        assert_ne!(seen.packets()?, 0);
        Ok(())
    });
}

/// Field row A1: nor anybody's machine that has a device of its own, whatever that is called.
#[test]
fn nobody_elses_machine_is_routed() {
    case(Setup::default(), |case| -> Outcome {
        let remote = &case.lab.remote;
        let _portals = case.up()?;
        let packets = "iifname remote udp dport 9";
        let seen = Watch::start(&case.lab.internet, "prerouting", packets)?;
        for device in ["veth9", "vnet9", "vethc0ffee"] {
            let machine = Namespace::new(device)?;
            let end = |namespace, device| VethEnd { namespace, device };
            Netlink::add_veth(end(remote, device), end(&machine, "eth0"))?;
            sh(remote, &format!("ip address add 10.9.0.1/24 dev {device}"))?;
            sh(remote, &format!("ip link set {device} up"))?;
            sh(&machine, "ip address add 10.9.0.2/24 dev eth0")?;
            sh(&machine, "ip link set eth0 up")?;
            sh(&machine, "ip route add default via 10.9.0.1")?;
            let socket = machine.run(|| UdpSocket::bind(("10.9.0.2", 0)))??;
            assert_eq!(pings(&machine, Ipv4Addr::new(10, 9, 0, 1))?, 5);
            eventually(&format!("{device} is not routed"), || {
                let before = seen.packets()?;
                for _ in 0..5 {
                    let _ = socket.send_to(b"not routed before", (SERVER, 9));
                }
                std::thread::sleep(500 * MS);
                Ok(seen.packets()? == before)
            })?;
            let before = seen.packets()?;
            // The filter does it, and the counter would tell.
            let line =
                format!("nft insert rule inet netcombiner-nc0 forward iifname {device} accept");
            sh(remote, &line)?;
            eventually("it is routed", || {
                let _ = socket.send_to(b"routed", (SERVER, 9));
                Ok(seen.packets()? != before)
            })?;
            sh(remote, &format!("ip link delete {device}"))?;
        }
        Ok(())
    });
}

/// Field row B9: unless somebody else's rules forward, who may have come after us.
#[test]
fn somebody_elses_subnet_is_routed_where_he_has_rules_for_it() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.local, "ip address add 192.168.1.1/24 dev lan")?;
        sh(&lab.client, "ip address add 192.168.1.50/24 dev eth0")?;
        let (_remote, _local) = case.up()?;
        let packets = "iifname link* udp dport 9";
        let seen = Watch::start(&lab.internet, "prerouting", packets)?;
        let neighbour = lab.client.run(|| UdpSocket::bind(("192.168.1.50", 0)))??;
        for _ in 0..5 {
            let _ = neighbour.send_to(b"not routed", (SERVER, 9));
        }
        std::thread::sleep(500 * MS);
        assert_eq!(seen.packets()?, 0);
        sh(
            &lab.local,
            "nft add table ip docker { chain post { \
             type nat hook postrouting priority 100 ; ip saddr 192.168.1.0/24 masquerade ; } ; }",
        )?;
        eventually("the subnet is routed", || {
            let _ = neighbour.send_to(b"routed", (SERVER, 9));
            Ok(seen.packets()? > 0)
        })?;
        // And no longer when he is gone.
        sh(&lab.local, "nft delete table ip docker")?;
        eventually("the subnet is closed", || {
            let before = seen.packets()?;
            for _ in 0..5 {
                let _ = neighbour.send_to(b"not routed", (SERVER, 9));
            }
            std::thread::sleep(500 * MS);
            Ok(seen.packets()? == before)
        })?;
        Ok(())
    });
}

/// Field row D2: what the router itself sends, like its resolver, uses the tunnel while it is up, and
/// goes on without it.
#[test]
fn the_router_itself_uses_the_tunnel() {
    case(Setup::nat(""), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let (_remote, local) = case.up()?;
        let seen = |source: Ipv4Addr| -> Result<bool, Error> {
            let mut talk = Talk::open(&lab.local, service.address())?;
            Ok(talk.ask()? == format!("server to {source}"))
        };
        eventually("the router's own traffic uses the tunnel", || seen(PUBLIC))?;
        let bound = lab
            .local
            .run(|| UdpSocket::bind((Lab::wan_address(0), 0)))??;
        let packets = "iifname link0 udp dport 9";
        let outside = Watch::start(&lab.internet, "prerouting", packets)?;
        bound.send_to(b"by the link", (SERVER, 9))?;
        eventually("what chose a link leaves by it", || {
            Ok(outside.packets()? == 1)
        })?;
        local.kill();
        eventually("without the tunnel it leaves by a link", || {
            seen(Lab::wan_address(0))
        })?;
        Ok(())
    });
}

/// Whether the client hears something from the server's port within the patience of a test, while the
/// server sends all the time.
fn hears(client: &UdpSocket, port: u16) -> Result<(), Error> {
    let mut buffer = [0; 100];
    eventually(&format!("the client hears port {port}"), || {
        let _ = client.set_read_timeout(Some(200 * MS));
        let heard = client.recv_from(&mut buffer);
        Ok(heard.is_ok_and(|(_, from)| from.port() == port))
    })
}

/// A link's DHCP server names routes for the server (RFC 3442), and for a machine of the LAN: neither what
/// goes into the tunnel nor what comes out of it leaves by that link.
#[test]
fn routes_of_a_link_take_nothing_out_of_the_tunnel() {
    case(Setup::nat(""), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        home_router(case)?;
        let _portals = case.up()?;
        let packets = "iifname link* meta l4proto icmp";
        let clear = Watch::start(&lab.internet, "prerouting", packets)?;
        let lie = |to: &str| {
            let gateway = Lab::wan_gateway(0);
            let line = format!("ip route add {to} via {gateway} dev wan0");
            sh(&lab.local, &line)
        };
        lie(&format!("{SERVER}/32"))?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert_eq!(case.pings(&lab.local, SERVER)?, 20);
        assert_eq!(clear.packets()?, 0);
        // What the link's own network offers is there as before.
        assert_eq!(case.pings(&lab.local, Lab::wan_gateway(0))?, 20);
        assert_eq!(clear.packets()?, 20);
        // Who wants the route types the line that `check` gives.
        let said = checked(case, Side::Local)?;
        let line = said.split('`').find(|it| it.starts_with("ip -4 rule add"));
        let line = line.ok_or(said.as_str())?;
        assert!(line.contains("to 198.51.100.2/32 lookup main"), "{line}");
        sh(&lab.local, line)?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        let before = clear.packets()?;
        assert_eq!(before, 40);
        sh(&lab.local, &line.replace(" add ", " del "))?;
        lie("192.168.7.20/32")?;
        case.pings(&lab.client, SERVER)?;
        assert_eq!(clear.packets()?, before);
        Ok(())
    });
}

/// Field row B5: what goes to the public address while the remote portal starts, or is dead, is the
/// client's when it is up.
#[test]
fn a_stream_that_began_without_the_daemon_reaches_the_client() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let client = lab.client.run(|| UdpSocket::bind((PUBLIC, 6000)))??;
        let streams =
            [5555, 5556].map(|port| lab.server.run(move || UdpSocket::bind((SERVER, port))));
        let [first, second] = streams;
        let (first, second) = (first??, second??);
        let (stop, both) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| -> Outcome {
            let stream = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = first.send_to(b"one way", (PUBLIC, 6000));
                    if both.load(Ordering::Relaxed) {
                        let _ = second.send_to(b"began late", (PUBLIC, 6000));
                    }
                    std::thread::sleep(5 * MS);
                }
            });
            let outcome = (|| -> Outcome {
                std::thread::sleep(200 * MS);
                let (remote, _local) = case.up()?;
                hears(&client, 5555)?;
                remote.kill();
                both.store(true, Ordering::Relaxed);
                std::thread::sleep(1000 * MS);
                let _remote = case.start(Side::Remote)?;
                case.wait_for_paths(2)?;
                hears(&client, 5555)?;
                hears(&client, 5556).map_err(|error| error.to_string())?;
                Ok(())
            })();
            stop.store(true, Ordering::Relaxed);
            let _ = stream.join();
            outcome
        })
    });
}

/// Field row B5: the host's own exchange outlives that its tracking is lost, although the other end is
/// the first to speak afterwards; and a program of the host's does not take over the client's.
#[test]
fn exchanges_outlive_that_their_tracking_is_lost() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let own = lab.remote.run(|| UdpSocket::bind((PUBLIC, 5000)))??;
        let far = lab.server.run(|| UdpSocket::bind((SERVER, 5555)))??;
        let client = lab.client.run(|| UdpSocket::bind((PUBLIC, 6000)))??;
        let echo = UdpEcho::start(&lab.server, SERVER, 8)?;
        let ask = |socket: &UdpSocket| -> Result<bool, Error> {
            let _ = socket.set_read_timeout(Some(PATIENCE));
            let mut buffer = [0; 16];
            let said = socket.send_to(b"hello", echo.address());
            Ok(said.is_ok() && socket.recv_from(&mut buffer).is_ok())
        };
        // So long that both ends are known to speak (nf_conntrack's UDP streams: two seconds).
        for _ in 0..25 {
            assert!(ask(&client)?);
            std::thread::sleep(100 * MS);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Outcome {
            let stream = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = far.send_to(b"stream", (PUBLIC, 5000));
                    std::thread::sleep(2 * MS);
                }
            });
            let outcome = (|| -> Outcome {
                for round in 0..5 {
                    sh(&lab.remote, "conntrack -F")?;
                    // Some of the other end's come first, and go to the client.
                    std::thread::sleep(50 * MS);
                    own.set_nonblocking(true)?;
                    let mut buffer = [0; 16];
                    while own.recv_from(&mut buffer).is_ok() {}
                    own.set_nonblocking(false)?;
                    own.set_read_timeout(Some(200 * MS))?;
                    eventually(&format!("the host hears, round {round}"), || {
                        let _ = own.send_to(b"hello", (SERVER, 5555));
                        Ok(own.recv_from(&mut buffer).is_ok())
                    })?;
                }
                Ok(())
            })();
            stop.store(true, Ordering::Relaxed);
            let _ = stream.join();
            outcome
        })?;
        for _ in 0..25 {
            assert!(ask(&client)?);
            std::thread::sleep(100 * MS);
        }
        // The same port and the same other end, by a program of the host's.
        let thief = lab.remote.run(|| UdpSocket::bind((PUBLIC, 6000)))??;
        for _ in 0..5 {
            let _ = thief.send_to(b"mine", echo.address());
        }
        std::thread::sleep(200 * MS);
        let heard = (0..10)
            .map(|_| ask(&client))
            .collect::<Result<Vec<_>, _>>()?;
        assert!(heard.iter().all(|it| *it), "{heard:?}");
        Ok(())
    });
}
