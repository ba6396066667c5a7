//! What is measured, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use super::links::alone_directions;
use crate::cases::{self, Case, CaseLink};
use crate::emulator::Direction;
use crate::error::Error;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// A built `netcombiner`; nothing: cargo builds one.
    pub program: Option<PathBuf>,
    /// Where the JSON goes.
    pub json: PathBuf,
    /// Names of cases; none: all.
    pub cases: Vec<String>,
    /// How long a flow over all links lasts instead of the default.
    pub seconds: Option<u64>,
    /// How often each is measured.
    pub repeats: u32,
    /// The cases with a far link instead of the others.
    pub far: bool,
    /// Every variant of every case, and nothing kept from one case for another.
    pub full: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: None,
            json: PathBuf::from("target/bench.json"),
            cases: Vec::new(),
            seconds: None,
            repeats: 1,
            far: false,
            full: false,
        }
    }
}

/// A flow's length, and what of its beginning is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) all: Duration,
    pub(super) skipped: Duration,
}

impl Length {
    const fn ms(all: u64, skipped: u64) -> Self {
        Self {
            all: Duration::from_millis(all),
            skipped: Duration::from_millis(skipped),
        }
    }
}

/// Over one link past netcombiner. 1.5 s are the slow start and its end at every link here.
const RAW: Length = Length::ms(4500, 1500);

/// Over one link through it.
const ALONE: Length = Length::ms(5500, 2000);

/// Over all links: the download, and with it the figures of the table.
const DOWN: Length = Length::ms(9500, 4000);

/// The upload and the other variants.
const REST: Length = Length::ms(7500, 3500);

/// Where a link is far: ten seconds until a flow is up to its rate, and twenty of it.
const FAR: Length = Length::ms(30_000, 10_000);

/// What is left after the last step of a changing case. A competing flow takes its time.
const AFTER: Duration = Duration::from_secs(6);
const AFTER_COMPETE: Duration = Duration::from_secs(14);

/// Pings when nothing else runs, more where the fastest link has jitter; and the time between two.
const PINGS: u32 = 50;
const PINGS_OF_JITTER: u32 = 150;
pub(super) const PING_EVERY: Duration = Duration::from_millis(20);

/// Between two flows, for what the first left in the queues.
pub(super) const PAUSE: Duration = Duration::from_millis(400);

/// What it takes to raise a lab and remove it, and to start both portals and stop them; only the
/// forecast of the time is computed from them (measured here).
const LAB: Duration = Duration::from_millis(600);
const PORTALS: Duration = Duration::from_millis(1200);

/// What a call takes to begin and to end.
const CALL: Duration = Duration::from_millis(600);

/// One way to send over all links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) direction: Direction,
    /// The inner flows' congestion control.
    pub(super) congestion: &'static str,
    /// How many flows at once.
    pub(super) flows: usize,
    /// The links' transport.
    pub(super) transport: &'static str,
}

impl Variant {
    pub(super) const DOWN: Self = Self {
        direction: Direction::Down,
        congestion: "cubic",
        flows: 1,
        transport: "udp",
    };
    pub(super) const UP: Self = Self {
        direction: Direction::Up,
        ..Self::DOWN
    };
    pub(super) const BBR: Self = Self {
        congestion: "bbr",
        ..Self::DOWN
    };
    pub(super) const EIGHT: Self = Self {
        flows: 8,
        ..Self::DOWN
    };
    pub(super) const TCP: Self = Self {
        transport: "tcp",
        ..Self::DOWN
    };

    /// Short: what differs from one CUBIC flow over UDP.
    pub(super) fn name(self) -> String {
        let mut name = direction_name(self.direction).to_owned();
        if self.congestion != Self::DOWN.congestion {
            name += &format!(" {}", self.congestion);
        }
        if self.flows > 1 {
            name += &format!(" x{}", self.flows);
        }
        if self.transport != Self::DOWN.transport {
            name += &format!(" {}", self.transport);
        }
        name
    }
}

/// `down` or `up`.
pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Down => "down",
        Direction::Up => "up",
    }
}

/// The cases in which BBR, eight flows and the TCP transport are tried without `--full`: equal
/// links, unequal ones, and links that lose.
const WITH_BBR: [&str; 3] = ["baseline", "three", "loss_2"];
const WITH_EIGHT: [&str; 3] = ["baseline", "asym", "dual_lte"];
const WITH_TCP: [&str; 4] = ["baseline", "rtt_70", "asym", "loss_05"];

/// What is measured.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) steady: Vec<Case>,
    pub(super) changing: Vec<Case>,
    pub(super) repeats: u32,
    pub(super) full: bool,
    seconds: Option<Duration>,
}

impl Plan {
    /// From the options; an error names a case that there is not.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let (mut steady, changing) = (cases::steady(), cases::changing());
        // They take minutes each: only when they are asked for.
        steady.extend(cases::far().into_iter().filter(|case| {
            let named = |name: &String| name == case.name;
            options.far || options.cases.iter().any(named)
        }));
        let known = || steady.iter().chain(&changing).map(|case| case.name);
        for name in &options.cases {
            if !known().any(|known| known == name) {
                let known: Vec<_> = known().collect();
                return Err(Error::failed(format!(
                    "there is no case {name:?}, but {}",
                    known.join(", ")
                )));
            }
        }
        let wanted = |case: &Case| {
            let all = options.cases.is_empty() && options.far == case.is_far();
            all || options.cases.iter().any(|name| name == case.name)
        };
        Ok(Self {
            steady: steady.into_iter().filter(wanted).collect(),
            changing: changing.into_iter().filter(wanted).collect(),
            repeats: options.repeats.max(1),
            full: options.full,
            seconds: options.seconds.map(Duration::from_secs),
        })
    }

    /// How a case is sent over all links, the UDP transport first.
    pub(super) fn variants(&self, case: &Case) -> Vec<Variant> {
        let mut variants = vec![Variant::DOWN, Variant::UP];
        for (variant, cases) in [
            (Variant::BBR, &WITH_BBR[..]),
            (Variant::EIGHT, &WITH_EIGHT[..]),
            (Variant::TCP, &WITH_TCP[..]),
        ] {
            if self.full || cases.contains(&case.name) {
                variants.push(variant);
                if self.full {
                    variants.push(Variant {
                        direction: Direction::Up,
                        ..variant
                    });
                }
            }
        }
        variants.sort_by_key(|variant| variant.transport == Variant::TCP.transport);
        variants
    }

    /// The directions in which a changing case is measured.
    pub(super) const fn directions(&self) -> &'static [Direction] {
        if self.full {
            &[Direction::Down, Direction::Up]
        } else {
            &[Direction::Down]
        }
    }

    /// How long a flow over all links of a steady case lasts. Where links pause, one whole period
    /// is counted.
    pub(super) fn length(&self, case: &Case, variant: Variant) -> Length {
        let mut length = match variant {
            _ if case.is_far() => FAR,
            Variant::DOWN => DOWN,
            _ => REST,
        };
        if let Some(all) = self.seconds {
            length.all = all;
            length.skipped = length.skipped.min(all / 2);
        } else if let Some(period) = period(case) {
            length.all = length.skipped + period;
        }
        length
    }

    /// How many pings tell the round trip of a case when nothing else runs.
    pub(super) fn pings(case: &Case) -> u32 {
        if fastest(case).jitter_ms > 0 {
            PINGS_OF_JITTER
        } else {
            PINGS
        }
    }

    /// How long the flow of a changing case lasts.
    pub(super) fn changing_length(case: &Case) -> Duration {
        let after = |step: &cases::Step| match step.change {
            cases::Change::Compete => step.at + AFTER_COMPETE,
            cases::Change::Cut | cases::Change::Restore | cases::Change::Rate(_) => step.at + AFTER,
        };
        case.steps.iter().map(after).max().unwrap_or(AFTER)
    }

    /// How long all of it takes, roughly.
    pub(super) fn forecast(&self) -> Duration {
        let mut known: Vec<CaseLink> = Vec::new();
        let mut all = Duration::ZERO;
        for case in &self.steady {
            all += LAB + PORTALS + PING_EVERY * Self::pings(case);
            let mut new: Vec<CaseLink> = Vec::new();
            for link in &case.links {
                if (self.full || !known.contains(link)) && !new.contains(link) {
                    new.push(*link);
                }
            }
            if !new.is_empty() {
                all += (raw_length(&new).all + PAUSE) * 2;
            }
            for link in &new {
                let place = case.links.iter().position(|other| other == link);
                let ways = alone_directions(&case.links, place.unwrap_or(0), self.full);
                let length = alone_length(&case.links);
                all += PORTALS + (length.all + PAUSE) * ways.count() as u32;
            }
            known.extend(new);
            for variant in self.variants(case) {
                all += self.length(case, variant).all + PAUSE + CALL;
                if variant == Variant::TCP {
                    all += PORTALS;
                }
            }
        }
        for case in &self.changing {
            let flow = Self::changing_length(case) + LAB + PORTALS + PAUSE + CALL;
            all += flow * self.directions().len() as u32;
        }
        all * self.repeats
    }
}

/// How long a flow over each of these links lasts past netcombiner.
pub(super) fn raw_length(links: &[CaseLink]) -> Length {
    length_over(links, RAW)
}

/// How long a flow over one of a case's links lasts through it.
pub(super) fn alone_length(links: &[CaseLink]) -> Length {
    length_over(links, ALONE)
}

/// With a far one among them all take their time, to be compared.
fn length_over(links: &[CaseLink], near: Length) -> Length {
    if links.iter().any(CaseLink::is_far) {
        FAR
    } else {
        near
    }
}

/// The link with the shortest round trip.
pub(super) fn fastest(case: &Case) -> CaseLink {
    let links = case.links.iter();
    links
        .min_by_key(|link| link.rtt_ms)
        .copied()
        .unwrap_or(CaseLink::new(0.0, 0))
}

/// The longest time from pause to pause.
fn period(case: &Case) -> Option<Duration> {
    let pauses = case.links.iter().filter_map(|link| link.pause);
    pauses.map(|pause| pause.every).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_run_fits_in_a_quarter_of_an_hour() {
        let plan = Plan::new(&Options::default()).unwrap();
        assert_eq!(plan.steady.len() + plan.changing.len(), 18);
        let forecast = plan.forecast();
        assert!(forecast < Duration::from_secs(14 * 60), "{forecast:?}");
    }

    /// Field row E: six rows, each measured as long as the simulator's.
    #[test]
    fn the_far_cases_are_measured_when_asked_for() {
        let options = Options {
            far: true,
            ..Options::default()
        };
        let plan = Plan::new(&options).unwrap();
        assert_eq!((plan.steady.len(), plan.changing.len()), (6, 0));
        assert!(plan.steady.iter().all(Case::is_far));
        let case = &plan.steady[0];
        for variant in plan.variants(case) {
            assert_eq!(plan.length(case, variant), FAR);
        }
        assert_eq!(alone_length(&case.links), FAR);
        assert_eq!(alone_directions(&case.links, 1, false).count(), 2);
    }

    #[test]
    fn a_case_that_there_is_not_is_named() {
        let cases = vec!["baseline".to_owned(), "nonsense".to_owned()];
        let options = Options {
            cases,
            ..Options::default()
        };
        let error = Plan::new(&options).unwrap_err().to_string();
        assert!(
            error.contains("\"nonsense\"") && error.contains("rtt_70"),
            "{error}"
        );
    }

    #[test]
    fn every_name_of_a_variants_case_exists() {
        let steady = cases::steady();
        for name in [&WITH_BBR[..], &WITH_EIGHT, &WITH_TCP].concat() {
            assert!(steady.iter().any(|case| case.name == name), "{name}");
        }
        assert_eq!(Variant::DOWN.name(), "down");
        assert_eq!(
            Variant {
                direction: Direction::Up,
                ..Variant::EIGHT
            }
            .name(),
            "up x8"
        );
    }
}
