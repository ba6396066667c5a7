//! Links come, go, change and return; a flow goes on.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Answers, Case, Outcome, Setup, Talk, case, eventually};

const MS: Duration = Duration::from_millis(1);

/// How long a flow may stand still when a link dies: a retransmission of its TCP and the time in
/// which the tunnel notices. Far above what it takes.
const STANDSTILL: Duration = Duration::from_secs(4);

#[test]
fn a_link_dies_silently_amid_a_download_and_returns() {
    silent(Sender::Listener, Direction::Down);
}

#[test]
fn a_link_dies_silently_amid_an_upload_and_returns() {
    silent(Sender::Connector, Direction::Up);
}

fn silent(sender: Sender, direction: Direction) {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
        let flow = Flow::start(&connection, 9000 * MS)?;
        std::thread::sleep(1500 * MS);
        lab.emulator.set_outage(0, Outage::Drop);
        std::thread::sleep(2500 * MS);
        let cut = (flow.received(), case.carried(0, direction));
        std::thread::sleep(500 * MS);
        assert!(flow.received() > cut.0, "the flow stands still");
        assert_eq!(
            case.carried(0, direction),
            cut.1,
            "the lab's cut link carried"
        );
        lab.emulator.set_outage(0, Outage::None);
        case.wait_for_paths(2)?;
        let back = case.carried(0, direction);
        eventually("the returned link carries", || {
            Ok(case.carried(0, direction) > back + 200_000)
        })?;
        let report = flow.finish()?;
        assert!(report.longest_gap < STANDSTILL, "{report:?}");
        Ok(())
    });
}

#[test]
fn both_links_die_and_one_returns() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        talk.ask()?;
        lab.emulator.set_outage(0, Outage::Drop);
        lab.emulator.set_outage(1, Outage::Drop);
        eventually("no path that is up", || Ok(case.paths_up()?.is_empty()))?;
        lab.emulator.set_outage(1, Outage::None);
        case.wait_for_paths(1)?;
        assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));
        Ok(())
    });
}

#[test]
fn a_device_goes_down_and_up() {
    changed(
        |case| {
            case.lab.local.netlink()?.set_down("wan0")?;
            only_the_other(case)?;
            case.lab.local.netlink()?.set_up("wan0")?;
            // The kernel dropped the route with the device; a DHCP client sets it again.
            case.lab.set_default_route(0, true)
        },
        true,
    );
}

#[test]
fn a_link_is_renumbered() {
    changed(
        |case| {
            case.lab.renumber(0, [10, 10, 0], [10, 77, 0])?;
            eventually("a socket at the new address", || {
                let status = case.show(Side::Local)?;
                let local = status["links"][0]["local"].to_string();
                Ok(local.contains("10.77.0.2"))
            })
        },
        true,
    );
}

#[test]
fn a_default_route_goes_and_returns() {
    changed(
        |case| {
            case.lab.set_default_route(0, false)?;
            std::thread::sleep(1000 * MS);
            case.lab.set_default_route(0, true)
        },
        true,
    );
}

#[test]
fn a_device_is_deleted_for_good() {
    changed(
        |case| {
            case.lab.local.netlink()?.delete("wan0")?;
            only_the_other(case)
        },
        false,
    );
}

#[test]
fn an_address_of_a_link_is_taken_and_given_back() {
    changed(
        |case| {
            sh(&case.lab.local, "ip address del 10.10.0.2/24 dev wan0")?;
            only_the_other(case)?;
            sh(&case.lab.local, "ip address add 10.10.0.2/24 dev wan0")?;
            sh(
                &case.lab.local,
                "ip neigh replace 10.10.0.1 lladdr 02:6e:63:00:00:01 dev wan0",
            )?;
            case.lab.set_default_route(0, true)
        },
        true,
    );
}

fn only_the_other(case: &Case) -> Result<(), Error> {
    eventually("only wan1 is up", || Ok(case.paths_up()? == ["wan1"]))
}

/// Something happens to link 0 amid a conversation and a download, after which it is back or not.
fn changed(what: impl FnOnce(&Case) -> Result<(), Error>, is_back: bool) {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let before = Side::BOTH.map(|side| host_state(lab.host(side)));
        let (remote, local) = case.up()?;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        let download = Connection::new(&lab.client, &lab.server, SERVER, Sender::Listener);
        let flow = Flow::start(&download, 60_000 * MS)?;
        std::thread::sleep(500 * MS);
        what(case)?;
        case.wait_for_paths(if is_back { 2 } else { 1 })?;
        assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));
        let received = flow.received();
        eventually("the download goes on", || {
            Ok(flow.received() > received + 500_000)
        })?;
        if is_back {
            let carried = case.carried(0, Direction::Down);
            eventually("link 0 carries again", || {
                Ok(case.carried(0, Direction::Down) > carried + 200_000)
            })?;
        }
        drop(flow);
        local.stop()?;
        remote.stop()?;
        // What we set for the link as it was is gone, too.
        for (side, before) in Side::BOTH.into_iter().zip(before) {
            let after = host_state(lab.host(side))?;
            let new: Vec<_> = before?
                .differences(&after)
                .into_iter()
                .filter(|line| line.starts_with('+'))
                // What the test itself changed.
                .filter(|line| !line.contains("10.77.0.") && !line.contains("10, 77, 0"))
                .collect();
            assert_eq!(new, [""; 0], "{side:?}");
        }
        Ok(())
    });
}
