//! The benchmark: the [`crate::cases`] with the real kernel's TCP through the two real daemons.
//!
//! Of every steady case, in one lab: one CUBIC flow over each link without netcombiner (all links
//! at once: they share nothing), one over each link alone through it, and one over all of them, both
//! ways, with a voice call beside it. Links that several cases have are measured once. Then what
//! happens while links are cut, return, change their rate or are shared.
//!
//! Goodput is TCP payload; efficiency is goodput by (sum of the links' rates x payload fraction).
//! A link's rate is of IP packets. The payload fraction is seen on the links while it runs.

mod changing;
mod course;
pub(crate) mod cpu;
pub(crate) mod json;
mod links;
mod payload;
mod plan;
mod script;
mod steady;
pub(crate) mod summary;
mod table;
mod take;
mod tunnel;

use std::path::Path;
use std::time::Duration;

pub use plan::Options;

use crate::clock::now;
use crate::demo::Screen;
use crate::error::Error;
use json::Results;
use links::Links;
use payload::Payload;
use plan::Plan;

/// More than so much of a core used by others spoils the figures.
const QUIET: f64 = 0.3;

/// Runs the benchmark with the `netcombiner` at `program`: prints the tables and writes the JSON.
pub fn run(screen: &Screen, options: &Options, program: &Path) -> Result<(), Error> {
    let plan = Plan::new(options)?;
    let started = now();
    screen.line(&format!(
        "{} steady and {} changing cases, {} of each: about {}",
        plan.steady.len(),
        plan.changing.len(),
        plan.repeats,
        minutes(plan.forecast())
    ))?;
    let mut links = Links::default();
    let mut payload = None;
    let (mut steady, mut changing) = (Vec::new(), Vec::new());

    if !plan.steady.is_empty() {
        screen.heading("One flow over links that stay as they are (Mbit/s; times in ms)")?;
        screen.line(table::STEADY_HEAD)?;
    }
    for case in &plan.steady {
        screen.line(&format!("{}: {}", case.name, table::links(case)))?;
        let measured = steady::run(&plan, case, program, &mut links, &mut payload)?;
        for row in table::steady(&plan, &measured, &links, fraction(payload)?) {
            screen.line(&row)?;
        }
        steady.push(measured);
    }
    if !plan.changing.is_empty() {
        screen.heading("One flow over links that change")?;
        screen.line(table::CHANGING_HEAD)?;
    }
    for case in &plan.changing {
        for direction in plan.directions() {
            let measured = changing::run(&plan, case, *direction, program, &mut payload)?;
            for row in table::changing(&measured, fraction(payload)?) {
                screen.line(&row)?;
            }
            changing.push(measured);
        }
    }
    let results = Results {
        plan: &plan,
        links: &links,
        steady: &steady,
        changing: &changing,
        payload: fraction(payload)?,
        took: started.elapsed(),
        realtime: realtime()?,
    };
    json::write(&options.json, program, &results)?;
    last_words(screen, options, &results)
}

/// What the tables rest on.
fn last_words(screen: &Screen, options: &Options, results: &Results<'_>) -> Result<(), Error> {
    if !results.steady.is_empty() {
        screen.heading("Each link alone: past netcombiner, and through it (Mbit/s)")?;
        screen.line(table::LINK_HEAD)?;
        for row in table::link_rows(results.links) {
            screen.line(&row)?;
        }
        screen.heading("Cores used, and the inner TCP")?;
        screen.line(table::CPU_HEAD)?;
        for row in results.steady.iter().flat_map(table::cpu) {
            screen.line(&row)?;
        }
    }
    let Payload { segment, wire } = results.payload;
    screen.line(&format!(
        "\npayload fraction: {segment} of {wire} bytes of a full packet on the links, {:.2} %",
        results.payload.fraction() * 100.0
    ))?;
    if !results.realtime {
        screen.line("no real-time priority for the emulator: delays are off by up to 2 ms")?;
    }
    let noisy = noise(results);
    if noisy > QUIET {
        screen.line(&screen.alarm(&format!(
            "others used up to {noisy:.1} cores meanwhile: the figures are worth less"
        )))?;
    }
    screen.line(&format!(
        "took {}; {}",
        minutes(results.took),
        options.json.display()
    ))
}

/// The most that others used of the processor during a measurement, in cores.
fn noise(results: &Results<'_>) -> f64 {
    let steady = results.steady.iter().flat_map(|steady| &steady.runs);
    steady
        .flat_map(|(_, courses)| courses)
        .chain(
            results
                .changing
                .iter()
                .flat_map(|changing| &changing.courses),
        )
        .map(|course| course.cpu.others)
        .fold(0.0, f64::max)
}

fn fraction(payload: Option<Payload>) -> Result<Payload, Error> {
    payload.ok_or_else(|| Error::failed("no full packet of a flow was seen on the links"))
}

/// Whether an emulator gets a real-time priority here.
fn realtime() -> Result<bool, Error> {
    Ok(crate::emulator::Emulator::start(Vec::new(), 0)?.realtime())
}

fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}
