//! The sockets of the packet thread: which are open, what each is for, when a TCP link tries again.

mod terms;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::Level;

use super::strangers::{Stranger, Verdict, admit};
use super::tcp_link::TcpLink;
use crate::config::Transport;
use crate::io::poll::{PollSet, Ready};
use crate::io::socket::Origin;
use crate::io::tcp::{Accepted, TcpConnection, TcpListener};
use crate::io::udp::{ReceiveBuffer, SendReport, UdpOffload, UdpSocket};
use crate::proto::Instant;
use crate::proto::event::{Attachment, LinkId, SocketId, Transmit};
use crate::proto::tunnel::Tunnel;
use crate::sorted::Map;
pub(super) use terms::{LinkSocket, LinkTerms};

/// An accepted connection that carries no path by then is dropped, however much it says.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);
/// How often accepted connections are looked through.
const SWEEP: Duration = Duration::from_secs(2);
/// The greatest id of a socket.
const LAST_ID: u32 = u32::MAX - 1;
/// Connections accepted in one round before others get their turn.
const ACCEPT_BATCH: usize = 8;

#[derive(Debug)]
enum Entry {
    Udp {
        socket: UdpSocket,
        link: Option<LinkId>,
    },
    Listener {
        listener: TcpListener,
        /// No descriptor was left for its next connection: nobody looks at it until the next sweep.
        paused: bool,
    },
    Connection {
        connection: TcpConnection,
        link: Option<LinkId>,
        /// When it was accepted, or began to connect.
        since: Instant,
        /// The peer had been heard from this network before it was accepted.
        known: bool,
    },
}

/// A line for the log.
#[derive(Debug)]
pub(super) struct Note {
    /// How bad it is.
    pub(super) level: Level,
    /// What happened.
    pub(super) text: String,
}

/// All sockets of the packet thread.
#[derive(Debug)]
pub(super) struct Sockets {
    poll: PollSet,
    /// The kernel may split and join for UDP sockets.
    offload: bool,
    entries: Map<SocketId, Entry>,
    tcp_links: Map<LinkId, TcpLink>,
    next: u32,
    received: ReceiveBuffer,
    send_failed: u64,
    sweep_at: Option<Instant>,
    notes: Vec<Note>,
}

impl Sockets {
    pub(super) fn new(poll: PollSet, offload: bool) -> Self {
        Self {
            poll,
            offload,
            entries: Map::new(),
            tcp_links: Map::new(),
            next: 1,
            received: ReceiveBuffer::default(),
            send_failed: 0,
            sweep_at: None,
            notes: Vec::new(),
        }
    }

    /// Lines for the log since the last call.
    pub(super) fn take_notes(&mut self) -> std::vec::Drain<'_, Note> {
        self.notes.drain(..)
    }

    fn note(&mut self, level: Level, what: &str, error: &io::Error) {
        self.notes.push(Note {
            level,
            text: format!("{what}: {error}"),
        });
    }

    /// What is waited with.
    pub(super) fn poll(&self) -> &PollSet {
        &self.poll
    }

    /// Waits; see [`PollSet::wait`].
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        self.poll.wait(timeout, ready)
    }

    /// Datagrams that sockets refused.
    pub(super) fn send_failed(&self) -> u64 {
        self.send_failed
    }

    /// What the kernel does for all UDP sockets; `None`: there is none.
    pub(super) fn offload(&self) -> Option<UdpOffload> {
        let all = self.entries.values().filter_map(|entry| match entry {
            Entry::Udp { socket, .. } => Some(socket.offload()),
            Entry::Listener { .. } | Entry::Connection { .. } => None,
        });
        all.reduce(|a, b| UdpOffload {
            gso_segments: a.gso_segments.min(b.gso_segments),
            gro_segments: a.gro_segments.min(b.gro_segments),
        })
    }

    /// The links that were opened, and how their sockets are.
    pub(super) fn links(&self) -> Vec<(LinkId, LinkSocket)> {
        let mut links: Map<LinkId, LinkSocket> = self
            .tcp_links
            .iter()
            .map(|(&link, tcp)| (link, LinkSocket::Waiting(tcp.reason())))
            .collect();
        for entry in self.entries.values() {
            match entry {
                Entry::Udp {
                    socket,
                    link: Some(link),
                } => {
                    links.insert(*link, LinkSocket::Open(socket.local_addr()));
                }
                Entry::Connection {
                    connection,
                    link: Some(link),
                    ..
                } if connection.is_connected() => {
                    links.insert(*link, LinkSocket::Open(connection.local_addr()));
                }
                Entry::Udp { .. } | Entry::Connection { .. } | Entry::Listener { .. } => {}
            }
        }
        links.into_iter().collect()
    }

    pub(super) fn add_udp(
        &mut self,
        now: Instant,
        mut socket: UdpSocket,
        link: Option<(LinkId, SocketAddr, LinkTerms)>,
        tunnel: &mut Tunnel,
    ) {
        if !self.offload {
            socket.forbid_offload();
        }
        let id = self.new_id();
        if let Err(error) = self.poll.add(&socket, key(id)) {
            return self.note(Level::Error, "cannot wait for a UDP socket", &error);
        }
        let attachment = match link {
            Some((link, remote, terms)) => terms.attachment(link, Transport::Udp, remote),
            None => Attachment::Listen {
                transport: Transport::Udp,
            },
        };
        let link = link.map(|(link, ..)| link);
        self.entries.insert(id, Entry::Udp { socket, link });
        tunnel.handle_socket_up(now, id, attachment);
    }

    pub(super) fn add_listener(&mut self, listener: TcpListener) {
        let id = self.new_id();
        if let Err(error) = self.poll.add(&listener, key(id)) {
            return self.note(Level::Error, "cannot wait for a TCP listener", &error);
        }
        let paused = false;
        self.entries
            .insert(id, Entry::Listener { listener, paused });
    }

    pub(super) fn add_tcp_link(
        &mut self,
        now: Instant,
        link: LinkId,
        origin: Origin,
        remote: SocketAddr,
        terms: LinkTerms,
    ) {
        self.tcp_links
            .insert(link, TcpLink::new(now, origin, remote, terms));
    }

    /// A link keeps its sockets under other terms.
    pub(super) fn change_link(
        &mut self,
        now: Instant,
        link: LinkId,
        terms: LinkTerms,
        tunnel: &mut Tunnel,
    ) {
        if let Some(tcp) = self.tcp_links.get_mut(&link) {
            tcp.terms = terms;
        }
        tunnel.handle_terms(now, link, terms.of_path());
    }

    /// Closes all that a link has.
    pub(super) fn close_link(&mut self, now: Instant, link: LinkId, tunnel: &mut Tunnel) {
        self.tcp_links.remove(&link);
        let ids: Vec<SocketId> = self
            .entries
            .iter()
            .filter(|(_, entry)| match entry {
                Entry::Udp { link: of, .. } | Entry::Connection { link: of, .. } => {
                    *of == Some(link)
                }
                Entry::Listener { .. } => false,
            })
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            self.close(now, id, tunnel);
        }
    }

    /// Sends one batch.
    pub(super) fn send(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        bytes: &[u8],
        tunnel: &mut Tunnel,
    ) {
        let id = transmit.socket;
        match self.entries.get_mut(&id) {
            Some(Entry::Udp { socket, .. }) => {
                let was_blocked = socket.is_blocked();
                let report = socket.send(transmit, bytes);
                if socket.is_blocked() && !was_blocked {
                    watch(&self.poll, socket, id, true);
                }
                self.heed(now, id, report, tunnel);
            }
            Some(Entry::Connection { connection, .. }) if connection.is_connected() => {
                match connection.send(transmit.segment_size, bytes) {
                    Ok(dropped) => {
                        self.send_failed += dropped;
                        watch(&self.poll, connection, id, true);
                    }
                    Err(error) => self.fail(now, id, &error, tunnel),
                }
            }
            Some(Entry::Connection { .. } | Entry::Listener { .. }) | None => {}
        }
    }

    /// Counts what the kernel refused, and tells the tunnel what is too long for a device.
    fn heed(&mut self, now: Instant, id: SocketId, report: SendReport, tunnel: &mut Tunnel) {
        self.send_failed += report.lost;
        if let Some((destination, length)) = report.too_long {
            tunnel.handle_refused(now, id, destination, length);
        }
    }

    /// Does what a socket is ready for.
    pub(super) fn serve(&mut self, now: Instant, ready: Ready, tunnel: &mut Tunnel) {
        let Ok(number) = u32::try_from(ready.key) else {
            return;
        };
        let id = SocketId(number);
        match self.entries.get_mut(&id) {
            Some(Entry::Udp { socket, .. }) => {
                let mut report = SendReport::default();
                if ready.writable && socket.is_blocked() {
                    report = socket.flush();
                    if !socket.is_blocked() {
                        watch(&self.poll, socket, id, false);
                    }
                }
                // An error on a UDP socket concerns one datagram that is lost already.
                if ready.readable && socket.receive(&mut self.received).unwrap_or(false) {
                    self.received
                        .for_each(|ends, datagrams, length, codepoint| {
                            let from = ends.peer;
                            if tunnel.handle_datagrams(now, id, from, datagrams, length, codepoint)
                            {
                                socket.confirm(ends);
                            }
                        });
                }
                self.heed(now, id, report, tunnel);
            }
            Some(Entry::Connection { .. }) => self.serve_connection(now, id, ready, tunnel),
            Some(Entry::Listener { .. }) => self.accept(now, id, tunnel),
            // Closed earlier in this round.
            None => {}
        }
    }

    fn serve_connection(&mut self, now: Instant, id: SocketId, ready: Ready, tunnel: &mut Tunnel) {
        let Some(Entry::Connection {
            connection, link, ..
        }) = self.entries.get_mut(&id)
        else {
            return;
        };
        if !connection.is_connected() {
            let link = *link;
            match connection.finish_connect() {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => return self.fail(now, id, &error, tunnel),
            }
            if let Some((link, tcp)) =
                link.and_then(|link| Some((link, self.tcp_links.get_mut(&link)?)))
            {
                tcp.connected(now);
                let attachment = tcp.terms.attachment(link, Transport::Tcp, tcp.remote);
                tunnel.handle_socket_up(now, id, attachment);
            }
            watch(&self.poll, connection, id, false);
            tunnel.handle_writable(now, id, connection.budget());
        }
        let mut result = Ok(());
        if ready.writable {
            result = connection.flush();
            let budget = connection.budget();
            if result.is_ok() && budget > 0 {
                // What is left in our own buffer must not wait for the tunnel's next datagram.
                watch(&self.poll, connection, id, !connection.is_flushed());
                tunnel.handle_writable(now, id, budget);
            }
        }
        if ready.readable && result.is_ok() {
            let peer = connection.peer();
            result = connection.receive(|datagram| {
                tunnel.handle_datagram(now, id, peer, datagram);
            });
            if connection.is_stranger() && tunnel.carries(id) {
                connection.admit();
            }
        }
        if let Err(error) = result {
            self.fail(now, id, &error, tunnel);
        }
    }

    fn accept(&mut self, now: Instant, listener: SocketId, tunnel: &mut Tunnel) {
        for _ in 0..ACCEPT_BATCH {
            let Some(Entry::Listener {
                listener: waiting, ..
            }) = self.entries.get(&listener)
            else {
                return;
            };
            let connection = match waiting.accept() {
                Ok(Accepted::Connection(connection)) => connection,
                Ok(Accepted::Broken) => continue,
                Ok(Accepted::None) => return,
                Err(error) => return self.pause(now, listener, &error),
            };
            let peer = connection.peer();
            let known = tunnel.knows_source(peer);
            match admit(&self.strangers(tunnel), peer.ip(), known, now) {
                Verdict::Welcome => {}
                Verdict::InsteadOf(victim) => self.close(now, victim, tunnel),
                Verdict::Refused => continue,
            }
            let id = self.new_id();
            if let Err(error) = self.poll.add(&connection, key(id)) {
                return self.note(Level::Warn, "cannot wait for a TCP connection", &error);
            }
            tunnel.handle_socket_up(
                now,
                id,
                Attachment::Listen {
                    transport: Transport::Tcp,
                },
            );
            tunnel.handle_writable(now, id, connection.budget());
            self.entries.insert(
                id,
                Entry::Connection {
                    connection,
                    link: None,
                    since: now,
                    known,
                },
            );
            self.sweep_at.get_or_insert(now + SWEEP);
        }
    }

    /// The process has no descriptor left (EMFILE and the like): a listener that stays ready would
    /// spin, so it rests until the next sweep, which may have closed something.
    fn pause(&mut self, now: Instant, id: SocketId, error: &io::Error) {
        self.note(Level::Warn, "cannot accept a TCP connection", error);
        if let Some(Entry::Listener { listener, paused }) = self.entries.get_mut(&id) {
            // A listener that cannot be silenced only costs time.
            let _ = self.poll.watch_nothing(listener, key(id));
            *paused = true;
            self.sweep_at.get_or_insert(now + SWEEP);
        }
    }

    fn resume_listeners(&mut self) {
        for (&id, entry) in self.entries.iter_mut() {
            if let Entry::Listener { listener, paused } = entry
                && *paused
                && self.poll.watch_writable(listener, key(id), false).is_ok()
            {
                *paused = false;
            }
        }
    }

    /// Accepted connections that carry no path, so that nobody has proven who they are.
    fn strangers(&self, tunnel: &Tunnel) -> Vec<Stranger> {
        let accepted = |(&id, entry): (&SocketId, &Entry)| match entry {
            Entry::Connection {
                connection,
                link: None,
                since,
                known,
            } if !tunnel.carries(id) => Some(Stranger {
                id,
                address: connection.peer().ip(),
                since: *since,
                known: *known,
            }),
            Entry::Connection { .. } | Entry::Udp { .. } | Entry::Listener { .. } => None,
        };
        self.entries.iter().filter_map(accepted).collect()
    }

    /// True when a later sweep has something to do.
    fn needs_sweeps(&self) -> bool {
        self.entries.values().any(|entry| match entry {
            Entry::Connection { link, .. } => link.is_none(),
            Entry::Listener { paused, .. } => *paused,
            Entry::Udp { .. } => false,
        })
    }

    /// When [`Sockets::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.tcp_links
            .values()
            .filter_map(TcpLink::poll_timeout)
            .chain(self.sweep_at)
            .min()
    }

    /// Connects links again, gives up connections that do not come, and drops silent strangers.
    pub(super) fn handle_timeout(&mut self, now: Instant, tunnel: &mut Tunnel) {
        let due: Vec<LinkId> = self
            .tcp_links
            .iter()
            .filter(|(_, tcp)| tcp.poll_timeout().is_some_and(|at| at <= now))
            .map(|(&link, _)| link)
            .collect();
        for link in due {
            self.retry(now, link, tunnel);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            for stranger in self.strangers(tunnel) {
                if now.since(stranger.since) >= STRANGER_PATIENCE {
                    self.close(now, stranger.id, tunnel);
                }
            }
            self.resume_listeners();
            self.sweep_at = self.needs_sweeps().then(|| now + SWEEP);
        }
    }

    fn retry(&mut self, now: Instant, link: LinkId, tunnel: &mut Tunnel) {
        let connecting = self.entries.iter().find_map(|(&id, entry)| {
            matches!(entry, Entry::Connection { link: of, .. } if *of == Some(link)).then_some(id)
        });
        if let Some(id) = connecting {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return self.fail(now, id, &late, tunnel);
        }
        let Some(tcp) = self.tcp_links.get_mut(&link) else {
            return;
        };
        let connection = match TcpConnection::connect(&tcp.origin, tcp.remote) {
            Ok(connection) => connection,
            Err(error) => return tcp.failed(now, error.to_string()),
        };
        tcp.connecting(now);
        let id = self.new_id();
        let watched = self
            .poll
            .add(&connection, key(id))
            .and_then(|()| self.poll.watch_writable_only(&connection, key(id)));
        if let Err(error) = watched {
            self.note(Level::Warn, "cannot wait for a TCP connection", &error);
        }
        self.entries.insert(
            id,
            Entry::Connection {
                connection,
                link: Some(link),
                since: now,
                known: false,
            },
        );
    }

    /// A connection broke: it is closed, and its link tries again later.
    fn fail(&mut self, now: Instant, id: SocketId, error: &io::Error, tunnel: &mut Tunnel) {
        if let Some(Entry::Connection {
            connection, link, ..
        }) = self.entries.get(&id)
        {
            if log::log_enabled!(Level::Debug) {
                let text = format!("TCP connection with {} ended: {error}", connection.peer());
                self.notes.push(Note {
                    level: Level::Debug,
                    text,
                });
            }
            if let Some(tcp) = link.and_then(|link| self.tcp_links.get_mut(&link)) {
                tcp.failed(now, format!("no TCP connection: {error}"));
            }
        }
        self.close(now, id, tunnel);
    }

    fn close(&mut self, now: Instant, id: SocketId, tunnel: &mut Tunnel) {
        match self.entries.remove(&id) {
            Some(Entry::Udp { socket, .. }) => self.poll.remove(&socket),
            Some(Entry::Connection { connection, .. }) => {
                self.poll.remove(&connection);
                if !connection.is_connected() {
                    // The tunnel never knew it.
                    return;
                }
            }
            Some(Entry::Listener { .. }) | None => return,
        }
        tunnel.handle_socket_down(now, id);
    }

    /// One that nobody has. After 2^32 of them they begin again, beside those that are still in use.
    fn new_id(&mut self) -> SocketId {
        loop {
            let id = SocketId(self.next);
            // Zero is the TUN's key, and the greatest of a 32-bit system is the poll set's own.
            self.next = if self.next < LAST_ID {
                self.next + 1
            } else {
                1
            };
            if !self.entries.contains_key(&id) {
                return id;
            }
        }
    }
}

fn key(id: SocketId) -> usize {
    // A SocketId is 32 bits, and so is the smallest usize of the systems we run on.
    id.0 as usize
}

fn watch(poll: &PollSet, source: &impl std::os::fd::AsFd, id: SocketId, writable: bool) {
    // It fails only for a source that is not in the set, and all of ours are.
    let _ = poll.watch_writable(source, key(id), writable);
}

#[cfg(test)]
mod tests;
