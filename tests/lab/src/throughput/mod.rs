//! How fast the data path is, beside its peers: unshaped veth pairs between two hosts, and one
//! candidate after the other between them, in one run on one machine.
//!
//! All traffic is from one tunnel address to the other, so the hosts forward nothing. TCP flows
//! are iperf3's. For each load all candidates follow each other, so that a ratio comes from the same
//! minutes; each has two fresh hosts and fresh daemons.

mod cpu;
mod flood;
mod iperf;
mod json;
mod measure;
mod pair;
mod peers;
mod plan;
pub mod relay;
mod results;
mod table;
mod tunnel;

use std::collections::BTreeMap;
use std::path::Path;

pub use plan::Options;

use crate::bench::json::write_value;
use crate::clock::now;
use crate::demo::{Screen, interrupt};
use crate::error::{Context, Error};
use crate::machine;
use crate::net::Watch;
use measure::Sample;
use pair::Pair;
use plan::{Candidate, Plan};
use results::{Cell, Results};
use tunnel::{Programs, Tunnel};

/// Where the table of a whole run goes.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/throughput.txt");

/// The command that makes it.
const COMMAND: &str = "cargo run --release -p netcombiner-lab -- throughput";

/// What the figures were made on.
#[derive(Debug)]
struct Machine {
    kernel: Option<String>,
    cpu: Option<String>,
    cores: usize,
    versions: BTreeMap<&'static str, String>,
}

/// Says what stands in the way of a run, so that nobody waits for a build in vain.
///
/// # Errors
/// When the options name what there is not, or iperf3 is missing.
pub fn check(options: &Options) -> Result<(), Error> {
    Plan::new(options)?;
    iperf::version()?;
    Ok(())
}

/// Runs the benchmark with the `netcombiner` at `program`: prints the tables, and writes them
/// where they stay when nothing was left out.
pub fn run(screen: &Screen, options: &Options, program: &Path) -> Result<(), Error> {
    let mut plan = Plan::new(options)?;
    let iperf = iperf::version()?;
    let programs = Programs {
        netcombiner: program.to_owned(),
        wireguard_go: peers::find("wireguard-go").filter(|_| peers::find("wg").is_some()),
        boringtun: peers::find("boringtun-cli").filter(|_| peers::find("wg").is_some()),
        gotatun: peers::find("gotatun").filter(|_| peers::find("wg").is_some()),
    };
    let whole = plan.is_whole();
    leave_out_missing(screen, &mut plan, &programs)?;
    tunnel::sweep();
    let machine = Machine {
        kernel: machine::kernel(),
        cpu: machine::cpu_model(),
        cores: machine::cores(),
        versions: versions(&programs, iperf),
    };
    let forecast = plan.forecast().as_secs();
    screen.line(&format!(
        "{} candidates, {} loads: about {} min {} s",
        plan.candidates.len(),
        plan.loads.len(),
        forecast / 60,
        forecast % 60
    ))?;
    let started = now();
    let mut watch = Watch::start()?;
    let results = cells(screen, &plan, &programs, &mut watch)?;
    let left = watch.leftovers()?;
    if left.count() > 0 {
        return Err(Error::failed(left.to_string()));
    }
    let text = text(&plan, &machine, &results);
    screen.line(&format!("\n{text}"))?;
    screen.line(&format!("took {} s", started.elapsed().as_secs()))?;
    if whole {
        std::fs::write(TABLE, format!("{text}\n")).context(format!("cannot write {TABLE}"))?;
    }
    if let Some(path) = &options.json {
        write_value(path, &json::document(&plan, &machine, &results))?;
    }
    Ok(())
}

/// Says in one line how to get the peers that are not there, and goes on without them.
fn leave_out_missing(screen: &Screen, plan: &mut Plan, programs: &Programs) -> Result<(), Error> {
    let missing = |candidate: &Candidate| match candidate {
        Candidate::WireguardGo => programs.wireguard_go.is_none(),
        Candidate::Boringtun => programs.boringtun.is_none(),
        Candidate::Gotatun => programs.gotatun.is_none(),
        Candidate::Veth | Candidate::Relay | Candidate::Netcombiner { .. } => false,
    };
    let names: Vec<&str> = plan
        .candidates
        .iter()
        .filter(|candidate| missing(candidate))
        .map(|candidate| candidate.name())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    screen.line(&screen.alarm(&format!("without {}: {}", names.join(" and "), peers::HELP)))?;
    plan.candidates.retain(|candidate| !missing(candidate));
    Ok(())
}

fn versions(programs: &Programs, iperf: String) -> BTreeMap<&'static str, String> {
    let mut versions = BTreeMap::from([("iperf3", iperf)]);
    for (name, program) in [
        ("netcombiner", Some(&programs.netcombiner)),
        ("wireguard-go", programs.wireguard_go.as_ref()),
        ("boringtun", programs.boringtun.as_ref()),
        ("gotatun", programs.gotatun.as_ref()),
    ] {
        if let Some(version) = program.and_then(|program| machine::version(program)) {
            versions.insert(name, version);
        }
    }
    versions
}

/// Measures everything.
fn cells(
    screen: &Screen,
    plan: &Plan,
    programs: &Programs,
    watch: &mut Watch,
) -> Result<Results, Error> {
    let mut results = Results::default();
    for &load in &plan.loads {
        let mut cells: Vec<Cell> = plan
            .candidates
            .iter()
            .map(|candidate| Cell::new(*candidate, load))
            .collect();
        for _ in 0..plan.repeats {
            for cell in &mut cells {
                let sample = match once(plan, cell, programs, watch) {
                    Ok(sample) => Some(sample),
                    Err(error) => {
                        // One candidate's failure is not the others'; Ctrl-C is everybody's.
                        interrupt::check()?;
                        cell.failure = Some(error.to_string());
                        None
                    }
                };
                cell.samples.extend(sample);
                screen.line(&table::progress(cell, sample))?;
            }
        }
        results.cells.extend(cells);
    }
    Ok(results)
}

/// Measures a cell once.
fn once(
    plan: &Plan,
    cell: &mut Cell,
    programs: &Programs,
    watch: &mut Watch,
) -> Result<Sample, Error> {
    cell.others = cell.others.max(measure::others()?);
    let pair = Pair::start(watch)?;
    let tunnel = Tunnel::start(&pair, cell.candidate, programs)?;
    cell.mtu = tunnel.mtu();
    cell.offloads = tunnel.offloads().map(str::to_owned);
    let sample = measure::measure(&pair, &tunnel, cell.load, plan.length);
    tunnel.stop();
    sample
}

/// All that a reader of the figures wants to know.
fn text(plan: &Plan, machine: &Machine, results: &Results) -> String {
    let unknown = || "unknown".to_owned();
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    let mut lines = vec![
        format!(
            "Throughput over unshaped veth pairs (MTU 1500), from tunnel address to tunnel address: \
             `{COMMAND}`"
        ),
        format!(
            "Linux {}, {}, {} cores; {} s a cell after {} s of warm-up, median of {}",
            machine.kernel.clone().unwrap_or_else(unknown),
            machine.cpu.clone().unwrap_or_else(unknown),
            machine.cores,
            plan.length.as_secs(),
            plan::WARM_UP.as_secs(),
            plan.repeats
        ),
        versions.join("; "),
        "veth is the limit; relay is the floor: TUN to UDP and back, no protocol; encrypt, \
         authenticate, none are netcombiner's security, over 1 and 2 links"
            .to_owned(),
        String::new(),
    ];
    lines.extend(table::tables(results, &plan.candidates, &plan.loads));
    let notes = table::notes(results);
    if !notes.is_empty() {
        lines.push(String::new());
        lines.extend(notes);
    }
    lines.push(String::new());
    lines.push("ratio (TCP: the mean of both ways)".to_owned());
    lines.extend(table::ratios(&results.ratios()));
    lines.join("\n")
}
