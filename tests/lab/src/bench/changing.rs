//! A case in which a link is cut, comes back, changes its rate or is shared with a stranger.

use std::path::Path;
use std::time::Duration;

use super::course::Course;
use super::payload::{Payload, RAW, learn};
use super::plan::{PAUSE, Plan, direction_name};
use super::script;
use super::steady::{lower, raise};
use super::take::{Take, through};
use super::tunnel::Tunnel;
use crate::cases::{Case, Change, Step};
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::Error;

/// A stranger's flow is not judged while it starts.
const FOREIGN_START: Duration = Duration::from_secs(4);

/// The target of issue 3: what a voice packet may wait beside a full-rate flow.
pub(super) const VOICE_MARGIN: Duration = Duration::from_millis(15);

/// What was measured of a case in one direction.
#[derive(Debug)]
pub(super) struct Changing {
    pub(super) case: Case,
    pub(super) direction: Direction,
    /// One a repeat.
    pub(super) courses: Vec<Course>,
}

/// How the tunnel followed one step.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) step: Step,
    /// What the links give from then on, Mbit/s of payload.
    pub(super) expected: f64,
    /// What the flow got until the next step, without the first second.
    pub(super) mbps: f64,
    /// Until a second begins in which the flow gets 90 % of it.
    pub(super) steady: Option<Duration>,
    /// Until the step's link carries a tenth of its rate.
    pub(super) used: Option<Duration>,
    /// Until a call's packets are within their target again.
    pub(super) prompt: Option<Duration>,
    /// The stranger's Mbit/s, by half of what a flow can have on its link.
    pub(super) share: Option<f64>,
}

/// Measures a case in a direction.
pub(super) fn run(
    plan: &Plan,
    case: &Case,
    direction: Direction,
    program: &Path,
    payload: &mut Option<Payload>,
) -> Result<Changing, Error> {
    let duration = Plan::changing_length(case);
    let mut courses = Vec::new();
    for repeat in 0..plan.repeats {
        let lab = raise(&case.links, repeat)?;
        let tunnel = Tunnel::start(&lab, program, "udp", None)?;
        let take = Take {
            lab: &lab,
            portals: tunnel.portals(),
            direction,
            connections: vec![through(&lab, direction)],
            duration,
            events: script::events(&case.links, &case.steps, duration),
            voice: true,
        };
        let course = learn(payload, &lab.local, || take.run());
        courses.push(course.map_err(|error| tunnel.explain(&error))?);
        interrupt::sleep(PAUSE)?;
        tunnel.stop()?;
        lower(lab)?;
    }
    Ok(Changing {
        case: case.clone(),
        direction,
        courses,
    })
}

impl Changing {
    /// `cut_first`, or `cut_first up`.
    pub(super) fn name(&self) -> String {
        match self.direction {
            Direction::Down => self.case.name.to_owned(),
            Direction::Up => format!("{} {}", self.case.name, direction_name(self.direction)),
        }
    }

    /// How each step was followed in one repeat.
    pub(super) fn followed(&self, course: &Course, fraction: f64) -> Vec<Followed> {
        let mut rates: Vec<f64> = self.case.links.iter().map(|link| link.mbps).collect();
        let mut cut = vec![false; rates.len()];
        let steps = &self.case.steps;
        let mut followed = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let end = steps.get(i + 1).map_or(course.duration, |next| next.at);
            match step.change {
                Change::Cut => cut[step.link] = true,
                Change::Restore => cut[step.link] = false,
                Change::Rate(mbps) => rates[step.link] = mbps,
                Change::Compete => {}
            }
            let usable = |link: &usize| !cut[*link];
            let sum: f64 = (0..rates.len())
                .filter(usable)
                .map(|link| rates[link])
                .sum();
            let expected = sum * fraction;
            let best = (0..rates.len())
                .filter(usable)
                .map(|link| self.case.links[link].rtt_ms)
                .min();
            let limit = Duration::from_millis(best.unwrap_or(0)) / 2 + VOICE_MARGIN;
            let within = |found: Option<Duration>| found.filter(|after| step.at + *after <= end);
            let foreign = course
                .foreign
                .as_ref()
                .filter(|foreign| foreign.from == step.at);
            followed.push(Followed {
                step: *step,
                expected,
                mbps: course.mbps(step.at + Duration::from_secs(1), end),
                steady: within(course.until_steady(step.at, expected)),
                used: within(course.until_used(step.link, step.at, rates[step.link])),
                prompt: within(course.until_prompt(step.at, limit)),
                share: foreign.map(|foreign| {
                    let mbps = foreign.report.mbps_after(FOREIGN_START);
                    mbps / (rates[foreign.link] * RAW.fraction() / 2.0)
                }),
            });
        }
        followed
    }
}

impl Followed {
    /// What is short of the targets of issue 3.
    pub(super) fn short(&self) -> Vec<&'static str> {
        let late = |found: Option<Duration>, limit: u64| {
            found.is_none_or(|after| after > Duration::from_secs(limit))
        };
        let targets: &[(bool, &'static str)] = &match self.step.change {
            Change::Cut => vec![(late(self.steady, 1), "steady")],
            Change::Restore => vec![
                (late(self.used, 1), "used"),
                (late(self.steady, 3), "steady"),
            ],
            Change::Rate(_) => vec![
                (late(self.steady, 2), "rate"),
                (late(self.prompt, 2), "voice"),
            ],
            Change::Compete => vec![(
                self.share.is_none_or(|share| !(0.3..=3.0).contains(&share)),
                "share",
            )],
        };
        let missed = targets.iter().filter(|target| target.0);
        missed.map(|target| target.1).collect()
    }
}
