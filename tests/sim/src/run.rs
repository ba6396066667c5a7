//! One run: what it is made of, and what came of it.

use std::time::Duration;

use netcombiner::config::{Congestion, Security};
use netcombiner::proto::event::Side;
use netcombiner::proto::tunnel::OVERHEAD;
use netcombiner_lab::cases::{Change, Step};
use netcombiner_lab::emulator::{Direction, Outage};

use crate::cases::SimLink;
use crate::endpoint::{Algorithm, Connection, ConnectionSpec, Stream, StreamSpec, Traffic};
use crate::measure::outcome::{Outcome, Times};
use crate::network::frame::IP_UDP;
use crate::network::portal::Terms;
use crate::network::{Action, Happening, Route, World, WorldSpec};
use crate::packet::{DatagramKind, Host};

/// The flows begin so long after the portals: the tunnel is up, and was pinged while idle.
pub const START: Duration = Duration::from_secs(3);
/// Pings of the idle tunnel, from and to.
pub const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(2900));
/// The tunnel's MTU, and the Internet's; bytes.
const TUNNEL_MTU: u16 = 1400;
const INTERNET_MTU: u16 = 1500;
/// Bytes of the IP and the TCP header, and of the timestamps.
const IP_TCP: u16 = 40;
const TIMESTAMPS: u16 = 12;

/// What loads the tunnel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many connections.
    Tcp(Algorithm, u16),
    /// UDP datagrams that fill the MTU, Mbit/s of payload.
    Udp(f64),
    /// Nothing but voice.
    Idle,
}

/// One run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The links.
    pub links: Vec<SimLink>,
    /// What happens; times from the start of the flows.
    pub steps: Vec<Step>,
    /// What loads the tunnel.
    pub load: Load,
    /// Who sends the load.
    pub sender: Host,
    /// What the load goes through.
    pub route: Route,
    /// How long the flows last.
    pub lasts: Duration,
    /// One-way delay between the remote portal and the server.
    pub far: Duration,
    /// The security mode.
    pub security: Security,
    /// Whether datagrams say that they can be marked.
    pub ecn: bool,
    /// The congestion controller of what the local portal sends.
    pub congestion: Congestion,
    /// The granularity of the portals' timers.
    pub tick: Duration,
    /// Decides all that is random.
    pub seed: u64,
}

/// One-way delay between a host and its portal in the lab.
pub const NEAR: Duration = Duration::from_micros(100);

impl RunSpec {
    /// A download of one CUBIC flow through the tunnel.
    pub fn new(links: Vec<SimLink>, lasts: Duration) -> Self {
        Self {
            links,
            steps: Vec::new(),
            load: Load::Tcp(Algorithm::Cubic, 1),
            sender: Host::Server,
            route: Route::Tunnel,
            lasts,
            far: NEAR,
            security: Security::Encrypt,
            ecn: true,
            congestion: Congestion::default(),
            tick: Duration::ZERO,
            seed: 1,
        }
    }

    /// The direction in which the load goes.
    pub const fn direction(&self) -> Direction {
        match self.sender {
            Host::Client => Direction::Up,
            Host::Server => Direction::Down,
        }
    }

    /// What a full packet of the load carries, of its bytes as an IP packet on the link with all
    /// headers: the benchmark's definition.
    pub fn payload_fraction(&self) -> f64 {
        let (payload, wire) = match (self.load, self.route) {
            (Load::Udp(_), _) => (TUNNEL_MTU - 28, tunnel_wire()),
            (_, Route::Tunnel) => (TUNNEL_MTU - IP_TCP - TIMESTAMPS, tunnel_wire()),
            (_, Route::Link(_)) => (
                INTERNET_MTU - IP_TCP - TIMESTAMPS,
                usize::from(INTERNET_MTU),
            ),
        };
        f64::from(payload) / wire as f64
    }

    /// The rates' sum in the direction of the load at a time from the start of the flows, Mbit/s; of a
    /// link with a foreign flow only half counts.
    pub fn capacity(&self, at: Duration) -> f64 {
        let only = |link: usize| match self.route {
            Route::Tunnel => true,
            Route::Link(route) => route == link,
        };
        let mut sum = 0.0;
        for (i, link) in self.links.iter().enumerate().filter(|(i, _)| only(*i)) {
            let shape = link.shape(self.direction());
            let policed = shape.policer.map(|policer| policer.rate);
            let mut rate = shape.rate.into_iter().chain(policed).min().unwrap_or(0) as f64 / 1e6;
            let mut cut = false;
            for step in self.steps.iter().filter(|s| s.link == i && s.at <= at) {
                match step.change {
                    Change::Cut => cut = true,
                    Change::Restore => cut = false,
                    Change::Rate(mbps) => rate = mbps,
                    // The other flow's half is not ours.
                    Change::Compete => rate /= 2.0,
                }
            }
            sum += if cut { 0.0 } else { rate };
        }
        sum
    }

    fn script(&self) -> Vec<Happening> {
        let mut script = Vec::new();
        for step in &self.steps {
            let action = match step.change {
                Change::Cut => Action::Outage(Outage::Drop),
                Change::Restore => Action::Outage(Outage::None),
                Change::Rate(mbps) => Action::Rate((mbps * 1e6) as u64),
                Change::Compete => continue,
            };
            script.push(Happening {
                at: START + step.at,
                link: step.link,
                action,
            });
        }
        for (link, pause) in self.links.iter().enumerate() {
            let Some(pause) = pause.pause else { continue };
            let mut at = START + pause.every / 2;
            while at < START + self.lasts {
                for (at, outage) in [(at, Outage::Hold), (at + pause.lasts, Outage::None)] {
                    let action = Action::Outage(outage);
                    script.push(Happening { at, link, action });
                }
                at += pause.every;
            }
        }
        script.sort_by_key(|happening| happening.at);
        script
    }

    /// The world before its first moment, with all its flows.
    pub fn world(&self) -> (World, Flows) {
        let mut world = World::new(WorldSpec {
            links: self
                .links
                .iter()
                .map(|link| [link.up.clone(), link.down.clone()])
                .collect(),
            script: self.script(),
            terms: Terms {
                security: self.security,
                ecn: self.ecn,
                congestion: self.congestion,
            },
            near: NEAR,
            far: self.far,
            tick: self.tick,
            seed: self.seed,
        });
        let mut flows = Flows::default();
        let end = START + self.lasts;
        match self.load {
            Load::Tcp(algorithm, count) => {
                for i in 0..count {
                    // Not all in the same microsecond: nobody clicks so fast.
                    let start = START + Duration::from_millis(10) * u32::from(i);
                    let flow = self.connect(&mut world, self.route, algorithm, start);
                    flows.load.push(flow);
                }
            }
            Load::Udp(mbps) => {
                let len = TUNNEL_MTU - 28;
                let every = Duration::from_secs_f64(f64::from(len) * 8e-6 / mbps);
                let spec = StreamSpec {
                    flow: world.flows.len() as u16,
                    sender: self.sender,
                    kind: DatagramKind::Udp,
                    every,
                    len,
                    start: START,
                    end,
                };
                flows.load.push(add_stream(&mut world, spec));
            }
            Load::Idle => {}
        }
        for host in [self.sender, self.sender.other()] {
            let flow = world.flows.len() as u16;
            let spec = StreamSpec::voice(flow, host, START, end);
            flows.voice.push(add_stream(&mut world, spec));
        }
        let ping = StreamSpec::ping(world.flows.len() as u16, IDLE.0, IDLE.1);
        flows.ping = add_stream(&mut world, ping);
        for step in &self.steps {
            if step.change == Change::Compete {
                let route = Route::Link(step.link);
                let start = START + step.at;
                let flow = self.connect(&mut world, route, Algorithm::Cubic, start);
                flows.foreign.push((step.link, flow));
            }
        }
        (world, flows)
    }

    fn connect(
        &self,
        world: &mut World,
        route: Route,
        algorithm: Algorithm,
        start: Duration,
    ) -> usize {
        let flow = world.flows.len();
        let connection = Connection::new(ConnectionSpec {
            flow: flow as u16,
            sender: self.sender,
            algorithm,
            // The hosts do not know of the tunnel: it clamps their SYNs on the way.
            segment_size: INTERNET_MTU - IP_TCP,
            start,
            seed: self.seed.wrapping_add(flow as u64),
        });
        world
            .flows
            .push((route, Traffic::Tcp(Box::new(connection))));
        flow
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let (mut world, flows) = self.world();
        world.run(START + self.lasts);
        self.judge(&mut world, &flows)
    }

    /// Judges a world that has run.
    pub fn judge(&self, world: &mut World, flows: &Flows) -> Outcome {
        let times = Times {
            start: START,
            end: world.now(),
        };
        Outcome::of(self, world, flows, times)
    }
}

fn tunnel_wire() -> usize {
    usize::from(TUNNEL_MTU) + OVERHEAD + IP_UDP
}

fn add_stream(world: &mut World, spec: StreamSpec) -> usize {
    let stream = Traffic::Stream(Box::new(Stream::new(spec)));
    world.flows.push((Route::Tunnel, stream));
    world.flows.len() - 1
}

/// Which flow of a world is what.
#[derive(Debug, Clone, Default)]
pub struct Flows {
    /// The load.
    pub load: Vec<usize>,
    /// Voice in the direction of the load, and against it.
    pub voice: Vec<usize>,
    /// The ping of the idle tunnel.
    pub ping: usize,
    /// Foreign flows: their link, and which.
    pub foreign: Vec<(usize, usize)>,
}

/// All the portals' news, for a trace.
pub fn news(world: &mut World) -> Vec<String> {
    let mut lines = Vec::new();
    for side in [Side::Local, Side::Remote] {
        for (at, event) in world.portal(side).events.drain(..) {
            lines.push(format!("{:.3} {side:?} {event:?}", at.as_secs_f64()));
        }
    }
    lines
}
