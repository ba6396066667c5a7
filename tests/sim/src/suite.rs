//! Many cases on all processors, in a fixed order.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cases::{SimCase, alone};
use crate::measure::outcome::Outcome;
use crate::run::{Load, RunSpec};

/// One case, run with all its links and with each alone.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case.
    pub case: SimCase,
    /// All links.
    pub bond: Outcome,
    /// The best link alone through the tunnel: which, and its goodput in Mbit/s from second 5 on.
    pub best: Option<(usize, f64)>,
}

impl Row {
    /// What the bond gives over what the best link alone does.
    pub fn over_best(&self) -> Option<f64> {
        self.best
            .filter(|(_, goodput)| *goodput > 0.0)
            .map(|(_, goodput)| self.bond.goodput / goodput)
    }
}

/// What one processor has to do.
struct Task {
    run: RunSpec,
    case: usize,
    /// This link alone.
    link: Option<usize>,
}

/// Runs the cases on so many threads; with `singles` also each different link alone. Rows come in
/// the order of the cases.
pub fn run(cases: &[SimCase], singles: bool, threads: usize) -> Vec<Row> {
    let mut tasks = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        tasks.push(Task {
            run: case.run.clone(),
            case: i,
            link: None,
        });
        if !singles || case.run.load == Load::Idle {
            continue;
        }
        let links = &case.run.links;
        for link in 0..links.len() {
            // Equal links with equal fates are run once.
            let fate = |link: usize| alone(case, link).run.steps;
            let known = (0..link).any(|l| links[l] == links[link] && fate(l) == fate(link));
            if !known {
                tasks.push(Task {
                    run: alone(case, link).run,
                    case: i,
                    link: Some(link),
                });
            }
        }
    }
    let outcomes = on_threads(&tasks, threads);
    let mut rows: Vec<Row> = Vec::new();
    for (task, outcome) in tasks.iter().zip(outcomes) {
        match (task.link, rows.last_mut()) {
            (Some(link), Some(row)) => {
                if row.best.is_none_or(|(_, best)| outcome.goodput > best) {
                    row.best = Some((link, outcome.goodput));
                }
            }
            _ => rows.push(Row {
                case: cases[task.case].clone(),
                bond: outcome,
                best: None,
            }),
        }
    }
    rows
}

fn on_threads(tasks: &[Task], threads: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { return };
                    let outcome = task.run.run();
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((at, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
