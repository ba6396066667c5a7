//! What a run is judged by.

use std::time::Duration;

use netcombiner_lab::emulator::Direction;

use super::samples::Samples;
use super::series::{BIN, Series};
use crate::endpoint::Traffic;
use crate::network::World;
use crate::run::{Flows, IDLE, NEAR, RunSpec};

/// From when to when the flows ran.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The start.
    pub start: Duration,
    /// The end.
    pub end: Duration,
}

/// The steady part begins so long after the start.
pub const SETTLED: Duration = Duration::from_secs(5);
/// Datagrams sent in the last second may still be under way at the end.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// The share of the capacity that counts as reached.
const REACHED: f64 = 0.9;

/// One link's part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkOutcome {
    /// What came out of it in the direction of the load, Mbit/s over the whole run.
    pub mbps: f64,
    /// 95 % of the time no more than this waited.
    pub queue: Duration,
    /// Frames dropped by its queue or policer.
    pub dropped: u64,
}

/// What followed a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// When, from the start of the flows.
    pub at: Duration,
    /// The longest delivery gap until the next step.
    pub gap: Duration,
    /// The end of the first second after it in which 90 % of the new capacity was reached.
    pub reached: Option<Duration>,
}

/// One-way delays of a voice call, and its loss.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Voice {
    /// The median.
    pub p50: Duration,
    /// 99 % are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// Share lost.
    pub loss: f64,
}

/// What a run is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Mbit/s of payload over the whole run, and without its first 5 s.
    pub goodput_all: f64,
    /// Without its first 5 s.
    pub goodput: f64,
    /// The goodput's share of the mean capacity times the payload fraction.
    pub efficiency_all: f64,
    /// Without the first 5 s.
    pub efficiency: f64,
    /// The end of the first second in which 90 % of the capacity was reached.
    pub t90: Option<Duration>,
    /// The inner round trip: median, 99 %; without the first 5 s.
    pub rtt: [Duration; 2],
    /// Voice beside the load, in its direction and against it.
    pub voice: [Voice; 2],
    /// The least one-way delay between the hosts over any link, in the direction of the load.
    pub least_delay: Duration,
    /// The median round trip of the idle tunnel, over the least possible one.
    pub idle_added: Duration,
    /// The longest time without a byte for the application.
    pub gap: Duration,
    /// Share of segments that came out of order.
    pub out_of_order: f64,
    /// Share of segments that were sent again; of datagrams that were lost, where UDP is the load.
    pub resent: f64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Each link's part.
    pub links: Vec<LinkOutcome>,
    /// What followed each step.
    pub steps: Vec<StepOutcome>,
    /// A foreign flow's goodput over half of what its link carries.
    pub foreign: Option<f64>,
}

impl Outcome {
    /// Judges a world that has run.
    pub fn of(spec: &RunSpec, world: &World, flows: &Flows, times: Times) -> Self {
        let Times { start, end } = times;
        let settled = (start + SETTLED).min(end);
        let delivered = |from, to| -> f64 {
            let load = flows.load.iter();
            load.fold(0.0, |all, flow| {
                all + series(&world.flows[*flow].1).mbps(from, to)
            })
        };
        let fraction = spec.payload_fraction();
        let efficiency = |from: Duration, to: Duration| {
            delivered(from, to) / (mean_capacity(spec, from - start, to - start) * fraction)
        };
        let total = sum(
            flows.load.iter().map(|flow| series(&world.flows[*flow].1)),
            end,
        );
        let connections = || {
            let load = flows.load.iter();
            load.filter_map(|flow| world.flows[*flow].1.connection())
        };
        let mut round_trips = Samples::default();
        for connection in connections() {
            round_trips.extend(&connection.record().round_trips(settled, end));
        }
        let (sent, resent, timeouts) =
            connections()
                .map(|connection| connection.count())
                .fold((0, 0, 0), |all, count| {
                    (
                        all.0 + count.sent,
                        all.1 + count.resent,
                        all.2 + count.timeouts,
                    )
                });
        let until_next = |i: usize| spec.steps.get(i + 1).map_or(end, |next| start + next.at);
        let longest = |from, to| {
            let gaps = connections().map(|connection| connection.record().longest_gap(from, to));
            gaps.max().unwrap_or_default()
        };
        let steps = spec.steps.iter().enumerate().map(|(i, step)| {
            let (from, to) = (start + step.at, until_next(i).min(end));
            StepOutcome {
                at: step.at,
                gap: longest(from, to),
                reached: total.time_to(spec.capacity(step.at) * fraction * REACHED, from, to),
            }
        });
        let out_of_order = flows.load.iter().fold(0.0, |all, flow| {
            all + match &world.flows[*flow].1 {
                Traffic::Tcp(connection) => connection.record().out_of_order(),
                Traffic::Stream(stream) => stream.record().out_of_order(),
            }
        });
        let streams = flows
            .load
            .iter()
            .filter_map(|flow| world.flows[*flow].1.stream());
        let lost = streams.fold(0.0, |all: f64, stream| {
            let (_, loss) = stream
                .record()
                .between(settled, end.saturating_sub(UNDER_WAY));
            all.max(loss)
        });
        Self {
            goodput_all: delivered(start, end),
            goodput: delivered(settled, end),
            efficiency_all: efficiency(start, end),
            efficiency: efficiency(settled, end),
            t90: total.time_to(
                spec.capacity(Duration::ZERO) * fraction * REACHED,
                start,
                end,
            ),
            rtt: round_trips.quantiles([0.5, 0.99]),
            voice: [0, 1].map(|i| voice(&world.flows[flows.voice[i]].1, settled, end)),
            least_delay: least_delay(spec, spec.direction()),
            idle_added: idle_added(spec, &world.flows[flows.ping].1),
            gap: longest(start, end),
            out_of_order: out_of_order / flows.load.len().max(1) as f64,
            resent: lost.max(resent as f64 / (sent as f64).max(1.0)),
            timeouts,
            links: (0..spec.links.len())
                .map(|link| link_outcome(spec, world, link, end))
                .collect(),
            steps: steps.collect(),
            foreign: flows.foreign.first().map(|(link, flow)| {
                let from = spec.steps.iter().find(|step| step.link == *link);
                // It has a second to begin.
                let from = start + from.map_or(Duration::ZERO, |step| step.at) + UNDER_WAY;
                let rate = spec.links[*link].mbps(spec.direction());
                let raw = RunSpec {
                    route: crate::network::Route::Link(*link),
                    ..spec.clone()
                };
                let half = rate * raw.payload_fraction() / 2.0;
                series(&world.flows[*flow].1).mbps(from, end) / half
            }),
        }
    }
}

fn series(flow: &Traffic) -> &Series {
    match flow {
        Traffic::Tcp(connection) => &connection.record().delivered,
        Traffic::Stream(stream) => &stream.record().delivered,
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Series>, end: Duration) -> Series {
    let mut total = Series::default();
    for series in all {
        let mut at = Duration::ZERO;
        while at < end {
            total.add(at, series.bytes(at, at + BIN));
            at += BIN;
        }
    }
    total
}

/// The mean of the capacity between two times from the start of the flows, Mbit/s.
fn mean_capacity(spec: &RunSpec, from: Duration, to: Duration) -> f64 {
    let mut at = from;
    let (mut total, mut bins) = (0.0, 0_u32);
    while at < to {
        total += spec.capacity(at);
        bins += 1;
        at += BIN;
    }
    total / f64::from(bins.max(1))
}

fn voice(flow: &Traffic, from: Duration, end: Duration) -> Voice {
    let Some(stream) = flow.stream() else {
        return Voice::default();
    };
    let (samples, loss) = stream.record().between(from, end.saturating_sub(UNDER_WAY));
    let [p50, p99, max] = samples.quantiles([0.5, 0.99, 1.0]);
    Voice {
        p50,
        p99,
        max,
        loss,
    }
}

fn least_delay(spec: &RunSpec, direction: Direction) -> Duration {
    let delay = |link: &crate::cases::SimLink| {
        let shape = link.shape(direction);
        shape.delay + shape.jitter / 2
    };
    let least = spec.links.iter().map(delay).min().unwrap_or_default();
    least + NEAR + spec.far
}

fn idle_added(spec: &RunSpec, ping: &Traffic) -> Duration {
    let Some(ping) = ping.stream() else {
        return Duration::ZERO;
    };
    let (samples, _) = ping.record().between(IDLE.0, IDLE.1);
    let [median] = samples.quantiles([0.5]);
    let round = |link: &crate::cases::SimLink| {
        let [up, down] = [&link.up, &link.down];
        up.delay + up.jitter / 2 + down.delay + down.jitter / 2
    };
    let least = spec.links.iter().map(round).min().unwrap_or_default();
    median.saturating_sub(least + 2 * (NEAR + spec.far))
}

fn link_outcome(spec: &RunSpec, world: &World, link: usize, end: Duration) -> LinkOutcome {
    let lane = world.lane(link, spec.direction());
    let counters = lane.counters();
    let [queue] = lane.queue().quantiles([0.95]);
    let seconds = (end - crate::run::START).as_secs_f64();
    LinkOutcome {
        mbps: counters.out_bytes as f64 * 8e-6 / seconds.max(0.001),
        queue,
        dropped: counters.dropped_queue + counters.dropped_policer,
    }
}
