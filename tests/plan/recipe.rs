//! Every line of the dissertation's Linux recipe (section 3.3) stands in a plan, as itself or as
//! what does the same with more care.

use netcombiner::cli::plan::System;

use crate::text;

/// The lines of a plan that hold all these words, in this order.
fn place(plan: &str, words: &[&str]) -> Option<usize> {
    plan.lines().position(|line| {
        let mut rest = line;
        words.iter().all(|word| {
            rest.find(word).is_some_and(|at| {
                rest = &rest[at + word.len()..];
                true
            })
        })
    })
}

/// One line of the dissertation, and the words of ours that stand for it.
type Line = (&'static str, &'static [&'static str]);

fn holds(name: &str, recipe: &[Line]) -> String {
    let plan = text(name, System::Linux, false, false);
    for (line, words) in recipe {
        assert!(
            place(&plan, words).is_some(),
            "{name}: nothing stands for `{line}`:\n{plan}"
        );
    }
    plan
}

#[test]
fn remote_portal() {
    let plan = holds(
        "remote-v4",
        &[
            (
                "sysctl -w net.ipv4.ip_forward=1",
                &["sysctl -w net.ipv4.ip_forward=1"],
            ),
            (
                "ip rule add from all table local priority 20",
                &["ip -4 rule add pref 20 lookup local"],
            ),
            (
                "ip rule del priority 0",
                &["ip -4 rule del pref 0 lookup local"],
            ),
            (
                "ip rule add to RP dport 22 table local priority 1",
                &["ip -4 rule add pref 1 to 203.0.113.2 ipproto tcp dport 22 lookup local"],
            ),
            (
                "ip rule add to RP dport 4725 table local priority 1",
                &["ip -4 rule add pref 1 to 203.0.113.2 ipproto udp dport 4725 lookup local"],
            ),
            (
                "the same for flows over TCP",
                &["ip -4 rule add pref 1 to 203.0.113.2 ipproto tcp dport 4725 lookup local"],
            ),
            (
                "ip route add table 19 to RP via 172.19.152.3 dev nc0",
                &["ip -4 route add 203.0.113.2 via 172.19.152.3 dev nc0 table 19"],
            ),
            (
                "ip rule add to RP table 19 priority 19",
                &["ip -4 rule add pref 19 to 203.0.113.2 lookup 19"],
            ),
        ],
    );
    // Not in its order: table local leaves last, when all else stands.
    let gone = place(&plan, &["rule del pref 0"]).unwrap();
    for earlier in [
        "rule add pref 20",
        "dport 22",
        "dport 4725",
        "fwmark",
        "table 19",
        "pref 19",
    ] {
        assert!(
            place(&plan, &[earlier]).unwrap() < gone,
            "{earlier}:\n{plan}"
        );
    }
}

#[test]
fn local_portal() {
    holds(
        "local-client-two-links",
        &[
            (
                "sysctl -w net.ipv4.ip_forward=1",
                &["sysctl -w net.ipv4.ip_forward=1"],
            ),
            (
                "ip addr add 192.168.1.1 dev CLIENT",
                &["ip -4 address add 192.168.1.1/32 dev lan"],
            ),
            (
                "ip route add RP dev CLIENT",
                &["ip -4 route add 203.0.113.2 dev lan table main"],
            ),
            (
                "ip route add table 20 default via 172.19.152.2 dev nc0",
                &["ip -4 route add default via 172.19.152.2 dev nc0 table 20"],
            ),
            (
                "ip rule add from RP iif CLIENT table 20 priority 20",
                &["ip -4 rule add pref 20 from 203.0.113.2 iif lan lookup 20"],
            ),
            (
                "ip route add table 21 to RP dev CLIENT",
                &["ip -4 route add 203.0.113.2 dev lan table 21"],
            ),
            (
                "ip rule add to RP table 21 priority 21",
                &["ip -4 rule add pref 21 to 203.0.113.2 lookup 21"],
            ),
            (
                "there must be a higher priority table for proxy packets",
                &["ip -4 rule add pref 10 oif wan0 lookup 28260"],
            ),
            (
                "the same for what the kernel sends to the other portal",
                &["ip -4 rule add pref 10 from 198.51.100.7 to 203.0.113.2 lookup 28260"],
            ),
        ],
    );
}

#[test]
fn multi_homed() {
    // 3.3.3: a table of its own for each of two interfaces of one subnet, and no ARP flux.
    holds(
        "local-same-subnet-twice",
        &[
            (
                "sysctl -w net.ipv4.conf.all.arp_announce=1",
                &["sysctl -w net.ipv4.conf.all.arp_announce=1"],
            ),
            (
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                &["sysctl -w net.ipv4.conf.all.arp_ignore=1"],
            ),
            (
                "a table for eth0",
                &["ip -4 rule add pref 10 oif eth0 lookup 28260"],
            ),
            (
                "a table for eth1",
                &["ip -4 rule add pref 10 oif eth1 lookup 28261"],
            ),
            (
                "eth0 itself",
                &["ip -4 route add 10.10.0.0/24 dev eth0 src 10.10.0.2 table 28260"],
            ),
            (
                "eth1 itself",
                &["ip -4 route add 10.10.0.0/24 dev eth1 src 10.10.0.3 table 28261"],
            ),
            (
                "out by eth1",
                &["ip -4 route add default via 10.10.0.1 dev eth1 src 10.10.0.3 table 28261"],
            ),
        ],
    );
}

#[test]
fn freebsd() {
    // The corrected rules; anchor.rs says what was wrong with the others.
    for (name, lines) in [
        (
            "remote-v4",
            &[
                "sysctl net.inet.ip.forwarding=1",
                "pass in quick on eth0 inet proto tcp from any to 203.0.113.2 port 22",
                "pass in quick on eth0 inet proto udp from any to 203.0.113.2 port 4725",
                "pass in quick on eth0 route-to (nc0 172.19.152.3) inet from any to 203.0.113.2",
            ][..],
        ),
        (
            "local-client-two-links",
            &[
                "ifconfig lan inet 192.168.1.1 netmask 255.255.255.255",
                "route add -host 203.0.113.2 -interface lan",
                "pass out quick route-to (wan0 198.51.100.1) inet proto udp from (wan0) to 203.0.113.2 port 4725",
                "pass out quick on lan inet from any to 203.0.113.2",
                "pass in quick on wan0 inet proto udp from 203.0.113.2 port 4725",
                "pass out quick on nc0 inet from 203.0.113.2",
            ][..],
        ),
    ] {
        let plan = text(name, System::FreeBsd, false, false);
        for line in lines {
            assert!(plan.contains(line), "{name}: no `{line}`:\n{plan}");
        }
    }
}
