//! What `plan` says is what the kernel then holds, and that is at least what the dissertation asks
//! for (3.3.1 to 3.3.3).

use netcombiner_lab::prelude::*;

use super::support::kernel::{Lines, Plan, plan_text, routes, rules, sh};
use super::support::{Outcome, Setup, case};

/// The mark of our rules in the kernel.
const OURS: &str = "protocol 98";

#[test]
fn the_plan_of_both_portals_is_what_the_kernel_then_holds() {
    case(strict(), |case| -> Outcome {
        let plans = [Side::Remote, Side::Local].map(|side| plan_text(case, side, &[]));
        let _portals = case.up()?;
        for (side, text) in [Side::Remote, Side::Local].into_iter().zip(plans) {
            let text = text?;
            let host = case.lab.host(side);
            let (plan, now) = (Plan::read(&text), rules(host)?);
            assert!(plan.rules.len() > 2 && !plan.routes.is_empty(), "{text}");
            let missing: Vec<_> = plan.rules.difference(&now).collect();
            assert!(
                missing.is_empty(),
                "{side:?}: missing {missing:#?} of {now:#?}"
            );
            let ours: Lines = now.into_iter().filter(|line| line.contains(OURS)).collect();
            let extra: Vec<_> = ours.difference(&plan.rules).collect();
            assert!(extra.is_empty(), "{side:?}: not planned: {extra:#?}");
            assert_eq!(plan.routes, routes(host)?, "{side:?}");
            for (key, value) in plan.settings {
                assert_eq!(host.sysctl(&key)?, value, "{side:?}: {key}");
            }
            for (address, device) in plan.addresses {
                let shown = sh(host, &format!("ip -4 -o address show dev {device}"))?;
                assert!(
                    shown.contains(&address),
                    "{side:?}: no {address} in {shown}"
                );
            }
            // An administrator can read the packet filter with nft(8), device names too.
            let filter = sh(host, "nft list table inet netcombiner-nc0")?;
            assert!(filter.contains("elements = { \""), "{side:?}: {filter}");
            assert!(!filter.contains("\"\""), "{side:?}: {filter}");
            // Nothing is left to do while it runs.
            assert_eq!(changes(&plan_text(case, side, &[])?), [""; 0], "{side:?}");
        }
        Ok(())
    });
}

#[test]
fn the_plan_of_the_way_back_leaves_nothing() {
    case(strict(), |case| -> Outcome {
        let before = [Side::Remote, Side::Local].map(|side| rules(case.lab.host(side)));
        let portals = case.up()?;
        let plans = [Side::Remote, Side::Local].map(|side| plan_text(case, side, &["--down"]));
        for (side, text) in [Side::Remote, Side::Local].into_iter().zip(plans) {
            let text = text?;
            let host = case.lab.host(side);
            let gone = Plan::read(&text.replace(" del ", " add "));
            for line in rules(host)?.iter().filter(|line| line.contains(OURS)) {
                assert!(
                    gone.rules.contains(line),
                    "{side:?}: {line} stays after\n{text}"
                );
            }
            for line in routes(host)? {
                assert!(
                    gone.routes.contains(&line),
                    "{side:?}: {line} stays after\n{text}"
                );
            }
        }
        let (remote, local) = portals;
        local.stop()?;
        remote.stop()?;
        for (side, before) in [Side::Remote, Side::Local].into_iter().zip(before) {
            assert_eq!(rules(case.lab.host(side))?, before?);
            assert_eq!(routes(case.lab.host(side))?, Lines::new());
        }
        Ok(())
    });
}

#[test]
fn the_remote_portal_has_what_the_dissertation_asks_for() {
    case(Setup::default(), |case| -> Outcome {
        let _remote = case.start(Side::Remote)?;
        let host = &case.lab.remote;
        assert_eq!(host.sysctl("ipv4/ip_forward")?, "1");
        let now = rules(host)?;
        for rule in [
            "rule lookup local pref 20",
            "rule dport 22 ipproto tcp lookup local pref 1 protocol 98 to 203.0.113.2",
            "rule dport 4725 ipproto udp lookup local pref 1 protocol 98 to 203.0.113.2",
            "rule dport 4725 ipproto tcp lookup local pref 1 protocol 98 to 203.0.113.2",
            "rule lookup 19 pref 19 protocol 98 to 203.0.113.2",
        ] {
            assert!(now.contains(rule), "no {rule:?} in {now:#?}");
        }
        assert!(!now.contains("rule lookup local pref 0"), "{now:#?}");
        let table = sh(host, "ip -4 route show table 19")?;
        assert!(
            table.starts_with("203.0.113.2 via 172.19.152.3 dev nc0"),
            "{table}"
        );
        // And that means: the Internet's ssh and tunnel to the host, all else to the client.
        for (packet, to) in [
            ("ipproto tcp dport 22", "local"),
            ("ipproto udp dport 4725", "local"),
            ("ipproto tcp dport 23", "dev nc0"),
            ("ipproto udp dport 22", "dev nc0"),
            ("ipproto icmp", "dev nc0"),
        ] {
            let ask = format!("ip -4 route get {PUBLIC} from {SERVER} iif eth0 {packet}");
            let answer = sh(host, &ask)?;
            assert!(
                answer.contains(to),
                "{packet} does not go to {to}: {answer}"
            );
        }
        Ok(())
    });
}

#[test]
fn the_local_portal_has_what_the_dissertation_asks_for() {
    case(strict(), |case| -> Outcome {
        let _local = case.start(Side::Local)?;
        let host = &case.lab.local;
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            // 3.3.3, ARP flux.
            ("ipv4/conf/all/arp_announce", "1"),
            ("ipv4/conf/all/arp_ignore", "1"),
        ] {
            assert_eq!(host.sysctl(key)?, value, "{key}");
        }
        let addresses = sh(host, "ip -4 -o address show dev lan")?;
        assert!(addresses.contains("192.168.1.1/32"), "{addresses}");
        let now = rules(host)?;
        for rule in [
            "rule from 203.0.113.2 iif lan lookup 20 pref 20 protocol 98",
            "rule lookup 21 pref 21 protocol 98 to 203.0.113.2",
        ] {
            assert!(now.contains(rule), "no {rule:?} in {now:#?}");
        }
        for (table, route) in [
            ("main", "203.0.113.2 dev lan"),
            ("20", "default via 172.19.152.2 dev nc0"),
            ("21", "203.0.113.2 dev lan"),
        ] {
            let routes = sh(host, &format!("ip -4 route show table {table}"))?;
            let found = routes.lines().any(|line| line.starts_with(route));
            assert!(found, "no {route:?} in table {table}: {routes}");
        }
        // 3.3.2 "there must be a higher priority table for proxy packets", and 3.3.3: each WAN's
        // packets leave by it. The client's go into the tunnel.
        for (packet, to) in [
            (format!("{PUBLIC} oif wan0"), "via 10.10.0.1 dev wan0"),
            (format!("{PUBLIC} oif wan1"), "via 10.11.0.1 dev wan1"),
            (format!("{PUBLIC} from 10.11.0.2"), "via 10.11.0.1 dev wan1"),
            (
                format!("{SERVER} from {PUBLIC} iif lan"),
                "via 172.19.152.2 dev nc0",
            ),
            (format!("{PUBLIC} from {SERVER} iif nc0"), "dev lan"),
        ] {
            let answer = sh(host, &format!("ip -4 route get {packet}"))?;
            assert!(answer.contains(to), "{packet} does not go {to}: {answer}");
        }
        Ok(())
    });
}

#[test]
fn a_plan_changes_nothing() {
    case(Setup::default(), |case| -> Outcome {
        for side in Side::BOTH {
            let before = host_state(case.lab.host(side))?;
            plan_text(case, side, &[])?;
            plan_text(case, side, &["--down"])?;
            let after = host_state(case.lab.host(side))?;
            assert_eq!(before.differences(&after), [""; 0]);
        }
        Ok(())
    });
}

/// Lines of a plan that change something: not its verifications.
fn changes(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains("route get"))
        .collect()
}

/// A host whose reverse-path filter would drop what comes in by the other link.
fn strict() -> Setup {
    Setup {
        reverse_path: 1,
        ..Setup::default()
    }
}
