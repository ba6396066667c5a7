//! Waits until one of many sources is ready: epoll or kqueue, level-triggered, with time-outs below
//! a millisecond.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// True when a write of a few hundred bytes would not wait, or fails at once.
pub fn is_writable(file: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&file, PollFlags::OUT)];
    let at_once = Timespec::default();
    // What cannot be asked is not waited for either.
    poll(&mut polled, Some(&at_once)).is_ok() && !polled[0].revents().is_empty()
}

/// A set of sources that are waited for, each under a number of the owner.
#[derive(Debug)]
pub struct PollSet {
    poller: Arc<Poller>,
    events: Events,
}

/// Wakes a [`PollSet`] from another thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Poller>);

impl Waker {
    /// Makes the wait that is under way, or the next one, return at once.
    pub fn wake(&self) {
        // It fails only when the eventfd is full, and then the other side is woken anyway.
        let _ = self.0.notify();
    }
}

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number it was added under.
    pub key: usize,
    /// Reading gives bytes, a connection, or an error.
    pub readable: bool,
    /// Writing takes bytes, or gives an error.
    pub writable: bool,
}

impl PollSet {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Arc::new(Poller::new()?),
            events: Events::new(),
        })
    }

    /// A handle that wakes this set.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.poller))
    }

    /// Adds a source; it is watched for reading. Take it out with [`PollSet::remove`] before it is
    /// closed.
    #[expect(unsafe_code, reason = "polling asks that sources are removed first")]
    pub fn add(&self, source: &impl AsFd, key: usize) -> io::Result<()> {
        let raw = source.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open. If its owner closed it before `remove`, both epoll and
        // kqueue would drop the registration with the file; no memory is touched.
        unsafe {
            self.poller
                .add_with_mode(raw, Event::readable(key), PollMode::Level)
        }
    }

    /// Says whether a source is watched for writing too.
    pub fn watch_writable(&self, source: &impl AsFd, key: usize, writable: bool) -> io::Result<()> {
        self.watch(source.as_fd(), Event::new(key, true, writable))
    }

    /// Says that a source is watched for writing alone, as a connection under way is.
    pub fn watch_writable_only(&self, source: &impl AsFd, key: usize) -> io::Result<()> {
        self.watch(source.as_fd(), Event::writable(key))
    }

    /// Leaves a source in the set without watching it.
    pub fn watch_nothing(&self, source: &impl AsFd, key: usize) -> io::Result<()> {
        self.watch(source.as_fd(), Event::none(key))
    }

    fn watch(&self, source: BorrowedFd<'_>, interest: Event) -> io::Result<()> {
        self.poller
            .modify_with_mode(source, interest, PollMode::Level)
    }

    /// Takes a source out.
    pub fn remove(&self, source: &impl AsFd) {
        // A descriptor that is not in the set is what was asked for.
        let _ = self.poller.delete(source.as_fd());
    }

    /// Waits until something is ready, the set is woken or `timeout` has passed, and fills `ready`.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        match self.poller.wait(&mut self.events, timeout) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        ready.extend(self.events.iter().map(|event| Ready {
            key: event.key,
            readable: event.readable,
            writable: event.writable,
        }));
        Ok(())
    }
}
