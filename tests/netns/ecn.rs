//! Congestion marks on the outside (ECN): on the wire, through links that mark, and through links that
//! are wrong about it.

use netcombiner::packet::ecn::Codepoint;
use netcombiner_lab::prelude::*;
use serde_json::{Value, json};

use super::support::wire::{Datagram, Tap};
use super::support::{Case, Outcome, Setup, case, eventually};

const MS: Duration = Duration::from_millis(1);

/// How long a flow may stand still while a link is found out: none was seen above 300 ms, and the
/// machine may be busy.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// The first byte of a sealed datagram of the tunnel.
const SEALED: u8 = 0x40;
/// A datagram with data is longer than any without.
const DATA: usize = 1000;
/// The shortest with data: header, send time, frame, a TCP segment without payload, tag.
const LEAST_DATA: usize = 8 + 3 + 6 + 40 + 16;

/// These links, both ways.
fn links(shapes: &[Shape]) -> Setup {
    let both = |shape: &Shape| LinkSpec {
        up: shape.clone(),
        down: shape.clone(),
    };
    Setup {
        links: shapes.iter().map(both).collect(),
        ..Setup::default()
    }
}

fn dsl() -> Shape {
    Shape::new(20.0, 15 * MS)
}

fn lte() -> Shape {
    Shape::new(10.0, 40 * MS)
}

/// A flow of 3 s; who sends it, and in which direction.
fn flow(case: &Case, sender: Sender) -> Result<(FlowReport, Side, Direction), Error> {
    let lab = &case.lab;
    let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
    let report = Flow::start(&connection, 3000 * MS)?.finish()?;
    Ok(match sender {
        Sender::Connector => (report, Side::Local, Direction::Up),
        Sender::Listener => (report, Side::Remote, Direction::Down),
    })
}

/// Data, and what is none, of what was seen.
fn parted(seen: Vec<Datagram>) -> (Vec<Datagram>, Vec<Datagram>) {
    seen.into_iter().partition(|datagram| {
        datagram.payload.first() == Some(&SEALED) && datagram.payload.len() > DATA
    })
}

#[test]
fn a_link_that_marks_is_heard_and_only_data_can_be_marked() {
    let step = Aqm::Step(MS);
    case(
        links(&[dsl().with_aqm(step), lte().with_aqm(step)]),
        |case| -> Outcome {
            let tap = Tap::start(&case.lab.internet)?;
            let _portals = case.up()?;
            let beside = tap.finish();
            assert!(beside.len() > 4, "the tap is open");
            assert!(
                beside
                    .iter()
                    .all(|it| it.codepoint == Codepoint::NotCapable)
            );
            for sender in [Sender::Listener, Sender::Connector] {
                let tap = Tap::start(&case.lab.internet)?;
                let (report, side, direction) = flow(case, sender)?;
                assert!(report.longest_gap < STANDSTILL, "{report:?}");
                let (data, beside) = parted(tap.finish());
                let plain = |it: &&Datagram| it.codepoint == Codepoint::NotCapable;
                // A few more than the tests of the paths; and long acknowledgements are none.
                assert!(data.len() > 1000, "{} seen", data.len());
                assert!(data.iter().filter(plain).count() < 100, "{side:?}");
                // Shorter than any with a packet of 40 bytes in it: these are no data.
                let mut short = beside.iter().filter(|it| it.payload.len() < LEAST_DATA);
                assert!(short.clone().count() > 10, "{side:?}");
                assert!(short.all(|it| it.codepoint == Codepoint::NotCapable));
                // The tap lies behind the links on the way up, and before them on the way down.
                let marked = data
                    .iter()
                    .filter(|it| it.codepoint == Codepoint::Experienced);
                assert_eq!(marked.count() > 0, direction == Direction::Up, "{side:?}");
                for (link, path) in case.paths(side)?.iter().enumerate() {
                    assert_eq!(path["ecn"], "capable", "{path}");
                    let told = path["marked"].as_u64().unwrap_or(0);
                    let done = case.lab.emulator.counters(link, direction).marked;
                    assert!(told > 0 && told <= done, "{told} of {done}");
                }
            }
            Ok(())
        },
    );
}

/// Long enough a flow, both ways, and its path's verdict, which comes within a second or so.
fn wrong(setup: Setup, verdict: &Value) {
    case(setup, |case| -> Outcome {
        let _portals = case.up()?;
        for sender in [Sender::Listener, Sender::Connector] {
            let (report, side, direction) = flow(case, sender)?;
            assert!(report.longest_gap < STANDSTILL, "{report:?}");
            // A tenth of the slower link, in 3 s.
            assert!(case.carried(0, direction) > 375_000, "{report:?}");
            let path = &case.paths(side)?[0];
            assert_eq!(&path["ecn"], verdict, "{path}");
        }
        Ok(())
    });
}

#[test]
fn a_link_that_drops_what_can_be_marked_carries_all_the_same() {
    let drops = dsl().with_ecn_fault(EcnFault::DropsCapable);
    wrong(links(&[drops, lte()]), &json!({ "failed": "dropped" }));
}

#[test]
fn so_does_the_only_link() {
    let drops = dsl().with_ecn_fault(EcnFault::DropsCapable);
    wrong(links(&[drops]), &json!({ "failed": "dropped" }));
}

#[test]
fn and_one_that_marks_everything() {
    let marks = dsl().with_ecn_fault(EcnFault::MarksAll);
    wrong(links(&[marks, lte()]), &json!({ "failed": "everything" }));
}

#[test]
fn a_link_that_begins_to_drop_amid_a_flow_is_found_out() {
    case(links(&[dsl()]), |case| -> Outcome {
        let lab = &case.lab;
        let _portals = case.up()?;
        let connection = Connection::new(&lab.client, &lab.server, SERVER, Sender::Listener);
        let flow = Flow::start(&connection, 5000 * MS)?;
        eventually("the path is in use", || {
            Ok(case.paths(Side::Remote)?[0]["ecn"] == "capable")
        })?;
        std::thread::sleep(1000 * MS);
        for direction in [Direction::Up, Direction::Down] {
            lab.emulator.reshape(0, direction, |shape| {
                shape.ecn_fault = Some(EcnFault::DropsCapable);
            });
        }
        eventually("the path is found out", || {
            Ok(case.paths(Side::Remote)?[0]["ecn"] == json!({ "failed": "dropped" }))
        })?;
        let report = flow.finish()?;
        assert!(report.longest_gap < STANDSTILL, "{report:?}");
        Ok(())
    });
}

#[test]
fn switched_off_nothing_can_be_marked() {
    let options = ConfigOptions {
        local: "ecn = false".into(),
        remote: "ecn = false".into(),
        ..ConfigOptions::default()
    };
    let setup = Setup {
        options,
        ..Setup::default()
    };
    case(setup, |case| -> Outcome {
        let _portals = case.up()?;
        let tap = Tap::start(&case.lab.internet)?;
        flow(case, Sender::Listener)?;
        let (data, _) = parted(tap.finish());
        assert!(data.len() > 1000, "{} seen", data.len());
        assert!(data.iter().all(|it| it.codepoint == Codepoint::NotCapable));
        assert_eq!(case.paths(Side::Remote)?[0]["ecn"], "off");
        Ok(())
    });
}
