//! Links whose queues mark (ECN), and links that are wrong about it: two of them, one CUBIC flow.

use std::time::Duration;

use netcombiner::config::Congestion;
use netcombiner::proto::event::{EcnFault, EcnState, Side};
use netcombiner_lab::emulator::{Aqm, Counters, Direction, EcnFault as Fault};
use netcombiner_sim::cases::SimLink;
use netcombiner_sim::measure::outcome::Outcome;
use netcombiner_sim::network::World;
use netcombiner_sim::packet::Host;
use netcombiner_sim::run::{RunSpec, START};

const MS: Duration = Duration::from_millis(1);

/// The search for the rate, and the tests of the paths, are over.
const BEGUN: Duration = Duration::from_secs(3);

struct Ran {
    outcome: Outcome,
    counters: [Counters; 2],
    /// Datagrams held for lost after the beginning: data, as acknowledgements are not missed.
    lost: u64,
    states: Vec<EcnState>,
    marked: u64,
}

fn run(change: impl Fn(&mut RunSpec)) -> Ran {
    let links = vec![SimLink::new(50.0, 20), SimLink::new(30.0, 40)];
    let mut spec = RunSpec::new(links, Duration::from_secs(15));
    change(&mut spec);
    let (mut world, flows) = spec.world();
    let (direction, sender) = match spec.sender {
        Host::Client => (Direction::Up, Side::Local),
        Host::Server => (Direction::Down, Side::Remote),
    };
    world.run(START + BEGUN);
    let lost = |world: &mut World| {
        let now = world.now();
        let paths = world.portal(sender).stats(now).paths;
        paths.iter().map(|path| path.lost).sum::<u64>()
    };
    let early = lost(&mut world);
    world.run(START + spec.lasts);
    let counters = [0, 1].map(|link| *world.lane(link, direction).counters());
    let lost = lost(&mut world) - early;
    let now = world.now();
    let paths = world.portal(sender).stats(now).paths;
    Ran {
        outcome: spec.judge(&mut world, &flows),
        counters,
        lost,
        states: paths.iter().map(|path| path.ecn).collect(),
        marked: paths.iter().map(|path| path.marked).sum(),
    }
}

fn links(spec: &mut RunSpec, change: impl Fn(&mut SimLink)) {
    spec.links.iter_mut().for_each(change);
}

impl Ran {
    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(of).sum()
    }

    fn told(&self) -> String {
        format!(
            "efficiency {:.3}, {} of {} marked, {} dropped for ECT, {} by queues, {} late, {:?}",
            self.outcome.efficiency,
            self.sum(|it| it.marked),
            self.sum(|it| it.packets),
            self.sum(|it| it.dropped_capable),
            self.sum(|it| it.dropped_aqm + it.dropped_queue),
            self.lost,
            self.states,
        )
    }
}

#[test]
fn a_queue_that_marks_loses_nothing_and_gives_its_rate() {
    for aqm in [Aqm::CoDel, Aqm::Step(5 * MS), Aqm::Step(MS)] {
        let with = |ecn| {
            run(|spec| {
                links(spec, |link| *link = link.clone().aqm(aqm));
                spec.ecn = ecn;
            })
        };
        let (marked, dropped) = (with(true), with(false));
        assert!(marked.outcome.efficiency > 0.95, "{}", marked.told());
        assert_eq!(marked.states, [EcnState::Capable; 2]);
        assert_eq!(dropped.states, [EcnState::Off; 2]);
        // All that the links marked is known, except what is under way.
        let in_links = marked.sum(|it| it.marked);
        assert!(in_links > 0 && in_links.abs_diff(marked.marked) < 100);
        assert!(marked.lost < 5, "{}", marked.told());
        assert!(dropped.lost > 2 * marked.lost, "{}", dropped.told());
    }
}

#[test]
fn new_reno_hears_marks_too() {
    let with = |ecn| {
        run(|spec| {
            links(spec, |link| *link = link.clone().aqm(Aqm::CoDel));
            spec.sender = Host::Client;
            spec.congestion = Congestion::NewReno;
            spec.ecn = ecn;
        })
    };
    let (marked, dropped) = (with(true), with(false));
    assert!(
        marked.outcome.efficiency > dropped.outcome.efficiency - 0.02,
        "{}; without: {}",
        marked.told(),
        dropped.told()
    );
    assert_eq!(marked.lost, 0);
    assert!(dropped.lost > 0);
}

#[test]
fn a_link_that_drops_what_can_be_marked_is_used_all_the_same() {
    let ran = run(|spec| {
        links(spec, |link| {
            for shape in [&mut link.up, &mut link.down] {
                shape.ecn_fault = Some(Fault::DropsCapable);
            }
        });
    });
    assert!(ran.outcome.efficiency > 0.95, "{}", ran.told());
    assert_eq!(ran.states, [EcnState::Failed(EcnFault::Dropped); 2]);
    // Ten datagrams and the rest of their batch, of each link.
    assert!(ran.sum(|it| it.dropped_capable) < 2 * 80);
}

#[test]
fn a_link_that_marks_everything_is_not_believed() {
    let ran = run(|spec| {
        let link = &mut spec.links[0];
        for shape in [&mut link.up, &mut link.down] {
            shape.ecn_fault = Some(Fault::MarksAll);
        }
    });
    assert!(ran.outcome.efficiency > 0.95, "{}", ran.told());
    assert_eq!(
        ran.states,
        [EcnState::Failed(EcnFault::Everything), EcnState::Capable]
    );
}
