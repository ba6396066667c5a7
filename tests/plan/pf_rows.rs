//! The tables of `docs/crossing.md`, as FreeBSD's anchors hold them.

use std::net::IpAddr;

use netcombiner::config::Config;

use super::pf::PUBLIC;
use super::pf_model::{Anchor, Packet, Verdict};

const DOCUMENT: &str = include_str!("../../docs/crossing.md");

/// The rows of the table below a heading, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, below) = DOCUMENT.split_once(heading).unwrap();
    let table = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

fn address(word: &str) -> &str {
    match word {
        "PUBLIC" => PUBLIC,
        "LOCAL" => "172.19.152.3",
        "REMOTE" => "172.19.152.2",
        other => other,
    }
}

/// Field row A1 on FreeBSD: what the document says crosses, both portals' anchors let through, and nothing
/// else. They look at pings, which no other rule is about.
#[test]
fn the_anchors_say_what_the_document_says() {
    for (heading, sender, taker) in [
        (
            "## From the Internet side to home",
            "remote-v4",
            "local-client-two-links",
        ),
        (
            "## From home to the Internet",
            "local-client-two-links",
            "remote-v4",
        ),
    ] {
        let rows = rows(heading);
        assert!(rows.len() > 10, "{heading}: {rows:?}");
        for row in rows {
            let [_, from, to, crosses, allow, _] = row[..] else {
                panic!("{row:?}");
            };
            let (from, to) = (address(from), address(to));
            // IPv6 does not get here at all.
            if from.parse().is_ok_and(|it: IpAddr| it.is_ipv6()) {
                continue;
            }
            let allow = |config: &mut Config| {
                let networks = allow.split_whitespace();
                config.allow = networks.map(|it| it.parse().unwrap()).collect();
            };
            let packet = Packet {
                icmp: "echoreq",
                ports: None,
                ..Packet::new("nc0", "icmp", from, to)
            };
            let leaves = Anchor::with(sender, allow).run(&mut packet.clone().out("nc0"));
            let enters = Anchor::with(taker, allow).run(&mut packet.clone());
            // With "client" the public address is at home, and nothing leaves for it.
            let is_home = sender.starts_with("local") && to == PUBLIC;
            for verdict in [leaves, enters].into_iter().skip(usize::from(is_home)) {
                let passed = matches!(verdict, Verdict::Passed { .. });
                assert_eq!(passed, crosses == "yes", "{row:?}: {verdict:?}");
            }
        }
    }
}
