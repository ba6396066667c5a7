//! The whole run as JSON, for the figures and for whoever wants to look again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::changing::{Changing, Followed};
use super::course::{Course, TICK};
use super::links::{Links, Single};
use super::payload::{Payload, RAW};
use super::plan::{Plan, Variant, direction_name};
use super::steady::Steady;
use super::table;
use crate::cases::{Case, Change};
use crate::emulator::Direction;
use crate::error::{Context, Error};
use crate::machine;
use crate::traffic::{Heard, Said};

/// Everything that was measured.
pub(super) struct Results<'a> {
    pub(super) plan: &'a Plan,
    pub(super) links: &'a Links,
    pub(super) steady: &'a [Steady],
    pub(super) changing: &'a [Changing],
    pub(super) payload: Payload,
    /// How long the run took.
    pub(super) took: Duration,
    /// Whether the emulator had a real-time priority.
    pub(super) realtime: bool,
}

/// Writes it to a file.
pub(super) fn write(path: &Path, program: &Path, results: &Results<'_>) -> Result<(), Error> {
    write_value(path, &document(program, results))
}

/// Writes a JSON file and the directory that it is in.
pub(crate) fn write_value(path: &Path, value: &Value) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, value.to_string()).context(format!("cannot write {}", path.display()))
}

fn document(program: &Path, results: &Results<'_>) -> Value {
    let Results {
        plan,
        links,
        payload,
        ..
    } = results;
    let link_rows = links.rows.iter().map(|row| {
        let ways =
            |ways: &[Vec<Single>; 2]| json!({ "down": singles(&ways[0]), "up": singles(&ways[1]) });
        json!({
            "name": table::link(&row.link),
            "mbps": row.link.mbps,
            "rtt_ms": row.link.rtt_ms,
            "jitter_ms": row.link.jitter_ms,
            "loss": row.link.loss,
            "pause": row.link.pause.map(|pause| json!({
                "every_s": pause.every.as_secs_f64(),
                "lasts_s": pause.lasts.as_secs_f64(),
            })),
            "raw": ways(&row.raw),
            "alone": ways(&row.alone),
        })
    });
    json!({
        "version": machine::version(program),
        "kernel": machine::kernel(),
        "cpu": machine::cpu_model(),
        "cores": machine::cores(),
        "realtime": results.realtime,
        "repeats": plan.repeats,
        "full": plan.full,
        "took_s": round(results.took.as_secs_f64()),
        "tick_s": TICK.as_secs_f64(),
        "payload": payload_json(*payload),
        "payload_raw": payload_json(RAW),
        "links": link_rows.collect::<Vec<_>>(),
        "steady": results.steady.iter().map(|steady| steady_json(results, steady)).collect::<Vec<_>>(),
        "changing": results.changing.iter().map(|changing| changing_json(results, changing)).collect::<Vec<_>>(),
    })
}

fn payload_json(payload: Payload) -> Value {
    json!({ "segment": payload.segment, "wire": payload.wire, "fraction": round(payload.fraction()) })
}

fn steady_json(results: &Results<'_>, steady: &Steady) -> Value {
    let run = |(variant, courses): &(Variant, Vec<Course>)| {
        let length = results.plan.length(&steady.case, *variant);
        let fraction = results.payload.fraction();
        let summary = steady.summary(*variant, courses, length, results.links, fraction);
        let repeats = courses.iter().map(|course| {
            let mut value = course_json(course, length.skipped);
            value["mbps"] = round(course.mbps(length.skipped, length.all)).into();
            value
        });
        json!({
            "way": direction_name(variant.direction),
            "congestion": variant.congestion,
            "flows": variant.flows,
            "transport": variant.transport,
            "skipped_s": length.skipped.as_secs_f64(),
            "mbps": round(summary.mbps),
            "efficiency": round(summary.efficiency),
            "of_best_alone": round(summary.of_the_best),
            "over_udp_mbps": summary.over_udp.map(round),
            "t90_s": summary.until_90.map(|t| t.as_secs_f64()),
            "short": summary.short,
            "repeats": repeats.collect::<Vec<_>>(),
        })
    };
    let [raw, through] = [0, 1].map(|i| {
        let times = steady
            .idle
            .iter()
            .map(|idle| millis([idle.raw, idle.through][i]));
        times.collect::<Vec<_>>()
    });
    json!({
        "case": steady.case.name,
        "links": steady.links,
        "sum_mbps": steady.case.sum_mbps(),
        "target": steady.case.target,
        "idle_ms": { "raw": raw, "through": through },
        "runs": steady.runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn changing_json(results: &Results<'_>, changing: &Changing) -> Value {
    let repeats = changing.courses.iter().map(|course| {
        let mut value = course_json(course, Duration::ZERO);
        let steps = changing.followed(course, results.payload.fraction());
        value["followed"] = steps.iter().map(followed_json).collect::<Vec<_>>().into();
        value["survived"] = course.survived().into();
        value["foreign"] = course.foreign.as_ref().map_or(Value::Null, |foreign| {
            json!({
                "link": foreign.link,
                "from_s": foreign.from.as_secs_f64(),
                "mbps": round(foreign.report.mbps()),
            })
        });
        value
    });
    json!({
        "case": changing.case.name,
        "way": direction_name(changing.direction),
        "links": case_links(&changing.case),
        "repeats": repeats.collect::<Vec<_>>(),
    })
}

fn followed_json(followed: &Followed) -> Value {
    let (change, mbps) = match followed.step.change {
        Change::Cut => ("cut", None),
        Change::Restore => ("restore", None),
        Change::Rate(mbps) => ("rate", Some(mbps)),
        Change::Compete => ("compete", None),
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "at_s": followed.step.at.as_secs_f64(),
        "link": followed.step.link,
        "change": change,
        "rate_mbps": mbps,
        "expected_mbps": round(followed.expected),
        "mbps": round(followed.mbps),
        "steady_s": seconds(followed.steady),
        "used_s": seconds(followed.used),
        "voice_s": seconds(followed.prompt),
        "share": followed.share.map(round),
        "short": followed.short(),
    })
}

fn case_links(case: &Case) -> Vec<Value> {
    let link = |link: &crate::cases::CaseLink| json!({ "name": table::link(link), "mbps": link.mbps, "rtt_ms": link.rtt_ms });
    case.links.iter().map(link).collect()
}

fn course_json(course: &Course, skipped: Duration) -> Value {
    let links = 0..course.links.len();
    let flows = course.flows.iter();
    let gap = flows.clone().max_by_key(|flow| flow.longest_gap);
    let voice = |said: &[Said]| {
        let whole = Heard::between(said, Duration::ZERO, course.duration);
        let counted = Heard::between(said, skipped, course.duration);
        json!({ "counted": heard_json(&counted), "whole": heard_json(&whole) })
    };
    let cpu = course.cpu;
    json!({
        "series": rounded(&course.rates()),
        "links": links.map(|link| rounded(&course.link_rates(link))).collect::<Vec<_>>(),
        "queue_drops": course.dropped,
        "longest_gap_ms": millis(course.longest_gap()),
        "gap_began_s": gap.map(|flow| flow.gap_began.as_secs_f64()),
        "voice": course.voice.as_ref().map(|report| json!({
            "down": voice(&report.down),
            "up": voice(&report.up),
        })),
        "voice_series": voice_series(course),
        "tcp": flows.map(|flow| json!({
            "retransmitted": flow.tcp.retransmitted,
            "duplicates": flow.tcp.duplicates,
            "out_of_order": flow.tcp.out_of_order,
            "rtt_ms": millis(flow.tcp.round_trip),
            "window_limited_s": flow.tcp.window_limited.as_secs_f64(),
            "buffer_limited_s": flow.tcp.buffer_limited.as_secs_f64(),
        })).collect::<Vec<_>>(),
        "cpu": {
            "emulator": round(cpu.emulator),
            "flows": round(cpu.flows),
            "local": round(cpu.local),
            "remote": round(cpu.remote),
            "others": round(cpu.others),
        },
    })
}

fn heard_json(heard: &Heard) -> Value {
    json!({
        "sent": heard.sent,
        "lost": heard.lost,
        "p50_ms": millis(heard.delay.at(0.5)),
        "p99_ms": millis(heard.delay.at(0.99)),
        "max_ms": millis(heard.delay.at(1.0)),
    })
}

/// The slowest packet of the call in each tick, ms, in the flows' direction; nothing when none came.
fn voice_series(course: &Course) -> Vec<Option<f64>> {
    let Some(voice) = &course.voice else {
        return Vec::new();
    };
    let said = match course.direction {
        Direction::Down => &voice.down,
        Direction::Up => &voice.up,
    };
    let mut series = vec![None; course.rates().len()];
    for said in said {
        let tick = (said.at.as_micros() / TICK.as_micros()) as usize;
        if let (Some(worst), Some(delay)) = (series.get_mut(tick), said.delay) {
            let delay = millis(delay);
            *worst = Some(worst.map_or(delay, |worst: f64| worst.max(delay)));
        }
    }
    series
}

fn singles(singles: &[Single]) -> Vec<Value> {
    let one =
        |single: &Single| json!({ "mbps": round(single.mbps), "series": rounded(&single.rates) });
    singles.iter().map(one).collect()
}

fn rounded(values: &[f64]) -> Vec<f64> {
    values.iter().copied().map(round).collect()
}

/// To four digits after the point: less is noise.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}
