//! The packet path: one thread that carries bytes between the TUN, the sockets and the tunnel.
//!
//! No lock, no runtime, no allocation once warm. Every round takes a bounded batch from each source
//! that is ready, so none starves, and then gives away all that the tunnel has for others.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc as news, oneshot};
use tokio::time::timeout;

use super::sockets::{LinkSocket, LinkTerms, Note, Sockets};
use crate::io::poll::{PollSet, Ready, Waker};
use crate::io::socket::Origin;
use crate::io::tcp::TcpListener;
use crate::io::tun::{Offload, TunBuffer};
use crate::io::udp::{UdpOffload, UdpSocket};
use crate::io::{Clock, Tun};
use crate::packet::offload::{Group, Joiner};
use crate::proto::event::{Event, LinkId};
use crate::proto::stats::{Discard, TunnelStats};
use crate::proto::tunnel::Tunnel;
use crate::proto::{Batch, Entropy, Instant, event::TunnelConfig};

/// Packets read from the TUN before the sockets get their turn. A super-packet of 64 KiB has 48, and
/// the one that reaches this number is taken whole: three at least, about 0.2 ms of work.
const TUN_BATCH: usize = 128;
/// The number of the TUN in the poll set; sockets have their SocketId, which starts at 1.
const TUN_KEY: usize = 0;

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
    /// A link is gone.
    CloseLink(LinkId),
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
    /// What it does for UDP sockets; nothing: there is none.
    pub(super) udp_offload: Option<UdpOffload>,
}

/// What the packet thread tells the control side.
#[derive(Debug)]
pub(super) enum News {
    /// The tunnel's own news.
    Tunnel(Event),
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
}

/// The control side's handle on the packet thread.
#[derive(Debug)]
pub(super) struct PacketThread {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    thread: std::thread::JoinHandle<Result<Tun, LoopError>>,
}

/// What the packet thread is made from.
pub(super) struct Start {
    /// The open TUN.
    pub(super) tun: Tun,
    /// The kernel may split and join for UDP sockets; the TUN knows it.
    pub(super) offload: bool,
    /// The tunnel's configuration.
    pub(super) config: TunnelConfig,
    /// Randomness.
    pub(super) entropy: Box<dyn Entropy>,
    /// Where news go; closed when the thread ends.
    pub(super) events: news::UnboundedSender<News>,
}

impl PacketThread {
    /// Starts it.
    pub(super) fn spawn(start: Start) -> io::Result<Self> {
        let poll = PollSet::new()?;
        let waker = poll.waker();
        poll.add(&start.tun, TUN_KEY)?;
        let (commands, receiver) = mpsc::channel();
        let clock = Clock::start();
        let packet_loop = PacketLoop {
            tunnel: Tunnel::new(start.config, start.entropy, clock.now()),
            clock,
            joiner: Joiner::new(start.tun.joins()),
            tun: start.tun,
            tun_refused: 0,
            not_split: 0,
            sockets: Sockets::new(poll, start.offload),
            commands: receiver,
            events: start.events,
            read: TunBuffer::default(),
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
    tun: Tun,
    tun_refused: u64,
    not_split: u64,
    tunnel: Tunnel,
    sockets: Sockets,
    commands: mpsc::Receiver<Command>,
    events: news::UnboundedSender<News>,
    /// What the TUN is read into.
    read: TunBuffer,
    /// Packets of one round on their way to the TUN.
    joiner: Joiner,
    /// The batch that is being sent.
    batch: Batch,
}

impl PacketLoop {
    fn run(mut self) -> Result<Tun, LoopError> {
        let mut ready = Vec::new();
        loop {
            let timeout = self.timeout();
            self.sockets
                .wait(timeout, &mut ready)
                .map_err(LoopError::Poll)?;
            let now = self.clock.now();
            for &ready in &ready {
                self.serve(now, ready)?;
            }
            if self.obey(now) {
                return Ok(self.tun);
            }
            if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
                self.tunnel.handle_timeout(now);
            }
            self.sockets.handle_timeout(now, &mut self.tunnel);
            self.drain(now);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let at = [self.tunnel.poll_timeout(), self.sockets.poll_timeout()]
            .into_iter()
            .flatten()
            .min()?;
        Some(at.since(self.clock.now()))
    }

    fn serve(&mut self, now: Instant, ready: Ready) -> Result<(), LoopError> {
        if ready.key == TUN_KEY {
            return self.read_tun(now).map_err(LoopError::Tun);
        }
        self.sockets.serve(now, ready, &mut self.tunnel);
        Ok(())
    }

    fn read_tun(&mut self, now: Instant) -> io::Result<()> {
        let mut packets = 0;
        while packets < TUN_BATCH {
            match self.tun.receive(&mut self.read) {
                Ok(()) => packets += self.split(now),
                Err(error) => {
                    return match error.raw_os_error() {
                        // FreeBSD says EHOSTDOWN until the device has an address.
                        Some(libc::EAGAIN | libc::EINTR | libc::EHOSTDOWN) => Ok(()),
                        Some(_) | None => Err(error),
                    };
                }
            }
        }
        Ok(())
    }

    /// Takes apart what was read. Gives how many packets it was, at least one.
    fn split(&mut self, now: Instant) -> usize {
        let Ok(mut segments) = self.read.segments() else {
            self.not_split += 1;
            return 1;
        };
        let count = segments.remaining();
        while segments.remaining() > 0 {
            let mut packet = self.tunnel.take_buffer();
            segments.write_next(packet.buffer());
            self.tunnel.handle_packet(now, packet);
        }
        count.max(1)
    }

    /// Writes what the joiner has.
    fn write_tun(&mut self) {
        let (tun, tunnel) = (&self.tun, &mut self.tunnel);
        let mut not_understood = false;
        let give = |group: Group<'_>| {
            if let Err(error) = tun.send(&group) {
                self.tun_refused += group.segments() as u64;
                let refused = error.raw_os_error() == Some(libc::EINVAL);
                not_understood |= refused && group.segments() > 1;
            }
        };
        self.joiner.flush(give, |packet| tunnel.recycle(packet));
        if not_understood {
            // Not seen yet; but a flow would starve of it.
            self.joiner.stop_joining();
            let _ = self.events.send(News::Note(Note {
                level: log::Level::Warn,
                text: "the kernel refuses joined packets: they are written one by one from now on"
                    .to_owned(),
            }));
        }
    }

    /// Gives away all that the tunnel has: datagrams, packets, events.
    fn drain(&mut self, now: Instant) {
        while self.tunnel.poll_transmit(now, &mut self.batch) {
            if let Some((transmit, bytes)) = self.batch.seal() {
                self.sockets.send(now, &transmit, bytes, &mut self.tunnel);
            }
        }
        while let Some(packet) = self.tunnel.poll_packet() {
            if let Err(packet) = self.joiner.push(packet) {
                self.write_tun();
                // It is empty now.
                let _ = self.joiner.push(packet);
            }
        }
        self.write_tun();
        while let Some(event) = self.tunnel.poll_event() {
            // The control side is gone only when the process ends.
            let _ = self.events.send(News::Tunnel(event));
        }
        for note in self.sockets.take_notes() {
            let _ = self.events.send(News::Note(note));
        }
    }

    /// Does what the control side said. True: the end.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Empty) => return false,
                Err(mpsc::TryRecvError::Disconnected) => Command::Stop,
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
                Command::CloseLink(link) => self.sockets.close_link(now, link, &mut self.tunnel),
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
            (Discard::NotSplit, self.not_split),
            (Discard::TunRefused, self.tun_refused),
        ] {
            if count > 0 {
                stats.discards.push((cause, count));
            }
        }
        Report {
            stats,
            links: self.sockets.links(),
            tun_offload: self.tun.offload(),
            udp_offload: self.sockets.offload(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_or_panics_does_not_keep_the_host() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (release, held) = mpsc::channel::<()>();
        let hanging = std::thread::spawn(move || -> Result<(), String> {
            let _ = held.recv();
            Ok(())
        });
        let limit = Duration::from_millis(50);
        let error = runtime.block_on(end_of(hanging, limit)).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
        // The runtime goes although the thread still hangs.
        runtime.shutdown_background();
        drop(release);

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let patience = Duration::from_secs(5);
        let thread = |end: fn() -> Result<u8, String>| std::thread::spawn(end);
        let end = |body| runtime.block_on(end_of(thread(body), patience));
        assert_eq!(end(|| Ok(7)), Ok(7));
        assert_eq!(end(|| Err("broken".to_owned())), Err("broken".to_owned()));
        assert!(end(|| panic!("on purpose")).unwrap_err().contains("bug"));
    }
}
