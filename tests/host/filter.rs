//! The packet filter's table, as nft(8) reads and changes it.

use std::process::Command;

use netcombiner::route::Resource;
use netcombiner::route::lower::nft::script;

use crate::namespace::{in_namespace, reconciler, run};
use crate::portals::{local, remote};

#[test]
fn the_filter_is_what_nft_reads() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let text = run("nft", "list ruleset");
        for line in [
            "table inet netcombiner-nc0 {",
            "type filter hook output priority mangle; policy accept;",
            "type filter hook prerouting priority mangle; policy accept;",
            "type filter hook input priority mangle; policy accept;",
            "type filter hook forward priority mangle; policy accept;",
            "oifname \"nc0\" ip daddr 203.0.113.2 ct mark & 0x0f000000 == 0x00000000 \
             ct mark set ct mark & 0xf2ffffff | 0x02000000",
            "ip6 daddr 2001:db8:113::2 meta l4proto tcp ct mark & 0x0f000000 == 0x02000000 drop",
            "ip6 daddr 2001:db8:113::2 ip6 hoplimit 255 icmpv6 type 133-137 \
             meta mark set meta mark & 0xf1ffffff | 0x01000000",
            "ip saddr 203.0.113.2 ct state established,new ct direction original \
             ct mark & 0x0f000000 == 0x00000000 ct mark set ct mark & 0xf1ffffff | 0x01000000",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        reconciler.apply(&local()).await.unwrap();
        let text = run("nft", "list ruleset");
        for line in [
            "iifname \"nc0\" ip daddr 203.0.113.2 dnat ip to tcp dport map @forward_tcp4_port",
            "elements = { 443 : 192.168.1.20 . 8443 }",
            "iifname \"nc0\" ip6 daddr 2001:db8:113::2 dnat ip6 to tcp dport map @forward_tcp6_port",
            "elements = { 443 : fd00::20 . 8443 }",
            "iifname \"lan\" ip saddr 203.0.113.2 oifname != \"nc0\" oifname != \"lan\" drop",
            "iifname \"lan\" ip6 saddr 2001:db8:113::2 oifname != \"nc0\" oifname != \"lan\" drop",
            "oifname \"nc0\" ip saddr != 203.0.113.2 snat ip to 203.0.113.2",
            "oifname \"nc0\" ip6 saddr != 2001:db8:113::2 snat ip6 to 2001:db8:113::2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    });
}

/// What is sent by netlink and what `plan` prints are one and the same table to nft(8).
#[test]
fn both_renderings_are_one_table() {
    in_namespace(async |directory| {
        for wanted in [remote(), local()] {
            let mut reconciler = reconciler(&directory);
            reconciler.apply(&wanted).await.unwrap();
            let sent = run("nft", "list ruleset");
            for resource in wanted.iter() {
                let Resource::Filter(filter) = resource else {
                    continue;
                };
                let file = directory.join("script");
                std::fs::write(&file, script(filter)).unwrap();
                run("nft", &format!("-f {}", file.display()));
            }
            assert_eq!(run("nft", "list ruleset"), sent);
            reconciler.stop().await.unwrap();
        }
    });
}

/// Whatever somebody changes within our sets, it is seen and put right.
#[test]
fn a_changed_set_is_put_right() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&local()).await.unwrap();
        let right = run("nft", "list ruleset");
        let set = "inet netcombiner-nc0 forward_tcp4_port";
        for changes in [
            vec![format!("add element {set} {{ 80 : 192.168.1.7 . 80 }}")],
            vec![format!("delete element {set} {{ 443 }}")],
            vec![
                format!("delete element {set} {{ 443 }}"),
                format!("add element {set} {{ 443 : 192.168.1.20 . 8444 }}"),
            ],
            vec![format!("flush map {set}")],
            vec!["add set inet netcombiner-nc0 more { type ipv4_addr; }".to_owned()],
        ] {
            for change in &changes {
                let output = Command::new("nft").arg(change).output().unwrap();
                assert!(output.status.success(), "{change}: {output:?}");
            }
            let repair = reconciler.apply(&local()).await.unwrap().executed;
            assert_eq!(repair.len(), 1, "{changes:?}: {repair:?}");
            assert_eq!(run("nft", "list ruleset"), right, "{changes:?}");
        }
    });
}

/// Whatever somebody changes within our table, it is seen and put right.
#[test]
fn a_changed_filter_is_put_right() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let right = run("nft", "list ruleset");
        let table = "inet netcombiner-nc0";
        for change in [
            format!("delete table {table}"),
            format!("flush table {table}"),
            format!("flush chain {table} output"),
            format!("flush chain {table} forward"),
            format!("add rule {table} output drop"),
            format!("insert rule {table} output counter"),
            format!("add chain {table} other"),
            format!("add table {table} {{ flags dormant; }}"),
            format!("replace rule {table} output handle 5 drop"),
        ] {
            let change = if change.contains("handle") {
                let listed = run("nft", "-a list ruleset");
                let line = listed.lines().find(|l| l.contains("ct state est")).unwrap();
                let handle = line.rsplit(' ').next().unwrap().to_owned();
                change.replace("handle 5", &format!("handle {handle}"))
            } else {
                change
            };
            let output = Command::new("nft").arg(&change).output().unwrap();
            assert!(output.status.success(), "{change}: {output:?}");
            let repair = reconciler.apply(&remote()).await.unwrap().executed;
            assert_eq!(repair.len(), 1, "{change}: {repair:?}");
            assert_eq!(run("nft", "list ruleset"), right, "{change}");
        }
    });
}
