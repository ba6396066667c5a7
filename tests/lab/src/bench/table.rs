//! The tables that a person reads, row by row as they are measured.

use std::time::Duration;

use super::changing::{Changing, Followed};
use super::course::Course;
use super::links::Links;
use super::payload::Payload;
use super::plan::{Plan, Variant, direction_name};
use super::steady::Steady;
use super::summary::median;
use crate::cases::{Case, CaseLink, Change};

/// `50/20+50/70`, Mbit/s and round trip in ms; `±` jitter, `%` loss, `p` pauses.
pub(super) fn links(case: &Case) -> String {
    case.links.iter().map(link).collect::<Vec<_>>().join("+")
}

/// One of them.
pub(super) fn link(link: &CaseLink) -> String {
    let mut text = format!("{}/{}", link.mbps, link.rtt_ms);
    if link.jitter_ms > 0 {
        text += &format!("±{}", link.jitter_ms);
    }
    if link.loss > 0.0 {
        text += &format!(" {}%", link.loss * 100.0);
    }
    if link.pause.is_some() {
        text += "p";
    }
    text
}

pub(super) const STEADY_HEAD: &str = "\
case       way          raw each        alone each         bond   eff   target  xbest   t90   idle     voice p50/p99/base   lost   verdict";

/// The rows of a case, one a variant.
pub(super) fn steady(plan: &Plan, steady: &Steady, known: &Links, payload: Payload) -> Vec<String> {
    let row = |(variant, courses): &(Variant, Vec<Course>)| {
        let summary = steady.summary(
            *variant,
            courses,
            plan.length(&steady.case, *variant),
            known,
            payload.fraction(),
        );
        let each = |figure: &dyn Fn(usize) -> f64| {
            let figures = steady.links.iter().map(|place| known_as(figure(*place), 0));
            figures.collect::<Vec<_>>().join("+")
        };
        let direction = variant.direction;
        let [raw, through] = steady.idle_round_trips();
        format!(
            "{:<10} {:<11}  {:<14}  {:<14}  {:>6.1}  {:>5.1}  {:>5.0}%  {:>5.2}  {:>5}  {:>+5.1}  {:>7.1}/{:>5.1}/{:>4.1} ms  {:>5.2}%  {}",
            steady.case.name,
            variant.name(),
            each(&|place| known.rows[place].raw(direction)),
            each(&|place| known.rows[place].alone(direction)),
            summary.mbps,
            summary.efficiency * 100.0,
            steady.case.target.unwrap_or(0.0) * 100.0,
            summary.of_the_best,
            after(summary.until_90),
            ms(through) - ms(raw),
            ms(summary.voice[0]),
            ms(summary.voice[1]),
            ms(summary.voice_base),
            summary.voice_loss * 100.0,
            verdict(&summary.short)
                + &summary
                    .over_udp
                    .map_or_else(String::new, |udp| format!(" (udp {udp:.1})")),
        )
    };
    steady.runs.iter().map(row).collect()
}

pub(super) const CHANGING_HEAD: &str = "\
case          at  what                  expects  gets    steady   used   voice   gap              verdict";

/// The rows of a case, one a step; of several repeats the worst.
pub(super) fn changing(changing: &Changing, payload: Payload) -> Vec<String> {
    let repeats: Vec<Vec<Followed>> = changing
        .courses
        .iter()
        .map(|course| changing.followed(course, payload.fraction()))
        .collect();
    let gap = changing.courses.iter().map(Course::longest_gap).max();
    let survived = changing.courses.iter().all(Course::survived);
    let mut rows = Vec::new();
    for (i, step) in changing.case.steps.iter().enumerate() {
        let of: Vec<&Followed> = repeats.iter().map(|steps| &steps[i]).collect();
        let worst = |figure: &dyn Fn(&Followed) -> Option<Duration>| {
            let all: Option<Vec<Duration>> = of.iter().map(|followed| figure(followed)).collect();
            after(all.and_then(|all| all.into_iter().max()))
        };
        let mut short: Vec<&str> = of.iter().flat_map(|followed| followed.short()).collect();
        short.sort_unstable();
        short.dedup();
        let gap = gap.unwrap_or_default();
        if step.change == Change::Cut && gap > LONGEST_GAP {
            short.push("gap");
        }
        if !survived {
            short.push("connection");
        }
        let share = median(of.iter().filter_map(|followed| followed.share).collect());
        let (used, extra) = match step.change {
            Change::Restore => (worst(&|f| f.used), String::new()),
            Change::Compete => ("-".into(), format!("share {share:.2}")),
            Change::Cut => ("-".into(), format!("{} ms", gap.as_millis())),
            Change::Rate(_) => ("-".into(), String::new()),
        };
        rows.push(format!(
            "{:<12} {:>3}  {:<20}  {:>6.1}  {:>6.1}  {:>6}  {:>6}  {:>6}  {:<15}  {}",
            changing.name(),
            step.at.as_secs(),
            what(&changing.case, step.link, step.change),
            of.iter()
                .map(|followed| followed.expected)
                .fold(0.0, f64::max),
            median(of.iter().map(|followed| followed.mbps).collect()),
            if share > 0.0 {
                "-".into()
            } else {
                worst(&|f| f.steady)
            },
            used,
            worst(&|f| f.prompt),
            extra,
            verdict(&short),
        ));
    }
    rows
}

/// The target of issue 3 for a TCP flow when a link is cut.
pub(super) const LONGEST_GAP: Duration = Duration::from_millis(200);

fn what(case: &Case, link: usize, change: Change) -> String {
    let name = self::link(&case.links[link]);
    match change {
        Change::Cut => format!("{name} cut"),
        Change::Restore => format!("{name} back"),
        Change::Rate(mbps) => format!("{name} has {mbps:.0}"),
        Change::Compete => format!("a stranger on {name}"),
    }
}

pub(super) const CPU_HEAD: &str = "\
case       way          Mbit/s  emulator  flows  local  remote  others   tcp retransmits  limited by window";

/// Cores used, and what the inner TCP did, one row a variant; of several repeats the first.
pub(super) fn cpu(steady: &Steady) -> Vec<String> {
    let mut rows = Vec::new();
    for (variant, courses) in &steady.runs {
        let Some(course) = courses.first() else {
            continue;
        };
        let cpu = course.cpu;
        let tcp = course.flows.iter().map(|flow| flow.tcp);
        let limited: Duration = tcp
            .clone()
            .map(|tcp| tcp.window_limited + tcp.buffer_limited)
            .sum();
        rows.push(format!(
            "{:<10} {:<11}  {:>6.1}  {:>8.2}  {:>5.2}  {:>5.2}  {:>6.2}  {:>6.2}   {:>15}  {:>7.1} s",
            steady.case.name,
            variant.name(),
            course.mbps(Duration::ZERO, course.duration),
            cpu.emulator,
            cpu.flows,
            cpu.local,
            cpu.remote,
            cpu.others,
            tcp.map(|tcp| tcp.retransmitted).sum::<u32>(),
            limited.as_secs_f64(),
        ));
    }
    rows
}

pub(super) const LINK_HEAD: &str = "\
link             way   raw    alone";

/// What each kind of link gives alone.
pub(super) fn link_rows(known: &Links) -> Vec<String> {
    let mut rows = Vec::new();
    for row in &known.rows {
        for direction in super::links::DIRECTIONS {
            rows.push(format!(
                "{:<15}  {:<4}  {:>5}  {:>5}",
                link(&row.link),
                direction_name(direction),
                known_as(row.raw(direction), 1),
                known_as(row.alone(direction), 1)
            ));
        }
    }
    rows
}

/// Mbit/s, or nothing when it was not measured.
fn known_as(mbps: f64, digits: usize) -> String {
    if mbps > 0.0 {
        format!("{mbps:.digits$}")
    } else {
        "-".into()
    }
}

fn verdict(short: &[&str]) -> String {
    if short.is_empty() {
        "pass".into()
    } else {
        format!("below: {}", short.join(", "))
    }
}

fn after(time: Option<Duration>) -> String {
    time.map_or_else(
        || "never".into(),
        |time| format!("{:.1} s", time.as_secs_f64()),
    )
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_short_and_whole() {
        let second = Duration::from_secs(1);
        let lossy = CaseLink::new(40.0, 30).jitter(5).loss(0.005);
        assert_eq!(link(&lossy), "40/30±5 0.5%");
        assert_eq!(
            link(&CaseLink::new(100.0, 40).pause(second, second)),
            "100/40p"
        );
        assert_eq!(verdict(&["rate", "idle"]), "below: rate, idle");
        assert_eq!(after(None), "never");
    }
}
