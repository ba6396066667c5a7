//! What the remote portal's host does not track, beside packet filters of others.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::process::Command;

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::talk::answered_over_a_smaller_link;
use super::support::{Answers, Case, Outcome, Setup, Talk, case, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// What is tracked of the tunnel's port and of ssh.
fn tracked(case: &Case) -> Result<String, Error> {
    let listed = sh(&case.lab.remote, "cat /proc/thread-self/net/nf_conntrack")?;
    let of_host = |line: &&str| line.contains("dport=4725 ") || line.contains("dport=22 ");
    Ok(listed.lines().filter(of_host).collect())
}

/// Fills the host's table of connections with some that live, so that none makes room for a new one.
/// The limit is the whole machine's, and stays as it is.
fn fill(case: &Case) -> Outcome {
    let most: u32 = sh(
        &case.lab.remote,
        "cat /proc/sys/net/netfilter/nf_conntrack_max",
    )?
    .trim()
    .parse()?;
    assert!(
        most < 2_000_000,
        "a table of {most} connections takes too long to fill"
    );
    let mut lines = String::new();
    for number in 0..=most {
        let [_, high, middle, low] = number.to_be_bytes();
        writeln!(
            lines,
            "-I -p udp -s 198.18.{high}.{middle} -d 198.19.0.1 --sport {} --dport 9 -t 600 -u SEEN_REPLY,ASSURED",
            1000 + u32::from(low),
        )?;
    }
    let file = case.dir.path().join("connections");
    std::fs::write(&file, lines)?;
    // The last ones find it full. It may take longer than other commands.
    let filled = case
        .lab
        .remote
        .run(|| Command::new("conntrack").arg("-R").arg(&file).output())??;
    let count = sh(
        &case.lab.remote,
        "cat /proc/sys/net/netfilter/nf_conntrack_count",
    )?;
    assert!(
        count.trim().parse::<u32>()? >= most,
        "{count} of {most}: {filled:?}"
    );
    Ok(())
}

/// Up with these rules of others: ssh and the tunnel work, and with a full table of connections too
/// where they are not tracked; what there was goes on in either case.
fn with_rules(rules: &[&str], is_tracked: bool) {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        for rule in rules {
            if let Err(error) = sh(&lab.remote, rule) {
                assert!(rule.starts_with("iptables"), "{error}");
                eprintln!("skipped: {error}");
                return Ok(());
            }
        }
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let (_remote, local) = case.up()?;
        let web = Answers::start(&lab.server, SERVER, 80)?;
        let mut session = Talk::open(&lab.server, ssh.address())?;
        assert_eq!(session.ask()?, format!("remote to {SERVER}"));
        let seen = tracked(case)?;
        assert_eq!(seen.contains("dport=22 "), is_tracked, "{rules:?}: {seen}");
        // The host speaks to itself at that port, tracked or not, from its first to its last packet.
        let mut own = Talk::open(&lab.remote, ssh.address())?;
        assert_eq!(own.ask()?, format!("remote to {PUBLIC}"));
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        let mut client = Talk::open(&lab.client, web.address())?;
        assert_eq!(client.ask()?, format!("server to {PUBLIC}"));

        fill(case)?;
        assert_eq!(session.ask()?, format!("remote to {SERVER}"));
        assert_eq!(client.ask()?, format!("server to {PUBLIC}"));
        // What ends meanwhile makes room for a tracked one, now and then.
        if !is_tracked {
            let mut new = Talk::open(&lab.server, ssh.address())?;
            assert_eq!(new.ask()?, format!("remote to {SERVER}"));
            // And so do new flows of the tunnel.
            drop(local);
            let _local = case.start(Side::Local)?;
            case.wait_for_paths(lab.links())?;
            assert_eq!(client.ask()?, format!("server to {PUBLIC}"));
        }
        Ok(())
    });
}

const HAND_WRITTEN: [&str; 5] = [
    "nft add table inet guard",
    "nft add chain inet guard in { type filter hook input priority 0 ; policy drop ; }",
    "nft add rule inet guard in ct state established,related accept",
    "nft add rule inet guard in ct state new tcp dport 22 accept",
    "nft add rule inet guard in ct state new udp dport 4725 accept",
];

/// Field row D12: a full table of connections refused new ssh sessions to the host.
#[test]
fn the_tunnel_and_ssh_are_not_tracked_where_nobody_needs_it() {
    with_rules(&[], false);
}

/// Field row D12: as firewalld writes them, without asking for a state at open ports.
#[test]
fn nor_beside_firewalld() {
    with_rules(
        &[
            "nft add table inet firewalld",
            "nft add chain inet firewalld in { type filter hook input priority 10 ; policy drop ; }",
            "nft add rule inet firewalld in ct state established,related accept",
            "nft add rule inet firewalld in iifname lo accept",
            "nft add rule inet firewalld in ct state invalid drop",
            "nft add rule inet firewalld in meta l4proto icmp accept",
            "nft add rule inet firewalld in tcp dport 22 ct state new,untracked accept",
            "nft add rule inet firewalld in udp dport 4725 accept",
            "nft add rule inet firewalld in reject",
        ],
        false,
    );
}

/// Field row D12: as ufw writes them.
#[test]
fn nor_beside_ufw() {
    with_rules(
        &[
            "iptables -N ufw-before-input",
            "iptables -N ufw-user-input",
            "iptables -A INPUT -j ufw-before-input",
            "iptables -A ufw-before-input -i lo -j ACCEPT",
            "iptables -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables -A ufw-before-input -m conntrack --ctstate INVALID -j DROP",
            "iptables -A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT",
            "iptables -A ufw-before-input -j ufw-user-input",
            "iptables -A ufw-user-input -p tcp --dport 22 -j ACCEPT",
            "iptables -A ufw-user-input -p udp --dport 4725 -j ACCEPT",
            "iptables -P INPUT DROP",
        ],
        false,
    );
}

/// Field row D12: `ct state new tcp dport 22 accept` drops what is not tracked.
#[test]
fn they_are_beside_rules_that_ask() {
    with_rules(
        &[
            &HAND_WRITTEN[..],
            &["nft insert rule inet guard in iifname lo accept"],
        ]
        .concat(),
        true,
    );
}

/// Field row D12: and beside the rules of the older ip_tables, of whose changes nobody tells.
#[test]
fn they_are_beside_the_older_ip_tables() {
    with_rules(
        &[
            "iptables-legacy -A INPUT -i lo -j ACCEPT",
            "iptables-legacy -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-legacy -A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
            "iptables-legacy -A INPUT -p udp --dport 4725 -m conntrack --ctstate NEW -j ACCEPT",
            "iptables-legacy -P INPUT DROP",
        ],
        true,
    );
}

/// Field row D12: a container's port is the host's by translation alone.
#[test]
fn they_are_where_the_port_is_translated() {
    with_rules(
        &[
            "nft add table ip docker",
            "nft add chain ip docker pre { type nat hook prerouting priority dstnat ; }",
            "nft add rule ip docker pre tcp dport 22 redirect to :22",
        ],
        true,
    );
}

/// Field row D12: somebody closes the host while the tunnel runs, except for new connections that are
/// known: the sessions that there are go on, and new ones are made.
#[test]
fn they_are_from_when_somebody_asks() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let _portals = case.up()?;
        let mut session = Talk::open(&lab.server, ssh.address())?;
        assert_eq!(session.ask()?, format!("remote to {SERVER}"));
        for rule in HAND_WRITTEN {
            sh(&lab.remote, rule)?;
        }
        assert_eq!(session.ask()?, format!("remote to {SERVER}"));
        eventually("ssh beside rules that ask for states", || {
            Ok(Talk::open_within(&lab.server, ssh.address(), SECOND).is_ok())
        })?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        // And back.
        sh(&lab.remote, "nft delete table inet guard")?;
        eventually("ssh is not tracked", || {
            let mut talk = Talk::open(&lab.server, ssh.address())?;
            talk.ask()?;
            sh(&lab.remote, "conntrack -F")?;
            talk.ask()?;
            Ok(!tracked(case)?.contains("dport=22 "))
        })?;
        assert_eq!(session.ask()?, format!("remote to {SERVER}"));
        Ok(())
    });
}

/// Field row D12: what a router says of a packet that is too big for its link is the host's as well.
#[test]
fn errors_about_them_are_the_hosts() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let _portals = case.up()?;
        let stream = lab.server.run(|| TcpStream::connect(ssh.address()))??;
        assert!(!tracked(case)?.contains("dport=22 "));
        answered_over_a_smaller_link(lab, &stream)?;
        let known = sh(&lab.remote, &format!("ip route get {SERVER}"))?;
        assert!(known.contains("mtu 1300"), "{known}");
        Ok(())
    });
}
