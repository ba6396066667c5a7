//! The tables of `docs/crossing.md` are what the tunnel does.

use std::net::IpAddr;

use netcombiner::config::units::Prefix;
use netcombiner::config::{PublicAddresses, TunnelAddresses};
use netcombiner::packet::{Crossing, Towards};

const DOCUMENT: &str = include_str!("../docs/crossing.md");

/// The rows of the table below a heading, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, below) = DOCUMENT
        .split_once(heading)
        .expect("the document has this heading");
    let table = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

fn address(word: &str) -> IpAddr {
    let tunnel = TunnelAddresses::default();
    match word {
        "PUBLIC" => "203.0.113.2".parse().expect("an address"),
        "LOCAL" => tunnel.local.into(),
        "REMOTE" => tunnel.remote.into(),
        other => other.parse().expect("an address"),
    }
}

fn packet(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut packet = match source {
        IpAddr::V4(_) => vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0],
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 0, 17, 64],
    };
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => packet.extend(address.octets()),
            IpAddr::V6(address) => packet.extend(address.octets()),
        }
    }
    packet
}

/// Field row A1: the document says what crosses.
#[test]
fn every_row_is_so() {
    for (heading, towards) in [
        ("## From the Internet side to home", Towards::Home),
        ("## From home to the Internet", Towards::Internet),
    ] {
        let rows = rows(heading);
        assert!(rows.len() > 10, "{heading}: {rows:?}");
        for row in rows {
            let [_, from, to, crosses, allow, _] = row[..] else {
                panic!("{row:?}");
            };
            let allow: Vec<Prefix> = allow
                .split_whitespace()
                .map(|it| it.parse().unwrap())
                .collect();
            let public = PublicAddresses {
                v4: Some("203.0.113.2".parse().unwrap()),
                v6: None,
            };
            let crossing = Crossing::new(&public, &TunnelAddresses::default(), &allow);
            let admitted = crossing.admits(towards, &packet(address(from), address(to)));
            assert_eq!(admitted, crosses == "yes", "{row:?}");
        }
    }
}
