//! What one measurement saw, and the figures that are read from it.

use std::time::Duration;

use super::cpu::Cpu;
use crate::emulator::Direction;
use crate::traffic::{FlowReport, Heard, VoiceReport};

/// How often the links' counters are read.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Over so long a rate is steady.
const STEADY: Duration = Duration::from_secs(1);

/// Share of a rate that counts as having it.
const REACHED: f64 = 0.9;

/// Share of a link's rate that counts as using it.
const USED: f64 = 0.1;

/// What one measurement saw. Times are from the start of its flows.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// Which way the data went.
    pub(super) direction: Direction,
    /// How long.
    pub(super) duration: Duration,
    /// The flows.
    pub(super) flows: Vec<FlowReport>,
    /// Bytes of IP that came out of each link in the measured direction in each [`TICK`].
    pub(super) links: Vec<Vec<u64>>,
    /// Packets that each link dropped in that direction because its queue was full.
    pub(super) dropped: Vec<u64>,
    /// The call beside the flows.
    pub(super) voice: Option<VoiceReport>,
    /// The flow on one link that was not ours.
    pub(super) foreign: Option<Foreign>,
    /// Who used the processor.
    pub(super) cpu: Cpu,
}

/// A flow past the tunnel.
#[derive(Debug, Clone)]
pub(super) struct Foreign {
    /// On which link.
    pub(super) link: usize,
    /// From when on.
    pub(super) from: Duration,
    /// What came of it.
    pub(super) report: FlowReport,
}

impl Course {
    /// Mbit/s of all flows together from one time to another.
    pub(super) fn mbps(&self, from: Duration, to: Duration) -> f64 {
        let flows = self.flows.iter();
        flows.map(|flow| flow.mbps_between(from, to)).sum()
    }

    /// Mbit/s of all flows together in each [`TICK`].
    pub(super) fn rates(&self) -> Vec<f64> {
        ticks(self.duration)
            .map(|at| self.mbps(at, at + TICK))
            .collect()
    }

    /// Mbit/s of IP that came out of a link in each [`TICK`].
    pub(super) fn link_rates(&self, link: usize) -> Vec<f64> {
        let mbps = |bytes: &u64| *bytes as f64 * 8.0 / 1e6 / TICK.as_secs_f64();
        self.links[link].iter().map(mbps).collect()
    }

    /// The longest silence of any flow.
    pub(super) fn longest_gap(&self) -> Duration {
        let gaps = self.flows.iter().map(|flow| flow.longest_gap);
        gaps.max().unwrap_or_default()
    }

    /// How long after `from` a second begins in which the flows get 90 % of `mbps`.
    pub(super) fn until_steady(&self, from: Duration, mbps: f64) -> Option<Duration> {
        let step = FlowReport::STEP;
        (0_u32..)
            .map(|n| from + step * n)
            .take_while(|at| *at + STEADY <= self.duration)
            .find(|at| self.mbps(*at, *at + STEADY) >= REACHED * mbps)
            .map(|at| at - from)
    }

    /// How long after `from` a link carries a tenth of its rate in the measured direction.
    pub(super) fn until_used(&self, link: usize, from: Duration, mbps: f64) -> Option<Duration> {
        let rates = self.link_rates(link);
        ticks(self.duration)
            .zip(rates)
            .find(|(at, rate)| *at >= from && *rate >= USED * mbps)
            .map(|(at, _)| at + TICK - from)
    }

    /// The call in the flows' direction, from one time to another.
    pub(super) fn heard(&self, from: Duration, to: Duration) -> Option<Heard> {
        let voice = self.voice.as_ref()?;
        let said = match self.direction {
            Direction::Down => &voice.down,
            Direction::Up => &voice.up,
        };
        Some(Heard::between(said, from, to))
    }

    /// How long after `from` a second begins in which 95 % of the call's packets come within
    /// `limit`; zero without a call.
    pub(super) fn until_prompt(&self, from: Duration, limit: Duration) -> Option<Duration> {
        (0_u32..)
            .map(|n| from + TICK * n)
            .take_while(|at| *at + STEADY <= self.duration)
            .find(|at| {
                self.heard(*at, *at + STEADY)
                    .is_none_or(|heard| heard.loss() < 0.05 && heard.delay.at(0.95) <= limit)
            })
            .map(|at| at - from)
    }

    /// Whether every flow still got something in its last second.
    pub(super) fn survived(&self) -> bool {
        let last = self.duration.saturating_sub(STEADY);
        let alive = |flow: &FlowReport| flow.mbps_between(last, self.duration) > 0.0;
        self.flows.iter().all(alive)
    }
}

/// The beginnings of all whole ticks.
fn ticks(duration: Duration) -> impl Iterator<Item = Duration> {
    (0_u32..)
        .map(|n| TICK * n)
        .take_while(move |at| *at + TICK <= duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Said;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten seconds: 8 Mbit/s, nothing from second 4 to 5, 4 Mbit/s to second 7, then 8 again.
    fn course() -> Course {
        let series: Vec<u64> = (0..200)
            .map(|step| match step {
                80..100 => 0,
                100..140 => 25_000,
                _ => 50_000,
            })
            .collect();
        let link = series.chunks(2).map(|pair| pair.iter().sum()).collect();
        let said = |i: u32| Said {
            at: Duration::from_millis(20) * i,
            delay: (i != 499).then(|| Duration::from_millis(if i < 150 { 50 } else { 10 })),
        };
        Course {
            direction: Direction::Down,
            duration: 10 * SECOND,
            flows: vec![FlowReport {
                series,
                duration: 10 * SECOND,
                longest_gap: SECOND,
                ..FlowReport::default()
            }],
            links: vec![link],
            dropped: vec![0],
            voice: Some(VoiceReport {
                down: (0..500).map(said).collect(),
                up: Vec::new(),
            }),
            foreign: None,
            cpu: Cpu::default(),
        }
    }

    #[test]
    fn rates_and_the_times_until_them() {
        let course = course();
        assert_eq!(course.mbps(Duration::ZERO, 4 * SECOND), 8.0);
        assert_eq!(course.rates()[0], 8.0);
        assert_eq!((course.rates()[45], course.rates().len()), (0.0, 100));
        assert_eq!(
            course.until_steady(Duration::ZERO, 8.0),
            Some(Duration::ZERO)
        );
        assert_eq!(course.until_steady(4 * SECOND, 4.0), Some(SECOND * 9 / 10));
        // From 6.8 on a second has 0.2 s of 4 and 0.8 s of 8.
        assert_eq!(course.until_steady(5 * SECOND, 8.0), Some(SECOND * 18 / 10));
        assert_eq!(course.until_steady(SECOND, 9.0), None);
        assert_eq!(
            course.until_used(0, 4 * SECOND, 8.0),
            Some(SECOND * 11 / 10)
        );
        assert!(course.survived());
    }

    #[test]
    fn the_call_beside_them() {
        let course = course();
        let limit = Duration::from_millis(25);
        assert_eq!(
            course.until_prompt(Duration::ZERO, limit),
            Some(3 * SECOND),
            "5 % of a second may be late"
        );
        let heard = course.heard(5 * SECOND, 10 * SECOND).unwrap();
        assert_eq!((heard.sent, heard.lost), (250, 1));
    }
}
