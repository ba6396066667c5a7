//! All figures as JSON.

use serde_json::{Value, json};

use super::Machine;
use super::measure::Sample;
use super::plan::{Plan, WARM_UP};
use super::results::{Cell, Ratio, Results, Target};
use crate::bench::json::round;

/// The whole run.
pub(super) fn document(plan: &Plan, machine: &Machine, results: &Results) -> Value {
    json!({
        "machine": {
            "kernel": machine.kernel,
            "cpu": machine.cpu,
            "cores": machine.cores,
            "others_cores": round(results.busy),
        },
        "versions": machine.versions,
        "seconds": plan.length.as_secs_f64(),
        "warm_up_s": WARM_UP.as_secs_f64(),
        "repeats": plan.repeats,
        "cells": results.cells.iter().map(cell).collect::<Vec<_>>(),
        "ratios": results.ratios().iter().map(ratio).collect::<Vec<_>>(),
    })
}

fn cell(cell: &Cell) -> Value {
    json!({
        "candidate": cell.candidate.name(),
        "load": cell.load.name(),
        "mtu": cell.mtu,
        "offloads": cell.offloads,
        "failure": cell.failure,
        "median": cell.median().as_ref().map(sample),
        "repeats": cell.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

fn sample(sample: &Sample) -> Value {
    json!({
        "gbps": round(sample.gbps),
        "packets_per_s": sample.packets.map(|packets| round(packets.rate)),
        "lost": sample.packets.map(|packets| round(packets.lost)),
        "daemons_s_per_gb": round(sample.daemons),
        "machine_s_per_gb": round(sample.machine),
    })
}

fn ratio(ratio: &Ratio) -> Value {
    let (least, most) = match ratio.target {
        Target::AtLeast(least) => (Some(least), None),
        Target::AtMost(most) => (None, Some(most)),
    };
    json!({
        "figure": ratio.figure,
        "value": ratio.value.map(round),
        "at_least": least,
        "at_most": most,
        "met": ratio.is_met(),
    })
}
