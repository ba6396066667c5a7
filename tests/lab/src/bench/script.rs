//! What happens to the links while a flow runs, as a list of events in time.

use std::time::Duration;

use crate::cases::{CaseLink, Change, Step};
use crate::emulator::{Direction, Outage};
use crate::topology::Lab;

/// Something that happens to a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    /// When, from the start of the flow.
    pub(super) at: Duration,
    /// To which link.
    pub(super) link: usize,
    /// What.
    pub(super) act: Act,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// The link's outage begins, changes or ends.
    Outage(Outage),
    /// It has another rate, bits per second.
    Rate(u64),
    /// A foreign flow starts on it.
    Compete,
}

/// The events of a flow that lasts until `end`, in the order of time. A link with pauses is not cut
/// too: the end of a pause is the end of any outage.
pub(super) fn events(links: &[CaseLink], steps: &[Step], end: Duration) -> Vec<Event> {
    let mut events: Vec<Event> = steps
        .iter()
        .map(|step| Event {
            at: step.at,
            link: step.link,
            act: match step.change {
                Change::Cut => Act::Outage(Outage::Drop),
                Change::Restore => Act::Outage(Outage::None),
                Change::Rate(mbps) => Act::Rate((mbps * 1e6) as u64),
                Change::Compete => Act::Compete,
            },
        })
        .collect();
    for (link, pause) in links.iter().enumerate() {
        let Some(pause) = pause.pause else { continue };
        let starts = (0_u32..).map(|n| pause.every / 2 + pause.every * n);
        for at in starts.take_while(|at| *at + pause.lasts < end) {
            for (at, outage) in [(at, Outage::Hold), (at + pause.lasts, Outage::None)] {
                let act = Act::Outage(outage);
                events.push(Event { at, link, act });
            }
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

impl Event {
    /// Does it to the emulator. A foreign flow is not the emulator's to start.
    pub(super) fn apply(&self, lab: &Lab) {
        match self.act {
            Act::Outage(outage) => lab.emulator.set_outage(self.link, outage),
            Act::Rate(rate) => {
                for direction in Direction::BOTH {
                    lab.emulator
                        .reshape(self.link, direction, |shape| shape.rate = Some(rate));
                }
            }
            Act::Compete => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_pauses_are_in_order() {
        let seconds = Duration::from_secs;
        let ms = Duration::from_millis;
        let links = [
            CaseLink::new(10.0, 20),
            CaseLink::new(10.0, 20).pause(seconds(4), ms(140)),
        ];
        let steps = [
            Step {
                at: seconds(3),
                link: 0,
                change: Change::Rate(5.0),
            },
            Step {
                at: seconds(8),
                link: 0,
                change: Change::Cut,
            },
        ];
        let found: Vec<_> = events(&links, &steps, seconds(9))
            .into_iter()
            .map(|event| (event.at.as_millis(), event.link, event.act))
            .collect();
        let (hold, free) = (Act::Outage(Outage::Hold), Act::Outage(Outage::None));
        assert_eq!(
            found,
            [
                (2000, 1, hold),
                (2140, 1, free),
                (3000, 0, Act::Rate(5_000_000)),
                (6000, 1, hold),
                (6140, 1, free),
                (8000, 0, Act::Outage(Outage::Drop)),
            ]
        );
    }
}
