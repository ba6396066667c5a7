//! The packet path: one thread that carries bytes between the TUN, the sockets and the tunnel.
//!
//! No lock, no runtime, no allocation once warm (but now and then a list of packets, while the TUN has
//! a thread of its own). Every round takes a bounded batch from each source that is ready, so none
//! starves, and then gives away all that the tunnel has for others.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::Level;
use thiserror::Error;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::bulletin::Bulletin;
use super::busy::{self, Busy, Place, Sharing};
use super::lists::Lists;
use super::sockets::{LinkSocket, LinkTerms, Note, Sockets};
use super::tun_side::{Count, TunSide};
use super::tun_thread::{BATCHES, Dead, FromTun, MOST_PACKETS, TunThread};
use crate::config::Class;
use crate::io::clock::{Leaps, thread_time};
use crate::io::poll::{PollSet, Ready, Waker};
use crate::io::socket::Origin;
use crate::io::tcp::TcpListener;
use crate::io::tun::Offload;
use crate::io::udp::{UdpOffload, UdpSocket};
use crate::io::{Clock, Tun};
use crate::packet::{Crossing, Packet};
use crate::proto::event::{Event, LinkId};
use crate::proto::stats::{Discard, TunnelStats};
use crate::proto::tunnel::Tunnel;
use crate::proto::{Batch, Entropy, Instant, event::TunnelConfig};

/// The number of the TUN in the poll set; sockets have their SocketId, which starts at 1.
const TUN_KEY: usize = 0;

/// How often news that found no room are told again.
const NEWS_RETRY: Duration = Duration::from_millis(100);

/// A round of the loop takes milliseconds: a thread that does not report within a second is stuck.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// And one that does not end within two: the host is given back without it.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What the control side tells the packet thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Wait for peers on this socket.
    ListenUdp(UdpSocket),
    /// Wait for connections on this socket.
    ListenTcp(TcpListener),
    /// A link can be used: open its flow. Replaces what the link had.
    OpenLink {
        /// Which.
        link: LinkId,
        /// By what.
        carrier: Carrier,
        /// The peer's address.
        remote: SocketAddr,
        /// What the configuration says of it.
        terms: LinkTerms,
    },
    /// The configuration says something else of a link: its socket stays.
    ChangeLink(LinkId, LinkTerms),
    /// A link is gone. Answered by [`News::Closed`].
    CloseLink(LinkId),
    /// What is sent on two links at once.
    Redundant(Vec<Class>),
    /// Other packets may cross from now on.
    Admit(Crossing),
    /// How is it going?
    Report(oneshot::Sender<Report>),
    /// Say goodbye to the peer and end.
    Stop,
}

/// What a link's flow leaves by.
#[derive(Debug)]
pub(super) enum Carrier {
    /// A bound socket.
    Udp(UdpSocket),
    /// A place to connect from, again and again.
    Tcp(Origin),
}

/// The tunnel and its links at one moment.
#[derive(Debug)]
pub(super) struct Report {
    /// The tunnel's own counters, with those of the loop.
    pub(super) stats: TunnelStats,
    /// The sockets of the links that were opened.
    pub(super) links: Vec<(LinkId, LinkSocket)>,
    /// What the kernel does for the TUN.
    pub(super) tun_offload: Offload,
    /// The TUN is with a thread of its own now.
    pub(super) tun_apart: bool,
    /// What it does for UDP sockets; `None`: there is none.
    pub(super) udp_offload: Option<UdpOffload>,
}

/// What the packet thread tells the control side.
#[derive(Debug)]
pub(super) enum News {
    /// The tunnel's own news.
    Tunnel(Event),
    /// All sockets of a link are closed.
    Closed(LinkId),
    /// A line for the log: standard error may block, and packets never wait for it.
    Note(Note),
}

/// Why the packet thread ended by itself.
#[derive(Debug, Error)]
pub(super) enum LoopError {
    /// Waiting for sources failed.
    #[error("cannot wait for packets: {0}")]
    Poll(io::Error),
    /// The TUN is unusable.
    #[error("the tunnel's device is gone: {0}")]
    Tun(io::Error),
    /// The TUN was with a thread that died.
    #[error(
        "the thread that serves the tunnel's device has died: this is a bug of netcombiner; please report it"
    )]
    Lost,
}

/// The control side's handle on the packet thread.
#[derive(Debug)]
pub(super) struct PacketThread {
    commands: mpsc::UnboundedSender<Command>,
    waker: Waker,
    thread: std::thread::JoinHandle<Result<Tun, LoopError>>,
}

/// What the packet thread is made from.
pub(super) struct Start {
    /// The open TUN.
    pub(super) tun: Tun,
    /// The kernel may split and join for UDP sockets; the TUN knows it.
    pub(super) offload: bool,
    /// How many threads may carry packets.
    pub(super) threads: usize,
    /// The tunnel's configuration.
    pub(super) config: TunnelConfig,
    /// Randomness.
    pub(super) entropy: Box<dyn Entropy>,
    /// Where news go; closed when the thread ends.
    pub(super) events: mpsc::Sender<News>,
}

impl PacketThread {
    /// Starts it.
    pub(super) fn spawn(start: Start) -> io::Result<Self> {
        let poll = PollSet::new()?;
        let waker = poll.waker();
        poll.add(&start.tun, TUN_KEY)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let clock = Clock::start();
        let now = clock.now();
        // A small box may have no thread to spare: one carries packets as well, only not as many.
        let capacity = usize::from(start.config.mtu.bytes()) + 1;
        let tun_thread = (start.threads > 1)
            .then(|| TunThread::spawn(capacity, clock, waker.clone()).ok())
            .flatten();
        let packet_loop = PacketLoop {
            tunnel: Tunnel::new(start.config, start.entropy, now),
            clock,
            leaps: Leaps::start(),
            tun_offload: start.tun.offload(),
            tun: Some(Box::new(TunSide::new(start.tun))),
            tun_thread,
            tun_count: Count::default(),
            outgoing: Vec::new(),
            lent: Vec::new(),
            lists: Lists::default(),
            busy: Busy::new(now, Duration::ZERO),
            tun_busy: (0.0, now),
            sharing: Sharing::new(now),
            sockets: Sockets::new(poll, start.offload),
            commands: receiver,
            events: Bulletin::new(start.events),
            batch: Batch::default(),
        };
        let thread = std::thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || packet_loop.run())?;
        Ok(Self {
            commands,
            waker,
            thread,
        })
    }

    /// Tells it something. When it has ended, nothing happens: its end is told by the events.
    pub(super) fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Asks for a report.
    ///
    /// # Errors
    /// When the thread has ended, or does not answer in time.
    pub(super) async fn report(&self) -> Result<Report, &'static str> {
        let (sender, report) = oneshot::channel();
        self.tell(Command::Report(sender));
        match timeout(REPORT_PATIENCE, report).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(_)) => Err("the packet thread has ended"),
            Err(_) => Err("the packet thread does not answer"),
        }
    }

    /// Lets it say goodbye and end, and gives the TUN back, or says why it ended. A thread that
    /// hangs is left behind: it ends with the process.
    pub(super) async fn stop(self) -> Result<Tun, String> {
        self.tell(Command::Stop);
        end_of(self.thread, STOP_PATIENCE).await
    }
}

/// Waits for a thread's end, but not for ever.
async fn end_of<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    thread: std::thread::JoinHandle<Result<T, E>>,
    patience: Duration,
) -> Result<T, String> {
    let joined = tokio::task::spawn_blocking(move || thread.join());
    match timeout(patience, joined).await {
        Ok(Ok(Ok(Ok(tun)))) => Ok(tun),
        Ok(Ok(Ok(Err(error)))) => Err(error.to_string()),
        Ok(Ok(Err(_)) | Err(_)) => Err(
            "the packet thread panicked: this is a bug of netcombiner; please report the lines \
             above"
                .to_owned(),
        ),
        Err(_) => Err(format!(
            "the packet thread did not end within {} s: this is a bug of netcombiner; please \
             report it",
            patience.as_secs()
        )),
    }
}

struct PacketLoop {
    clock: Clock,
    leaps: Leaps,
    tunnel: Tunnel,
    sockets: Sockets,
    commands: mpsc::UnboundedReceiver<Command>,
    events: Bulletin,
    /// The TUN, unless it is with its own thread.
    tun: Option<Box<TunSide>>,
    tun_thread: Option<TunThread>,
    tun_offload: Offload,
    tun_count: Count,
    /// Packets of one round on their way to the TUN's thread.
    outgoing: Vec<Packet>,
    /// Empty buffers on their way there.
    lent: Vec<Packet>,
    /// Lists to be filled again.
    lists: Lists,
    busy: Busy,
    /// How much of a core the TUN's thread uses, and when it said so.
    tun_busy: (f32, Instant),
    sharing: Sharing,
    /// The batch that is being sent.
    batch: Batch,
}

impl PacketLoop {
    fn run(mut self) -> Result<Tun, LoopError> {
        let mut ready = Vec::new();
        let mut all_came = true;
        loop {
            let timeout = if all_came {
                let at = self.next_timeout();
                at.map(|at| at.since(self.clock.now()))
            } else {
                // We were woken for it already.
                Some(Duration::ZERO)
            };
            self.sockets
                .wait(timeout, &mut ready)
                .map_err(LoopError::Poll)?;
            let now = self.clock.now();
            if let Some(leap) = self.leaps.look() {
                self.begin_anew(now, leap);
            }
            for &ready in &ready {
                self.serve(now, ready)?;
            }
            all_came = self.take_from_tun(now)?;
            if self.obey(now) {
                self.bring_together(now)?;
                self.drain(now);
                return self
                    .tun
                    .map_or(Err(LoopError::Lost), |side| Ok(side.into_tun()));
            }
            if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
                self.tunnel.handle_timeout(now);
            }
            self.sockets.handle_timeout(now, &mut self.tunnel);
            self.drain(now);
            if self.tun_thread.is_some()
                && let Some(used) = self.busy.look(now, thread_time)
            {
                self.share(now, used)?;
            }
        }
    }

    /// The host stood still for so long.
    fn begin_anew(&mut self, now: Instant, leap: Duration) {
        let seconds = leap.as_secs();
        self.events.tell(News::Note(Note {
            level: Level::Info,
            text: format!("the clock leapt by {seconds} s: the keys are dropped and made again"),
        }));
        self.tunnel.start_over(now);
    }

    /// Takes what the TUN's thread brought: as much as its channel holds, for it may bring more
    /// meanwhile. True: that was all.
    fn take_from_tun(&mut self, now: Instant) -> Result<bool, LoopError> {
        for _ in 0..BATCHES {
            match self.came_from_tun()? {
                Some(came) => self.take(now, came)?,
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    fn came_from_tun(&mut self) -> Result<Option<FromTun>, LoopError> {
        let Some(thread) = &self.tun_thread else {
            return Ok(None);
        };
        match thread.receive() {
            Ok(came) => Ok(came),
            Err(Dead) if self.tun.is_none() => Err(LoopError::Lost),
            Err(Dead) => {
                self.tun_thread = None;
                Ok(None)
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let blocked = self.events.is_blocked();
        let news = blocked.then(|| self.clock.now() + NEWS_RETRY);
        [
            self.tunnel.poll_timeout(),
            self.sockets.poll_timeout(),
            news,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn serve(&mut self, now: Instant, ready: Ready) -> Result<(), LoopError> {
        if ready.key != TUN_KEY {
            self.sockets.serve(now, ready, &mut self.tunnel);
            return Ok(());
        }
        if let Some(side) = &mut self.tun {
            let tunnel = RefCell::new(&mut self.tunnel);
            let empty = || tunnel.borrow_mut().take_buffer();
            let take = |packet| tunnel.borrow_mut().handle_packet(now, packet);
            side.read(empty, take).map_err(LoopError::Tun)?;
        }
        Ok(())
    }

    /// Takes what the TUN's thread read, and lends it as many buffers.
    fn take(&mut self, now: Instant, mut came: FromTun) -> Result<(), LoopError> {
        self.tun_count.add(came.count);
        if let Some(busy) = came.busy {
            self.tun_busy = (busy, now);
        }
        let tunnel = &mut self.tunnel;
        came.empty
            .drain(..)
            .for_each(|buffer| tunnel.recycle(buffer));
        let count = came.packets.len();
        for packet in came.packets.drain(..) {
            tunnel.handle_packet(now, packet);
        }
        if let Some(error) = came.error {
            return Err(LoopError::Tun(error));
        }
        tunnel.lend(count, &mut self.lent);
        self.lists.give(came.packets);
        self.lists.give(came.empty);
        Ok(())
    }

    /// Moves the TUN to where it is served best.
    fn share(&mut self, now: Instant, used: f32) -> Result<(), LoopError> {
        // A thread that says nothing sleeps.
        let (tun, at) = self.tun_busy;
        let tun = if now.since(at) < 2 * busy::WINDOW {
            tun
        } else {
            0.0
        };
        match self.sharing.judge(now, used, tun) {
            Some(Place::Apart) => self.send_apart(),
            Some(Place::Together) => self.bring_together(now),
            None => Ok(()),
        }
    }

    fn send_apart(&mut self) -> Result<(), LoopError> {
        if let Some((thread, side)) = self.tun_thread.as_ref().zip(self.tun.take()) {
            self.sockets.poll().remove(side.tun());
            // It comes back when the thread has died, and is not sent there again.
            if let Err(side) = thread.serve(side) {
                self.tun_thread = None;
                return self.keep(side);
            }
        }
        Ok(())
    }

    fn bring_together(&mut self, now: Instant) -> Result<(), LoopError> {
        let Some(thread) = self.tun_thread.take().filter(|_| self.tun.is_none()) else {
            return Ok(());
        };
        let mut came = Vec::new();
        let side = thread.take_back(|last| came.push(last));
        self.tun_thread = Some(thread);
        self.tun_busy = (0.0, now);
        self.keep(side.ok_or(LoopError::Lost)?)?;
        came.into_iter().try_for_each(|came| self.take(now, came))?;
        let (lent, tunnel) = (&mut self.lent, &mut self.tunnel);
        lent.drain(..).for_each(|buffer| tunnel.recycle(buffer));
        Ok(())
    }

    fn keep(&mut self, side: Box<TunSide>) -> Result<(), LoopError> {
        let added = self.sockets.poll().add(side.tun(), TUN_KEY);
        self.tun = Some(side);
        added.map_err(LoopError::Poll)
    }

    /// Gives away all that the tunnel has: datagrams, packets, events.
    fn drain(&mut self, now: Instant) {
        while self.tunnel.poll_transmit(now, &mut self.batch) {
            if let Some((transmit, bytes)) = self.batch.seal() {
                self.sockets.send(now, &transmit, bytes, &mut self.tunnel);
            }
        }
        self.deliver();
        if std::mem::take(&mut self.tun_count.stopped_joining) {
            let text = "the kernel refuses joined packets: they are written one by one from now on";
            self.events.tell(News::Note(Note {
                level: Level::Warn,
                text: text.to_owned(),
            }));
        }
        while let Some(event) = self.tunnel.poll_event() {
            self.events.tell(News::Tunnel(event));
        }
        for note in self.sockets.take_notes() {
            self.events.tell(News::Note(note));
        }
        self.events.flush();
    }

    /// Gives the packets that came out of the tunnel to the TUN, or to its thread.
    fn deliver(&mut self) {
        if let Some(side) = &mut self.tun {
            while let Some(packet) = self.tunnel.poll_packet() {
                side.write(packet, |packet| self.tunnel.recycle(packet));
            }
            side.flush(|packet| self.tunnel.recycle(packet));
            self.tun_count.add(side.take_count());
        } else if let Some(thread) = &self.tun_thread {
            loop {
                let packets = std::iter::from_fn(|| self.tunnel.poll_packet());
                self.outgoing.extend(packets.take(MOST_PACKETS));
                if self.outgoing.is_empty() {
                    break;
                }
                let outgoing = std::mem::replace(&mut self.outgoing, self.lists.take());
                let lent = std::mem::replace(&mut self.lent, self.lists.take());
                thread.send(outgoing, lent);
            }
            if !self.lent.is_empty() {
                let lent = std::mem::replace(&mut self.lent, self.lists.take());
                let mut back = thread.lend(lent, &mut self.lists);
                back.drain(..)
                    .for_each(|buffer| self.tunnel.recycle(buffer));
                self.lists.give(back);
            }
        }
    }

    /// Does what the control side said. True: the end.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => Command::Stop,
            };
            match command {
                Command::ListenUdp(socket) => {
                    self.sockets.add_udp(now, socket, None, &mut self.tunnel);
                }
                Command::ListenTcp(listener) => self.sockets.add_listener(listener),
                Command::OpenLink {
                    link,
                    carrier,
                    remote,
                    terms,
                } => {
                    self.sockets.close_link(now, link, &mut self.tunnel);
                    match carrier {
                        Carrier::Udp(socket) => self.sockets.add_udp(
                            now,
                            socket,
                            Some((link, remote, terms)),
                            &mut self.tunnel,
                        ),
                        Carrier::Tcp(origin) => {
                            self.sockets.add_tcp_link(now, link, origin, remote, terms);
                        }
                    }
                }
                Command::ChangeLink(link, terms) => {
                    self.sockets.change_link(now, link, terms, &mut self.tunnel);
                }
                Command::CloseLink(link) => {
                    self.sockets.close_link(now, link, &mut self.tunnel);
                    self.events.tell(News::Closed(link));
                }
                Command::Redundant(classes) => self.tunnel.set_redundant(classes),
                Command::Admit(crossing) => self.tunnel.set_crossing(crossing),
                Command::Report(answer) => {
                    // Who asked may have gone.
                    let _ = answer.send(self.report(now));
                }
                Command::Stop => {
                    self.tunnel.close(now);
                    self.drain(now);
                    return true;
                }
            }
        }
    }

    fn report(&mut self, now: Instant) -> Report {
        let mut stats = self.tunnel.stats(now);
        for (cause, count) in [
            (Discard::SendFailed, self.sockets.send_failed()),
            (Discard::NotSplit, self.tun_count.not_split),
            (Discard::TunRefused, self.tun_count.refused),
        ] {
            if count > 0 {
                stats.discards.push((cause, count));
            }
        }
        Report {
            stats,
            links: self.sockets.links(),
            tun_offload: self.tun_offload,
            tun_apart: self.tun.is_none(),
            udp_offload: self.sockets.offload(),
        }
    }
}

#[cfg(test)]
#[path = "packet_loop_tests.rs"]
mod tests;
