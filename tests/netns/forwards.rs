//! What a local portal that shares the address hands on, seen from outside, from the LAN and from
//! the router itself.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::lan::{BRIDGE, bridged, client_into};
use super::support::{Answers, Case, Outcome, Setup, Talk, case};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 30);

fn nat(device: &str, forwards: &str) -> Setup {
    let mut setup = Setup::default();
    setup.options.deliver = Some(format!(
        "deliver = \"nat\"\nlan = {{ device = \"{device}\" }}\nforwards = [{forwards}]"
    ));
    setup
}

/// The machine is the router's only one.
fn alone(case: &Case) -> Result<(), Error> {
    let mut router = case.lab.local.netlink()?;
    router.add_address("lan", ROUTER.into(), 24)?;
    client_into(&case.lab, ROUTER, MACHINE)
}

fn asked(from: &Namespace, port: u16) -> Result<String, Error> {
    Talk::open(from, (PUBLIC, port).into())?.ask()
}

/// What a UDP echo at the public address says back; nothing when it does not.
fn echoed(from: &Namespace, port: u16) -> Result<Option<SocketAddr>, Error> {
    let patience = Duration::from_secs(1);
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.set_read_timeout(Some(patience)).ok()?;
        // A datagram may be lost.
        (0..5).find_map(|_| {
            socket.send_to(b"hello", (PUBLIC, port)).ok()?;
            let mut buffer = [0; 16];
            Some(socket.recv_from(&mut buffer).ok()?.1)
        })
    })
}

/// Field row D5: 300 forwards stopped the daemon (`No buffer space available`).
#[test]
fn three_thousand_forwards_work() {
    let mut forwards = String::new();
    for port in 10_000..13_000 {
        // Every second one gets another number.
        let moved = port - port % 2;
        write!(forwards, "\"tcp:{port} -> {MACHINE}:{moved}\",").unwrap();
    }
    case(nat("lan", &forwards), |case| -> Outcome {
        alone(case)?;
        let before = host_state(&case.lab.local)?;
        let (_remote, local) = case.up()?;
        let _services = [10_000, 11_000, 12_998]
            .map(|port| Answers::start(&case.lab.client, MACHINE, port).unwrap());
        for port in [10_000, 10_001, 11_000, 11_001, 12_998, 12_999] {
            assert_eq!(
                asked(&case.lab.server, port)?,
                format!("client to {SERVER}")
            );
        }
        local.stop()?;
        assert_eq!(before.differences(&host_state(&case.lab.local)?), [""; 0]);
        Ok(())
    });
}

/// Field row D5: ranges, lists of protocols, and everything else to one machine.
#[test]
fn ranges_lists_and_the_rest() {
    let forwards = format!(
        "\"tcp,udp:8000-8100 -> {MACHINE}\", \"tcp:8101-8110 -> {MACHINE}:9001-9010\", \
         \"default -> {NEIGHBOUR}\""
    );
    case(nat(BRIDGE, &forwards), |case| -> Outcome {
        let lab = &case.lab;
        let neighbour = bridged(lab, ROUTER, NEIGHBOUR)?;
        client_into(lab, ROUTER, MACHINE)?;
        let _portals = case.up()?;
        let _services = [8000, 8100, 9001, 9010]
            .map(|port| Answers::start(&lab.client, MACHINE, port).unwrap());
        let _rest =
            [7999, 8111, 65535].map(|port| Answers::start(&neighbour, NEIGHBOUR, port).unwrap());
        let _udp = UdpEcho::start(&lab.client, MACHINE, 8050)?;
        let _udp_rest = UdpEcho::start(&neighbour, NEIGHBOUR, 53)?;
        for port in [8000, 8100, 8101, 8110] {
            assert_eq!(asked(&lab.server, port)?, format!("client to {SERVER}"));
        }
        for port in [7999, 8111, 65535] {
            assert_eq!(asked(&lab.server, port)?, format!("neighbour to {SERVER}"));
        }
        for port in [8050, 53] {
            let from = SocketAddr::from((PUBLIC, port));
            assert_eq!(echoed(&lab.server, port)?, Some(from), "{port}");
        }
        // Pings stay with the router.
        sh(&neighbour, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1")?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        Ok(())
    });
}

/// Field rows D3 and D4: the public address from within. A forwarded port answers the LAN and the
/// router, what the VPS keeps answers too.
#[test]
fn the_public_address_answers_from_within() {
    let forwards = format!("\"tcp:443 -> {MACHINE}:8443\", \"udp:53 -> {MACHINE}\"");
    case(nat(BRIDGE, &forwards), |case| -> Outcome {
        let lab = &case.lab;
        let neighbour = bridged(lab, ROUTER, NEIGHBOUR)?;
        client_into(lab, ROUTER, MACHINE)?;
        let _portals = case.up()?;
        let _service = Answers::start(&lab.client, MACHINE, 8443)?;
        let _echo = UdpEcho::start(&lab.client, MACHINE, 53)?;
        assert_eq!(asked(&lab.server, 443)?, format!("client to {SERVER}"));
        for inside in [&neighbour, &lab.client] {
            assert_eq!(asked(inside, 443)?, format!("client to {ROUTER}"));
            assert_eq!(echoed(inside, 53)?, Some((PUBLIC, 53).into()));
        }
        assert_eq!(asked(&lab.local, 443)?, format!("client to {PUBLIC}"));
        // The VPS: a program that listens at the public address alone, and one that listens at all.
        let _ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        for inside in [&neighbour, &lab.local] {
            assert_eq!(asked(inside, 22)?, "remote to 172.19.152.3");
        }
        assert_eq!(asked(&lab.server, 22)?, format!("remote to {SERVER}"));
        assert_eq!(case.pings(&neighbour, PUBLIC)?, 20);
        Ok(())
    });
}
