//! SIGKILL of either daemon: the hosts stay reachable, the peer and the client's connections
//! recover.

use netcombiner_lab::prelude::*;

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
