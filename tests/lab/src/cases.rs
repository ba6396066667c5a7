//! The cases that the simulator and the benchmark both run: links, what happens to them, and what
//! is asked of one inner CUBIC flow over them (issue 3, ANCHORS.md 5.1).

use std::time::Duration;

use crate::emulator::{Loss, Shape};

/// A link with this round trip is far, ms.
const FAR_MS: u64 = 100;

/// One link of a case, the same both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaseLink {
    /// Mbit/s.
    pub mbps: f64,
    /// Round trip without any queue, ms.
    pub rtt_ms: u64,
    /// The one-way delay varies by so much to either side, ms; order is kept.
    pub jitter_ms: u64,
    /// Share of packets lost at random, 0 to 1.
    pub loss: f64,
    /// The link stands still for a while now and then.
    pub pause: Option<Pause>,
}

/// A handover: nothing moves, what comes waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// From the beginning of one to the beginning of the next; the first comes after half of it.
    pub every: Duration,
    /// How long each lasts.
    pub lasts: Duration,
}

impl CaseLink {
    /// A clean link.
    pub const fn new(mbps: f64, rtt_ms: u64) -> Self {
        Self {
            mbps,
            rtt_ms,
            jitter_ms: 0,
            loss: 0.0,
            pause: None,
        }
    }

    /// The same with jitter of so many ms to either side.
    pub const fn jitter(mut self, ms: u64) -> Self {
        self.jitter_ms = ms;
        self
    }

    /// The same with random loss.
    pub const fn loss(mut self, share: f64) -> Self {
        self.loss = share;
        self
    }

    /// The same with pauses.
    pub const fn pause(mut self, every: Duration, lasts: Duration) -> Self {
        self.pause = Some(Pause { every, lasts });
        self
    }

    /// True when a flow over it takes seconds to begin.
    pub const fn is_far(&self) -> bool {
        self.rtt_ms >= FAR_MS
    }

    /// What the emulator makes of it: a queue of 100 ms but at least 64 KiB.
    pub fn shape(&self) -> Shape {
        let jitter = Duration::from_millis(self.jitter_ms);
        let mut shape = Shape::new(self.mbps, Duration::from_millis(self.rtt_ms));
        shape.delay = shape.delay.saturating_sub(jitter);
        shape.jitter = 2 * jitter;
        shape.loss = if self.loss > 0.0 {
            Loss::Random(self.loss)
        } else {
            Loss::None
        };
        shape
    }
}

/// Something that happens to a link while the flow runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// When, from the start of the flow.
    pub at: Duration,
    /// To which link.
    pub link: usize,
    /// What.
    pub change: Change,
}

/// What happens to a link, both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It loses everything from now on, and nobody is told.
    Cut,
    /// It works again.
    Restore,
    /// It has another rate, Mbit/s.
    Rate(f64),
    /// A foreign CUBIC flow starts on it, beside the tunnel, in the measured direction.
    Compete,
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Short, lower case.
    pub name: &'static str,
    /// Its links.
    pub links: Vec<CaseLink>,
    /// What happens.
    pub steps: Vec<Step>,
    /// What share of the sum one CUBIC flow has to reach, 0 to 1; nothing where another figure is
    /// what the case is about.
    pub target: Option<f64>,
}

impl Case {
    fn new(name: &'static str, target: f64, links: &[CaseLink]) -> Self {
        Self {
            name,
            links: links.to_vec(),
            steps: Vec::new(),
            target: Some(target),
        }
    }

    fn scripted(name: &'static str, links: &[CaseLink], steps: &[(u64, usize, Change)]) -> Self {
        let step = |&(seconds, link, change)| Step {
            at: Duration::from_secs(seconds),
            link,
            change,
        };
        Self {
            name,
            links: links.to_vec(),
            steps: steps.iter().map(step).collect(),
            target: None,
        }
    }

    /// True when one of its links is long: a flow takes seconds to begin.
    pub fn is_far(&self) -> bool {
        self.links.iter().any(CaseLink::is_far)
    }

    /// The sum of the links' rates at the start, Mbit/s.
    pub fn sum_mbps(&self) -> f64 {
        self.links.iter().map(|link| link.mbps).sum()
    }
}

/// Cases in which nothing changes: the first table of the issue, and the rest of ANCHORS.md 5.1.
pub fn steady() -> Vec<Case> {
    let link = CaseLink::new;
    let pause = (Duration::from_secs(15), Duration::from_millis(140));
    vec![
        Case::new("baseline", 0.97, &[link(50.0, 20); 2]),
        Case::new("equal_3", 0.96, &[link(50.0, 20); 3]),
        Case::new("equal_4", 0.96, &[link(50.0, 20); 4]),
        Case::new("bw_4to1", 0.95, &[link(50.0, 20), link(12.0, 20)]),
        Case::new("rtt_40", 0.95, &[link(50.0, 20), link(50.0, 40)]),
        Case::new("rtt_70", 0.95, &[link(50.0, 20), link(50.0, 70)]),
        Case::new("jit_5", 0.93, &[link(50.0, 20).jitter(5); 2]),
        Case::new("asym", 0.93, &[link(300.0, 10), link(80.0, 30)]),
        Case::new(
            "three",
            0.93,
            &[
                link(50.0, 15),
                link(30.0, 60).jitter(5),
                link(100.0, 40).pause(pause.0, pause.1),
            ],
        ),
        Case::new("loss_05", 0.92, &[link(50.0, 20).loss(0.005); 2]),
        Case::new("loss_2", 0.85, &[link(50.0, 20).loss(0.02); 2]),
        Case::new(
            "dual_lte",
            0.88,
            &[
                link(40.0, 30).jitter(5).loss(0.005),
                link(25.0, 45).jitter(8).loss(0.005),
            ],
        ),
        Case::new(
            "fiber_lte",
            0.90,
            &[link(300.0, 8), link(30.0, 40).jitter(8).loss(0.005)],
        ),
    ]
}

/// Cases with a far link beside a near one (field section E), and a far one alone: never below the better
/// link alone.
pub fn far() -> Vec<Case> {
    let link = CaseLink::new;
    let beside = |name, near: CaseLink, far: CaseLink| Case::scripted(name, &[near, far], &[]);
    let lte = link(40.0, 330).jitter(15).loss(0.005);
    vec![
        beside(
            "dsl_far",
            link(30.0, 40),
            link(15.0, 280).jitter(15).loss(0.005),
        ),
        beside(
            "cable_far",
            link(60.0, 25),
            link(30.0, 220).jitter(30).loss(0.01),
        ),
        beside("dsl_satellite", link(16.0, 30), link(50.0, 600)),
        beside("slow_far", link(8.0, 60).loss(0.005), lte),
        beside("far_farther", link(20.0, 150), link(20.0, 340).loss(0.01)),
        // 31 Mbit/s of payload, of which a link of 40 carries 36.9.
        Case::new("far_lossy", 0.84, &[lte]),
    ]
}

/// Cases in which something happens. Times are seconds from the start of the flow.
pub fn changing() -> Vec<Case> {
    use Change::{Compete, Cut, Rate, Restore};
    let link = CaseLink::new;
    let two = [link(50.0, 20), link(30.0, 40)];
    vec![
        Case::scripted("cut_first", &two, &[(15, 0, Cut), (25, 0, Restore)]),
        Case::scripted("cut_second", &two, &[(15, 1, Cut), (25, 1, Restore)]),
        Case::scripted("half", &two, &[(15, 0, Rate(25.0)), (25, 0, Rate(50.0))]),
        Case::scripted("double", &two, &[(15, 1, Rate(60.0)), (25, 1, Rate(30.0))]),
        Case::scripted("compete", &two, &[(10, 0, Compete)]),
    ]
}
