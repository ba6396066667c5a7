//! Several networks behind one router: those that share the address, and one that does not.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;
use nix::sys::signal::Signal;

use super::crossing::{home_router, pings};
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::{Answers, Case, Outcome, REMOTE, Setup, Talk, Watch, case, eventually};

const BRIEFLY: Duration = Duration::from_secs(2);

/// A machine behind a device of its own, in the network 192.168.NUMBER.0/24.
fn behind(lab: &Lab, device: &str, number: u8) -> Result<Namespace, Error> {
    let machine = Namespace::new(device)?;
    let end = |namespace, device| VethEnd { namespace, device };
    Netlink::add_veth(end(&machine, "eth0"), end(&lab.local, device))?;
    let router = Ipv4Addr::new(192, 168, number, 1);
    let mut own = lab.local.netlink()?;
    own.add_address(device, IpAddr::V4(router), 24)?;
    own.set_up(device)?;
    let mut netlink = machine.netlink()?;
    netlink.add_address("eth0", Ipv4Addr::new(192, 168, number, 20).into(), 24)?;
    netlink.set_up("eth0")?;
    netlink.set_up("lo")?;
    netlink.set_route((Ipv4Addr::UNSPECIFIED, 0), "eth0", Some(router), 0)?;
    Ok(machine)
}

/// What `check` says on a portal's host.
pub(super) fn checked(case: &Case, side: Side) -> Result<String, Error> {
    let mut command = case.portals.command("check");
    command.arg(case.portals.config(side)).arg("--host");
    run(case.lab.host(side), command)
}

fn asked(from: &Namespace, to: Ipv4Addr, port: u16) -> Result<String, Error> {
    Talk::open(from, (to, port).into())?.ask()
}

/// The same, where nobody is expected to answer.
fn asked_briefly(from: &Namespace, to: Ipv4Addr, port: u16) -> Result<String, Error> {
    Talk::open_within(from, (to, port).into(), BRIEFLY)?.ask()
}

/// Field row D6: two LANs use the tunnel, a third network does not, which `check` says; with the line
/// that it prints the third one does too, without a restart.
#[test]
fn several_lans_share_the_address() {
    let setup = Setup::delivering(&format!(
        "deliver = \"nat\"\nlan = {{ devices = [\"lan\", \"guest\"] }}\n\
         forwards = [\"tcp:443 -> {LAN_MACHINE}:8443\"]"
    ));
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.local, "sysctl -qw net.ipv4.ip_forward=0")?;
        into_a_lan(lab)?;
        let guest = behind(lab, "guest", 8)?;
        let cameras = behind(lab, "cameras", 9)?;
        let before = host_state(&lab.local)?;
        let (_remote, local) = case.up()?;
        let _far = Answers::start(&lab.server, SERVER, 80)?;
        let through = format!("server to {PUBLIC}");
        for machine in [&lab.client, &guest] {
            assert_eq!(asked(machine, SERVER, 80)?, through);
        }
        assert!(asked_briefly(&cameras, SERVER, 80).is_err());
        // What is handed on, from outside and from both LANs; the VPS's own services too.
        let _machine = Answers::start(&lab.client, LAN_MACHINE, 8443)?;
        let _ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        assert_eq!(
            asked(&lab.server, PUBLIC, 443)?,
            format!("client to {SERVER}")
        );
        assert_eq!(asked(&guest, PUBLIC, 443)?, "client to 192.168.8.20");
        assert_eq!(asked(&lab.client, PUBLIC, 443)?, "client to 192.168.7.1");
        for machine in [&lab.client, &guest] {
            assert_eq!(asked(machine, PUBLIC, 22)?, "remote to 172.19.152.3");
        }
        // This router joined no networks before, and does not now.
        assert_eq!(pings(&guest, LAN_MACHINE)?, 0);

        let said = checked(case, Side::Local)?;
        let line = "lan = { devices = [\"lan\", \"guest\", \"cameras\"] }";
        for word in [
            "192.168.9.0/24 behind cameras does not use the tunnel",
            line,
        ] {
            assert!(said.contains(word), "{said}");
        }
        assert!(!said.contains("behind guest"), "{said}");
        let old = "lan = { devices = [\"lan\", \"guest\"] }";
        case.rewrite(Side::Local, |text| text.replace(old, line))?;
        local.process.signal(Signal::SIGHUP)?;
        eventually("the third network uses the tunnel", || {
            Ok(asked_briefly(&cameras, SERVER, 80).is_ok_and(|it| it == through))
        })?;
        assert_eq!(asked(&guest, SERVER, 80)?, through);
        let said = checked(case, Side::Local)?;
        assert!(!said.contains("does not use the tunnel"), "{said}");
        local.stop()?;
        assert_eq!(before.differences(&host_state(&lab.local)?), [""; 0]);
        Ok(())
    });
}

/// Datagrams from this address of a machine, and how many packets of them are seen (some are merged).
fn says(
    (lab, machine): (&Lab, &Namespace),
    from: Ipv4Addr,
    to: Ipv4Addr,
    seen: &Watch<'_>,
) -> Result<u64, Error> {
    let before = seen.packets()?;
    let socket = machine.run(|| UdpSocket::bind((from, 0)))?;
    let socket = socket.map_err(|error| Error::failed(error.to_string()))?;
    for _ in 0..5 {
        let _ = socket.send_to(b"not a LAN's", (to, 9));
    }
    // They are behind us by then.
    assert_eq!(pings(&lab.client, SERVER)?, 5);
    Ok(seen.packets()? - before)
}

/// Field row A1: a network that does not use the tunnel spoke to the VPS as the router, and with the public
/// address it left by a link.
#[test]
fn other_networks_use_neither_the_tunnel_nor_the_address() {
    let cameras = Ipv4Addr::new(192, 168, 9, 20);
    let nat = "deliver = \"nat\"\nlan = { device = \"lan\" }";
    for (deliver, allow) in [
        (Some(nat), false),
        (Some(nat), true),
        (None, false),
        (None, true),
    ] {
        let mut setup = deliver.map(Setup::delivering).unwrap_or_default();
        if allow {
            let networks = "allow = [\"192.168.9.0/24\"]";
            setup.options.local = networks.into();
            setup.options.remote = networks.into();
        }
        case(setup, |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if deliver.is_some() {
                into_a_lan(lab)?;
            }
            let machine = behind(lab, "cameras", 9)?;
            let _portals = case.up()?;
            let said = (lab, &machine);
            let vps = Watch::start(&lab.remote, "prerouting", "iifname nc0 udp dport 9")?;
            let heard = says(said, cameras, REMOTE, &vps)?;
            // A network of `allow` may.
            assert_eq!(heard > 0, allow, "{deliver:?}");
            let open = "nft flush chain inet netcombiner-nc0 forward";
            if deliver.is_some() {
                if !allow {
                    eventually("the filter does it", || {
                        sh(&lab.local, open)?;
                        Ok(says(said, cameras, REMOTE, &vps)? > 0)
                    })?;
                }
                return Ok(());
            }
            sh(&machine, &format!("ip address add {PUBLIC}/32 dev eth0"))?;
            let packets = format!("iifname link* ip daddr {SERVER} udp dport 9");
            let clear = Watch::start(&lab.internet, "prerouting", &packets)?;
            assert_eq!(says(said, PUBLIC, SERVER, &clear)?, 0);
            assert_eq!(says(said, PUBLIC, REMOTE, &vps)?, 0);
            eventually("the filter does it", || {
                sh(&lab.local, open)?;
                Ok(says(said, PUBLIC, SERVER, &clear)? > 0)
            })?;
            eventually("the filter does it", || {
                sh(&lab.local, open)?;
                Ok(says(said, PUBLIC, REMOTE, &vps)? > 0)
            })?;
            Ok(())
        });
    }
}

/// Field row D4: where the client has the public address, the VPS answers it at the address that both
/// portals' `check` names.
#[test]
fn check_names_the_address_of_the_vps() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let _ssh = Answers::start(&case.lab.remote, Ipv4Addr::UNSPECIFIED, 22)?;
        for side in Side::BOTH {
            let said = checked(case, side)?;
            let notes = said.lines().filter(|line| line.starts_with("note: "));
            let named = notes.filter(|line| line.contains(&REMOTE.to_string()));
            assert_eq!(named.count(), 1, "{said}");
        }
        let answer = asked(&case.lab.client, REMOTE, 22)?;
        assert_eq!(answer, format!("remote to {PUBLIC}"));
        Ok(())
    });
}

/// Field rows A1 and D6: `without_tunnel = "direct"` leads every LAN out by the default route while the
/// tunnel is down, and to no other network of this router, which joined none before.
#[test]
fn direct_joins_no_networks() {
    let setup = Setup::delivering(
        "deliver = \"nat\"\nlan = { devices = [\"lan\", \"guest\"] }\n\
         without_tunnel = \"direct\"",
    );
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.local, "sysctl -qw net.ipv4.ip_forward=0")?;
        into_a_lan(lab)?;
        let guest = behind(lab, "guest", 8)?;
        let _cameras = behind(lab, "cameras", 9)?;
        let apart = || -> Result<(), Error> {
            assert_eq!(pings(&guest, LAN_MACHINE)?, 0);
            assert_eq!(pings(&lab.client, Ipv4Addr::new(192, 168, 9, 20))?, 0);
            assert_eq!(pings(&guest, Ipv4Addr::new(192, 168, 9, 20))?, 0);
            Ok(())
        };
        let (remote, _local) = case.up()?;
        for machine in [&lab.client, &guest] {
            assert_eq!(pings(machine, SERVER)?, 5);
        }
        apart()?;
        // Nobody translates here: they are seen leaving with their own addresses.
        let clear = Watch::start(
            &lab.internet,
            "prerouting",
            "iifname link* ip saddr 192.168.8.20",
        )?;
        remote.kill();
        for _ in 0..60 {
            pings(&guest, SERVER)?;
            if clear.packets()? > 0 {
                break;
            }
        }
        assert_ne!(clear.packets()?, 0);
        apart().map_err(Into::into)
    });
}
