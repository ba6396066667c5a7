//! Rules of others that could forward, on a host that did not: forwarding for the tunnel opens nothing.

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;

use super::crossing::pings;
use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case};

/// firewalld's, as every host of it has them, with each device in a zone.
const FIREWALLD: &str = "table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES { iifname \"eth1\" goto filter_FWD_public; goto filter_FWD_public; }
    chain filter_FWD_public {
        jump filter_FWD_public_allow
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_allow { oifname { \"eth0\", \"eth1\" } accept; oifname \"nc0\" accept; }
}";

/// What somebody once translated for a VPN that is no more.
const MASQUERADE: &str = "table ip nat {
    chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 10.8.0.0/24 masquerade; }
}";

/// A machine of the VPS's private network, to which the neighbours of the VPS have a route.
const BACKEND: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 2);

fn behind_the_vps(lab: &Lab) -> Result<Namespace, Error> {
    let backend = Namespace::new("backend")?;
    let end = |namespace, device| VethEnd { namespace, device };
    Netlink::add_veth(end(&backend, "eth0"), end(&lab.remote, "eth1"))?;
    for (host, line) in [
        (&lab.remote, "address add 10.77.0.1/24 dev eth1"),
        (&lab.remote, "link set eth1 up"),
        (&backend, "address add 10.77.0.2/24 dev eth0"),
        (&backend, "link set eth0 up"),
        (&backend, "route add default via 10.77.0.1"),
        (&lab.internet, "route add 10.77.0.0/24 via 203.0.113.2"),
    ] {
        sh(host, &format!("ip {line}"))?;
    }
    Ok(backend)
}

fn is_open(case: &Case) -> Result<bool, Error> {
    Ok(pings(&case.lab.internet, BACKEND)? > 0)
}

/// Field row A1: rules that were there while forwarding was off forwarded nothing, and forward nothing now,
/// nor when a killed daemon starts again.
#[test]
fn old_rules_of_others_open_nothing() {
    for rules in [FIREWALLD, MASQUERADE] {
        case(Setup::default(), |case| -> Outcome {
            let lab = &case.lab;
            sh(&lab.remote, "sysctl -qw net.ipv4.ip_forward=0")?;
            let _backend = behind_the_vps(lab)?;
            let file = case.dir.path().join("others.nft");
            std::fs::write(&file, rules)?;
            sh(&lab.remote, &format!("nft -f {}", file.display()))?;
            assert!(!is_open(case)?);
            let (remote, _local) = case.up()?;
            assert_eq!(case.pings(&lab.client, SERVER)?, 20);
            assert!(!is_open(case)?);
            remote.kill();
            assert!(!is_open(case)?);
            let remote = case.start(Side::Remote)?;
            case.wait_for_paths(2)?;
            assert!(!is_open(case)?);
            // The filter does it.
            remote.kill();
            sh(&lab.remote, "nft delete table inet netcombiner-nc0")?;
            assert!(is_open(case)?);
            Ok(())
        });
    }
}
