//! Rules of others that could forward, on a host that did not: forwarding for the tunnel opens nothing.

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;

use super::crossing::pings;
use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case, eventually};

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

/// What Docker makes for a network of its own, as `iptables-nft` writes it.
const DOCKER: &str = "table ip docker {
    chain POSTROUTING {
        type nat hook postrouting priority 100; policy accept;
        oifname != \"apps0\" ip saddr 172.17.0.0/16 masquerade;
    }
    chain FORWARD {
        type filter hook forward priority 0; policy accept;
        oifname \"apps0\" ct state { established, related } accept
        iifname \"apps0\" oifname != \"apps0\" accept
    }
}";

/// A container behind a bridge of its own.
fn container(lab: &Lab) -> Result<Namespace, Error> {
    let container = Namespace::new("container")?;
    sh(&lab.remote, "ip link add apps0 type bridge")?;
    let end = |namespace, device| VethEnd { namespace, device };
    Netlink::add_veth(end(&container, "eth0"), end(&lab.remote, "vethc0"))?;
    for (host, line) in [
        (&lab.remote, "link set vethc0 master apps0"),
        (&lab.remote, "link set vethc0 up"),
        (&lab.remote, "address add 172.17.0.1/16 dev apps0"),
        (&lab.remote, "link set apps0 up"),
        (&container, "address add 172.17.0.2/16 dev eth0"),
        (&container, "link set eth0 up"),
        (&container, "route add default via 172.17.0.1"),
    ] {
        sh(host, &format!("ip {line}"))?;
    }
    Ok(container)
}

/// Field row A1: who comes later has forwarding for his own network, also one that was there before, and opens no
/// other one.
#[test]
fn who_comes_later_opens_only_what_is_his() {
    for is_late in [true, false] {
        case(Setup::default(), |case| -> Outcome {
            let lab = &case.lab;
            sh(&lab.remote, "sysctl -qw net.ipv4.ip_forward=0")?;
            let _backend = behind_the_vps(lab)?;
            let before = (!is_late).then(|| container(lab)).transpose()?;
            let (remote, _local) = case.up()?;
            assert!(!is_open(case)?);
            let container = before.map_or_else(|| container(lab), Ok)?;
            assert_eq!(pings(&container, SERVER)?, 0);
            let file = case.dir.path().join("docker.nft");
            std::fs::write(&file, DOCKER)?;
            sh(&lab.remote, &format!("nft -f {}", file.display()))?;
            let goes_out = || Ok(pings(&container, SERVER)? > 0);
            eventually("the container is forwarded", goes_out)?;
            assert!(!is_open(case)?);
            // Nor does a later daemon take the network for his.
            remote.kill();
            let remote = case.start(Side::Remote)?;
            case.wait_for_paths(2)?;
            eventually("the container is forwarded again", goes_out)?;
            assert!(!is_open(case)?);
            // Forwarding stays on for him. What that opens is said, with the line that closes it.
            lab.down(&case.portals, Side::Remote)?;
            let log = remote.log();
            assert!(goes_out()?);
            assert!(is_open(case)?);
            let line = log
                .lines()
                .find(|line| line.contains("ip_forward was 0 before netcombiner and stays 1"))
                .ok_or("it is not said that forwarding stays on")?;
            assert!(line.contains("10.77.0.0/24 (eth1)"), "{line}");
            assert!(!line.contains("apps0"), "{line}");
            let (_, command) = line.split_once("To close that: ").ok_or("no advice")?;
            let file = case.dir.path().join("close.sh");
            std::fs::write(&file, command)?;
            sh(&lab.remote, &format!("sh {}", file.display()))?;
            assert!(goes_out()?);
            assert!(!is_open(case)?);
            Ok(())
        });
    }
}

/// Where Docker has loaded `br_netfilter`, what goes from one port of a bridge to another passes the filter as if it
/// were forwarded. It is not.
#[test]
fn ports_of_a_bridge_reach_each_other() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        if sh(
            &lab.remote,
            "sysctl -qw net.bridge.bridge-nf-call-iptables=1",
        )
        .is_err()
        {
            eprintln!("skipped: this kernel has no br_netfilter");
            return Ok(());
        }
        sh(&lab.remote, "sysctl -qw net.ipv4.ip_forward=0")?;
        let container = container(lab)?;
        let other = Namespace::new("other")?;
        let end = |namespace, device| VethEnd { namespace, device };
        Netlink::add_veth(end(&other, "eth0"), end(&lab.remote, "vethc1"))?;
        for (host, line) in [
            (&lab.remote, "link set vethc1 master apps0"),
            (&lab.remote, "link set vethc1 up"),
            (&other, "address add 172.17.0.3/16 dev eth0"),
            (&other, "link set eth0 up"),
        ] {
            sh(host, &format!("ip {line}"))?;
        }
        let neighbour = std::net::Ipv4Addr::new(172, 17, 0, 3);
        assert!(pings(&container, neighbour)? > 0);
        let _portals = case.up()?;
        assert!(pings(&container, neighbour)? > 0);
        assert_eq!(pings(&container, SERVER)?, 0);
        Ok(())
    });
}
