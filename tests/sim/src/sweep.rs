//! A slow link beside a fast one: never below the better of the two alone (field section E).
//!
//! Each row is run in both directions with all links, and with each link alone. What counts is the
//! steady part, from `LEAST_START` or `ROUND_TRIPS` of the slowest link on.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netcombiner_lab::cases::{self, CaseLink};
use netcombiner_lab::emulator::Rng;

use crate::cases::{SimCase, SimLink, alone};
use crate::network::Route;
use crate::packet::Host;
use crate::run::{RunSpec, START};

/// How long the flow lasts.
pub const LASTS: Duration = Duration::from_secs(30);
/// So much of its beginning is left out ...
const LEAST_START: Duration = Duration::from_secs(10);
/// ... or so many round trips of the slowest link, where that is more.
const ROUND_TRIPS: u32 = 15;
/// The share of the better link alone that every row has to reach.
pub const LEAST_SHARE: f64 = 0.97;
/// The number of random rows, and the seed of those that are always run.
const RANDOM_ROWS: usize = 24;
const SEED: u64 = 9;

/// What a row has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Floor {
    /// A share of what the best of its links gets alone through the tunnel.
    BestLink,
    /// A rate, Mbit/s.
    Mbps(f64),
    /// What the same flow gets on the link without the tunnel.
    RawLink,
}

/// One row.
#[derive(Debug, Clone)]
pub struct SweepCase {
    /// Its name.
    pub name: String,
    /// Its links.
    pub links: Vec<CaseLink>,
    /// What it has to reach.
    pub floor: Floor,
}

impl SweepCase {
    fn new(name: &str, links: &[CaseLink], floor: Floor) -> Self {
        Self {
            name: name.to_owned(),
            links: links.to_vec(),
            floor,
        }
    }

    fn run(&self, sender: Host) -> RunSpec {
        let links = self.links.iter().map(SimLink::from).collect();
        let mut run = RunSpec::new(links, LASTS);
        run.sender = sender;
        run
    }

    /// The same as a case of the other table, sent from there.
    pub fn case(&self, sender: Host) -> SimCase {
        SimCase {
            name: self.name.clone().into(),
            target: None,
            run: self.run(sender),
        }
    }

    /// From when on it counts, from the start of the flow.
    fn counts_from(&self) -> Duration {
        let slowest = self.links.iter().map(|link| link.rtt_ms).max();
        LEAST_START.max(ROUND_TRIPS * Duration::from_millis(slowest.unwrap_or_default()))
    }
}

/// The rows that were measured with real daemons.
pub fn field() -> Vec<SweepCase> {
    let link = CaseLink::new;
    // 85 % of the rate of IP packets, of which payload is 92.3 %.
    let share = |mbps: f64| Floor::Mbps((mbps * 0.85 * 0.923 * 10.0).floor() / 10.0);
    let floor = |name| match name {
        "far_lossy" => Floor::Mbps(31.0),
        _ => Floor::BestLink,
    };
    let shared = cases::far();
    let shared = shared
        .iter()
        .map(|case| SweepCase::new(case.name, &case.links, floor(case.name)));
    let more = [
        SweepCase::new(
            "far_alone",
            &[link(40.0, 330).jitter(15)],
            Floor::Mbps(35.0),
        ),
        SweepCase::new("satellite", &[link(50.0, 600)], Floor::RawLink),
        SweepCase::new(
            "lone_fast",
            &[link(78.0, 349).jitter(29).loss(0.006)],
            share(78.0),
        ),
        SweepCase::new("lone_500", &[link(30.0, 500).loss(0.01)], share(30.0)),
        SweepCase::new("lone_700", &[link(80.0, 700).loss(0.02)], share(80.0)),
        SweepCase::new(
            "lone_200",
            &[link(20.0, 200).jitter(10).loss(0.01)],
            share(20.0),
        ),
    ];
    shared.chain(more).collect()
}

/// The corners: the least and the most of each of the slow link's figures.
pub fn corners() -> Vec<SweepCase> {
    let mut rows = Vec::new();
    for rtt in [100, 700] {
        for jitter in [0, 40] {
            for loss in [0.0, 0.02] {
                for rate in [0.2, 4.0] {
                    let name = format!("c{rtt}_{jitter}_{}_{rate}", loss * 100.0);
                    let slow = CaseLink::new(20.0 * rate, rtt).jitter(jitter).loss(loss);
                    let links = [CaseLink::new(20.0, 30), slow];
                    rows.push(SweepCase::new(&name, &links, Floor::BestLink));
                }
            }
        }
    }
    rows
}

/// Random rows, drawn with `seed`.
pub fn random(seed: u64) -> Vec<SweepCase> {
    let mut rng = Rng::new(seed);
    let mut between = |least: f64, most: f64| least + (most - least) * rng.unit();
    let row = |n| {
        // Rates are spread evenly by their logarithm.
        let fast_mbps = between(8_f64.ln(), 60_f64.ln()).exp().round();
        let fast = CaseLink::new(fast_mbps, between(10.0, 60.0) as u64);
        let mbps = (fast_mbps * between(0.2_f64.ln(), 4_f64.ln()).exp())
            .round()
            .max(1.0);
        let slow = CaseLink::new(mbps, between(100.0, 700.0) as u64)
            .jitter(between(0.0, 40.0) as u64)
            .loss((between(0.0, 20.0)).round() / 1000.0);
        SweepCase::new(&format!("r{n:02}"), &[fast, slow], Floor::BestLink)
    };
    (1..=RANDOM_ROWS).map(row).collect()
}

/// All of them.
pub fn all() -> Vec<SweepCase> {
    [field(), corners(), random(SEED)].concat()
}

/// The few that `cargo test` holds the code to: the kinds, in little time.
pub fn quick() -> Vec<SweepCase> {
    const NAMES: [&str; 9] = [
        "dsl_far",
        "dsl_satellite",
        "slow_far",
        "far_farther",
        "far_lossy",
        "c700_0_2_4",
        "c100_40_0_4",
        "c700_0_0_4",
        "r16",
    ];
    let mut rows = all();
    rows.retain(|row| NAMES.contains(&row.name.as_str()));
    rows
}

/// What one direction of a row got, Mbit/s.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    /// All links.
    pub bond: f64,
    /// What it has to reach.
    pub floor: f64,
    /// Each link alone.
    pub alone: Vec<f64>,
}

impl Got {
    /// Its share of what it has to reach.
    pub fn share(&self) -> f64 {
        self.bond / self.floor
    }
}

/// A row and what it got.
#[derive(Debug, Clone)]
pub struct SweepRow {
    /// What was run.
    pub case: SweepCase,
    /// Down and up.
    pub got: [Got; 2],
}

impl SweepRow {
    /// True when both directions reached what they have to.
    pub fn holds(&self) -> bool {
        let least = match self.case.floor {
            Floor::BestLink => LEAST_SHARE,
            Floor::Mbps(_) | Floor::RawLink => 1.0,
        };
        self.got.iter().all(|got| got.share() >= least)
    }
}

/// The senders, in the order of the columns.
const SENDERS: [Host; 2] = [Host::Server, Host::Client];

/// Runs the rows on so many threads.
pub fn run(cases: &[SweepCase], threads: usize, seed: u64) -> Vec<SweepRow> {
    let mut runs = Vec::new();
    for case in cases {
        for sender in SENDERS {
            runs.push((case, case.run(sender)));
            if case.links.len() > 1 {
                let all = case.case(sender);
                let links = 0..case.links.len();
                runs.extend(links.map(|link| (case, alone(&all, link).run)));
            } else if case.floor == Floor::RawLink {
                let mut raw = case.run(sender);
                raw.route = Route::Link(0);
                runs.push((case, raw));
            }
        }
    }
    runs.iter_mut().for_each(|(_, run)| run.seed = seed);
    let mut rates = on_threads(&runs, threads).into_iter();
    let mut rate = || rates.next().unwrap_or_default();
    let mut row = |case: &SweepCase| SweepRow {
        got: SENDERS.map(|_| {
            let bond = rate();
            let mut alone = Vec::new();
            if case.links.len() > 1 {
                alone.extend(case.links.iter().map(|_| rate()));
            }
            let floor = match case.floor {
                Floor::BestLink => alone.iter().copied().fold(0.0, f64::max),
                Floor::Mbps(mbps) => mbps,
                Floor::RawLink => rate(),
            };
            Got { bond, floor, alone }
        }),
        case: case.clone(),
    };
    cases.iter().map(&mut row).collect()
}

fn on_threads(runs: &[(&SweepCase, RunSpec)], threads: usize) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let rates = Mutex::new(vec![0.0; runs.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((case, run)) = runs.get(at) else {
                        return;
                    };
                    let rate = steady_rate(case, run);
                    rates.lock().unwrap_or_else(PoisonError::into_inner)[at] = rate;
                }
            });
        }
    });
    rates.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn steady_rate(case: &SweepCase, run: &RunSpec) -> f64 {
    let (mut world, flows) = run.world();
    let end = START + run.lasts;
    world.run(end);
    let load = flows.load.iter();
    let connections = load.filter_map(|flow| world.flows[*flow].1.connection());
    connections
        .map(|flow| {
            flow.record()
                .delivered
                .mbps(START + case.counts_from(), end)
        })
        .sum()
}

const COLUMNS: &str = "\
row             links                                         down: got alone           share   up: got alone           share
                                                              Mbit/s                        %    Mbit/s                        %
";

/// What the columns mean.
pub const LEGEND: &str = "\
links: Mbit/s / ms of round trip, +-jitter, loss in %; alone: each link by itself through the tunnel
share: of the best link alone, where that is one link: of what it has to reach; !: below 97 % (100 %)
";

/// The table of the rows.
pub fn text(rows: &[SweepRow]) -> String {
    let mut out = String::from(COLUMNS);
    for row in rows {
        // Writing to a string cannot fail.
        let _ = line(&mut out, row);
    }
    out
}

fn line(out: &mut String, row: &SweepRow) -> std::fmt::Result {
    let links: Vec<String> = row.case.links.iter().map(describe).collect();
    write!(out, "{:<15} {:<45}", row.case.name, links.join(" + "))?;
    for got in &row.got {
        let alone: Vec<String> = got.alone.iter().map(|mbps| format!("{mbps:.1}")).collect();
        let alone = if alone.is_empty() {
            format!("({:.1})", got.floor)
        } else {
            alone.join(" ")
        };
        write!(
            out,
            " {:>9.1} {alone:<16} {:>5.1}",
            got.bond,
            got.share() * 100.0
        )?;
    }
    writeln!(out, "{}", if row.holds() { "" } else { " !" })
}

fn describe(link: &CaseLink) -> String {
    let mut text = format!("{}/{}", link.mbps, link.rtt_ms);
    if link.jitter_ms > 0 {
        let _ = write!(text, "+-{}", link.jitter_ms);
    }
    if link.loss > 0.0 {
        let _ = write!(text, " {:.1}%", link.loss * 100.0);
    }
    text
}
