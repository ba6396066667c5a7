//! The tables of `docs/crossing.md` that speak of hosts: each row is done in a real kernel.

use std::net::Ipv4Addr;

use netcombiner_lab::clock::now;
use netcombiner_lab::prelude::*;

use super::crossing::{home_router, pings};
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::{Answers, Case, LOCAL, Outcome, Setup, Talk, Watch, case, eventually};

const DOCUMENT: &str = include_str!("../../docs/crossing.md");
const MS: Duration = Duration::from_millis(1);

/// The rows of the table whose head is this, without the head.
pub(crate) fn rows<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Vec<[&'static str; COLUMNS]> {
    let head = format!("| {} |\n", head.join(" | "));
    let (_, below) = DOCUMENT
        .split_once(&head)
        .expect("the document has this table");
    let table = below
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().expect("as many cells as the head has")
    };
    table.map(row).collect()
}

/// A local portal that delivers so, with keep and forwards, and the lines in `more`.
fn delivering(deliver: &str, more: &str) -> Setup {
    match deliver {
        "client" => {
            let mut setup = Setup::default();
            setup.options.local = more.into();
            setup
        }
        "nat" => Setup::nat(&format!(
            "forwards = [\"tcp:8082 -> {LAN_MACHINE}\"]\n{more}"
        )),
        "none" => Setup::delivering(&format!("deliver = \"none\"\n{more}")),
        other => panic!("no such delivery: {other}"),
    }
}

/// Who answers at this port: the name of the host, as the document says it.
fn answering(from: &Namespace, to: Ipv4Addr, port: u16) -> &'static str {
    let Ok(mut talk) = Talk::open_within(from, (to, port).into(), 2000 * MS) else {
        return "nobody";
    };
    let answer = talk.ask().unwrap_or_default();
    match answer.split_whitespace().next() {
        Some("client") => "client",
        Some("local") => "router",
        Some("remote") => "VPS",
        other => panic!("{other:?} answers"),
    }
}

/// Field row A2: who answers what comes out of the tunnel at home.
#[test]
fn new_connections_end_where_the_document_says() {
    let table = rows(["deliver", "to", "port", "answered by"]);
    assert!(table.len() >= 10, "{table:?}");
    for deliver in ["client", "nat", "none"] {
        case(
            delivering(deliver, "keep = [\"tcp:8081\"]"),
            |case| -> Outcome {
                let lab = &case.lab;
                if deliver == "nat" {
                    into_a_lan(lab)?;
                }
                let _portals = case.up()?;
                let any = Ipv4Addr::UNSPECIFIED;
                let mut services = Vec::new();
                for port in [8080, 8081, 8082] {
                    services.push(Answers::start(&lab.local, any, port)?);
                    services.push(Answers::start(&lab.client, any, port)?);
                }
                for row in table.iter().filter(|row| row[0] == deliver) {
                    let port = match row[2] {
                        "other" => 8080,
                        "keep" => 8081,
                        "forwards" => 8082,
                        other => panic!("no such port: {other}"),
                    };
                    let who = match row[1] {
                        "PUBLIC" => answering(&lab.server, PUBLIC, port),
                        "LOCAL" => answering(&lab.remote, LOCAL, port),
                        other => panic!("no such address: {other}"),
                    };
                    assert_eq!(who, row[3], "{row:?}");
                }
                Ok(())
            },
        );
    }
}

/// Waits until what home sends goes so; what is to stay inside has to stay so for a while.
fn goes(case: &Case, clear: &Watch<'_>, state: &str, way: &str, row: &[&str]) -> Outcome {
    let once = || -> Result<String, Error> {
        let before = clear.packets()?;
        let answered = pings(&case.lab.client, SERVER)?;
        let clear = clear.packets()? - before;
        let way = match (answered, clear) {
            (5, 0) => "tunnel",
            (5, 5) => "link",
            (0, 0) => "inside",
            _ => return Ok(format!("{clear} in clear, {answered} answered")),
        };
        Ok(way.to_owned())
    };
    let end = now() + Duration::from_secs(90);
    while once()? != way {
        // Nothing leaves in clear on the way to any state that forbids it.
        assert!(way != "inside" || clear.packets()? == 0, "{row:?}");
        assert!(now() < end, "{row:?}: {state}: {}", once()?);
    }
    Ok(())
}

/// Field row B4: what home sends while the tunnel carries nothing.
#[test]
fn home_sends_where_the_document_says() {
    let table = rows([
        "deliver",
        "without_tunnel",
        "both up",
        "local daemon killed",
        "remote daemon dead",
    ]);
    assert!(table.len() >= 3, "{table:?}");
    for row in table {
        let [deliver, without, up, killed, dead] = row;
        let more = match deliver {
            "client" => String::new(),
            _ => format!("without_tunnel = \"{without}\""),
        };
        case(delivering(deliver, &more), |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if deliver == "nat" {
                into_a_lan(lab)?;
            }
            let packets = format!("iifname link* icmp type echo-request ip daddr {SERVER}");
            let clear = Watch::start(&lab.internet, "prerouting", &packets)?;
            let (remote, local) = case.up()?;
            goes(case, &clear, "both up", up, &row)?;
            local.kill();
            goes(case, &clear, "local daemon killed", killed, &row)?;
            let _local = case.start(Side::Local)?;
            case.wait_for_paths(2)?;
            goes(case, &clear, "both up", up, &row)?;
            remote.kill();
            // Before it is noticed nothing comes back; after it the same has to hold.
            std::thread::sleep(13_000 * MS);
            goes(case, &clear, "remote daemon dead", dead, &row)
        });
    }
}

/// Brings the client's device, `lan`, into a state, with the local portal running at the end of it.
fn put_device(case: &Case, state: &str) -> Result<Portal, Error> {
    let line = match state {
        "up" => None,
        "down" | "down at the start" => Some("ip link set lan down"),
        "deleted" => Some("ip link delete lan"),
        "not there at the start" => Some("ip link set lan name elsewhere"),
        other => panic!("no such state: {other}"),
    };
    let change = || line.map_or(Ok(String::new()), |line| sh(&case.lab.local, line));
    if state.ends_with("at the start") {
        change()?;
        let local = case.start(Side::Local)?;
        case.wait_for_paths(2)?;
        return Ok(local);
    }
    let local = case.start(Side::Local)?;
    case.wait_for_paths(2)?;
    eventually("the client is there", || {
        Ok(pings(&case.lab.server, PUBLIC)? == 5)
    })?;
    change()?;
    Ok(local)
}

/// Field row B3: what comes for a client whose device is not there never leaves elsewhere.
#[test]
fn packets_for_the_client_go_where_the_document_says() {
    for row in rows(["client's device", "packets for PUBLIC"]) {
        case(Setup::default(), |case| -> Outcome {
            let lab = &case.lab;
            let leaked = format!("iifname link* ip saddr {SERVER}");
            let _remote = case.start(Side::Remote)?;
            let _local = put_device(case, row[0])?;
            let leaks = Watch::start(&lab.internet, "prerouting", &leaked)?;
            let come = Watch::start(
                &lab.local,
                "prerouting",
                "iifname nc0 icmp type echo-request",
            )?;
            let answered = pings(&lab.server, PUBLIC)?;
            assert_eq!(answered, if row[1] == "client" { 5 } else { 0 }, "{row:?}");
            assert!(["client", "dropped"].contains(&row[1]), "{row:?}");
            assert_eq!(come.packets()?, 5, "{row:?}");
            assert_eq!(leaks.packets()?, 0, "{row:?}");
            Ok(())
        });
    }
}

/// Field row B5: whose the public address is, in each state of the daemons.
#[test]
fn the_public_address_is_whose_the_document_says() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let any = Ipv4Addr::UNSPECIFIED;
        let mut services = Vec::new();
        for port in [22, 8080] {
            services.push(Answers::start(&lab.remote, any, port)?);
            services.push(Answers::start(&lab.client, any, port)?);
        }
        for row in rows(["state", "kept ports", "other ports"]) {
            let (remote, local) = case.up()?;
            eventually("the address is the client's", || {
                Ok(answering(&lab.server, PUBLIC, 8080) == "client")
            })?;
            match row[0] {
                "both up" => {}
                "local daemon dead" => local.kill(),
                "remote daemon killed" => remote.kill(),
                "remote daemon stopped" => remote.stop().map(drop)?,
                other => panic!("no such state: {other}"),
            }
            assert_eq!(answering(&lab.server, PUBLIC, 22), row[1], "{row:?}");
            assert_eq!(answering(&lab.server, PUBLIC, 8080), row[2], "{row:?}");
        }
        Ok(())
    });
}
