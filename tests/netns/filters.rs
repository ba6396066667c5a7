//! Field row B2: a packet filter of somebody else on the remote portal's host, while both portals run.

use netcombiner_lab::clock::now;
use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Outcome, Setup, case};

/// The ruleset is looked at again within half a minute, also where nothing tells of a change.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn it_is_named_by_the_log_and_by_show_until_it_lets_pass() {
    case(Setup::default(), |case| -> Outcome {
        let remote = &case.lab.remote;
        for line in [
            "add table ip filter",
            "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        ] {
            sh(remote, &format!("nft {line}"))?;
        }
        let (portal, _local) = case.up()?;
        let filters = || -> Result<Vec<String>, Error> {
            let status = case.show(Side::Remote)?;
            let lines = status["filters"].as_array().cloned().unwrap_or_default();
            let lines = lines.iter().filter_map(|line| line.as_str());
            Ok(lines.map(str::to_owned).collect())
        };
        let words = "chain FORWARD of table ip filter drops what comes";
        let lines = filters()?;
        assert!(
            lines.len() == 2 && lines.iter().all(|it| it.contains(words)),
            "{lines:#?}"
        );
        assert!(portal.log().contains(words), "{}", portal.log());

        // The client's packets come out of the tunnel, and no answer goes into it.
        let start = now();
        while !filters()?[0].starts_with("packets go through nc0 one way") {
            assert_eq!(case.pings(&case.lab.client, SERVER)?, 0);
            assert!(start.elapsed() < PATIENCE, "{:#?}", filters()?);
        }
        let noticed = portal.log();
        assert!(
            noticed.contains("one way and none come back: "),
            "{noticed}"
        );

        for line in lines {
            let command = line.split('`').nth(1).unwrap_or_default();
            sh(remote, &command.replace('"', ""))?;
        }
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        let start = now();
        while !filters()?.is_empty() {
            assert!(start.elapsed() < PATIENCE, "{:#?}", filters()?);
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    });
}
