//! One measurement: flows, perhaps a call beside them, and what happens to the links meanwhile.

use std::time::Duration;

use super::course::{Course, Foreign, TICK};
use super::cpu::Reading;
use super::script::{Act, Event};
use crate::clock::Clock;
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::Error;
use crate::net::priority;
use crate::portal::Portal;
use crate::topology::{Lab, PUBLIC, SERVER};
use crate::traffic::{Connection, Flow, Sender, Voice, VoiceReport};

/// What to measure.
pub(super) struct Take<'a> {
    /// Where.
    pub(super) lab: &'a Lab,
    /// The daemons that run, for their share of the processor.
    pub(super) portals: &'a [Portal],
    /// Which way the flows send.
    pub(super) direction: Direction,
    /// The flows, all at once.
    pub(super) connections: Vec<Connection<'a>>,
    /// How long.
    pub(super) duration: Duration,
    /// What happens to the links.
    pub(super) events: Vec<Event>,
    /// Whether there is a call through the tunnel too.
    pub(super) voice: bool,
}

/// Connections whose data takes this direction through the links.
pub(super) const fn sender(direction: Direction) -> Sender {
    match direction {
        Direction::Down => Sender::Listener,
        Direction::Up => Sender::Connector,
    }
}

/// One CUBIC flow over one link, past netcombiner.
pub(super) fn raw(lab: &Lab, link: usize, direction: Direction) -> Connection<'_> {
    Connection::new(&lab.local, &lab.server, SERVER, sender(direction))
        .bound_to(&Lab::wan(link))
        .congestion("cubic")
}

/// One CUBIC flow through netcombiner.
pub(super) fn through(lab: &Lab, direction: Direction) -> Connection<'_> {
    Connection::new(&lab.client, &lab.server, SERVER, sender(direction)).congestion("cubic")
}

/// What the conductor brings home.
struct Conducted {
    links: Vec<Vec<u64>>,
    cpu: [Reading; 2],
    foreign: Option<Foreign>,
}

impl Take<'_> {
    /// Measures. The links are as before when it ends, unless an event changed them for good.
    pub(super) fn run(&self) -> Result<Course, Error> {
        interrupt::check()?;
        let clock = Clock::start();
        let voice = self.voice.then(|| self.call(clock)).transpose()?;
        let before = self.dropped();
        let flows = Flow::start_all(&self.connections, self.duration)?;
        let zero = clock.read();
        let conducted = std::thread::scope(|scope| {
            scope
                .spawn(|| self.conduct())
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let flows = flows
            .into_iter()
            .map(Flow::finish)
            .collect::<Result<Vec<_>, _>>()?;
        let voice = voice.map(Voice::finish).transpose()?;
        let dropped = self.dropped();
        Ok(Course {
            direction: self.direction,
            duration: self.duration,
            flows,
            links: conducted.links,
            dropped: dropped
                .iter()
                .zip(before)
                .map(|(now, then)| now - then)
                .collect(),
            voice: voice.map(|report| since(report, zero)),
            foreign: conducted.foreign,
            cpu: conducted.cpu[1].since(&conducted.cpu[0]),
        })
    }

    fn call(&self, clock: Clock) -> Result<Voice, Error> {
        let lab = self.lab;
        Voice::start((&lab.client, PUBLIC), (&lab.server, SERVER), clock)
    }

    /// Packets that each link dropped in the measured direction because its queue was full.
    fn dropped(&self) -> Vec<u64> {
        let counters = |link| self.lab.emulator.counters(link, self.direction);
        (0..self.lab.links())
            .map(|link| counters(link).dropped_queue)
            .collect()
    }

    /// Plays the events and reads the counters, each at its time. Its thread has the emulator's
    /// priority where it may: on busy cores it would be late by some milliseconds otherwise.
    fn conduct(&self) -> Result<Conducted, Error> {
        priority::realtime();
        let clock = Clock::start();
        let lab = self.lab;
        let count = |link| lab.emulator.counters(link, self.direction).out_bytes;
        let mut counted: Vec<u64> = (0..lab.links()).map(count).collect();
        let mut links = vec![Vec::new(); lab.links()];
        let first = Reading::now(self.portals);
        let mut events = self.events.iter().peekable();
        std::thread::scope(|scope| {
            let mut foreign = None;
            for tick in 1.. {
                let due = TICK * tick;
                // The last one before the flows end: their threads' times go with them.
                if due >= self.duration {
                    break;
                }
                while let Some(event) = events.next_if(|event| event.at <= due) {
                    std::thread::sleep(event.at.saturating_sub(clock.read()));
                    event.apply(lab);
                    if event.act == Act::Compete {
                        let (link, from) = (event.link, event.at);
                        let left = self.duration.saturating_sub(from);
                        let connection = raw(lab, link, self.direction);
                        let flow = move || Flow::start(&connection, left)?.finish();
                        foreign = Some((link, from, scope.spawn(flow)));
                    }
                }
                std::thread::sleep(due.saturating_sub(clock.read()));
                interrupt::check()?;
                for (link, counted) in counted.iter_mut().enumerate() {
                    let bytes = count(link);
                    links[link].push(bytes - *counted);
                    *counted = bytes;
                }
            }
            let cpu = [first, Reading::now(self.portals)];
            let foreign = foreign.map(|(link, from, thread)| -> Result<Foreign, Error> {
                let report = thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                Ok(Foreign { link, from, report })
            });
            Ok(Conducted {
                links,
                cpu,
                foreign: foreign.transpose()?,
            })
        })
    }
}

/// The same call with times from `zero` on; what was said before is not part of it.
fn since(mut report: VoiceReport, zero: Duration) -> VoiceReport {
    for way in [&mut report.down, &mut report.up] {
        way.retain(|said| said.at >= zero);
        for said in way {
            said.at -= zero;
        }
    }
    report
}
