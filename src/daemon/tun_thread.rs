//! The TUN's half of the packet path on a core of its own.
//!
//! Where one core does not suffice, what the kernel does for us on each side is the larger part of
//! the work: its receive path runs when a packet is written to the TUN, its send path when a
//! datagram goes out. So the TUN is what moves: this thread reads and splits, joins and writes, and
//! knows nothing of the tunnel. It is one thread for all flows, so none is reordered; what goes
//! between the two is batches in bounded channels, and empty buffers back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use super::busy::Busy;
use super::lists::Lists;
use super::tun_side::{Count, TunSide};
use crate::io::Clock;
use crate::io::clock::thread_time;
use crate::io::poll::{PollSet, Ready, Waker};
use crate::packet::{Packet, Pool};

/// Batches that may wait in each direction: with [`MOST_PACKETS`] in each 3 MB, or 23 ms of 1 Gbit/s.
/// When so much waits to be written, the packet thread waits for the room of one, 0.3 ms, and so the
/// queue builds where it is managed: at the sender.
pub(super) const BATCHES: usize = 16;
/// Packets in a batch to be written.
pub(super) const MOST_PACKETS: usize = 128;
/// Free buffers that the TUN's side keeps to read into; what it has more goes back. Two batches.
const KEPT: usize = 256;
/// The number of the TUN in the poll set.
const KEY: usize = 0;

/// What comes from the TUN's thread.
#[derive(Debug, Default)]
pub(super) struct FromTun {
    /// What was read.
    pub(super) packets: Vec<Packet>,
    /// Empty buffers of what was written.
    pub(super) empty: Vec<Packet>,
    /// What went wrong.
    pub(super) count: Count,
    /// How much of a core the thread uses, when that is new.
    pub(super) busy: Option<f32>,
    /// The device is gone.
    pub(super) error: Option<io::Error>,
    /// The TUN, when it was asked back: nothing comes after it.
    side: Option<Box<TunSide>>,
}

/// What goes to it.
#[derive(Debug)]
enum ToTun {
    Serve(Box<TunSide>),
    Work {
        packets: Vec<Packet>,
        empty: Vec<Packet>,
    },
    GiveBack,
}

/// The packet thread's handle on it. The thread sleeps until it is given the TUN, and ends with this.
#[derive(Debug)]
pub(super) struct TunThread {
    /// `None`: this is being dropped.
    to: Option<SyncSender<ToTun>>,
    from: Receiver<FromTun>,
    waker: Waker,
    stalled: Arc<AtomicBool>,
}

impl TunThread {
    /// Starts a thread that waits for work. Its buffers hold `capacity` bytes; `packets` is woken
    /// when something came.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub(super) fn spawn(capacity: usize, clock: Clock, packets: Waker) -> io::Result<Self> {
        let poll = PollSet::new()?;
        let waker = poll.waker();
        let (to, from_packets) = sync_channel(BATCHES);
        let (to_packets, from) = sync_channel(BATCHES);
        let stalled = Arc::new(AtomicBool::new(false));
        let body = Body {
            poll,
            pool: Pool::new(capacity),
            clock,
            inbox: from_packets,
            outbox: to_packets,
            stalled: Arc::clone(&stalled),
            packets: Wake(packets),
        };
        std::thread::Builder::new()
            .name("tun".to_owned())
            .spawn(move || body.run())?;
        Ok(Self {
            to: Some(to),
            from,
            waker,
            stalled,
        })
    }

    /// Hands the TUN over. It comes back when the thread has died.
    pub(super) fn serve(&self, side: Box<TunSide>) -> Result<(), Box<TunSide>> {
        match self.tell(ToTun::Serve(side)) {
            Err(ToTun::Serve(side)) => Err(side),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What came since the last call.
    ///
    /// # Errors
    /// The thread has died, and the TUN with it if it had it.
    pub(super) fn receive(&self) -> Result<Option<FromTun>, Dead> {
        match self.from.try_recv() {
            Ok(came) => {
                // Of this and the swap in `hand_over` one is the first. Is it this one, the other reads
                // what it wrote and so sees the room; else this one reads `true`. That holds because both
                // read and write: a plain store there could pass the look at the channel behind it.
                if self.stalled.swap(false, Ordering::AcqRel) {
                    self.waker.wake();
                }
                Ok(Some(came))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Dead),
        }
    }

    /// Gives packets to be written and buffers to be read into. Waits while too much is to be
    /// written already.
    pub(super) fn send(&self, packets: Vec<Packet>, empty: Vec<Packet>) {
        // Of a thread that died `receive` tells.
        let _ = self.tell(ToTun::Work { packets, empty });
    }

    /// Gives buffers to be read into, when that is no trouble; else they come back. With them goes a
    /// list to be filled: what was read came with two, and these are those.
    pub(super) fn lend(&self, empty: Vec<Packet>, lists: &mut Lists) -> Vec<Packet> {
        let packets = lists.take();
        let to = self.to.as_ref();
        match to.map(|to| to.try_send(ToTun::Work { packets, empty })) {
            Some(Err(TrySendError::Full(ToTun::Work { packets, empty }))) => {
                lists.give(packets);
                empty
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn tell(&self, what: ToTun) -> Result<(), ToTun> {
        let Some(to) = &self.to else {
            return Err(what);
        };
        to.send(what).map_err(|error| error.0)?;
        self.waker.wake();
        Ok(())
    }

    /// Takes the TUN back, after everything given was written. What comes before goes to `take`.
    /// `None`: the thread has died, and the TUN with it.
    pub(super) fn take_back(&self, mut take: impl FnMut(FromTun)) -> Option<Box<TunSide>> {
        self.tell(ToTun::GiveBack).ok()?;
        loop {
            let mut came = self.from.recv().ok()?;
            let side = came.side.take();
            take(came);
            if side.is_some() {
                return side;
            }
        }
    }
}

impl Drop for TunThread {
    fn drop(&mut self) {
        // So that it sees the end, and the TUN goes with it.
        self.to = None;
        self.waker.wake();
    }
}

struct Body {
    poll: PollSet,
    pool: Pool,
    clock: Clock,
    inbox: Receiver<ToTun>,
    outbox: SyncSender<FromTun>,
    /// The packet thread is to wake this one when it has taken something.
    stalled: Arc<AtomicBool>,
    /// Wakes the packet thread; the last one.
    packets: Wake,
}

/// What one time of serving the TUN needs.
struct Service {
    side: Box<TunSide>,
    busy: Busy,
    /// What is to go to the packet thread, and perhaps could not.
    next: FromTun,
    /// It could not: nothing more is read before it does.
    is_held: bool,
    /// Lists to be filled again.
    lists: Lists,
}

impl Service {
    /// Remembers the first thing that failed, to be told.
    fn fail(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.next.error.get_or_insert(error);
        }
    }
}

/// The packet thread has ended.
struct Ended;

/// The TUN's thread has died.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead;

/// Whatever ends the thread, the packet thread is to see it. Dropped last, when the channel is closed.
struct Wake(Waker);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Body {
    fn run(mut self) {
        // The end of the packet thread is the end of this one.
        while let Ok(work) = self.inbox.recv() {
            if let ToTun::Serve(side) = work
                && self.serve(side).is_err()
            {
                return;
            }
        }
    }

    /// Serves the TUN until it is asked back.
    fn serve(&mut self, side: Box<TunSide>) -> Result<(), Ended> {
        let mut service = Service {
            side,
            busy: Busy::new(self.clock.now(), thread_time()),
            next: FromTun::default(),
            is_held: false,
            lists: Lists::default(),
        };
        service.fail(self.poll.add(service.side.tun(), KEY));
        let mut ready = Vec::new();
        while !self.write(&mut service)? {
            if !service.is_held && ready.iter().any(|ready: &Ready| ready.readable) {
                self.read(&mut service);
            }
            self.hand_over(&mut service)?;
            service.fail(self.poll.wait(None, &mut ready));
            let used = service.busy.look(self.clock.now(), thread_time);
            service.next.busy = used.or(service.next.busy);
        }
        self.poll.remove(service.side.tun());
        service.next.count.add(service.side.take_count());
        let last = FromTun {
            side: Some(service.side),
            ..service.next
        };
        self.outbox.send(last).map_err(|_| Ended)?;
        self.packets.0.wake();
        Ok(())
    }

    /// Writes what was given. True: the TUN is asked back.
    fn write(&mut self, service: &mut Service) -> Result<bool, Ended> {
        loop {
            let (mut packets, mut empty) = match self.inbox.try_recv() {
                Ok(ToTun::Work { packets, empty }) => (packets, empty),
                Ok(ToTun::GiveBack) => return Ok(true),
                Ok(ToTun::Serve(_)) => continue,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(Ended),
            };
            let (pool, spare) = (&mut self.pool, &mut service.next.empty);
            let mut back = |packet| {
                if pool.free() < KEPT {
                    pool.give(packet);
                } else {
                    spare.push(packet);
                }
            };
            empty.drain(..).for_each(&mut back);
            for packet in packets.drain(..) {
                service.side.write(packet, &mut back);
            }
            service.side.flush(&mut back);
            service.lists.give(packets);
            service.lists.give(empty);
        }
    }

    fn read(&mut self, service: &mut Service) {
        let packets = &mut service.next.packets;
        let result = service
            .side
            .read(|| self.pool.take(), |packet| packets.push(packet));
        service.fail(result.map(|_| ()));
    }

    /// Gives the packet thread what there is for it.
    fn hand_over(&mut self, service: &mut Service) -> Result<(), Ended> {
        service.next.count.add(service.side.take_count());
        if service.next.is_idle() {
            return Ok(());
        }
        let fresh = FromTun {
            packets: service.lists.take(),
            empty: service.lists.take(),
            ..FromTun::default()
        };
        let next = std::mem::replace(&mut service.next, fresh);
        let is_urgent = !next.packets.is_empty() || next.error.is_some();
        let mut result = self.outbox.try_send(next);
        if let Err(TrySendError::Full(next)) = result {
            // Room that was made before this was said would never be told. What it was before is of no
            // interest, but it has to be read (see `receive`).
            let _ = self.stalled.swap(true, Ordering::AcqRel);
            result = self.outbox.try_send(next);
        }
        let is_held = match result {
            Ok(()) => false,
            Err(TrySendError::Full(next)) => {
                let unused = std::mem::replace(&mut service.next, next);
                service.lists.give(unused.packets);
                service.lists.give(unused.empty);
                true
            }
            Err(TrySendError::Disconnected(_)) => return Err(Ended),
        };
        if is_held != service.is_held {
            service.is_held = is_held;
            let tun = service.side.tun();
            let watched = if is_held {
                self.poll.watch_nothing(tun, KEY)
            } else {
                self.poll.watch_writable(tun, KEY, false)
            };
            service.fail(watched);
        }
        // The packet thread may sleep on a channel full of empty buffers: nobody reads the TUN then.
        if is_urgent || is_held {
            self.packets.0.wake();
        }
        Ok(())
    }
}

impl FromTun {
    /// True when nothing in it is worth a message.
    fn is_idle(&self) -> bool {
        self.packets.is_empty()
            && self.empty.is_empty()
            && self.busy.is_none()
            && self.error.is_none()
            && self.count == Count::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "tun_thread_tests.rs"]
mod tests;
