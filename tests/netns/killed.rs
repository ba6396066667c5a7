//! SIGKILL of either daemon: the hosts stay reachable, the peer and the client's connections
//! recover.

use netcombiner_lab::prelude::*;

use super::support::kernel::rules;
use super::support::{Answers, Case, Outcome, Setup, Steady, Talk, case};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_remote_host_is_reachable_at_once() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let web = Answers::start(&lab.remote, PUBLIC, 8080)?;
        let (remote, _local) = case.up()?;
        let steady = Steady::start(&lab.server, ssh.address(), "remote")?;
        remote.kill();
        // The table of the tunnel is empty: all of the address is the host's again, not only what
        // was kept.
        let mut talk = Talk::open(&lab.server, web.address())?;
        assert_eq!(talk.ask()?, format!("remote to {SERVER}"));
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        assert_eq!(case.pings(&lab.remote, SERVER)?, 20);
        steady.finish()?;
        Ok(())
    });
}

#[test]
fn a_connection_of_the_client_outlives_the_remote_daemon() {
    outlives(Side::Remote);
}

#[test]
fn a_connection_of_the_client_outlives_the_local_daemon() {
    outlives(Side::Local);
}

fn outlives(side: Side) {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let (remote, local) = case.up()?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        talk.ask()?;
        let (killed, other) = match side {
            Side::Remote => (remote, local),
            Side::Local => (local, remote),
        };
        killed.kill();
        std::thread::sleep(300 * MS);
        let again = case.start(side)?;
        let answer = talk
            .ask()
            .map_err(|error| format!("after the restart: {error}"))?;
        assert_eq!(answer, format!("server to {PUBLIC}"));
        case.wait_for_paths(2)?;
        content(case)?;
        // And once more, so that what the first left behind is not in the way.
        again.kill();
        let _again = case.start(side)?;
        talk.ask()
            .map_err(|error| format!("after the second restart: {error}"))?;
        case.wait_for_paths(2)?;
        content(case)?;
        drop(other);
        Ok(())
    });
}

#[test]
fn both_at_once() {
    case(Setup::default(), |case| -> Outcome {
        let (remote, local) = case.up()?;
        remote.kill();
        local.kill();
        // The other way round: the one that connects is there first.
        let _local = case.start(Side::Local)?;
        let _remote = case.start(Side::Remote)?;
        case.wait_for_paths(2)?;
        content(case)
    });
}

fn content(case: &Case) -> Outcome {
    let lab = &case.lab;
    for sender in [Sender::Connector, Sender::Listener] {
        let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
        transfer(&connection, 1_000_000, 5000 * MS)?;
    }
    Ok(())
}

/// Field row A5: what a killed daemon borrowed is on record in its run directory, and another one's start
/// would take its work for the host's own.
#[test]
fn another_run_directory_is_no_way_around_what_was_left() {
    case(Setup::default(), |case| -> Outcome {
        let host = &case.lab.remote;
        let before = host_state(host)?;
        case.start(Side::Remote)?.kill();
        // Where /run is another user's, the host's lock is a socket, and nothing stays of it.
        if std::fs::create_dir_all("/run/netcombiner").is_ok() {
            let left = case.portals.run_dir(Side::Remote);
            for verb in ["run", "down"] {
                let mut command = case.portals.command(verb);
                match verb {
                    "down" => command.arg("nc0"),
                    _ => command.arg(case.portals.config(Side::Remote)),
                };
                command.arg("--run-dir");
                command.arg(case.dir.path().join("elsewhere"));
                let said = run(host, command).err().ok_or(verb)?.to_string();
                let line = format!("`netcombiner down nc0 --run-dir {}`", left.display());
                assert!(said.contains(&line), "{verb}: {said}");
            }
        }
        case.lab.down(&case.portals, Side::Remote)?;
        assert_eq!(before.differences(&host_state(host)?), [""; 0]);
        Ok(())
    });
}

/// The record is lost: where the kernel has table local is known all the same.
#[test]
fn table_local_goes_back_without_a_record() {
    case(Setup::default(), |case| -> Outcome {
        let host = &case.lab.remote;
        let before = rules(host)?;
        case.start(Side::Remote)?.kill();
        std::fs::remove_file(case.portals.run_dir(Side::Remote).join("nc0.baseline"))?;
        let again = case.start(Side::Remote)?;
        let log = again.log();
        assert!(log.contains("these settings may be its own"), "{log}");
        assert!(log.contains("net.ipv4.ip_forward"), "{log}");
        again.stop()?;
        assert_eq!(before, rules(host)?);
        Ok(())
    });
}
