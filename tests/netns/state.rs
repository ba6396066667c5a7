//! The host after netcombiner is the host before it.

use std::process::ExitStatus;

use netcombiner_lab::prelude::*;
use nix::sys::signal::Signal;

use super::support::kernel::{rules, sh};
use super::support::{Answers, Case, Outcome, Setup, Steady, Talk, case};

const SECOND: Duration = Duration::from_secs(1);

/// What each way to end must leave.
fn restored(end: impl Fn(&Case, Portal) -> Result<(), Error>, reverse_path: u8) {
    let setup = Setup {
        reverse_path,
        ..Setup::default()
    };
    case(setup, |case| -> Outcome {
        // Something of others stands there, too.
        for host in [&case.lab.remote, &case.lab.local] {
            sh(host, "ip -4 rule add pref 50 to 192.0.2.0/24 lookup 50")?;
            sh(host, "ip -4 route add blackhole 192.0.2.0/24 table 50")?;
        }
        let before = Side::BOTH.map(|side| host_state(case.lab.host(side)));
        let (remote, local) = case.up()?;
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        end(case, local)?;
        end(case, remote)?;
        for (side, before) in Side::BOTH.into_iter().zip(before) {
            let after = host_state(case.lab.host(side))?;
            assert_eq!(before?.differences(&after), [""; 0], "{side:?}");
            let rules = rules(case.lab.host(side))?;
            assert!(rules.contains("rule lookup local pref 0"), "{rules:#?}");
            let left: Vec<_> = std::fs::read_dir(case.portals.run_dir(side))?
                .filter_map(|entry| Some(entry.ok()?.file_name()))
                .collect();
            assert!(left.is_empty(), "{side:?}: {left:?}");
        }
        Ok(())
    });
}

#[test]
fn after_sigterm() {
    restored(|_, portal| portal.stop().map(|_| ()), 1);
}

#[test]
fn after_sigint() {
    restored(
        |_, mut portal| {
            portal.process.signal(Signal::SIGINT)?;
            good(portal.process.wait(10 * SECOND)?)
        },
        0,
    );
}

#[test]
fn after_down() {
    restored(
        |case, mut portal| {
            let said = case.lab.down(&case.portals, portal.side)?;
            assert_eq!(said, "", "an orderly end has nothing to say");
            // `down` has waited for it.
            good(portal.process.wait(SECOND)?)
        },
        2,
    );
}

#[test]
fn after_sigkill_and_down() {
    restored(
        |case, portal| {
            let side = portal.side;
            portal.kill();
            let said = case.lab.down(&case.portals, side)?;
            assert!(said.contains("took away"), "{said:?}");
            Ok(())
        },
        1,
    );
}

#[test]
fn after_sigkill_a_restart_and_sigterm() {
    restored(
        |case, portal| {
            let side = portal.side;
            portal.kill();
            case.start(side)?.stop().map(|_| ())
        },
        1,
    );
}

fn good(status: ExitStatus) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("ended with {status}")))
}

#[test]
fn the_kept_port_is_reachable_all_the_time() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        // Beside: new connections each 50 ms, and one that lasts over everything.
        let steady = Steady::start(&lab.server, ssh.address(), "remote")?;
        let mut lasting = Talk::open(&lab.server, ssh.address())?;
        let own = Answers::start(&lab.client, PUBLIC, 80)?;
        let pause = || std::thread::sleep(SECOND / 2);

        let (remote, local) = case.up()?;
        pause();
        lab.emulator.set_outage(0, Outage::Drop);
        pause();
        lab.emulator.set_outage(0, Outage::None);
        let mut client = Talk::open(&lab.server, own.address())?;
        assert_eq!(client.ask()?, format!("client to {SERVER}"));
        remote.kill();
        pause();
        let remote = case.start(Side::Remote)?;
        case.wait_for_paths(2)?;
        pause();
        remote.stop()?;
        pause();
        local.stop()?;
        assert_eq!(lasting.ask()?, format!("remote to {SERVER}"));
        let good = steady.finish()?;
        assert!(good > 40, "only {good} tries");
        Ok(())
    });
}
