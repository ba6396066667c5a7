//! The world of one run, and its clock.
//!
//! ```text
//! client --wire-- local portal ==N links== remote portal --wire-- server
//!              \________ flows beside the tunnel on one link _______/
//! ```

pub mod entropy;
pub mod frame;
pub mod lane;
pub mod portal;
pub mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use netcombiner::proto::event::Side;
use netcombiner_lab::emulator::{Direction, Outage, Shape};

use self::frame::Frame;
use self::lane::Lane;
use self::portal::{Outgoing, Portal, Terms};
use self::wire::Wire;
use crate::endpoint::Traffic;
use crate::packet::{Host, Inner};

/// What a flow goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The tunnel.
    Tunnel,
    /// One link, beside the tunnel.
    Link(usize),
}

/// What happens to a link, both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// It works, or not.
    Outage(Outage),
    /// It has another rate, bits per second.
    Rate(u64),
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Happening {
    /// When, from the start of the run.
    pub at: Duration,
    /// To which link.
    pub link: usize,
    /// What.
    pub action: Action,
}

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct WorldSpec {
    /// Up and down of each link.
    pub links: Vec<[Shape; 2]>,
    /// What happens to them, in order of time.
    pub script: Vec<Happening>,
    /// How the tunnel is set.
    pub terms: Terms,
    /// One-way delay between the client and the local portal.
    pub near: Duration,
    /// One-way delay between the remote portal and the server.
    pub far: Duration,
    /// The granularity of the portals' timers.
    pub tick: Duration,
    /// Decides all that is random.
    pub seed: u64,
}

/// Steps at one moment after which a world is held for stuck.
const STUCK: u32 = 100_000;

/// A running world.
#[derive(Debug)]
pub struct World {
    now: Duration,
    /// Local, remote.
    portals: [Portal; 2],
    /// Up, down.
    lanes: Vec<[Lane; 2]>,
    /// From the client, to it; from the server, to it.
    wires: [[Wire; 2]; 2],
    script: VecDeque<Happening>,
    /// The flows, and their routes.
    pub flows: Vec<(Route, Traffic)>,
    outgoing: Vec<Outgoing>,
}

const OUT: usize = 0;
const IN: usize = 1;

impl World {
    /// A world at its start.
    pub fn new(spec: WorldSpec) -> Self {
        let WorldSpec {
            links,
            script,
            terms,
            near,
            far,
            tick,
            seed,
        } = spec;
        let portal = |side| Portal::new(side, terms, links.len(), tick, seed);
        let portals = [portal(Side::Local), portal(Side::Remote)];
        let lane = |(i, shapes): (usize, [Shape; 2])| {
            let mut salt = seed.wrapping_mul(1000).wrapping_add(2 * i as u64);
            shapes.map(|shape| {
                salt += 1;
                Lane::new(shape, salt - 1)
            })
        };
        Self {
            now: Duration::ZERO,
            portals,
            lanes: links.into_iter().enumerate().map(lane).collect(),
            wires: [near, far].map(|delay| [Wire::new(delay), Wire::new(delay)]),
            script: script.into(),
            flows: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// The time.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// One direction of a link.
    pub fn lane(&self, link: usize, direction: Direction) -> &Lane {
        &self.lanes[link][usize::from(direction == Direction::Down)]
    }

    /// A portal.
    pub const fn portal(&mut self, side: Side) -> &mut Portal {
        match side {
            Side::Local => &mut self.portals[0],
            Side::Remote => &mut self.portals[1],
        }
    }

    /// Runs up to `until`.
    ///
    /// # Panics
    /// When time stands still: something is due again and again.
    pub fn run(&mut self, until: Duration) {
        let mut still = 0;
        loop {
            let next = self.next().unwrap_or(until);
            if next > until {
                self.now = until;
                return;
            }
            still = if next > self.now { 0 } else { still + 1 };
            assert!(still < STUCK, "time stands still at {:?}", self.now);
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn next(&self) -> Option<Duration> {
        let lanes = self.lanes.iter().flatten().filter_map(Lane::next);
        let wires = self.wires.iter().flatten().filter_map(Wire::next);
        let portals = self.portals.iter().filter_map(Portal::next);
        let flows = self.flows.iter().filter_map(|(_, flow)| flow.next());
        let script = self.script.front().map(|happening| happening.at);
        lanes
            .chain(wires)
            .chain(portals)
            .chain(flows)
            .chain(script)
            .min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(happening) = self.script.front().copied().filter(|next| next.at <= now) {
            self.script.pop_front();
            for lane in &mut self.lanes[happening.link] {
                lane.apply(now, happening.action);
            }
        }
        for link in 0..self.lanes.len() {
            for direction in [0, 1] {
                while let Some(frame) = self.lanes[link][direction].poll(now) {
                    self.arrived(link, 1 - direction, frame);
                }
            }
        }
        for end in [0, 1] {
            while let Some(inner) = self.wires[end][OUT].poll(now) {
                self.at_portal(end, inner);
            }
            while let Some(inner) = self.wires[end][IN].poll(now) {
                let host = [Host::Client, Host::Server][end];
                if let Some((_, flow)) = self.flows.get_mut(usize::from(inner.flow)) {
                    flow.arrive(now, host, &inner);
                    self.send(usize::from(inner.flow));
                }
            }
            if self.portals[end].next().is_some_and(|at| at <= now) {
                self.portals[end].wake(now);
                self.drain(end);
            }
        }
        for flow in 0..self.flows.len() {
            if self.flows[flow].1.next().is_some_and(|at| at <= now) {
                self.flows[flow].1.wake(now);
                self.send(flow);
            }
        }
    }

    /// A frame came out of a link at the end `end`.
    fn arrived(&mut self, link: usize, end: usize, frame: Frame) {
        match frame {
            Frame::Datagram(bytes, codepoint) => {
                self.portals[end].handle_datagram(self.now, link, bytes, codepoint);
                self.drain(end);
            }
            Frame::Bare(inner) => self.wires[end][IN].put(self.now, inner),
        }
    }

    /// A packet came from a host to the end `end` of the links.
    fn at_portal(&mut self, end: usize, inner: Inner) {
        match self.flows.get(usize::from(inner.flow)) {
            Some((Route::Link(link), _)) => {
                // What does not fit is lost; there is no buffer to reuse.
                let _ = self.lanes[*link][end].offer(self.now, Frame::Bare(inner));
            }
            Some((Route::Tunnel, _)) => {
                self.portals[end].handle_packet(self.now, &inner);
                self.drain(end);
            }
            None => {}
        }
    }

    /// Puts what a flow has to send on the hosts' wires.
    fn send(&mut self, flow: usize) {
        while let Some((host, inner)) = self.flows[flow].1.poll() {
            let end = usize::from(host == Host::Server);
            self.wires[end][OUT].put(self.now, inner);
        }
    }

    fn drain(&mut self, end: usize) {
        let wire = &mut self.wires[end][IN];
        let now = self.now;
        self.portals[end].drain(now, &mut self.outgoing, |inner| wire.put(now, inner));
        for Outgoing {
            link,
            bytes,
            codepoint,
        } in self.outgoing.drain(..)
        {
            let frame = Frame::Datagram(bytes, codepoint);
            if let Err(Frame::Datagram(bytes, _)) = self.lanes[link][end].offer(now, frame) {
                self.portals[end].recycle(bytes);
            }
        }
    }
}
