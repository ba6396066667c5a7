//! What was measured, and the figures that are told of it.

use super::measure::{Packets, Sample};
use super::plan::{Candidate, Load, Security};
use crate::bench::summary::median;

/// More than so many cores used by others spoil the figures. What the kernel clears up after the
/// cell before is less.
const QUIET: f64 = 0.3;

/// One candidate with one load.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) candidate: Candidate,
    pub(super) load: Load,
    /// One a repeat that succeeded.
    pub(super) samples: Vec<Sample>,
    /// Why a repeat gave nothing.
    pub(super) failure: Option<String>,
    /// The MTU of the device that the flows left by, bytes.
    pub(super) mtu: u32,
    /// The most cores that others used just before a repeat.
    pub(super) others: f64,
    /// What the daemon said of its offloads.
    pub(super) offloads: Option<String>,
}

impl Cell {
    /// One of which nothing is known yet.
    pub(super) const fn new(candidate: Candidate, load: Load) -> Self {
        Self {
            candidate,
            load,
            samples: Vec::new(),
            failure: None,
            mtu: 0,
            others: 0.0,
            offloads: None,
        }
    }

    /// Whether others were at work, so that the figures are worth less.
    pub(super) fn is_noisy(&self) -> bool {
        self.others > QUIET
    }

    /// The median of each figure; nothing when no repeat succeeded.
    pub(super) fn median(&self) -> Option<Sample> {
        let of =
            |figure: &dyn Fn(&Sample) -> f64| median(self.samples.iter().map(figure).collect());
        let first = self.samples.first()?;
        Some(Sample {
            gbps: of(&|sample| sample.gbps),
            packets: first.packets.map(|_| Packets {
                rate: of(&|sample| sample.packets.map_or(0.0, |packets| packets.rate)),
                lost: of(&|sample| sample.packets.map_or(1.0, |packets| packets.lost)),
            }),
            daemons: of(&|sample| sample.daemons),
            machine: of(&|sample| sample.machine),
        })
    }
}

/// All cells.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) cells: Vec<Cell>,
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table of targets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratio {
    pub(super) figure: &'static str,
    /// What was measured; nothing when a part of it is missing.
    pub(super) value: Option<f64>,
    pub(super) target: Target,
}

impl Ratio {
    /// Whether the target is met, when there is a figure.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.value.map(|value| match self.target {
            Target::AtLeast(least) => value >= least,
            Target::AtMost(most) => value <= most,
        })
    }
}

const ONE: Candidate = Candidate::netcombiner(1, Security::Encrypt);
const TWO: Candidate = Candidate::netcombiner(2, Security::Encrypt);
const WIREGUARDS: [Candidate; 3] = [
    Candidate::WireguardGo,
    Candidate::Boringtun,
    Candidate::Gotatun,
];

impl Results {
    /// A cell.
    pub(super) fn cell(&self, candidate: Candidate, load: Load) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| cell.candidate == candidate && cell.load == load)
    }

    /// The median of a cell.
    pub(super) fn median(&self, candidate: Candidate, load: Load) -> Option<Sample> {
        self.cell(candidate, load)?.median()
    }

    /// The ratios of issue 4's targets. Those of TCP are of one flow, the mean of both ways.
    pub(super) fn ratios(&self) -> Vec<Ratio> {
        let rate = |candidate| self.mean(candidate, &Load::ONE_FLOW, &|sample| Some(sample.gbps));
        let cpu = |candidate| self.mean(candidate, &Load::ONE_FLOW, &|sample| Some(sample.daemons));
        let small = |candidate| {
            self.mean(candidate, &[Load::SMALL], &|sample| {
                sample.packets.map(|it| it.rate)
            })
        };
        let highest = |figure: &dyn Fn(Candidate) -> Option<f64>| {
            let figures = WIREGUARDS.into_iter().filter_map(figure);
            figures.max_by(f64::total_cmp)
        };
        let lowest = |figure: &dyn Fn(Candidate) -> Option<f64>| {
            let figures = WIREGUARDS.into_iter().filter_map(figure);
            figures.min_by(f64::total_cmp)
        };
        let ratio = |figure, ours: Option<f64>, theirs: Option<f64>, target| Ratio {
            figure,
            value: ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
            target,
        };
        vec![
            ratio(
                "one TCP flow, encrypt, by the better WireGuard",
                rate(ONE),
                highest(&rate),
                Target::AtLeast(2.5),
            ),
            ratio(
                "one TCP flow, encrypt, by the bare relay",
                rate(ONE),
                rate(Candidate::Relay),
                Target::AtLeast(0.6),
            ),
            ratio(
                "CPU seconds per GB, encrypt, by the better WireGuard",
                cpu(ONE),
                lowest(&cpu),
                Target::AtMost(0.5),
            ),
            ratio(
                "one TCP flow, two links by one, encrypt",
                rate(TWO),
                rate(ONE),
                Target::AtLeast(0.9),
            ),
            ratio(
                "200-byte packets a second, encrypt, by the better WireGuard",
                small(ONE),
                highest(&small),
                Target::AtLeast(1.5),
            ),
        ]
    }

    /// The mean of a figure over these loads; nothing when one of them is missing, for half of it
    /// beside the whole of another would be no comparison.
    fn mean(
        &self,
        candidate: Candidate,
        loads: &[Load],
        figure: &dyn Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        // Loads that nobody was measured with were not asked for.
        let asked: Vec<Load> = loads
            .iter()
            .copied()
            .filter(|load| self.cells.iter().any(|cell| cell.load == *load))
            .collect();
        let mut sum = 0.0;
        for load in &asked {
            sum += figure(&self.median(candidate, *load)?)?;
        }
        (!asked.is_empty()).then(|| sum / asked.len() as f64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sample of TCP, or of UDP if there are packets.
    pub(crate) fn sample(gbps: f64, daemons: f64, packets: Option<f64>) -> Sample {
        Sample {
            gbps,
            packets: packets.map(|rate| Packets { rate, lost: 0.25 }),
            daemons,
            machine: daemons * 2.0,
        }
    }

    pub(crate) fn results() -> Results {
        let mut results = Results::default();
        let mut add = |candidate, load, samples: &[Sample]| {
            results.cells.push(Cell {
                samples: samples.to_vec(),
                mtu: 1420,
                ..Cell::new(candidate, load)
            });
        };
        let [up, down] = Load::ONE_FLOW;
        for (candidate, rates, cpu) in [
            (Candidate::Relay, [4.0, 6.0], 2.0),
            (Candidate::WireguardGo, [1.0, 1.0], 8.0),
            (Candidate::Boringtun, [0.5, 2.0], 7.0),
            (ONE, [3.0, 3.0], 3.0),
            (TWO, [2.0, 3.0], 3.0),
        ] {
            add(candidate, up, &[sample(rates[0], cpu, None)]);
            add(candidate, down, &[sample(rates[1], cpu, None)]);
        }
        add(Candidate::WireguardGo, Load::SMALL, &[]);
        add(
            Candidate::Boringtun,
            Load::SMALL,
            &[sample(0.2, 9.0, Some(1e5))],
        );
        let ours = [1.0, 3.0, 2.0].map(|packets| sample(0.3, 5.0, Some(packets * 1e5)));
        add(ONE, Load::SMALL, &ours);
        results
    }

    #[test]
    fn ratios_are_by_the_better_peer() {
        let ratios = results().ratios();
        let values: Vec<Option<f64>> = ratios.iter().map(|ratio| ratio.value).collect();
        // 3 by 1.25; 3 by 5; 3 by 7; 2.5 by 3; the median 2e5 by 1e5.
        let expected = [2.4, 0.6, 3.0 / 7.0, 2.5 / 3.0, 2.0];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value.unwrap() - expected).abs() < 1e-9, "{values:?}");
        }
        let met: Vec<Option<bool>> = ratios.iter().map(Ratio::is_met).collect();
        let expected = [false, true, true, false, true].map(Some);
        assert_eq!(met, expected);
    }

    #[test]
    fn a_missing_part_makes_no_ratio() {
        let mut results = results();
        let [_, down] = Load::ONE_FLOW;
        results
            .cells
            .retain(|cell| cell.candidate != ONE || cell.load != down);
        let ratios = results.ratios();
        assert_eq!(ratios[0].value, None);
        assert_eq!(ratios[0].is_met(), None);
        // Of one way alone there are ratios, if only that way was asked for.
        results.cells.retain(|cell| cell.load != down);
        assert_eq!(results.ratios()[0].value, Some(3.0));
        assert!(
            Results::default()
                .ratios()
                .iter()
                .all(|it| it.value.is_none())
        );
    }
}
