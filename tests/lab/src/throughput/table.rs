//! The tables that a person reads.

use std::collections::BTreeMap;

use super::measure::{Packets, Sample};
use super::plan::{Candidate, Load};
use super::results::{Ratio, Results, Target};

/// The width of a candidate's name with its MTU, and of one load's figures.
const NAME: usize = 22;
const CELL: usize = 23;

/// One line while it runs.
pub(super) fn progress(candidate: Candidate, load: Load, sample: Option<Sample>) -> String {
    let figures = sample.map_or_else(|| "failed".to_owned(), figures);
    format!("{:<10}{:<16}{figures}", load.name(), candidate.name())
}

/// Rate, processor time; of datagrams the rate in packets, and the loss.
fn figures(sample: Sample) -> String {
    let Sample {
        gbps,
        packets,
        daemons,
        machine,
    } = sample;
    // Over the veth pair there is no daemon.
    let daemons = if daemons > 0.0 {
        format!("{daemons:.2}")
    } else {
        "-".into()
    };
    let cpu = format!("{daemons:>6} {machine:>6.2}");
    match packets {
        None => format!("{gbps:>7.2} {cpu}"),
        Some(Packets { rate, lost }) => {
            let (rate, lost) = (rate / 1e3, lost * 100.0);
            format!("{rate:>7.1} {lost:>5.1}% {gbps:>6.2} {cpu}")
        }
    }
}

/// The tables of both kinds of load.
pub(super) fn tables(results: &Results, candidates: &[Candidate], loads: &[Load]) -> Vec<String> {
    let of = |tcp: bool| -> Vec<Load> {
        let loads = loads.iter().copied();
        loads
            .filter(|load| matches!(load, Load::Tcp { .. }) == tcp)
            .collect()
    };
    let mut lines = Vec::new();
    let tcp = of(true);
    if !tcp.is_empty() {
        lines.push(
            "TCP, CUBIC: Gbit/s of payload, CPU seconds per GB of both daemons, of the whole machine"
                .into(),
        );
        let heading = |text: &str| format!("{text:>CELL$}");
        lines.extend(table(results, candidates, &tcp, heading));
    }
    let udp = of(false);
    if !udp.is_empty() {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(
            "UDP up, one sender as fast as it can: thousand packets a second received, lost, \
             Gbit/s, CPU seconds per GB"
                .into(),
        );
        let heading = |text: &str| format!("{text:>width$}", width = CELL + WIDER);
        lines.extend(table(results, candidates, &udp, heading));
    }
    lines
}

/// The loss and the rate in bits beside the rate in packets.
const WIDER: usize = 14;

fn table(
    results: &Results,
    candidates: &[Candidate],
    loads: &[Load],
    column: impl Fn(&str) -> String,
) -> Vec<String> {
    let titles: String = loads.iter().map(|load| column(&load.title())).collect();
    let mut lines = vec![format!("{:<NAME$}{titles}", "(MTU)")];
    for candidate in candidates {
        let cell = |load: &Load| {
            let sample = results.median(*candidate, *load);
            column(&sample.map_or_else(|| "-".to_owned(), figures))
        };
        let cells: String = loads.iter().map(cell).collect();
        let mut of_it = results.cells.iter().filter(|it| it.candidate == *candidate);
        let mtu = of_it.find(|cell| cell.mtu > 0).map(|cell| cell.mtu);
        let name = mtu.map_or_else(
            || candidate.name().to_owned(),
            |mtu| format!("{} ({mtu})", candidate.name()),
        );
        lines.push(format!("{name:<NAME$}{cells}"));
    }
    lines
}

/// The ratios with their targets.
pub(super) fn ratios(ratios: &[Ratio]) -> Vec<String> {
    let line = |ratio: &Ratio| {
        let value = ratio
            .value
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let (word, target) = match ratio.target {
            Target::AtLeast(least) => ("at least", least),
            Target::AtMost(most) => ("at most", most),
        };
        let verdict = match ratio.is_met() {
            Some(true) => "pass",
            Some(false) => "below",
            None => "not measured",
        };
        format!(
            "{:<62}{value:>6}   {word:<8} {target:<4}  {verdict}",
            ratio.figure
        )
    };
    ratios.iter().map(line).collect()
}

/// What the daemons said of their offloads, each saying once with those who said it, and what
/// failed.
pub(super) fn notes(results: &Results) -> Vec<String> {
    let mut offloads: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for cell in &results.cells {
        let Some(said) = &cell.offloads else { continue };
        let who = offloads.entry(said).or_default();
        if !who.contains(&cell.candidate.name()) {
            who.push(cell.candidate.name());
        }
    }
    let said = offloads
        .into_iter()
        .map(|(said, who)| format!("offloads of {}: {said}", who.join(", ")));
    let failed = results.cells.iter().filter_map(|cell| {
        let failure = cell.failure.as_ref()?;
        let (candidate, load) = (cell.candidate.name(), cell.load.name());
        Some(format!("{candidate} {load}: {failure}"))
    });
    said.chain(failed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::results::Cell;
    use crate::throughput::results::tests::results;

    #[test]
    fn a_table_has_a_row_for_each_candidate() {
        let [up, _] = Load::ONE_FLOW;
        let candidates = [Candidate::Relay, Candidate::Boringtun, Candidate::Veth];
        let lines = tables(&results(), &candidates, &[up, Load::SMALL]);
        assert_eq!(lines.len(), 5 + 1 + 5);
        assert_eq!(lines[1], format!("{:<22}{:>23}", "(MTU)", "1 flow up"));
        let relay = "relay (1420)             4.00   2.00   4.00";
        assert_eq!(
            lines[2],
            format!("{:<22}{:>23}", "relay (1420)", relay[12..].trim())
        );
        assert_eq!(lines[4], format!("{:<22}{:>23}", "veth", "-"));
        assert!(
            lines[9].contains("100.0  25.0%   0.20   9.00  18.00"),
            "{}",
            lines[9]
        );
        // No table without a load.
        assert!(tables(&results(), &candidates, &[]).is_empty());
    }

    #[test]
    fn ratios_stand_beside_their_targets() {
        let lines = ratios(&results().ratios());
        assert!(
            lines[0].ends_with("2.40   at least 2.5   below"),
            "{}",
            lines[0]
        );
        assert!(
            lines[2].ends_with("0.43   at most  0.5   pass"),
            "{}",
            lines[2]
        );
        let none = ratios(&Results::default().ratios());
        assert!(
            none[0].ends_with("-   at least 2.5   not measured"),
            "{}",
            none[0]
        );
    }

    #[test]
    fn notes_of_offloads_are_joined_and_failures_are_not() {
        let mut results = results();
        for load in Load::ONE_FLOW {
            results.cells.push(Cell {
                offloads: Some("tso".into()),
                failure: Some("gone".into()),
                ..Cell::new(Candidate::Veth, load)
            });
        }
        let expected = [
            "offloads of veth: tso",
            "veth tcp1-up: gone",
            "veth tcp1-down: gone",
        ];
        assert_eq!(notes(&results), expected);
    }
}
