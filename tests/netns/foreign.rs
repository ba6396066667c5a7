//! Others on the same host: what they take from us returns, what is theirs stays.

use netcombiner_lab::prelude::*;

use super::support::kernel::{routes, rules, sh};
use super::support::{Outcome, Setup, case, eventually};

#[test]
fn what_others_take_away_returns() {
    case(Setup::default(), |case| -> Outcome {
        let (on_remote, on_local) = case.up()?;
        let (local, remote) = (&on_local, &on_remote);
        for (portal, line) in [
            // mwan3 flushes tables up to 60 when it stops.
            (local, "ip route flush table 20"),
            (local, "ip route flush table 21"),
            (remote, "ip route flush table 19"),
            (local, "ip rule del pref 20"),
            (local, "ip rule del pref 21"),
            (local, "ip rule del pref 10"),
            (local, "ip route flush table 28260"),
            (local, "ip address del 192.168.1.1/32 dev lan"),
            (remote, "ip rule del pref 19"),
            (remote, "ip rule del pref 1"),
            (remote, "ip rule add pref 0 lookup local"),
        ] {
            let host = case.lab.host(portal.side);
            let before = (rules(host)?, routes(host)?);
            let repaired = || portal.log().matches("routing: ").count();
            let repairs = repaired();
            sh(host, line)?;
            eventually(&format!("what was before `{line}`"), || {
                Ok(repaired() > repairs && before == (rules(host)?, routes(host)?))
            })?;
        }
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        assert_eq!(case.pings(&case.lab.server, PUBLIC)?, 20);
        Ok(())
    });
}

#[test]
fn rules_and_routes_of_others_are_never_touched() {
    case(Setup::default(), |case| -> Outcome {
        let (before, during) = (
            [
                "rule add pref 5 to 192.0.2.1 lookup 77",
                "route add 192.0.2.1/32 dev lo table 77",
            ],
            [
                "rule add pref 20 to 192.0.2.2 lookup 77",
                "rule add pref 10 from 192.0.2.2 lookup 77",
                "route add 192.0.2.2/32 dev lo table 20",
                "route add 192.0.2.2/32 dev lo table 19",
                "route add 192.0.2.3/32 dev lo table 77 proto static",
            ],
        );
        let hosts = [&case.lab.local, &case.lab.remote];
        for host in hosts {
            for words in before {
                sh(host, &format!("ip {words}"))?;
            }
        }
        let (remote, local) = case.up()?;
        for host in hosts {
            for words in during {
                sh(host, &format!("ip {words}"))?;
            }
        }
        // Longer than the debounce: a daemon that would take these for its own has removed them.
        std::thread::sleep(Duration::from_millis(700));
        local.stop()?;
        remote.stop()?;
        for host in hosts {
            for words in before.iter().chain(&during) {
                // Deleting what is not there fails.
                let words = words.replace(" add ", " del ");
                sh(host, &format!("ip {words}")).map_err(|error| format!("{words}: {error}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_table_that_is_taken_is_told_by_check() {
    case(Setup::default(), |case| -> Outcome {
        sh(&case.lab.local, "ip rule add pref 20 lookup 20")?;
        sh(
            &case.lab.local,
            "ip route add 192.0.2.0/24 dev lo table 20 proto static",
        )?;
        let mut command = case.portals.command("plan");
        command
            .arg(case.portals.config(Side::Local))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let mut process = Process::spawn(&case.lab.local, command)?;
        process.wait(Duration::from_secs(5))?;
        let mut warnings = String::new();
        if let Some(mut stderr) = process.child().stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut warnings)?;
        }
        assert!(
            warnings.contains("20"),
            "no warning of table 20: {warnings:?}"
        );
        Ok(())
    });
}

/// Field rows B6 and B8, with the whole daemon: the filter, forwarding and the tunnel's own device are
/// put back, and the tunnel carries as before; without its device the daemon ends, so that its
/// supervisor starts it again.
#[test]
fn the_filter_and_the_device_return() {
    case(Setup::default(), |case| -> Outcome {
        let (mut on_remote, _on_local) = case.up()?;
        for host in [&case.lab.local, &case.lab.remote] {
            for line in [
                "nft flush ruleset",
                "sysctl -qw net.ipv4.ip_forward=0",
                "ip link set nc0 down",
            ] {
                let tables = sh(host, "nft list tables")?;
                let before = (rules(host)?, routes(host)?);
                sh(host, line)?;
                eventually(&format!("what was before `{line}`"), || {
                    Ok(sh(host, "nft list tables")? == tables
                        && sh(host, "sysctl -n net.ipv4.ip_forward")?.trim() == "1"
                        && (rules(host)?, routes(host)?) == before)
                })?;
                eventually("it carries", || {
                    Ok(case.pings(&case.lab.client, SERVER)? == 20)
                })?;
            }
        }
        sh(&case.lab.remote, "ip link delete nc0")?;
        let status = on_remote.process.wait(Duration::from_secs(20))?;
        assert!(!status.success());
        let log = on_remote.log();
        assert!(log.contains("nc0"), "{log}");
        let rules = rules(&case.lab.remote)?;
        assert!(rules.contains("rule lookup local pref 0"), "{rules:#?}");
        Ok(())
    });
}

/// Field row F5 on Linux: somebody's device of the tunnel's name is neither taken over nor changed, of
/// whatever kind it is.
#[test]
fn a_device_of_the_tunnels_name_is_left_alone() {
    case(Setup::default(), |case| -> Outcome {
        let host = &case.lab.remote;
        for line in [
            "ip tuntap add dev nc0 mode tun user 65534",
            "ip tuntap add dev nc0 mode tun",
            "ip tuntap add dev nc0 mode tap",
            "ip link add nc0 type bridge",
            "ip link add nc0 type veth peer name nc0-other",
        ] {
            sh(host, line)?;
            let seen = || sh(host, "ip -d -o link show nc0");
            let before = (seen()?, rules(host)?, routes(host)?);
            let mut command = case.portals.command("run");
            command.arg(case.portals.config(Side::Remote));
            command.arg("--run-dir").arg(case.dir.path().join("run"));
            let refused = run(host, command).err();
            let said = refused.ok_or(line)?.to_string();
            assert!(said.contains("nc0"), "{line}: {said}");
            assert!(said.contains("rename the tunnel"), "{line}: {said}");
            assert_eq!(before, (seen()?, rules(host)?, routes(host)?), "{line}");
            sh(host, "ip link delete nc0")?;
        }
        // With the name free again there is nothing in the way.
        case.up()?;
        Ok(())
    });
}
