//! Every mode of security, transport and delivery carries.

use std::net::{Ipv4Addr, UdpSocket};

use netcombiner_lab::prelude::*;

use netcombiner_lab::clock::Clock;
use netcombiner_lab::traffic::{Heard, Voice};

use super::support::wire::Tap;
use super::support::{Answers, Case, Outcome, Setup, Talk, case, eventually};

const MS: Duration = Duration::from_millis(1);

fn with(change: impl FnOnce(&mut ConfigOptions)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.options);
    setup
}

fn secured(lines: &str) -> Setup {
    with(|options| {
        options.local = lines.into();
        options.remote = lines.into();
    })
}

/// Both ways, every byte checked, and new connections from both sides.
fn carries(case: &Case) -> Outcome {
    let lab = &case.lab;
    for sender in [Sender::Connector, Sender::Listener] {
        let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
        transfer(&connection, 2_000_000, 5000 * MS)?;
    }
    let service = Answers::start(&lab.client, PUBLIC, 443)?;
    let mut talk = Talk::open(&lab.server, service.address())?;
    assert_eq!(talk.ask()?, format!("client to {SERVER}"));
    Ok(())
}

/// Whether what the client says can be read on the wire.
fn is_readable(case: &Case) -> Result<bool, Box<dyn std::error::Error>> {
    const WORDS: &[u8] = b"these words are nobody's but ours, or everybody's";
    let tap = Tap::start(&case.lab.internet)?;
    let client = case.lab.client.run(|| UdpSocket::bind((PUBLIC, 0)))??;
    for _ in 0..10 {
        client.send_to(WORDS, (SERVER, 9))?;
        std::thread::sleep(10 * MS);
    }
    std::thread::sleep(200 * MS);
    let datagrams = tap.finish();
    assert!(datagrams.len() >= 10, "{} datagrams seen", datagrams.len());
    Ok(datagrams
        .iter()
        .any(|it| it.payload.windows(WORDS.len()).any(|bytes| bytes == WORDS)))
}

#[test]
fn encrypted() {
    case(secured("security = \"encrypt\""), |case| -> Outcome {
        let _portals = case.up()?;
        carries(case)?;
        assert!(!is_readable(case)?);
        Ok(())
    });
}

#[test]
fn authenticated() {
    case(secured("security = \"authenticate\""), |case| -> Outcome {
        let _portals = case.up()?;
        carries(case)?;
        assert!(is_readable(case)?);
        Ok(())
    });
}

#[test]
fn unprotected() {
    let lines = "security = \"none\"\ni_understand_data_is_not_protected = true";
    case(secured(lines), |case| -> Outcome {
        let _portals = case.up()?;
        carries(case)?;
        assert!(is_readable(case)?);
        Ok(())
    });
}

#[test]
fn two_minds_about_security_carry_nothing_and_say_so() {
    let setup = with(|options| options.local = "security = \"authenticate\"".into());
    case(setup, |case| -> Outcome {
        let remote = case.start(Side::Remote)?;
        let local = case.start(Side::Local)?;
        eventually("a word about it in a log", || {
            Ok([&remote, &local]
                .iter()
                .any(|it| it.log().contains("authenticate")))
        })?;
        assert_eq!(case.paths_up()?, [""; 0]);
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 0);
        Ok(())
    });
}

#[test]
fn over_tcp() {
    case(
        with(|options| options.link = "transport = \"tcp\"".into()),
        |case| -> Outcome {
            let _portals = case.up()?;
            carries(case)
        },
    );
}

#[test]
fn over_udp_and_tcp_together() {
    case(Setup::default(), |case| -> Outcome {
        let file = case.portals.config(Side::Local);
        let text = std::fs::read_to_string(&file)?;
        let second = "device = \"wan1\"\n";
        assert!(text.contains(second));
        std::fs::write(
            &file,
            text.replace(second, "device = \"wan1\"\ntransport = \"tcp\"\n"),
        )?;
        let _portals = case.up()?;
        carries(case)?;
        let status = case.show(Side::Local)?;
        assert_eq!(status["links"][0]["transport"], "udp");
        assert_eq!(status["links"][1]["transport"], "tcp");
        for link in [0, 1] {
            assert!(case.carried(link, Direction::Down) > 100_000, "link {link}");
        }
        Ok(())
    });
}

/// What is sent on two links at once loses nothing when either of them dies, not for a moment.
#[test]
fn a_redundant_call_does_not_hear_a_link_die() {
    case(
        secured("redundant = [\"udp:1024-65535\"]"),
        |case| -> Outcome {
            let _portals = case.up()?;
            case.wait_for_paths(2)?;
            let lab = &case.lab;
            let clock = Clock::start();
            let call = Voice::start((&lab.client, PUBLIC), (&lab.server, SERVER), clock)?;
            for link in [0, 1] {
                std::thread::sleep(1000 * MS);
                lab.emulator.set_outage(link, Outage::Drop);
                std::thread::sleep(1000 * MS);
                lab.emulator.set_outage(link, Outage::None);
                case.wait_for_paths(2)?;
            }
            let report = call.finish()?;
            for (way, said) in [("down", &report.down), ("up", &report.up)] {
                let heard = Heard::between(said, Duration::ZERO, Duration::MAX);
                assert!(heard.sent > 200 && heard.lost == 0, "{way}: {heard:?}");
            }
            for side in [Side::Local, Side::Remote] {
                let repair = &case.show(side)?["repair"];
                assert!(repair["twice"].as_u64() > Some(50), "{side:?}: {repair}");
                assert!(repair["copies"].as_u64() > Some(50), "{side:?}: {repair}");
            }
            Ok(())
        },
    );
}

#[test]
fn a_tcp_link_that_dies_silently_returns() {
    case(
        with(|options| options.link = "transport = \"tcp\"".into()),
        |case| -> Outcome {
            let (remote, _local) = case.up()?;
            case.lab.emulator.set_outage(0, Outage::Drop);
            eventually("only wan1 is up", || Ok(case.paths_up()? == ["wan1"]))?;
            case.lab.emulator.set_outage(0, Outage::None);
            case.wait_for_paths(2)?;
            remote.kill();
            let _remote = case.start(Side::Remote)?;
            case.wait_for_paths(2)?;
            carries(case)
        },
    );
}

/// The client becomes a machine of a private network behind the router.
pub(crate) fn into_a_lan(lab: &Lab) -> Result<(), Error> {
    let (router, machine) = (Ipv4Addr::new(192, 168, 7, 1), LAN_MACHINE);
    let mut client = lab.client.netlink()?;
    client.remove_address("eth0", PUBLIC.into(), 32)?;
    client.add_address("eth0", machine.into(), 24)?;
    lab.local.netlink()?.add_address("lan", router.into(), 24)?;
    client.set_route((Ipv4Addr::UNSPECIFIED, 0), "eth0", Some(router), 0)
}

/// The machine that [`into_a_lan`] makes of the client.
pub(crate) const LAN_MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);

#[test]
fn a_private_network_shares_the_address() {
    let setup = with(|options| {
        options.deliver = Some(
            "deliver = \"nat\"\nlan = { device = \"lan\" }\n\
             forwards = [\"tcp:443 -> 192.168.7.20:8443\"]"
                .into(),
        );
    });
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let before = host_state(&lab.local)?;
        let (_remote, local) = case.up()?;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));
        for sender in [Sender::Connector, Sender::Listener] {
            let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
            transfer(&connection, 1_000_000, 5000 * MS)?;
        }
        // Inward: the forward to the machine, and nothing else to the router, which has the address.
        let _machine = Answers::start(&lab.client, LAN_MACHINE, 8443)?;
        let mut talk = Talk::open(&lab.server, (PUBLIC, 443).into())?;
        assert_eq!(talk.ask()?, format!("client to {SERVER}"));
        let router = Answers::start(&lab.local, PUBLIC, 8080)?;
        assert!(Talk::open(&lab.server, router.address()).is_err());
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        local.stop()?;
        assert_eq!(before.differences(&host_state(&lab.local)?), [""; 0]);
        Ok(())
    });
}

#[test]
fn the_administrator_routes_himself() {
    let setup = with(|options| options.deliver = Some("deliver = \"none\"".into()));
    case(setup, |case| -> Outcome {
        let _portals = case.up()?;
        let (local, remote) = (
            Ipv4Addr::new(172, 19, 152, 3),
            Ipv4Addr::new(172, 19, 152, 2),
        );
        assert_eq!(case.pings(&case.lab.local, remote)?, 20);
        assert_eq!(case.pings(&case.lab.remote, local)?, 20);
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 0);
        Ok(())
    });
}
