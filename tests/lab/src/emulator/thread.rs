//! The one loop that moves frames between the TAP devices and the pure links.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use netcombiner::packet::ecn::{self, Codepoint};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::link::{Link, Packet, Refused};
use super::{Cable, Command, Counters, Direction, Shared};
use crate::clock::Clock;
use crate::net::priority;

/// The largest frame: an Ethernet header and VLAN tag before 1500 bytes, rounded up.
const FRAME_MAX: usize = 2048;

/// Bytes of a frame before its packet: two addresses and a type (IEEE 802.3).
const ETHERNET: usize = 14;

/// Frames read from one device before the others get their turn.
const BATCH: usize = 64;

/// The thread looks at the devices and at the time no more often: each waking costs some 5 us of a
/// core, and at 300 Mbit/s a packet comes each 40 us. Packets are late by at most so much.
const ROUND: Duration = Duration::from_micros(50);

/// How often the counters are handed out.
const PUBLISH: Duration = Duration::from_millis(10);

/// A frame in a buffer that is used again and again.
struct Frame {
    buffer: Box<[u8; FRAME_MAX]>,
    len: usize,
}

impl Packet for Frame {
    /// The IP packet alone, which is what the rate of a home link is said of.
    fn size(&self) -> usize {
        self.len.saturating_sub(ETHERNET)
    }

    fn codepoint(&self) -> Codepoint {
        ecn::read(&self.buffer[ETHERNET.min(self.len)..self.len])
    }

    fn mark(&mut self) -> bool {
        ecn::mark(&mut self.buffer[ETHERNET.min(self.len)..self.len])
    }
}

/// One direction: where its frames come from, and where they go.
struct Lane {
    link: Link<Frame>,
    from: usize,
    to: usize,
    refused: u64,
}

/// Moves frames until told to stop. Tells first whether it got a real-time priority.
pub(super) fn run(
    cables: Vec<Cable>,
    seed: u64,
    shared: &Shared,
    commands: &Receiver<Command>,
    told: &Sender<bool>,
) {
    let _ = told.send(priority::realtime());
    let mut taps = Vec::new();
    let mut lanes = Vec::new();
    for (i, cable) in cables.into_iter().enumerate() {
        let (a, b) = (taps.len(), taps.len() + 1);
        taps.extend([cable.a, cable.b]);
        for (shape, from, to, salt) in [(cable.up, a, b, 0), (cable.down, b, a, 1)] {
            let link = Link::new(
                shape,
                seed.wrapping_mul(1000).wrapping_add(2 * i as u64 + salt),
            );
            lanes.push(Lane {
                link,
                from,
                to,
                refused: 0,
            });
        }
    }
    let live = (0..taps.len()).collect();
    Loop {
        clock: Clock::start(),
        taps,
        lanes,
        live,
        spare: Vec::new(),
    }
    .run(shared, commands);
}

struct Loop {
    clock: Clock,
    /// Device `2i` is the end `a` of link `i`, `2i + 1` its end `b`; lane `n` reads device `n`.
    taps: Vec<File>,
    lanes: Vec<Lane>,
    /// The devices that still exist.
    live: Vec<usize>,
    spare: Vec<Frame>,
}

impl Loop {
    fn run(mut self, shared: &Shared, commands: &Receiver<Command>) {
        let mut published = Duration::ZERO;
        let mut readable = vec![false; self.lanes.len()];
        let mut changed = false;
        let mut round = Duration::ZERO;
        loop {
            for (n, readable) in readable.iter_mut().enumerate() {
                changed |= *readable;
                // A device that filled the whole batch has perhaps more.
                *readable = *readable && self.read(n);
                changed |= self.deliver(n);
            }
            std::thread::sleep((round + ROUND).saturating_sub(self.clock.read()));
            let now = self.clock.read();
            round = now;
            if changed && now >= published + PUBLISH {
                self.publish(shared);
                (published, changed) = (now, false);
            }
            let wake = if readable.contains(&true) {
                Some(now)
            } else {
                let publish = changed.then_some(published + PUBLISH);
                self.lanes
                    .iter()
                    .filter_map(|lane| lane.link.next())
                    .chain(publish)
                    .min()
            };
            if self.wait(shared, wake, &mut readable) {
                let _ = shared.wake.read();
                while let Ok(command) = commands.try_recv() {
                    match command {
                        Command::Reshape {
                            link,
                            direction,
                            shape,
                        } => {
                            let now = self.clock.read();
                            let lane = &mut self.lanes[2 * link + direction.index()];
                            self.spare.extend(lane.link.reshape(now, shape));
                            changed = true;
                        }
                        Command::Stop => return,
                    }
                }
            }
        }
    }

    /// Waits for a frame, a command or the time `wake`; tells whether a command came.
    fn wait(&mut self, shared: &Shared, wake: Option<Duration>, readable: &mut [bool]) -> bool {
        let mut polled: Vec<PollFd<'_>> = [shared.wake.as_fd()]
            .into_iter()
            .chain(self.live.iter().map(|n| self.taps[*n].as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = wake.map(|wake| TimeSpec::from(wake.saturating_sub(self.clock.read())));
        // An interruption by a signal is a wake-up like another.
        let _ = ppoll(&mut polled, timeout, None);
        let ready: Vec<PollFlags> = polled
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        for (n, ready) in self.live.iter().zip(&ready[1..]) {
            readable[*n] |= ready.contains(PollFlags::POLLIN);
        }
        // A device that was removed is in error for ever: to poll it would never wait.
        let mut errors = ready[1..]
            .iter()
            .map(|ready| ready.contains(PollFlags::POLLERR));
        self.live.retain(|_| !errors.next().unwrap_or(false));
        ready[0].contains(PollFlags::POLLIN)
    }

    /// Reads a batch from the device of a lane into its link; tells whether there may be more.
    fn read(&mut self, n: usize) -> bool {
        let lane = &mut self.lanes[n];
        for _ in 0..BATCH {
            let mut frame = self.spare.pop().unwrap_or_else(|| Frame {
                buffer: Box::new([0; FRAME_MAX]),
                len: 0,
            });
            match (&self.taps[lane.from]).read(frame.buffer.as_mut_slice()) {
                Ok(len) => frame.len = len,
                Err(error) => {
                    self.spare.push(frame);
                    return error.kind() == ErrorKind::Interrupted;
                }
            }
            match lane.link.offer(self.clock.read(), frame) {
                Ok(()) => {}
                Err(Refused::Full(frame) | Refused::Outage(frame)) => self.spare.push(frame),
            }
        }
        true
    }

    /// Writes all that came out of a link; tells whether there was anything.
    fn deliver(&mut self, n: usize) -> bool {
        let lane = &mut self.lanes[n];
        let mut any = false;
        while let Some(frame) = lane.link.poll(self.clock.read()) {
            let written = (&self.taps[lane.to]).write(&frame.buffer[..frame.len]);
            lane.refused += u64::from(written.is_err());
            self.spare.push(frame);
            any = true;
        }
        any
    }

    fn publish(&self, shared: &Shared) {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, lane) in self.lanes.iter().enumerate() {
            let direction = if n % 2 == 0 {
                Direction::Up
            } else {
                Direction::Down
            };
            state[n / 2][direction.index()].counters = Counters {
                refused: lane.refused,
                ..*lane.link.counters()
            };
        }
    }
}
