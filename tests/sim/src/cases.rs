//! What is run: the cases shared with the benchmark, and more of our own.

use std::borrow::Cow;
use std::time::Duration;

use netcombiner_lab::cases::{self, Case, CaseLink, Change, Pause, Step};
use netcombiner_lab::emulator::{Aqm, Direction, GilbertElliott, Loss, Policer, Shape};

use crate::endpoint::Algorithm;
use crate::packet::Host;
use crate::run::{Load, RunSpec};

/// One link, each way.
#[derive(Debug, Clone, PartialEq)]
pub struct SimLink {
    /// From the local portal.
    pub up: Shape,
    /// To it.
    pub down: Shape,
    /// Handovers.
    pub pause: Option<Pause>,
}

impl From<&CaseLink> for SimLink {
    fn from(link: &CaseLink) -> Self {
        Self {
            up: link.shape(),
            down: link.shape(),
            pause: link.pause,
        }
    }
}

impl SimLink {
    /// A clean link: Mbit/s and round trip in ms.
    pub fn new(mbps: f64, rtt_ms: u64) -> Self {
        Self::from(&CaseLink::new(mbps, rtt_ms))
    }

    /// One direction.
    pub const fn shape(&self, direction: Direction) -> &Shape {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// The rate of one direction, Mbit/s.
    pub fn mbps(&self, direction: Direction) -> f64 {
        self.shape(direction).rate.unwrap_or_default() as f64 / 1e6
    }

    /// The same with another loss, both ways.
    fn loss(self, loss: Loss) -> Self {
        self.both(|shape| shape.loss = loss)
    }

    /// The same with a queue of so many ms, both ways.
    fn queue(self, ms: u64) -> Self {
        self.both(|shape| {
            shape.queue = (shape.rate.unwrap_or_default() / 8 * ms / 1000) as usize;
        })
    }

    /// The same with a policer of so many Mbit/s and 100 ms of burst, both ways.
    fn policed(self, mbps: f64) -> Self {
        let rate = (mbps * 1e6) as u64;
        let policer = Policer {
            rate,
            burst: rate / 80,
        };
        self.both(|shape| shape.policer = Some(policer))
    }

    /// The same with a queue that is held short, both ways.
    pub fn aqm(self, aqm: Aqm) -> Self {
        self.both(|shape| shape.aqm = Some(aqm))
    }

    /// The same with another rate up, and a queue to match.
    fn up(mut self, mbps: f64) -> Self {
        self.up = Shape::new(mbps, 2 * self.up.delay);
        self
    }

    fn both(mut self, change: impl Fn(&mut Shape)) -> Self {
        change(&mut self.up);
        change(&mut self.down);
        self
    }
}

/// One case.
#[derive(Debug, Clone)]
pub struct SimCase {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The efficiency asked for, 0 to 1.
    pub target: Option<f64>,
    /// What is run.
    pub run: RunSpec,
}

impl SimCase {
    /// A case of the benchmark.
    fn shared(case: &Case, lasts: Duration) -> Self {
        let mut run = RunSpec::new(case.links.iter().map(SimLink::from).collect(), lasts);
        run.steps.clone_from(&case.steps);
        Self {
            name: case.name.into(),
            target: case.target,
            run,
        }
    }

    fn new(name: &'static str, links: Vec<SimLink>, lasts: Duration) -> Self {
        Self {
            name: name.into(),
            target: None,
            run: RunSpec::new(links, lasts),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut RunSpec)) -> Self {
        change(&mut self.run);
        self
    }
}

/// The cases in which nothing changes.
pub fn steady(lasts: Duration) -> Vec<SimCase> {
    let all = cases::steady();
    all.iter()
        .map(|case| SimCase::shared(case, lasts))
        .collect()
}

/// The cases in which something happens.
pub fn changing(lasts: Duration) -> Vec<SimCase> {
    // Long enough for the last step and what follows it.
    let lasts = lasts.max(Duration::from_secs(35));
    let all = cases::changing();
    all.iter()
        .map(|case| SimCase::shared(case, lasts))
        .collect()
}

/// Cases of our own.
pub fn extra(lasts: Duration) -> Vec<SimCase> {
    let link = SimLink::new;
    let case = |name, links| SimCase::new(name, links, lasts);
    let two = || vec![link(50.0, 20), link(30.0, 40)];
    let held = |aqm| two().into_iter().map(|link| link.aqm(aqm)).collect();
    let bursts = |mean, length| Loss::GilbertElliott(GilbertElliott::bursts(mean, length));
    vec![
        case("rate_10to1", vec![link(100.0, 20), link(10.0, 30)]),
        case(
            "three_lossy",
            vec![
                link(60.0, 15).loss(Loss::Random(0.001)),
                link(30.0, 40).loss(Loss::Random(0.01)),
                link(15.0, 60).loss(Loss::Random(0.02)),
            ],
        ),
        case(
            "lte_bursts",
            vec![
                link(50.0, 20),
                SimLink::from(&CaseLink::new(30.0, 50).jitter(8)).loss(bursts(0.01, 5.0)),
            ],
        ),
        case(
            "policer",
            vec![link(50.0, 20), link(100.0, 30).policed(30.0)],
        ),
        case(
            "deep_buffer",
            vec![link(50.0, 20), link(30.0, 40).queue(500)],
        ),
        case(
            "shallow",
            vec![link(50.0, 20).queue(20), link(30.0, 40).queue(20)],
        ),
        case("far_30", two()).with(|run| run.far = Duration::from_millis(30)),
        case("upload", two()).with(|run| run.sender = Host::Client),
        case("flows_8", two()).with(|run| run.load = Load::Tcp(Algorithm::Cubic, 8)),
        case("inner_bbr", two()).with(|run| run.load = Load::Tcp(Algorithm::Bbr, 1)),
        case("inner_bbr_far", two()).with(|run| {
            run.load = Load::Tcp(Algorithm::Bbr, 1);
            run.far = Duration::from_millis(10);
        }),
        case("inner_reno", two()).with(|run| run.load = Load::Tcp(Algorithm::Reno, 1)),
        case("flapping", two()).with(|run| run.steps = flapping(1, lasts)),
        case(
            "loss_20",
            vec![link(50.0, 20), link(30.0, 40).loss(Loss::Random(0.2))],
        ),
        case("satellite", vec![link(20.0, 20), link(50.0, 600)]),
        case(
            "asym_up",
            vec![link(50.0, 20).up(5.0), link(30.0, 40).up(3.0)],
        ),
        case("tiny", vec![link(2.0, 30), link(1.0, 40)]),
        case("sawtooth", two()).with(|run| run.steps = sawtooth(1, lasts)),
        case("udp_90", two()).with(|run| {
            run.load = Load::Udp(0.0);
            run.load = Load::Udp(80.0 * 0.9 * run.payload_fraction());
        }),
        case("idle", two()).with(|run| run.load = Load::Idle),
        case("aqm_codel", held(Aqm::CoDel)),
        case("aqm_step", held(Aqm::Step(Duration::from_millis(1)))),
    ]
}

/// A link that works every other second.
fn flapping(link: usize, lasts: Duration) -> Vec<Step> {
    let seconds = 5..lasts.as_secs();
    let step = |second: u64| Step {
        at: Duration::from_secs(second),
        link,
        change: if second % 2 == 1 {
            Change::Cut
        } else {
            Change::Restore
        },
    };
    seconds.map(step).collect()
}

/// A radio link whose rate wanders: 30, 20, 10, 20, 40 Mbit/s, each for 3 s.
fn sawtooth(link: usize, lasts: Duration) -> Vec<Step> {
    let rates = [30.0, 20.0, 10.0, 20.0, 40.0];
    let steps = (1..).map(|i: usize| (3 * i as u64, rates[i % rates.len()]));
    steps
        .take_while(|(second, _)| *second < lasts.as_secs())
        .map(|(second, mbps)| Step {
            at: Duration::from_secs(second),
            link,
            change: Change::Rate(mbps),
        })
        .collect()
}

/// All of them.
pub fn all(lasts: Duration) -> Vec<SimCase> {
    [steady(lasts), changing(lasts), extra(lasts)].concat()
}

/// The same case with one link only, and what happens to it.
pub fn alone(case: &SimCase, link: usize) -> SimCase {
    let mut alone = case.clone();
    alone.run.links = vec![case.run.links[link].clone()];
    alone.run.steps.retain(|step| step.link == link);
    for step in &mut alone.run.steps {
        step.link = 0;
    }
    alone
}
