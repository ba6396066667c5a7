//! Links between pairs of TAP devices, emulated in user space: the pure [`link`] and the thread
//! that moves the frames.

mod aqm;
mod counters;
pub mod link;
mod loss;
mod policer;
mod rng;
mod shape;
mod thread;

use std::fs::File;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

pub use aqm::{Aqm, EcnFault};
pub use counters::Counters;
pub use loss::{GilbertElliott, Loss};
pub use policer::Policer;
pub use rng::Rng;
pub use shape::{Outage, Shape};

use crate::error::{Context, Error};

/// The two ends of one link, nonblocking TAP devices, and what each direction is like.
#[derive(Debug)]
pub struct Cable {
    /// The device at the end `a` (the local portal's).
    pub a: File,
    /// The device at the end `b` (the mock Internet's).
    pub b: File,
    /// From `a` to `b`.
    pub up: Shape,
    /// From `b` to `a`.
    pub down: Shape,
}

/// One way through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the local portal to the Internet.
    Up,
    /// From the Internet to the local portal.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    const fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}

/// The running emulator: one thread for all links. Dropped, it stops and closes the devices.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    realtime: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    wake: EventFd,
    /// Per link, per direction: what it is like, and what the thread last told of it.
    state: Mutex<Vec<[State; 2]>>,
}

#[derive(Debug, Clone)]
struct State {
    shape: Shape,
    counters: Counters,
}

#[derive(Debug)]
enum Command {
    Reshape {
        link: usize,
        direction: Direction,
        shape: Shape,
    },
    Stop,
}

impl Emulator {
    /// Starts moving frames. `seed` decides all losses and jitter.
    pub fn start(cables: Vec<Cable>, seed: u64) -> Result<Self, Error> {
        let state = cables
            .iter()
            .map(|cable| {
                [&cable.up, &cable.down].map(|shape| State {
                    shape: shape.clone(),
                    counters: Counters::default(),
                })
            })
            .collect();
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .context("cannot make the event of the emulator")?;
        let shared = Arc::new(Shared {
            wake,
            state: Mutex::new(state),
        });
        let (commands, receiver) = channel();
        let (told, realtime) = channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("emulator".into())
            .spawn(move || thread::run(cables, seed, &for_thread, &receiver, &told))
            .context("cannot start the thread of the emulator")?;
        let realtime = realtime.recv().unwrap_or(false);
        Ok(Self {
            shared,
            commands,
            realtime,
            thread: Some(thread),
        })
    }

    /// Whether the thread got a real-time priority; without it delays are less exact (about 2 ms).
    pub const fn realtime(&self) -> bool {
        self.realtime
    }

    /// What a direction of a link is like.
    ///
    /// # Panics
    /// When there is no such link.
    pub fn shape(&self, link: usize, direction: Direction) -> Shape {
        self.lock()[link][direction.index()].shape.clone()
    }

    /// Changes one direction of a link from now on.
    pub fn reshape(&self, link: usize, direction: Direction, change: impl FnOnce(&mut Shape)) {
        let shape = {
            let mut state = self.lock();
            let shape = &mut state[link][direction.index()].shape;
            change(shape);
            shape.clone()
        };
        self.command(Command::Reshape {
            link,
            direction,
            shape,
        });
    }

    /// Cuts a link both ways, or ends the outage with [`Outage::None`].
    pub fn set_outage(&self, link: usize, outage: Outage) {
        for direction in Direction::BOTH {
            self.reshape(link, direction, |shape| shape.outage = outage);
        }
    }

    /// The counters of one direction, at most some 10 ms old.
    pub fn counters(&self, link: usize, direction: Direction) -> Counters {
        self.lock()[link][direction.index()].counters
    }

    fn command(&self, command: Command) {
        // An error means that the thread is gone: it has nothing to change any more.
        let _ = self.commands.send(command);
        let _ = self.shared.wake.write(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<[State; 2]>> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
