//! Where the tunnel's border was open: what may come out of the tunnel to a host, by which device it may
//! leave there, and what comes around the tunnel.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use netcombiner_lab::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::crossing::{home_router, pings};
use super::documented::rows;
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::talk::answered_over_a_smaller_link;
use super::support::{
    Answers, Case, LOCAL, Outcome, REMOTE, Setup, Talk, Watch, case, eventually, is_open,
};

const MS: Duration = Duration::from_millis(1);

/// The process that runs with this configuration.
fn process_of(config: &Path) -> Option<i32> {
    let runs = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command
            .split(|byte| *byte == 0)
            .any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    let names = std::fs::read_dir("/proc").ok()?;
    names
        .filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
        .find(runs)
}

/// Whether a process, or another one of its network namespace, has a UDP socket at port 4725.
fn listens(pid: &i32) -> bool {
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/udp"));
    sockets.is_ok_and(|it| it.contains(":1275 "))
}

/// Starts the remote portal, and stops its process as soon as its socket is there, until the other portal
/// has spoken to it.
fn start_slowly(case: &Case) -> Result<Portal, Error> {
    let config = case.portals.config(Side::Remote);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| case.start(Side::Remote));
        let (mut process, mut stopped) = (None, None);
        while stopped.is_none() && !start.is_finished() {
            process = process.or_else(|| process_of(&config));
            stopped = process.filter(listens).map(Pid::from_raw);
        }
        if let Some(pid) = stopped {
            kill(pid, Signal::SIGSTOP).map_err(|it| Error::failed(it.to_string()))?;
            std::thread::sleep(2500 * MS);
            kill(pid, Signal::SIGCONT).map_err(|it| Error::failed(it.to_string()))?;
        }
        let started = start.join();
        let portal = started.map_err(|_| Error::failed("the start panicked"))??;
        match stopped {
            Some(_) => Ok(portal),
            None => Err(Error::failed("the start was over before it was stopped")),
        }
    })
}

/// Field row A1: packets came out of the tunnel of a remote portal that was not set up yet.
#[test]
fn nothing_comes_out_of_the_tunnel_before_the_filter_stands() {
    let setup = Setup {
        links: vec![LinkSpec::symmetric(20.0, 1)],
        ..Setup::default()
    };
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        // The rule for the public address comes after the filter: without it the source's way is none
        // into the tunnel.
        let packets = "iifname nc0 fib saddr oifname != nc0";
        let early = Watch::start(&lab.remote, "prerouting", packets)?;
        let (mut remote, _local) = case.up()?;
        for _ in 0..3 {
            remote.stop()?;
            let pings = Probe::ping(&lab.client, SERVER, 2 * MS, 3000)?;
            remote = start_slowly(case)?;
            case.wait_for_paths(1)?;
            assert!(pings.finish().answered > 0);
        }
        assert_eq!(early.packets()?, 0);
        Ok(())
    });
}

/// The remote portal's host sends to the server by the home's own lines, which `allow` does not mean.
fn back_out(mut setup: Setup, prepare: impl FnOnce(&Case) -> Result<(), Error>) {
    let allow = "allow = [\"198.51.100.0/24\"]";
    setup.options.local = allow.into();
    setup.options.remote = allow.into();
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        home_router(case)?;
        prepare(case)?;
        let _portals = case.up()?;
        let packets = format!("iifname link* ip daddr {SERVER} icmp type echo-request");
        let seen = Watch::start(&lab.internet, "prerouting", &packets)?;
        sh(&lab.remote, "ip route add 198.51.100.0/24 dev nc0")?;
        assert_eq!(pings(&lab.remote, SERVER)?, 0);
        assert_eq!(seen.packets()?, 0);
        Ok(())
    });
}

/// Field row A1: what is allowed to cross is not allowed out by a link again.
#[test]
fn what_is_allowed_does_not_leave_by_a_link() {
    back_out(Setup::default(), |_| Ok(()));
    back_out(Setup::nat(""), |case| into_a_lan(&case.lab));
    back_out(Setup::delivering("deliver = \"none\""), |_| Ok(()));
}

/// Field row A1: the VPS's own services answered home on every port, also those that its firewall opens
/// by device alone.
#[test]
fn the_vps_is_closed_to_home_except_for_what_is_kept() {
    let mut setup = Setup::default();
    setup.options.local = "allow = [\"10.55.0.0/16\"]".into();
    setup.options.remote = "allow = [\"10.55.0.0/16\"]".into();
    setup.options.keep = vec!["tcp:22".into()];
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.remote, "ip address add 203.0.113.77/24 dev eth0")?;
        sh(&lab.remote, "ip address add 10.55.0.2/32 dev lo")?;
        let _portals = case.up()?;
        let any = Ipv4Addr::UNSPECIFIED;
        let _ssh = Answers::start(&lab.remote, any, 22)?;
        let _database = Answers::start(&lab.remote, any, 5432)?;
        let second = Ipv4Addr::new(203, 0, 113, 77);
        let private = Ipv4Addr::new(10, 55, 0, 2);
        for row in rows(["address of the VPS", "port", "answered by"]) {
            let to = match row[0] {
                "REMOTE" => REMOTE,
                "any other" => second,
                "within allow" => private,
                other => panic!("no such address: {other}"),
            };
            let port = if row[1] == "keep" { 22 } else { 5432 };
            let answers = row[2] == "remote";
            assert_eq!(is_open(&lab.client, to, port), answers, "{row:?}");
        }
        assert!(!is_open(&lab.local, REMOTE, 5432));
        assert_eq!(pings(&lab.client, REMOTE)?, 5);
        let chain = sh(&lab.remote, "nft list chain inet netcombiner-nc0 input")?;
        let drop = chain.lines().find(|line| line.contains("counter"));
        assert!(drop.is_some_and(|it| !it.contains("packets 0 ")), "{chain}");
        // The Internet has its own way there, and the host its answers from home.
        assert!(is_open(&lab.server, second, 5432));
        let page = Answers::start(&lab.client, PUBLIC, 80)?;
        let mut talk = Talk::open(&lab.remote, page.address())?;
        assert_eq!(talk.ask()?, format!("client to {REMOTE}"));
        // The counters do not make the table another one, which would be put again.
        let handle = |text: String| text.lines().next().map(str::to_owned);
        let list = || sh(&lab.remote, "nft -a list tables").map(handle);
        let before = list()?;
        std::thread::sleep(2000 * MS);
        assert_eq!(list()?, before);
        Ok(())
    });
}

/// The provider's side sends to the public address by a link, around the tunnel.
fn around(prepare: impl FnOnce(&Case) -> Result<(), Error>) {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        prepare(case)?;
        let _portals = case.up()?;
        for line in [
            "ip route add 203.0.113.2/32 via 10.10.0.2 dev link0 table 77",
            "ip rule add pref 5 iif server to 203.0.113.2 lookup 77",
        ] {
            sh(&lab.internet, line)?;
        }
        let packets = format!("ip saddr {SERVER} icmp type echo-request");
        let come = Watch::start(&lab.local, "prerouting", &format!("iifname wan0 {packets}"))?;
        let seen = Watch::start(&lab.client, "prerouting", &packets)?;
        assert_eq!(pings(&lab.server, PUBLIC)?, 0);
        assert_eq!(come.packets()?, 5);
        assert_eq!(seen.packets()?, 0);
        Ok(())
    });
}

/// Field row A1: what comes for the client by a link does not reach it.
#[test]
fn nothing_comes_to_the_client_around_the_tunnel() {
    around(|_| Ok(()));
    around(home_router);
}

/// Field row A2: what a router says of the answers of a kept port reached nobody.
#[test]
fn what_is_too_big_for_the_way_is_told_to_a_kept_port() {
    case(Setup::nat("keep = [\"tcp:8081\"]"), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let _portals = case.up()?;
        let service = Answers::start(&lab.local, PUBLIC, 8081)?;
        let stream = lab.server.run(|| TcpStream::connect(service.address()))??;
        answered_over_a_smaller_link(lab, &stream)
    });
}

/// Field row A1: a link leases the public address itself: nothing works then, and nobody said why.
#[test]
fn a_link_that_leases_the_public_address_is_named() {
    case(Setup::default(), |case| -> Outcome {
        let (_remote, local) = case.up()?;
        assert!(!local.log().contains("holds 203.0.113.2"));
        sh(&case.lab.local, "ip address add 203.0.113.2/24 dev wan1")?;
        eventually("the link is named", || {
            Ok(local
                .log()
                .contains("wan1 of this router holds 203.0.113.2"))
        })?;
        sh(&case.lab.local, "ip address del 203.0.113.2/24 dev wan1")?;
        case.wait_for_paths(2)?;
        Ok(())
    });
}

/// A port that another program publishes (Docker) is not published to the tunnel, and what `forwards`
/// hands on goes where that says.
#[test]
fn what_others_publish_is_not_published_to_the_tunnel() {
    let forwards = "forwards = [\"tcp:443 -> 192.168.7.20:8443\"]";
    case(Setup::nat(forwards), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        for line in [
            "nft add table ip docker",
            "nft add chain ip docker pre { type nat hook prerouting priority -100 ; }",
            "nft add rule ip docker pre tcp dport 8080 dnat to 192.168.7.20:8443",
            "nft add rule ip docker pre tcp dport 443 dnat to 192.168.7.20:9999",
        ] {
            sh(&lab.local, line)?;
        }
        let _machine = Answers::start(&lab.client, LAN_MACHINE, 8443)?;
        let _portals = case.up()?;
        assert!(is_open(&lab.server, PUBLIC, 443));
        assert!(!is_open(&lab.server, PUBLIC, 8080));
        Ok(())
    });
}

/// Nor is a port that another program publishes on the VPS taken from the client; those that the VPS keeps
/// are the other program's to lead on.
#[test]
fn what_others_publish_on_the_vps_is_not_taken_from_the_client() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let container = Ipv4Addr::new(10, 9, 0, 1);
        for line in [
            "ip address add 10.9.0.1/32 dev lo",
            "nft add table ip docker",
            "nft add chain ip docker pre { type nat hook prerouting priority -100 ; }",
            "nft add rule ip docker pre fib daddr type local meta l4proto { tcp, udp } \
             th dport { 22, 9090 } dnat to 10.9.0.1:80",
        ] {
            sh(&lab.remote, line)?;
        }
        let _published = Answers::start(&lab.remote, container, 80)?;
        let ask = |port| -> Result<String, Error> {
            Talk::open(&lab.server, SocketAddr::new(PUBLIC.into(), port))?.ask()
        };
        assert!(ask(9090)?.starts_with("remote to"));
        let _service = Answers::start(&lab.client, PUBLIC, 9090)?;
        let _portals = case.up()?;
        assert!(ask(9090)?.starts_with("client to"));
        assert!(ask(22)?.starts_with("remote to"));
        let game = lab.client.run(|| UdpSocket::bind((PUBLIC, 9090)))??;
        game.set_read_timeout(Some(10_000 * MS))?;
        let player = lab.server.run(|| UdpSocket::bind((SERVER, 0)))??;
        player.send_to(b"hello", (PUBLIC, 9090))?;
        assert_eq!(game.recv(&mut [0; 16])?, 5);
        Ok(())
    });
}

/// Field row A1: nobody on the other side speaks as a machine of the LAN.
#[test]
fn no_neighbour_comes_out_of_the_tunnel() {
    case(Setup::nat(""), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let line = "ip route add 10.20.0.0/16 via 192.168.7.20 dev lan";
        sh(&lab.local, line)?;
        let _portals = case.up()?;
        // Before our own chain.
        let come = Watch::start(&lab.local, "input", "iifname nc0 udp dport 9")?;
        let say = |source: &str| -> Result<u64, Box<dyn std::error::Error>> {
            let before = come.packets()?;
            sh(&lab.remote, &format!("ip address add {source}/32 dev lo"))?;
            let forger = lab.remote.run(|| UdpSocket::bind((source, 0)))??;
            for _ in 0..5 {
                forger.send_to(b"from next door", (PUBLIC, 9))?;
            }
            assert_eq!(pings(&lab.remote, LOCAL)?, 5);
            Ok(come.packets()? - before)
        };
        // Joined, maybe.
        assert_ne!(say("10.55.0.9")?, 0);
        assert_eq!(say("192.168.7.50")?, 0);
        // Nor of a network behind another router of the LAN.
        assert_eq!(say("10.20.0.5")?, 0);
        Ok(())
    });
}

/// Field row B4: with the daemon killed and its rules gone, the filter alone keeps the public address off
/// the links: what the router sends by it, and answers of the LAN on what came by the tunnel.
#[test]
fn the_public_address_does_not_leave_by_a_link() {
    for without in ["block", "direct"] {
        let lines = format!(
            "forwards = [\"tcp:443 -> 192.168.7.20:8443\"]\nwithout_tunnel = \"{without}\""
        );
        case(Setup::nat(&lines), |case| -> Outcome {
            let lab = &case.lab;
            into_a_lan(lab)?;
            let listener = lab
                .client
                .run(|| TcpListener::bind((LAN_MACHINE, 8443)))??;
            let (_remote, local) = case.up()?;
            let _visitor = lab.server.run(|| TcpStream::connect((PUBLIC, 443)))??;
            let (mut answer, _) = listener.accept()?;
            let packets = format!("iifname link* ip saddr {{ {PUBLIC}, {LAN_MACHINE} }}");
            let seen = Watch::start(&lab.internet, "prerouting", &packets)?;
            local.kill();
            while sh(&lab.local, "ip rule del pref 20").is_ok() {}
            sh(&lab.local, &format!("ip address add {PUBLIC}/32 dev lo"))?;
            let own = lab.local.run(|| UdpSocket::bind((PUBLIC, 0)))??;
            let mut say = || -> Outcome {
                answer.write_all(b"into the gap")?;
                for _ in 0..5 {
                    let _ = own.send_to(b"by a link", (SERVER, 9));
                }
                std::thread::sleep(1500 * MS);
                Ok(())
            };
            say()?;
            assert_eq!(seen.packets()?, 0);
            // The filter does it, and the counter would tell.
            sh(&lab.local, "nft delete table inet netcombiner-nc0")?;
            say()?;
            assert_ne!(seen.packets()?, 0);
            Ok(())
        });
    }
}
