//! The lab itself: namespaces, processes and what is left of them.

use std::error::Error as StdError;
use std::process::Command;

use netcombiner_lab::prelude::*;

const MS: Duration = Duration::from_millis(1);

type Outcome = Result<(), Box<dyn StdError>>;

fn raise() -> Result<Lab, Error> {
    net::enter()?;
    Lab::start(&LabSpec::new(vec![
        LinkSpec::symmetric(50.0, 10),
        LinkSpec::symmetric(50.0, 10),
    ]))
}

#[test]
fn all_of_figure_4_1_is_reachable() -> Outcome {
    let lab = raise()?;
    let ping = |from: &Namespace, to| Probe::ping(from, to, 10 * MS, 5).map(Probe::finish);
    assert_eq!(ping(&lab.local, PUBLIC)?.answered, 5);
    assert_eq!(ping(&lab.local, SERVER)?.answered, 5);
    assert_eq!(ping(&lab.remote, SERVER)?.answered, 5);
    // Without netcombiner the client has a gateway that is not there.
    assert_eq!(ping(&lab.client, SERVER)?.answered, 0);
    let echo = UdpEcho::start(&lab.server, SERVER, 0)?;
    let probes = Probe::udp(&lab.remote, echo.address(), 10 * MS, 5)?.finish();
    assert_eq!((probes.answered, probes.lost()), (5, 0));
    Ok(())
}

#[test]
fn several_labs_do_not_see_each_other() -> Outcome {
    let (one, two) = (raise()?, raise()?);
    one.emulator.set_outage(0, Outage::Drop);
    let by_first = |lab: &Lab| -> Result<u32, Error> {
        Ok(
            Probe::ping_by(&lab.local, SERVER, Some("wan0"), 10 * MS, 5)?
                .finish()
                .answered,
        )
    };
    assert_eq!((by_first(&one)?, by_first(&two)?), (0, 5));
    Ok(())
}

#[test]
fn host_state_is_stable_and_sees_every_change() -> Outcome {
    let lab = raise()?;
    let before = host_state(&lab.local)?;
    std::thread::sleep(300 * MS);
    assert_eq!(before.differences(&host_state(&lab.local)?), [""; 0]);
    for kind in ["rule ", "route ", "address ", "device ", "sysctl "] {
        assert!(before.lines().any(|line| line.starts_with(kind)), "{kind}");
    }
    lab.local.set_sysctl("ipv4/ip_forward", "1")?;
    lab.set_default_route(1, false)?;
    let changes = before.differences(&host_state(&lab.local)?);
    assert!(changes.contains(&"+ sysctl ipv4/ip_forward = 1".to_owned()));
    let route = |line: &&String| line.starts_with("- route") && line.contains("dev wan1");
    assert_eq!(changes.iter().filter(route).count(), 1, "{changes:#?}");
    Ok(())
}

#[test]
fn a_link_gets_other_addresses_and_goes_on() -> Outcome {
    let lab = raise()?;
    lab.renumber(0, [10, 10, 0], [10, 77, 0])?;
    let ping = Probe::ping_by(&lab.local, SERVER, Some("wan0"), 10 * MS, 5)?;
    assert_eq!(ping.finish().answered, 5);
    lab.renumber(0, [10, 77, 0], [10, 10, 0])?;
    let ping = Probe::ping_by(&lab.local, SERVER, Some("wan0"), 10 * MS, 5)?;
    assert_eq!(ping.finish().answered, 5);
    Ok(())
}

#[test]
fn a_device_goes_and_the_other_link_lives() -> Outcome {
    let lab = raise()?;
    lab.local.netlink()?.delete("wan0")?;
    let ping = Probe::ping_by(&lab.local, SERVER, Some("wan1"), 10 * MS, 20)?;
    assert_eq!(ping.finish().answered, 20);
    Ok(())
}

#[test]
fn what_is_left_is_found() -> Outcome {
    let lab = raise()?;
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let mut process = Process::spawn(&lab.client, sleep)?;
    let held = lab.server.clone();
    let left = lab.stop()?;
    assert_eq!(left.processes.len(), 1, "{left}");
    // The process holds the client's namespace, and we the server's.
    assert_eq!(left.namespaces.len(), 2, "{left}");
    process.kill();
    drop(held);
    Ok(())
}

#[test]
fn a_command_in_a_namespace_sees_only_that() -> Outcome {
    let lab = raise()?;
    let cat = |file: &str| {
        let mut command = Command::new("cat");
        command.arg(file);
        command
    };
    let devices = run(&lab.local, cat("/proc/self/net/dev"))?;
    assert!(devices.contains("wan1:") && devices.contains("lan:"));
    assert!(!devices.contains("eth0:"));
    let error = run(&lab.local, cat("/nonexistent"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nonexistent"), "{error}");
    Ok(())
}
