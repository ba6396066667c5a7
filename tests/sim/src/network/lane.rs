//! One direction of a link, with what is measured on it.

use std::time::Duration;

use netcombiner_lab::emulator::link::{Link, Refused};
use netcombiner_lab::emulator::{Counters, Shape};

use super::Action;
use super::frame::Frame;
use crate::measure::samples::Samples;

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// One direction of a link.
#[derive(Debug)]
pub struct Lane {
    link: Link<Frame>,
    looked: Duration,
    queue: Samples,
}

impl Lane {
    /// An idle one.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            link: Link::new(shape, seed),
            looked: Duration::ZERO,
            queue: Samples::default(),
        }
    }

    /// When [`Lane::poll`] has something to do.
    pub fn next(&self) -> Option<Duration> {
        self.link.next()
    }

    /// The next frame that came out by now.
    pub fn poll(&mut self, now: Duration) -> Option<Frame> {
        self.link.poll(now)
    }

    /// Puts a frame in; gives it back when it is lost at once.
    pub fn offer(&mut self, now: Duration, frame: Frame) -> Result<(), Frame> {
        if now >= self.looked + LOOK {
            self.looked = now;
            self.queue.add(self.waiting());
        }
        self.link
            .offer(now, frame)
            .map_err(|refused| match refused {
                Refused::Full(frame) | Refused::Outage(frame) => frame,
            })
    }

    /// How long what waits will take at the present rate.
    pub fn waiting(&self) -> Duration {
        let Some(rate) = self.link.shape().rate else {
            return Duration::ZERO;
        };
        Duration::from_nanos(self.link.waiting() as u64 * 8_000_000_000 / rate.max(1))
    }

    /// What waited whenever a frame came, at most each 5 ms.
    pub const fn queue(&self) -> &Samples {
        &self.queue
    }

    /// What it has done.
    pub const fn counters(&self) -> &Counters {
        self.link.counters()
    }

    /// What it is like.
    pub const fn shape(&self) -> &Shape {
        self.link.shape()
    }

    /// Something happens to it.
    pub fn apply(&mut self, now: Duration, action: Action) {
        let mut shape = self.link.shape().clone();
        match action {
            Action::Outage(outage) => shape.outage = outage,
            Action::Rate(rate) => shape.rate = Some(rate),
        }
        self.link.reshape(now, shape);
    }
}
