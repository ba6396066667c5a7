//! The figures of a steady case that the table and the JSON both tell, and its targets.

use std::time::Duration;

use super::changing::VOICE_MARGIN;
use super::course::Course;
use super::links::{LinkRow, Links, Single};
use super::plan::{Length, Plan, Variant, fastest};
use super::steady::Steady;
use crate::emulator::Direction;

/// Targets of issue 3.
const OF_THE_BEST: f64 = 0.97;
const IDLE_MARGIN: Duration = Duration::from_millis(1);
const VOICE_LOSS: f64 = 0.001;

/// What two runs of the same differ by here: less is no difference between the transports.
const SAME: f64 = 0.98;

/// One variant of a case: medians over the repeats.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) mbps: f64,
    /// By what the links can carry of the flow.
    pub(super) efficiency: f64,
    /// By the best link alone through netcombiner.
    pub(super) of_the_best: f64,
    /// Until a second with 90 % of the links' sum begins; nothing: never, in half of the repeats.
    pub(super) until_90: Option<Duration>,
    /// The call's one-way delays in the flow's direction, beside it.
    pub(super) voice: [Duration; 2],
    /// What its packets may take: the fastest link's one-way delay, without any queue.
    pub(super) voice_base: Duration,
    /// Share of the call's packets that never came.
    pub(super) voice_loss: f64,
    /// Of a run over the TCP transport: Mbit/s of the same over UDP.
    pub(super) over_udp: Option<f64>,
    /// What is short of its target.
    pub(super) short: Vec<&'static str>,
}

impl Steady {
    /// The figures of a variant.
    pub(super) fn summary(
        &self,
        variant: Variant,
        courses: &[Course],
        length: Length,
        links: &Links,
        fraction: f64,
    ) -> Summary {
        let of = |figure: &dyn Fn(&Course) -> f64| median(courses.iter().map(figure).collect());
        let (from, to) = (length.skipped, length.all);
        let heard = |course: &Course| course.heard(from, to).unwrap_or_default();
        let delay = |share| seconds(of(&|course| heard(course).delay.at(share).as_secs_f64()));
        let possible = self.case.sum_mbps() * fraction;
        let mbps = of(&|course| course.mbps(from, to));
        let never = f64::INFINITY;
        let until_90 = of(&|course| {
            let found = course.until_steady(Duration::ZERO, possible);
            found.map_or(never, |after| after.as_secs_f64())
        });
        let best = self.best_alone(variant.direction, links);
        let mut summary = Summary {
            mbps,
            efficiency: mbps / possible,
            of_the_best: mbps / best,
            until_90: (until_90 < never).then(|| seconds(until_90)),
            voice: [delay(0.5), delay(0.99)],
            voice_base: Duration::from_millis(fastest(&self.case).rtt_ms) / 2,
            voice_loss: of(&|course| heard(course).loss()),
            over_udp: self.over_udp(variant, length),
            short: Vec::new(),
        };
        summary.short = self.short(variant, &summary);
        summary
    }

    /// What a round trip through the tunnel may take more. Each way of a link with jitter j is
    /// uniform over 2j, so the difference of two medians of n round trips has a standard deviation
    /// of about 1.5 j / sqrt(n); twice that is chance.
    fn idle_margin(&self) -> Duration {
        let jitter = Duration::from_millis(fastest(&self.case).jitter_ms);
        let pings = f64::from(Plan::pings(&self.case)) * self.idle.len() as f64;
        IDLE_MARGIN + jitter.mul_f64(3.0 / pings.max(1.0).sqrt())
    }

    /// The median of the same flows over UDP, when these go over TCP.
    fn over_udp(&self, variant: Variant, length: Length) -> Option<f64> {
        let udp = Variant {
            transport: Variant::DOWN.transport,
            ..variant
        };
        let (_, courses) = self
            .runs
            .iter()
            .find(|(other, _)| *other == udp && udp != variant)?;
        let mbps = |course: &Course| course.mbps(length.skipped, length.all);
        Some(median(courses.iter().map(mbps).collect()))
    }

    /// The best link alone through netcombiner, in a direction.
    pub(super) fn best_alone(&self, direction: Direction, links: &Links) -> f64 {
        let rows = self.links.iter().map(|place| &links.rows[*place]);
        rows.map(|row| row.alone(direction)).fold(0.0, f64::max)
    }

    /// Medians of the idle round trips: past netcombiner, and through it.
    pub(super) fn idle_round_trips(&self) -> [Duration; 2] {
        let raw = self.idle.iter().map(|idle| idle.raw.as_secs_f64());
        let through = self.idle.iter().map(|idle| idle.through.as_secs_f64());
        [
            seconds(median(raw.collect())),
            seconds(median(through.collect())),
        ]
    }

    /// The targets are of one CUBIC flow over the default transport; of the other flows, that they
    /// are not below the best link; of the TCP transport, that it is no faster than UDP.
    fn short(&self, variant: Variant, summary: &Summary) -> Vec<&'static str> {
        let default = Variant {
            direction: variant.direction,
            ..Variant::DOWN
        };
        let [raw, through] = self.idle_round_trips();
        let target = self.case.target.unwrap_or(0.0);
        let lossless = self.case.links.iter().all(|link| link.loss == 0.0);
        let standard = variant == default;
        let targets = [
            (standard && summary.efficiency < target, "rate"),
            (
                summary.over_udp.is_none() && summary.of_the_best < OF_THE_BEST,
                "best link",
            ),
            (
                summary
                    .over_udp
                    .is_some_and(|udp| udp < SAME * summary.mbps),
                "udp slower",
            ),
            (
                variant == Variant::DOWN && through > raw + self.idle_margin(),
                "idle",
            ),
            (
                standard && summary.voice[1] > summary.voice_base + VOICE_MARGIN,
                "voice delay",
            ),
            (
                standard && lossless && summary.voice_loss >= VOICE_LOSS,
                "voice loss",
            ),
        ];
        let missed = targets.iter().filter(|target| target.0);
        missed.map(|target| target.1).collect()
    }
}

impl LinkRow {
    /// Median Mbit/s without netcombiner.
    pub(super) fn raw(&self, direction: Direction) -> f64 {
        Self::of(&self.raw, direction)
    }

    /// Median Mbit/s through it.
    pub(super) fn alone(&self, direction: Direction) -> f64 {
        Self::of(&self.alone, direction)
    }

    fn of(ways: &[Vec<Single>; 2], direction: Direction) -> f64 {
        let singles = &ways[usize::from(direction == Direction::Up)];
        median(singles.iter().map(|single| single.mbps).collect())
    }
}

/// The middle value, or the mean of the two in the middle; zero when there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[middle],
        values => values[middle - 1].midpoint(values[middle]),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
