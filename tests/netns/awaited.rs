//! What is not there yet is waited for, on both portals.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Outcome, Setup, case, eventually};

/// Field row C6: the remote portal is started before its address is there, which is also where it
/// listens; it goes again and comes back while the tunnel runs.
#[test]
fn a_remote_portal_waits_for_its_address() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let file = case.portals.config(Side::Remote);
        let text = std::fs::read_to_string(&file)?;
        let everywhere = "[\"udp:4725\", \"tcp:4725\"]";
        assert!(text.contains(everywhere));
        std::fs::write(
            &file,
            text.replace(everywhere, "[\"udp:203.0.113.2:4725\"]"),
        )?;
        let take = || sh(&lab.remote, "ip address del 203.0.113.2/24 dev eth0");
        let give = || {
            sh(&lab.remote, "ip address add 203.0.113.2/24 dev eth0")?;
            sh(&lab.remote, "ip route replace default via 203.0.113.1")
        };
        take()?;
        let remote = case.start(Side::Remote)?;
        let waits = "no device has the address 203.0.113.2 yet";
        assert!(remote.log().contains(waits), "{}", remote.log());
        let shown = case.show(Side::Remote)?["awaited"].to_string();
        assert!(shown.contains(waits), "{shown}");
        let _local = case.start(Side::Local)?;
        for _ in 0..2 {
            give()?;
            case.wait_for_paths(2)?;
            assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
            assert_eq!(case.show(Side::Remote)?["awaited"].to_string(), "[]");
            take()?;
            eventually("the address is missed", || {
                Ok(case.show(Side::Remote)?["awaited"]
                    .to_string()
                    .contains(waits))
            })?;
        }
        Ok(())
    });
}

/// Field row A5: any account may take the ports while the daemon is dead. It ends neither a start nor the
/// daemon, and is named.
#[test]
fn a_port_that_another_program_has_is_waited_for() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let port = 4725;
        let udp = || std::net::UdpSocket::bind(("0.0.0.0", port));
        let udp = lab.remote.run(udp)??;
        let tcp = || std::net::TcpListener::bind(("::", port));
        let held = (udp, lab.remote.run(tcp)??);
        let remote = case.start(Side::Remote)?;
        let _local = case.start(Side::Local)?;
        for words in [
            "in use",
            "udp 0.0.0.0:4725",
            "tcp 0.0.0.0:4725",
            "tcp [::]:4725",
        ] {
            let shown = case.show(Side::Remote)?["awaited"].to_string();
            assert!(shown.to_lowercase().contains(words), "{words}: {shown}");
            let log = remote.log().to_lowercase();
            assert!(log.contains(words), "{words}: {log}");
        }
        let own = std::fs::read_to_string("/proc/self/comm")?;
        let log = remote.log();
        let words = format!("{}, process {} of user", own.trim(), std::process::id());
        assert!(log.contains(&words), "{words}: {log}");
        drop(held);
        case.wait_for_paths(2)?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        eventually("nothing is waited for", || {
            Ok(case.show(Side::Remote)?["awaited"]
                .as_array()
                .is_some_and(Vec::is_empty))
        })?;
        Ok(())
    })
}
