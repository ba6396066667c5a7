//! Kept ports that the client's system gives to its own sockets too, and whose source address
//! leaves the remote portal.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use netcombiner_lab::prelude::*;
use socket2::{Domain, Protocol, Socket, Type};

use super::support::kernel::sh;
use super::support::{Answers, Outcome, Setup, Talk, case};

const SECOND: Duration = Duration::from_secs(1);

/// The client's own flows from the range work, and all else to the range is the host's.
fn keeping(ports: &[&str]) -> Setup {
    let mut setup = Setup::default();
    setup.options.keep = ports.iter().map(|port| (*port).to_owned()).collect();
    setup
}

/// Says something by UDP and waits for the echo.
fn udp_from(host: &Namespace, port: u16, to: SocketAddr) -> Result<bool, Error> {
    host.run(|| {
        let Ok(socket) = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, port)) else {
            return false;
        };
        let _ = socket.set_read_timeout(Some(SECOND));
        (0..5).any(|_| {
            let mut buffer = [0; 16];
            socket.send_to(b"hello", to).is_ok() && socket.recv_from(&mut buffer).is_ok()
        })
    })
}

/// Connects from a port.
fn tcp_from(host: &Namespace, port: u16, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let open = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        Ok(socket.into())
    };
    host.run(open).map_err(io::Error::other)?
}

/// Field row D1: no socket of the client's that got a port of the range was ever answered.
#[test]
fn what_the_client_begins_from_a_kept_port_is_answered_to_it() {
    let keep = ["tcp:22", "udp:60000-61000", "tcp:60000-61000"];
    case(keeping(&keep), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let dns = UdpEcho::start(&lab.server, SERVER, 53)?;
        let web = Answers::start(&lab.server, SERVER, 80)?;
        for port in [60_000, 60_123, 61_000] {
            assert!(
                udp_from(&lab.client, port, dns.address())?,
                "UDP from {port}"
            );
            tcp_from(&lab.client, port, web.address(), 10 * SECOND)?;
        }
        // What others begin is the host's, at the very same port.
        let mosh = UdpEcho::start(&lab.remote, PUBLIC, 60_123)?;
        assert!(udp_from(&lab.server, 5000, mosh.address())?);
        let service = Answers::start(&lab.remote, PUBLIC, 60_123)?;
        let mut talk = Talk::open(&lab.server, service.address())?;
        assert_eq!(talk.ask()?, format!("remote to {SERVER}"));
        Ok(())
    });
}

/// Field row D1: the client cannot take new connections to kept ports, whatever it sends.
#[test]
fn the_client_takes_no_connection_of_the_hosts() {
    case(keeping(&["tcp:22", "tcp:60000-61000"]), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let services = [22, 60_300].map(|port| Answers::start(&lab.remote, PUBLIC, port).unwrap());
        // The client's attempts stay unanswered, so that their state is the one that waits.
        sh(&lab.server, "nft add table ip deaf")?;
        sh(
            &lab.server,
            "nft add chain ip deaf in { type filter hook input priority 0 ; }",
        )?;
        sh(
            &lab.server,
            "nft add rule ip deaf in tcp dport { 7001, 7002 } tcp flags & (syn | ack) == syn drop",
        )?;
        for (service, from) in services.iter().zip([7001, 7002]) {
            let port = service.address().port();
            let there = SocketAddr::from((SERVER, from));
            let attempt = tcp_from(&lab.client, port, there, SECOND);
            assert!(attempt.is_err(), "{attempt:?}");
            let stream = tcp_from(&lab.server, from, service.address(), 10 * SECOND)
                .map_err(|error| format!("{from} to {port}: {error}"))?;
            drop(stream);
        }
        Ok(())
    });
}

/// Field row D9: another rule of the host translated what the client sent.
#[test]
fn the_public_address_leaves_as_itself() {
    let rules: [&[&str]; 2] = [
        &[
            "nft add table ip others",
            "nft add chain ip others post { type nat hook postrouting priority 100 ; }",
            "nft add rule ip others post oifname eth0 snat to 203.0.113.77",
        ],
        &["iptables-legacy -t nat -A POSTROUTING -o eth0 -j SNAT --to-source 203.0.113.77"],
    ];
    for commands in rules {
        case(Setup::default(), |case| -> Outcome {
            let lab = &case.lab;
            sh(&lab.remote, "ip address add 203.0.113.77/24 dev eth0")?;
            for command in commands {
                if let Err(error) = sh(&lab.remote, command) {
                    assert!(command.starts_with("iptables"), "{error}");
                    eprintln!("skipped: {error}");
                    return Ok(());
                }
            }
            let _portals = case.up()?;
            let web = Answers::start(&lab.server, SERVER, 80)?;
            let mut talk = Talk::open(&lab.client, web.address())?;
            assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));
            // The host's own rules stay the host's own affair.
            let mut talk = Talk::open(&lab.remote, web.address())?;
            assert_eq!(talk.ask()?, "server to 203.0.113.77");
            Ok(())
        });
    }
}
