//! What may cross the tunnel, and what neither portal lets through.

use std::net::{Ipv4Addr, UdpSocket};

use netcombiner_lab::prelude::*;
use nix::sys::signal::Signal;

use super::support::kernel::sh;
use super::support::{Answers, Case, Outcome, Setup, Talk, Watch, case, eventually};

/// The first link's gateway, as it were the modem.
const MODEM: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// A host of the VPS's private network.
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 55, 0, 2);

fn with(local: &str, remote: &str) -> Setup {
    let mut setup = Setup::default();
    setup.options.local = local.into();
    setup.options.remote = remote.into();
    setup
}

/// The local portal as a home router is: it forwards, and masquerades on its links.
pub(crate) fn home_router(case: &Case) -> Result<(), Error> {
    case.lab.local.set_sysctl("ipv4/ip_forward", "1")?;
    for line in [
        "nft add table ip home",
        "nft add chain ip home out { type nat hook postrouting priority 100 ; }",
        "nft add rule ip home out oifname wan* masquerade",
    ] {
        sh(&case.lab.local, line)?;
    }
    Ok(())
}

/// How many packets a portal refused for this cause.
pub(crate) fn refused(case: &Case, side: Side, cause: &str) -> Result<u64, Error> {
    let status = case.show(side)?;
    Ok(status["discards"][cause].as_u64().unwrap_or(0))
}

/// How many of five pings are answered.
pub(crate) fn pings(from: &Namespace, to: Ipv4Addr) -> Result<u32, Error> {
    let interval = Duration::from_millis(50);
    Ok(Probe::ping(from, to, interval, 5)?.finish().answered)
}

/// The remote portal's host tries to get at the house.
fn break_in(case: &Case, side: Side, cause: &str) -> Outcome {
    let lab = &case.lab;
    home_router(case)?;
    sh(&lab.local, "ip address add 192.168.1.1/24 dev lan")?;
    let _portals = case.up()?;
    for network in ["192.168.1.0/24", "10.10.0.1/32", "198.51.100.0/24"] {
        sh(&lab.remote, &format!("ip route add {network} dev nc0"))?;
    }
    for target in [CLIENT_GATEWAY, MODEM, SERVER] {
        assert_eq!(pings(&lab.remote, target)?, 0, "{target}");
    }
    assert_eq!(pings(&lab.client, SERVER)?, 0, "the way back is gone too");
    sh(&lab.remote, "ip route del 198.51.100.0/24 dev nc0")?;
    assert_eq!(pings(&lab.client, SERVER)?, 5);
    assert!(refused(case, side, cause)? >= 15);
    Ok(())
}

/// Field row A1: a bad or careless VPS reaches no LAN, no modem, and not the Internet by the home's
/// own line.
#[test]
fn the_remote_portal_reaches_nothing_behind_the_router() {
    case(Setup::default(), |case| -> Outcome {
        break_in(case, Side::Remote, "not_allowed_out")
    });
}

/// Field row A1: and the router does not rely on the other portal.
#[test]
fn the_router_refuses_what_a_bad_portal_sends() {
    case(with("", "allow = [\"0.0.0.0/0\"]"), |case| -> Outcome {
        break_in(case, Side::Local, "not_allowed_in")
    });
}

/// The router tries the VPS's private network, and an address that is not its own.
fn break_out(case: &Case, side: Side, cause: &str) -> Outcome {
    let lab = &case.lab;
    lab.remote.set_sysctl("ipv4/ip_forward", "1")?;
    sh(
        &lab.remote,
        &format!("ip address add {BACKEND}/32 dev eth0"),
    )?;
    sh(&lab.local, "ip address add 9.9.9.9/32 dev lo")?;
    let _portals = case.up()?;
    let packets = "ip saddr 9.9.9.9";
    let stolen = Watch::start(&lab.internet, "prerouting", packets)?;
    sh(&lab.local, &format!("ip route add {BACKEND}/32 dev nc0"))?;
    sh(&lab.local, &format!("ip route add {SERVER}/32 dev nc0"))?;
    assert_eq!(pings(&lab.local, BACKEND)?, 0);
    let forger = lab.local.run(|| UdpSocket::bind(("9.9.9.9", 0)))??;
    for _ in 0..5 {
        let _ = forger.send_to(b"not mine", (SERVER, 9));
    }
    assert_eq!(pings(&lab.client, SERVER)?, 5);
    assert_eq!(stolen.packets()?, 0);
    assert!(refused(case, side, cause)? >= 10);
    Ok(())
}

/// Field row A1: from home only its own addresses leave, and into no private network.
#[test]
fn the_router_reaches_nothing_behind_the_remote_portal() {
    case(Setup::default(), |case| -> Outcome {
        break_out(case, Side::Local, "not_allowed_out")
    });
}

/// Field row A1: and the remote portal does not rely on the router.
#[test]
fn the_remote_portal_refuses_what_a_bad_router_sends() {
    case(with("allow = [\"0.0.0.0/0\"]", ""), |case| -> Outcome {
        break_out(case, Side::Remote, "not_allowed_in")
    });
}

/// Who wants more says so; also to a running daemon.
#[test]
fn networks_that_are_allowed_cross() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        sh(&lab.local, "ip address add 192.168.1.1/24 dev lan")?;
        let (remote, local) = case.up()?;
        sh(&lab.remote, "ip route add 192.168.1.0/24 dev nc0")?;
        assert_eq!(pings(&lab.remote, CLIENT_GATEWAY)?, 0);
        for (portal, side) in [(&remote, Side::Remote), (&local, Side::Local)] {
            let file = case.portals.config(side);
            let text = std::fs::read_to_string(&file)?;
            let (head, rest) = text.split_once('\n').ok_or("an empty configuration")?;
            let allow = "allow = [\"192.168.1.0/24\"]";
            std::fs::write(&file, format!("{head}\n{allow}\n{rest}"))?;
            portal.process.signal(Signal::SIGHUP)?;
        }
        eventually("what is allowed crosses", || {
            Ok(pings(&lab.remote, CLIENT_GATEWAY)? == 5)
        })?;
        Ok(())
    });
}

/// Field row A3: the tunnel's device takes nothing by itself, and nothing is sent by it that only a
/// neighbour would need.
#[test]
fn the_device_configures_nothing() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        for side in Side::BOTH {
            // As every distribution has it.
            let host = lab.host(side);
            host.set_sysctl("ipv6/conf/default/accept_ra", "2")?;
            host.try_set_sysctl("ipv6/conf/default/addr_gen_mode", "0")?;
        }
        let _portals = case.up()?;
        for side in Side::BOTH {
            let host = lab.host(side);
            let addresses = sh(host, "ip -6 address show dev nc0")?;
            assert_eq!(addresses, "", "{side:?}");
            for (key, value) in [
                ("ipv6.conf.nc0.disable_ipv6", "1"),
                ("ipv6.conf.nc0.accept_ra", "0"),
                ("ipv6.conf.nc0.accept_redirects", "0"),
                ("ipv4.conf.nc0.accept_redirects", "0"),
                ("ipv4.conf.nc0.accept_source_route", "0"),
            ] {
                let file = key.replace('.', "/");
                let found = sh(host, &format!("cat /proc/sys/net/{file}"))?;
                assert_eq!(found.trim(), value, "{side:?}: {key}");
            }
        }
        Ok(())
    });
}

/// What the lab's kernel lets everybody reach is reached no less: the portals' own addresses.
#[test]
fn the_portals_reach_each_other() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        let inner = Ipv4Addr::new(172, 19, 152, 2);
        assert_eq!(pings(&lab.local, inner)?, 5);
        assert_eq!(pings(&lab.client, inner)?, 5);
        assert_eq!(pings(&lab.remote, Ipv4Addr::new(172, 19, 152, 3))?, 5);
        let service = Answers::start(&lab.remote, inner, 22)?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        assert_eq!(talk.ask()?, format!("remote to {PUBLIC}"));
        Ok(())
    });
}
