//! What each link gives alone, without netcombiner and through it. Cases share links, so each kind
//! of link is measured once a run.

use std::path::Path;

use super::course::Course;
use super::plan::{Length, PAUSE, alone_length, raw_length};
use super::script;
use super::take::{Take, raw, through};
use super::tunnel::Tunnel;
use crate::cases::CaseLink;
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::Error;
use crate::topology::Lab;
use crate::traffic::Connection;

/// One flow over one link.
#[derive(Debug, Clone)]
pub(super) struct Single {
    /// Mbit/s of payload.
    pub(super) mbps: f64,
    /// The same in each tenth of a second, from the flow's start.
    pub(super) rates: Vec<f64>,
}

/// A kind of link, with one figure a repeat: download, upload.
#[derive(Debug, Clone)]
pub(super) struct LinkRow {
    pub(super) link: CaseLink,
    /// Without netcombiner.
    pub(super) raw: [Vec<Single>; 2],
    /// Through it.
    pub(super) alone: [Vec<Single>; 2],
}

/// Every kind of link of this run.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) rows: Vec<LinkRow>,
}

/// In which directions a link is measured alone through netcombiner: up only where it may be the
/// best of its case, unless all is wanted. It is a matter of time.
pub(super) fn alone_directions(
    links: &[CaseLink],
    link: usize,
    all: bool,
) -> impl Iterator<Item = (usize, Direction)> {
    let faster = |other: &CaseLink| other.mbps > links[link].mbps;
    let twins = links[..link]
        .iter()
        .any(|other| other.mbps == links[link].mbps);
    let best = !twins && !links.iter().any(faster);
    // Beside a far link the faster one need not be the better one.
    let far = links.iter().any(CaseLink::is_far);
    let ways = if best || far || all { 2 } else { 1 };
    DIRECTIONS.into_iter().enumerate().take(ways)
}

/// Both directions, in the order of the figures.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Down, Direction::Up];

impl Links {
    /// Measures those of a lab's links that have no figure of this repeat yet (with `again`: all of
    /// them), one of a kind. Gives the places of the links' rows.
    pub(super) fn measure(
        &mut self,
        lab: &Lab,
        program: &Path,
        links: &[CaseLink],
        repeat: u32,
        again: bool,
    ) -> Result<Vec<usize>, Error> {
        let mut places = Vec::new();
        let mut new = Vec::new();
        for (i, link) in links.iter().enumerate() {
            let place = self.place(link);
            let twin = places.contains(&place);
            places.push(place);
            if !twin && (again || self.rows[place].raw[0].len() <= repeat as usize) {
                new.push(i);
            }
        }
        if new.is_empty() {
            return Ok(places);
        }
        let length = raw_length(links);
        for (way, direction) in DIRECTIONS.into_iter().enumerate() {
            // Separate links share nothing but the processor: all at once.
            let connections = new.iter().map(|i| raw(lab, *i, direction)).collect();
            let course = take(lab, None, direction, connections, length, links)?;
            for (flow, i) in new.iter().enumerate() {
                let one = Course {
                    flows: vec![course.flows[flow].clone()],
                    ..course.clone()
                };
                self.rows[places[*i]].raw[way].push(Single::of(&one, length));
            }
        }
        let length = alone_length(links);
        for i in new {
            let tunnel = Tunnel::start(lab, program, "udp", Some(vec![i]))?;
            for (way, direction) in alone_directions(links, i, again) {
                let connections = vec![through(lab, direction)];
                let course = take(lab, Some(&tunnel), direction, connections, length, links)
                    .map_err(|error| tunnel.explain(&error))?;
                self.rows[places[i]].alone[way].push(Single::of(&course, length));
            }
            tunnel.stop()?;
        }
        Ok(places)
    }

    fn place(&mut self, link: &CaseLink) -> usize {
        let known = self.rows.iter().position(|row| row.link == *link);
        known.unwrap_or_else(|| {
            self.rows.push(LinkRow {
                link: *link,
                raw: [Vec::new(), Vec::new()],
                alone: [Vec::new(), Vec::new()],
            });
            self.rows.len() - 1
        })
    }
}

impl Single {
    fn of(course: &Course, length: Length) -> Self {
        Self {
            mbps: course.mbps(length.skipped, length.all),
            rates: course.rates(),
        }
    }
}

fn take<'a>(
    lab: &'a Lab,
    tunnel: Option<&'a Tunnel>,
    direction: Direction,
    connections: Vec<Connection<'a>>,
    length: Length,
    links: &[CaseLink],
) -> Result<Course, Error> {
    let course = Take {
        lab,
        portals: tunnel.map_or(&[], Tunnel::portals),
        direction,
        connections,
        duration: length.all,
        events: script::events(links, &[], length.all),
        voice: false,
    }
    .run()?;
    interrupt::sleep(PAUSE)?;
    Ok(course)
}
