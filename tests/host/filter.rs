//! The packet filter's table, as nft(8) reads and changes it.

use std::process::Command;

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
            "oifname \"nc0\" ip daddr 203.0.113.2 meta l4proto tcp ct mark & 0x0f000000 == 0x00000000 \
             ct mark set ct mark & 0xf2ffffff | 0x02000000 comment \"client nc0 203.0.113.2 33554432 251658240\"",
            "ip6 daddr 2001:db8:113::2 meta l4proto tcp ct mark & 0x0f000000 == 0x02000000 drop ",
            "ip6 daddr 2001:db8:113::2 ip6 hoplimit 255 icmpv6 type 133-137 \
             meta mark set meta mark & 0xf1ffffff | 0x01000000 ",
            "ip saddr 203.0.113.2 ct state established,new ct mark set ct mark & 0xf1ffffff | 0x01000000 \
             comment \"own 203.0.113.2 16777216 251658240\"",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        reconciler.apply(&local()).await.unwrap();
        let text = run("nft", "list ruleset");
        for line in [
            "iifname \"nc0\" ip daddr 203.0.113.2 tcp dport 443 dnat ip to 192.168.1.20:8443 ",
            "iifname \"nc0\" ip6 daddr 2001:db8:113::2 tcp dport 443 dnat ip6 to [fd00::20]:8443 ",
            "iifname \"lan\" ip saddr 203.0.113.2 oifname != \"nc0\" drop comment \"inside lan nc0 203.0.113.2\"",
            "iifname \"lan\" ip6 saddr 2001:db8:113::2 oifname != \"nc0\" drop ",
            "oifname \"nc0\" ip saddr != 203.0.113.2 snat ip to 203.0.113.2 ",
            "oifname \"nc0\" ip6 saddr != 2001:db8:113::2 snat ip6 to 2001:db8:113::2 ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
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
            format!(
                "replace rule {table} output handle 5 drop comment \"own 203.0.113.2 16777216 251658240\""
            ),
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
