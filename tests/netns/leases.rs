//! What a link's DHCP server may say: it may be anybody's.

use std::net::UdpSocket;

use netcombiner_lab::prelude::*;

use super::crossing::home_router;
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, Watch, case, eventually};

/// A router with a LAN, whose machine has port 9. The configuration names no links, as `init` writes it.
fn with_links_unnamed(test: impl FnOnce(&Case) -> Outcome) {
    let setup = Setup::nat(&format!("forwards = [\"udp:9 -> {LAN_MACHINE}\"]"));
    case(setup, |case| -> Outcome {
        home_router(case)?;
        into_a_lan(&case.lab)?;
        case.rewrite(Side::Local, |text| {
            let end = text.find("[[link]]").unwrap_or(text.len());
            text[..end].to_owned()
        })?;
        test(case)
    });
}

/// The next lease of `wan1` has routes, and no default one among them.
fn lease_without_default(lab: &Lab, routes: &[&str]) -> Result<(), Error> {
    sh(&lab.local, "ip route del default dev wan1")?;
    for to in routes {
        let gateway = Lab::wan_gateway(1);
        sh(
            &lab.local,
            &format!("ip route add {to} via {gateway} dev wan1"),
        )?;
    }
    Ok(())
}

/// What leaves by a link in clear: for the server, and what the tunnel brought for the LAN.
fn in_clear(lab: &Lab) -> Result<Watch<'_>, Error> {
    let packets = format!("iifname link* ip daddr {{ {SERVER}, {LAN_MACHINE} }}");
    Watch::start(&lab.internet, "prerouting", &packets)
}

/// How many of five datagrams to the port that is handed on the LAN's machine hears.
fn handed_on(lab: &Lab) -> Result<usize, Box<dyn std::error::Error>> {
    let machine = lab.client.run(|| UdpSocket::bind((LAN_MACHINE, 9)))??;
    machine.set_read_timeout(Some(Duration::from_secs(5)))?;
    let far = lab.server.run(|| UdpSocket::bind((SERVER, 0)))??;
    for _ in 0..5 {
        far.send_to(b"for the machine", (PUBLIC, 9))?;
    }
    let mut buffer = [0; 99];
    Ok((0..5)
        .take_while(|_| machine.recv_from(&mut buffer).is_ok())
        .count())
}

/// The configuration names no links, as `init` writes it. A link whose lease leaves the default route out
/// is no LAN for that: what goes into the tunnel, and what comes out of it, does not leave by it.
#[test]
fn a_lease_without_a_default_route_takes_nothing_out_of_the_tunnel() {
    with_links_unnamed(|case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let clear = in_clear(lab)?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert_eq!(handed_on(lab)?, 5);
        lease_without_default(lab, &["0.0.0.0/1", "128.0.0.0/1", "198.51.100.0/24"])?;
        case.wait_for_paths(1)?;
        eventually("the LAN's packets use the tunnel", || {
            Ok(case.pings(&lab.client, SERVER)? == 20)
        })?;
        assert_eq!(handed_on(lab)?, 5);
        assert_eq!(clear.packets()?, 0);
        // And a machine of the LAN is not behind it.
        let lie = format!("{LAN_MACHINE}/32 via {} dev wan1", Lab::wan_gateway(1));
        sh(&lab.local, &format!("ip route add {lie}"))?;
        assert_eq!(handed_on(lab)?, 0);
        assert_eq!(clear.packets()?, 0);
        Ok(())
    });
}

/// The same where the link never had a default route, and `check` or a killed daemon's successor cannot
/// know that it is one: private routes alone make a LAN of it, and still nothing comes out of the tunnel
/// by it.
#[test]
fn a_link_that_never_had_a_default_route_gets_nothing_out_of_the_tunnel() {
    with_links_unnamed(|case| -> Outcome {
        let lab = &case.lab;
        lease_without_default(lab, &[&format!("{LAN_MACHINE}/32")])?;
        sh(&lab.local, "ip address add 198.51.100.77/24 dev wan1")?;
        let _portals = (case.start(Side::Remote)?, case.start(Side::Local)?);
        case.wait_for_paths(1)?;
        let clear = in_clear(lab)?;
        assert_eq!(handed_on(lab)?, 0);
        assert_eq!(clear.packets()?, 0);
        // The lease's own netmask, which names the server's network, neither leads there nor makes
        // strangers of those who live in it.
        let route = format!("ip route del {LAN_MACHINE}/32 dev wan1");
        sh(&lab.local, &route)?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert_eq!(handed_on(lab)?, 5);
        assert_eq!(clear.packets()?, 0);
        Ok(())
    });
}

/// One link's DHCP server leases the other portal's address, which is not the public one: what comes from
/// there by the other link is not taken for forged.
#[test]
fn a_lease_of_the_other_portals_address_stops_no_other_link() {
    for setup in [Setup::default(), Setup::nat("")] {
        let shares = setup.options.deliver.is_some();
        case(setup, |case| -> Outcome {
            let lab = &case.lab;
            sh(&lab.remote, "ip address add 203.0.113.9/32 dev eth0")?;
            case.rewrite(Side::Local, |text| {
                text.replace("\"203.0.113.2:4725\"", "\"203.0.113.9:4725\"")
            })?;
            if shares {
                into_a_lan(lab)?;
            }
            let _portals = case.up()?;
            sh(&lab.local, "ip address add 203.0.113.9/32 dev wan1")?;
            // A path that hears nothing is down by then.
            std::thread::sleep(Duration::from_secs(15));
            let up = case.paths_up()?;
            assert!(up.iter().any(|name| name == "wan0"), "{up:?}");
            eventually("the tunnel carries", || {
                Ok(case.pings(&lab.client, SERVER)? == 20)
            })?;
            Ok(())
        });
    }
}
