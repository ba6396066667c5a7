//! A case in which nothing changes: each link alone, then all of them together.

use std::path::Path;
use std::time::Duration;

use super::course::Course;
use super::links::Links;
use super::payload::{Payload, learn};
use super::plan::{PAUSE, PING_EVERY, Plan, Variant, fastest};
use super::script;
use super::take::{Take, through};
use super::tunnel::Tunnel;
use crate::cases::{Case, CaseLink};
use crate::demo::interrupt;
use crate::error::Error;
use crate::topology::{Lab, LabSpec, LinkSpec, SERVER};
use crate::traffic::Probe;

/// Round trips when nothing else runs, medians.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Over the fastest link, past netcombiner.
    pub(super) raw: Duration,
    /// Through the tunnel.
    pub(super) through: Duration,
}

/// What was measured of a case.
#[derive(Debug)]
pub(super) struct Steady {
    pub(super) case: Case,
    /// The places of its links in [`Links::rows`].
    pub(super) links: Vec<usize>,
    /// One a repeat.
    pub(super) idle: Vec<Idle>,
    /// What was sent over all links, one course a repeat.
    pub(super) runs: Vec<(Variant, Vec<Course>)>,
}

/// Raises the lab of a case.
pub(super) fn raise(links: &[CaseLink], repeat: u32) -> Result<Lab, Error> {
    let spec = |link: &CaseLink| LinkSpec {
        up: link.shape(),
        down: link.shape(),
    };
    Lab::start(&LabSpec {
        // Another repeat, other losses.
        seed: u64::from(repeat) + 1,
        ..LabSpec::new(links.iter().map(spec).collect())
    })
}

/// Removes a lab; what is left of it is an error.
pub(super) fn lower(lab: Lab) -> Result<(), Error> {
    let left = lab.stop()?;
    if left.count() == 0 {
        Ok(())
    } else {
        Err(Error::failed(format!("left over: {left}")))
    }
}

/// Measures a case. The first flow over UDP tells the payload fraction, when it is not known yet.
pub(super) fn run(
    plan: &Plan,
    case: &Case,
    program: &Path,
    links: &mut Links,
    payload: &mut Option<Payload>,
) -> Result<Steady, Error> {
    let mut steady = Steady {
        case: case.clone(),
        links: Vec::new(),
        idle: Vec::new(),
        runs: plan
            .variants(case)
            .into_iter()
            .map(|v| (v, Vec::new()))
            .collect(),
    };
    for repeat in 0..plan.repeats {
        let lab = raise(&case.links, repeat)?;
        steady.links = links.measure(&lab, program, &case.links, repeat, plan.full)?;
        let mut tunnel: Option<(&str, Tunnel)> = None;
        for (variant, courses) in &mut steady.runs {
            let same = |(transport, _): &(&str, Tunnel)| *transport == variant.transport;
            if !tunnel.as_ref().is_some_and(same) {
                if let Some((_, tunnel)) = tunnel.take() {
                    tunnel.stop()?;
                }
                let started = Tunnel::start(&lab, program, variant.transport, None)?;
                if variant.transport == Variant::DOWN.transport {
                    steady.idle.push(idle(&lab, case)?);
                }
                tunnel = Some((variant.transport, started));
            }
            let Some((_, tunnel)) = &tunnel else { continue };
            let measure = || bond(plan, case, &lab, tunnel, *variant);
            let course = learn(payload, &lab.local, measure);
            courses.push(course.map_err(|error| tunnel.explain(&error))?);
        }
        if let Some((_, tunnel)) = tunnel {
            tunnel.stop()?;
        }
        lower(lab)?;
    }
    Ok(steady)
}

/// The flows of a variant over all links, with a call beside them.
fn bond(
    plan: &Plan,
    case: &Case,
    lab: &Lab,
    tunnel: &Tunnel,
    variant: Variant,
) -> Result<Course, Error> {
    let connection = through(lab, variant.direction).congestion(variant.congestion);
    let duration = plan.length(case, variant).all;
    let course = Take {
        lab,
        portals: tunnel.portals(),
        direction: variant.direction,
        connections: vec![connection; variant.flows],
        duration,
        events: script::events(&case.links, &[], duration),
        voice: true,
    }
    .run()?;
    interrupt::sleep(PAUSE)?;
    Ok(course)
}

/// Pings the server through the tunnel, and at the same time past it over the fastest link.
fn idle(lab: &Lab, case: &Case) -> Result<Idle, Error> {
    let best = fastest(case);
    let place = case.links.iter().position(|link| *link == best);
    let device = Lab::wan(place.unwrap_or(0));
    let count = Plan::pings(case);
    let through = Probe::ping(&lab.client, SERVER, PING_EVERY, count)?;
    // Half a step later, so that one does not queue behind the other.
    interrupt::sleep(PING_EVERY / 2)?;
    let raw = Probe::ping_by(&lab.local, SERVER, Some(&device), PING_EVERY, count)?;
    Ok(Idle {
        through: through.finish().median(),
        raw: raw.finish().median(),
    })
}
