//! Field row B2: packet filters of others on a real kernel, in the shapes in which they are met. What
//! `check` says of each, and that it says nothing once the right openings are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::{in_namespace, run};

/// Docker's, by hand: the policy drops what is forwarded.
const DOCKER: &str = "table ip filter {
    chain DOCKER-USER { counter return; }
    chain DOCKER { }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER
        oifname \"docker0\" ct state related,established counter accept
        oifname \"docker0\" counter jump DOCKER
        iifname \"docker0\" oifname != \"docker0\" counter accept
    }
}
table ip nat {
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade
    }
}";

/// Of a careful administrator: sets, verdict maps, a limit, an index, states.
const BY_HAND: &str = "table inet filter {
    set bogons {
        type ipv4_addr; flags interval;
        elements = { 0.0.0.0/8, 10.0.0.0/8, 127.0.0.0/8, 192.0.2.0/24 };
    }
    set pairs {
        type inet_proto . inet_service; flags interval;
        elements = { tcp . 22, udp . 60000-61000 };
    }
    chain ssh {
        ct count over 100 drop
        limit rate over 10/second burst 5 packets drop
        accept
    }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state vmap { invalid : drop, established : accept, related : accept }
        ip saddr @bogons drop
        tcp flags & (fin|syn|rst|ack) != syn ct state new drop
        meta l4proto vmap { icmp : accept, icmpv6 : accept }
        tcp dport vmap { 22 : jump ssh, 80-90 : accept }
        meta l4proto . th dport @pairs accept
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname { \"eth7\", \"wan0\" } oifname \"nc*\" reject with icmpx admin-prohibited
        iifname \"nc0\" drop
    }
    chain output {
        type filter hook output priority filter; policy accept;
        udp sport 4725 drop
    }
}";

const FIREWALLD: &str = "table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_ZONES { goto filter_IN_public; }
    chain filter_FORWARD_ZONES { TRUSTED goto filter_FWD_public; }
    chain filter_IN_public { tcp dport 22 accept; PORT }
    chain filter_FWD_public { OUT ip6 saddr fe80::/10 drop; }
    chain filter_FWD_trusted { accept; }
}";

const FW4: &str = "table inet fw4 {
    chain input {
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ct state vmap { established : accept, related : accept }
        tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
        iifname \"lan\" jump input_lan
        iifname \"wan0\" jump input_wan
        jump handle_reject
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        iifname \"lan\" jump forward_lan
        iifname \"wan0\" jump forward_wan
        TUNNEL
        jump handle_reject
    }
    chain output {
        type filter hook output priority filter; policy accept;
        oif \"lo\" accept
        ct state vmap { established : accept, related : accept }
        oifname \"wan0\" jump accept_to_wan
    }
    chain handle_reject { meta l4proto tcp reject with tcp reset; reject; }
    chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
    chain input_lan { jump accept_from_lan; }
    chain input_wan { meta nfproto ipv4 udp dport 68 accept; ip protocol igmp accept; jump reject_from_wan; }
    chain forward_lan { jump accept_to_wan; ZONE jump accept_to_lan; }
    chain forward_wan { icmpv6 type { echo-request, echo-reply } limit rate 1000/second accept; jump reject_to_wan; }
    chain accept_from_lan { iifname \"lan\" accept; }
    chain accept_to_lan { oifname \"lan\" accept; }
    chain accept_to_wan { meta nfproto ipv4 oifname \"wan0\" ct state invalid drop; oifname \"wan0\" accept; }
    chain reject_from_wan { iifname \"wan0\" jump handle_reject; }
    chain reject_to_wan { oifname \"wan0\" jump handle_reject; }
}";

/// What `check` says of the packet filter, a line each.
fn said(file: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_netcombiner"))
        .arg("check")
        .arg(file)
        .arg("--host")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines = text
        .lines()
        .filter(|line| line.contains("the packet filter"));
    lines.map(str::to_owned).collect()
}

fn init(directory: &Path) -> [PathBuf; 2] {
    std::fs::create_dir_all(directory).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_netcombiner"))
        .args(["init", "--public-address", "203.0.113.2", "--dir"])
        .arg(directory)
        .output()
        .unwrap();
    assert!(output.status.success());
    ["remote", "local"].map(|side| directory.join(side).join("nc0.toml"))
}

fn load(directory: &Path, script: &str) {
    let file = directory.join("script.nft");
    std::fs::write(&file, script).unwrap();
    run("nft", "flush ruleset");
    run("nft", &format!("-f {}", file.display()));
}

/// Types what the lines say, and hears no more of it.
fn mend(file: &Path) {
    // Behind one chain there may be another.
    for _ in 0..3 {
        for line in said(file) {
            let command = line.split('`').nth(1).unwrap();
            assert!(command.starts_with("nft insert rule "), "{line}");
            let typed = Command::new("sh").args(["-c", command]).status();
            assert!(typed.unwrap().success(), "{command}");
        }
    }
    assert_eq!(said(file), [""; 0]);
}

fn has(lines: &[String], words: &[&str]) {
    assert!(
        lines
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "{words:?} is not in {lines:#?}"
    );
}

#[test]
fn dockers_and_a_careful_administrators() {
    in_namespace(async |directory: PathBuf| {
        let [remote, _] = init(&directory);
        assert_eq!(said(&remote), [""; 0]);
        load(&directory, DOCKER);
        let lines = said(&remote);
        has(
            &lines,
            &["chain FORWARD of table ip filter drops", "by its policy"],
        );
        has(
            &lines,
            &["`nft insert rule ip filter DOCKER-USER iifname \"nc0\" accept`"],
        );
        has(
            &lines,
            &["`nft insert rule ip filter DOCKER-USER oifname \"nc0\" accept`"],
        );
        assert_eq!(lines.len(), 2, "{lines:#?}");
        mend(&remote);

        load(&directory, BY_HAND);
        let lines = said(&remote);
        for words in [
            &[
                "chain input of table inet filter drops",
                "udp:4725",
                "udp dport 4725 accept`",
            ],
            &[
                "chain input of table inet filter drops",
                "tcp:4725",
                "tcp dport 4725 accept`",
            ],
            &[
                "chain forward of table inet filter drops",
                "for the client",
                "oifname \"nc0\"",
            ],
            &[
                "chain forward of table inet filter drops",
                "out of the tunnel",
                "iifname \"nc0\"",
            ],
            &[
                "chain output of table inet filter drops",
                "the answers",
                "udp sport 4725",
            ],
        ] {
            has(&lines, words);
        }
        assert_eq!(lines.len(), 5, "{lines:#?}");
        mend(&remote);
        // A range, and a concatenation.
        let open = BY_HAND
            .replace("80-90 : accept", "4000-5000 : accept")
            .replace("udp . 60000-61000", "udp . 4725")
            .replace("iifname \"nc0\" drop", "")
            .replace("oifname \"nc*\" reject", "oifname \"nc1*\" reject")
            .replace("sport 4725 drop", "sport 4726 drop");
        load(&directory, &open);
        assert_eq!(said(&remote), [""; 0]);
    });
}

#[test]
fn firewallds() {
    in_namespace(async |directory: PathBuf| {
        let [remote, _] = init(&directory);
        let script = |trusted: &str, port: &str, out: &str| {
            FIREWALLD
                .replace("TRUSTED", trusted)
                .replace("PORT", port)
                .replace("OUT", out)
        };
        load(&directory, &script("", "", ""));
        let lines = said(&remote);
        has(
            &lines,
            &[
                "chain filter_FORWARD of table inet firewalld drops",
                "--zone=trusted",
            ],
        );
        for port in ["4725/udp", "4725/tcp"] {
            has(
                &lines,
                &[
                    "filter_INPUT",
                    &format!("firewall-cmd --permanent --add-port={port}"),
                ],
            );
        }
        let trusted = "iifname \"nc0\" goto filter_FWD_trusted;";
        let ports = "meta l4proto { tcp, udp } th dport 4725 ct state { new, untracked } accept;";
        load(
            &directory,
            &script(trusted, ports, "oifname \"nc0\" accept;"),
        );
        assert_eq!(said(&remote), [""; 0]);
    });
}

#[test]
fn openwrts() {
    in_namespace(async |directory: PathBuf| {
        let [_, local] = init(&directory);
        let script = |zone: &str, tunnel: &str| FW4.replace("ZONE", zone).replace("TUNNEL", tunnel);
        load(&directory, &script("", ""));
        let lines = said(&local);
        has(
            &lines,
            &[
                "chain forward of table inet fw4 drops",
                "firewall.@zone[-1].name=nc0",
            ],
        );
        let open = script(
            "oifname \"nc0\" accept;",
            "iifname \"nc0\" oifname \"lan\" accept;",
        );
        load(&directory, &open);
        assert_eq!(said(&local), [""; 0]);
    });
}

/// iptables on nf_tables carries its matches as structures of its own.
#[test]
fn iptables_on_nf_tables() {
    in_namespace(async |directory: PathBuf| {
        let [remote, _] = init(&directory);
        let iptables = |arguments: &str| drop(run("iptables-nft", arguments));
        for rule in [
            "-P INPUT DROP",
            "-P FORWARD DROP",
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A INPUT -m conntrack --ctstate INVALID -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,80:90 -j ACCEPT",
            "-N not-local",
            "-A INPUT -j not-local",
            "-A not-local -m addrtype --dst-type LOCAL -j RETURN",
            "-A not-local -m limit --limit 3/min -j LOG",
            "-A not-local -j DROP",
        ] {
            iptables(rule);
        }
        let lines = said(&remote);
        has(
            &lines,
            &[
                "chain INPUT of table ip filter drops",
                "udp dport 4725 accept`",
            ],
        );
        has(
            &lines,
            &[
                "chain INPUT of table ip filter drops",
                "tcp dport 4725 accept`",
            ],
        );
        has(
            &lines,
            &[
                "chain FORWARD of table ip filter drops",
                "iifname \"nc0\" accept`",
            ],
        );
        has(
            &lines,
            &[
                "chain FORWARD of table ip filter drops",
                "oifname \"nc0\" accept`",
            ],
        );
        assert_eq!(lines.len(), 4, "{lines:#?}");
        for rule in [
            "-A INPUT -p tcp -m tcp --dport 4700:4800 -m comment --comment ours -j ACCEPT",
            "-A INPUT -p udp -m multiport --dports 4725,4800 -j ACCEPT",
            "-A FORWARD -i nc+ -j ACCEPT",
            "-A FORWARD -o nc0 -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT",
        ] {
            iptables(rule);
        }
        assert_eq!(said(&remote), [""; 0]);
    });
}

/// The older kind, where this kernel has it.
#[test]
fn iptables_of_the_older_kind() {
    in_namespace(async |directory: PathBuf| {
        let [remote, _] = init(&directory);
        let iptables = |arguments: &str| {
            let mut command = Command::new("iptables-legacy");
            command
                .args(arguments.split(' '))
                .output()
                .is_ok_and(|it| it.status.success())
        };
        if !iptables("-P FORWARD DROP") {
            return;
        }
        let lines = said(&remote);
        has(&lines, &["`iptables-legacy -I FORWARD -i nc0 -j ACCEPT`"]);
        has(&lines, &["`iptables-legacy -I FORWARD -o nc0 -j ACCEPT`"]);
        assert!(iptables("-I FORWARD -i nc0 -j ACCEPT"));
        assert!(iptables("-I FORWARD -o nc0 -j ACCEPT"));
        assert_eq!(said(&remote), [""; 0]);
    });
}
