//! The client's device goes, is down, and comes: what is for the client never leaves elsewhere.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case, eventually};

/// Counts what leaves the local portal by a link although it came from the server, for the client.
fn count_leaks(case: &Case) -> Outcome {
    for line in [
        "nft add table inet watch",
        "nft add chain inet watch out { type filter hook postrouting priority 300 ; }",
        "nft add rule inet watch out oifname wan* ip saddr 198.51.100.2 counter",
    ] {
        sh(&case.lab.local, line)?;
    }
    Ok(())
}

fn leaks(case: &Case) -> Result<bool, Error> {
    let listed = sh(&case.lab.local, "nft list table inet watch")?;
    Ok(!listed.contains("packets 0 bytes 0"))
}

/// Field row B3: packets for a client whose device is down or gone end at the local portal.
#[test]
fn a_client_without_a_device_leaks_nothing() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let (_remote, local) = case.up()?;
        count_leaks(case)?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        sh(&lab.local, "ip link set lan down")?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 0);
        assert!(!leaks(case)?);
        // The links are as ever, and so is the client when it is back.
        assert_eq!(case.paths_up()?.len(), 2);
        sh(&lab.local, "ip link set lan up")?;
        eventually("the client is back", || {
            Ok(case.pings(&lab.server, PUBLIC)? == 20)
        })?;
        sh(&lab.local, "ip link delete lan")?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 0);
        // A link changes meanwhile: nothing of the client's stands in its way.
        sh(&lab.local, "ip address add 10.10.0.77/24 dev wan0")?;
        eventually("the link's new address has its rule", || {
            Ok(sh(&lab.local, "ip rule show")?.contains("from 10.10.0.77 to 203.0.113.2"))
        })?;
        assert!(!leaks(case)?);
        let log = local.log();
        assert!(!log.contains("warning: routing"), "{log}");
        Ok(())
    });
}

/// Field row B3: the client's device is down, or not there, when the daemon starts.
#[test]
fn a_client_whose_device_comes_late() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let _remote = case.start(Side::Remote)?;
        sh(&lab.local, "ip link set lan down")?;
        let local = case.start(Side::Local)?;
        case.wait_for_paths(2)?;
        count_leaks(case)?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 0);
        sh(&lab.local, "ip link set lan up")?;
        eventually("the client is there", || {
            Ok(case.pings(&lab.server, PUBLIC)? == 20)
        })?;
        local.stop()?;
        sh(&lab.local, "ip link set lan name later")?;
        let _local = case.start(Side::Local)?;
        case.wait_for_paths(2)?;
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 0);
        sh(&lab.local, "ip link set later down")?;
        sh(&lab.local, "ip link set later name lan")?;
        sh(&lab.local, "ip link set lan up")?;
        eventually("the client is there", || {
            Ok(case.pings(&lab.server, PUBLIC)? == 20)
        })?;
        assert!(!leaks(case)?);
        Ok(())
    });
}
