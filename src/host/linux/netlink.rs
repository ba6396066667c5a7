//! rtnetlink (RFC 3549; linux/rtnetlink.h), as much of it as is spoken here. The socket is netlink-sys's, the
//! fixed parts of messages are netlink-packet-route's; the attributes stay bytes until one is asked for.
//! That crate's own messages know each attribute of every kind of device, queue and tunnel, which was
//! a fifth of a router's program, and fail as a whole when they cannot read a single one.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rtnetlink::packet_core::Emitable;
use rtnetlink::packet_route::address::AddressHeader;
use rtnetlink::packet_route::link::LinkHeader;
use rtnetlink::packet_route::neighbour::NeighbourHeader;
use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::packet_route::rule::RuleHeader;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};
use tokio::time::timeout;

use super::attributes::Attributes;
use super::message::{self, flag, messages};

/// How often a list is asked for that changes while it is read. Each takes a millisecond or so: who
/// changes something at every one of these has not come to rest, and the next notice tells of it.
const LISTINGS: u32 = 5;

/// How long the next message of an answer is waited for. The kernel makes it while it takes the
/// request; one that was dropped for want of room (ENOBUFS) never comes. A tenth of what the daemon
/// gives to all of its requests together, so that one that is lost can be asked for again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a message is of: its fixed part.
pub(super) trait Header: Emitable + Sized {
    /// RTM_NEW*. RTM_DEL* is the next number, RTM_GET* the one after it.
    const NEW: u16;

    /// Reads it from the beginning of a message; nothing when that is too short.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

macro_rules! headers {
    ($($header:ident = $new:expr),*) => {
        $(impl Header for $header {
            const NEW: u16 = $new;

            fn parse(bytes: &[u8]) -> Option<Self> {
                Self::parse(bytes).ok()
            }
        })*
    };
}

headers!(
    LinkHeader = libc::RTM_NEWLINK,
    AddressHeader = libc::RTM_NEWADDR,
    RouteHeader = libc::RTM_NEWROUTE,
    NeighbourHeader = libc::RTM_NEWNEIGH,
    RuleHeader = libc::RTM_NEWRULE
);

/// A message: of a device, an address, a route, a neighbour or a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message<H> {
    /// Its fixed part.
    pub(super) header: H,
    /// The rest.
    pub(super) attributes: Attributes,
}

impl<H: Header> Message<H> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.header.buffer_len()];
        self.header.emit(&mut bytes);
        bytes.extend_from_slice(&self.attributes.0);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = H::parse(bytes)?;
        let attributes = Attributes(bytes.get(header.buffer_len()..)?.to_vec());
        Some(Self { header, attributes })
    }
}

/// What one message of an answer is made of.
#[derive(Debug)]
struct Raw {
    kind: u16,
    bytes: Vec<u8>,
}

/// The kernel's answer to a request, as far as it has come.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<Raw>,
    /// Acknowledged, a list's end, or the only message.
    ended: bool,
    /// What was listed changed meanwhile: something may be missing, or there twice.
    interrupted: bool,
}

impl Answer {
    /// Takes the next message; an error when it says that the request failed.
    fn take(&mut self, message: message::Message<'_>) -> io::Result<()> {
        self.interrupted |= message.flags & flag::INTERRUPTED != 0;
        match message.kind {
            // A list that fails on its way says so at its end.
            message::ERROR | message::DONE => {
                self.ended = true;
                message.outcome()?;
            }
            message::OVERRUN => {
                self.ended = true;
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            ..message::FIRST => {}
            kind => {
                self.ended |= message.flags & flag::MULTI == 0;
                let bytes = message.payload.to_vec();
                self.messages.push(Raw { kind, bytes });
            }
        }
        Ok(())
    }

    /// All of it; an error when it is inconsistent (EINTR).
    fn whole(self) -> io::Result<Vec<Raw>> {
        if self.interrupted {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        Ok(self.messages)
    }

    /// The one message that answers a question.
    fn first(self) -> io::Result<Raw> {
        let first = self.messages.into_iter().next();
        first.ok_or_else(|| io::Error::other("the kernel gave no answer to a question"))
    }
}

/// The message in it; what cannot be read is not left out of a list in silence.
fn read<H: Header>(raw: &Raw) -> io::Result<Message<H>> {
    Message::parse(&raw.bytes).ok_or_else(|| {
        let (kind, length) = (raw.kind, raw.bytes.len());
        let text = format!("the kernel's message of type {kind} is too short ({length} bytes)");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// What is read at once, bytes: twice what the kernel puts into one datagram of a list
/// (net/netlink/af_netlink.c, `netlink_dump`).
const MOST_READ: usize = 64 << 10;

/// The next datagram, which takes the place of what is in the buffer.
pub(super) fn poll_receive(
    socket: &TokioSocket,
    buffer: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    buffer.clear();
    buffer.reserve(MOST_READ);
    socket.poll_recv(context, buffer)
}

/// Asks the kernel.
pub(super) struct Handle {
    socket: TokioSocket,
    /// The number of the last request.
    sequence: Cell<u32>,
    /// A request went out whose answer did not come, or not yet.
    unanswered: Cell<bool>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Opens a socket to the kernel alone. Must be called within a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        // Lists can then ask for a part (Linux 4.20); older kernels list everything.
        let _ = socket.socket_mut().set_netlink_get_strict_chk(true);
        Ok(Self::of(socket))
    }

    fn of(socket: TokioSocket) -> Self {
        Self {
            socket,
            sequence: Cell::new(0),
            unanswered: Cell::new(false),
        }
    }

    /// A socket whose answers are all lost: its other end is one that nobody reads.
    #[cfg(test)]
    pub(super) fn mute() -> Self {
        use rtnetlink::sys::protocols::NETLINK_USERSOCK;
        let mut deaf = TokioSocket::new(NETLINK_USERSOCK).unwrap();
        let address = deaf.socket_mut().bind_auto().unwrap();
        let socket = TokioSocket::new(NETLINK_USERSOCK).unwrap();
        socket.socket_ref().connect(&address).unwrap();
        std::mem::forget(deaf);
        Self::of(socket)
    }

    /// True when the next request needs another socket: this one left a request without its answer,
    /// also one that the caller waited for no longer.
    pub(super) fn is_broken(&self) -> bool {
        self.unanswered.get()
    }

    /// Everything of this kind, or what of it the request names.
    pub(super) async fn list<H: Header>(&self, request: Message<H>) -> io::Result<Vec<Message<H>>> {
        let mut tries = 0;
        let listed = loop {
            tries += 1;
            let answer = self
                .exchange(H::NEW + 2, flag::DUMP, &request.to_bytes())
                .await?;
            match answer.whole() {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) && tries < LISTINGS => {}
                listed => break listed?,
            }
        };
        let listed = listed.iter().filter(|raw| raw.kind == H::NEW);
        listed.map(read).collect()
    }

    /// The answer to one question.
    pub(super) async fn ask<H: Header>(&self, request: Message<H>) -> io::Result<Message<H>> {
        let answer = self.exchange(H::NEW + 2, 0, &request.to_bytes()).await?;
        read(&answer.first()?)
    }

    /// Adds what there must not be yet (EEXIST).
    pub(super) async fn add<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, flag::CREATE | flag::EXCLUSIVE, message)
            .await
    }

    /// Adds, or puts in the place of what there is.
    pub(super) async fn replace<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, flag::CREATE | flag::REPLACE, message)
            .await
    }

    /// Deletes.
    pub(super) async fn delete<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW + 1, 0, message).await
    }

    async fn change<H: Header>(
        &self,
        kind: u16,
        flags: u16,
        message: &Message<H>,
    ) -> io::Result<()> {
        let bytes = message.to_bytes();
        let answer = self.exchange(kind, flag::ACK | flags, &bytes).await?;
        answer.whole().map(drop)
    }

    /// Sets what differs in what there is.
    pub(super) async fn set<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, 0, message).await
    }

    /// Sends a request and waits for what comes in answer to it, in bounded time.
    async fn exchange(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Answer> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        self.unanswered.set(true);
        let mut buffer = Vec::new();
        message::push(&mut buffer, kind, flags, sequence, [body, &[]]);
        poll_fn(|context| self.socket.poll_send(context, &buffer)).await?;
        let mut answer = Answer::default();
        let mut outcome = Ok(());
        while outcome.is_ok() && !answer.ended {
            let received = poll_fn(|context| poll_receive(&self.socket, &mut buffer, context));
            timeout(PATIENCE, received).await.map_err(|_| slow())??;
            outcome = messages(&buffer)
                .filter(|message| message.sequence == sequence)
                .try_for_each(|message| answer.take(message));
        }
        // An error of the kernel's is an answer too.
        self.unanswered.set(false);
        outcome.map(|()| answer)
    }
}

fn slow() -> io::Error {
    let text = format!("the kernel gave no answer in {} s", PATIENCE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_is_read() {
        let mut message = Message::<RouteHeader>::default();
        message.header.table = 19;
        message.attributes = Attributes::new().native(libc::RTA_OIF, 3);
        let bytes = message.to_bytes();
        assert_eq!(Message::parse(&bytes), Some(message));
        assert_eq!(Message::<RouteHeader>::parse(&bytes[..11]), None);
        let short = Raw {
            kind: libc::RTM_NEWROUTE,
            bytes: bytes[..11].to_vec(),
        };
        let error = read::<RouteHeader>(&short).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    const ROUTE: (u16, i32) = (libc::RTM_NEWROUTE, 0);

    fn done(code: i32) -> (u16, i32) {
        (message::DONE, code)
    }

    fn error(code: i32) -> (u16, i32) {
        (message::ERROR, code)
    }

    fn take(answer: &mut Answer, flags: u16, (kind, code): (u16, i32)) -> io::Result<()> {
        let mut datagram = Vec::new();
        message::push(&mut datagram, kind, 0, 1, [&code.to_ne_bytes(), &[0; 8]]);
        let message = messages(&datagram).next().unwrap();
        answer.take(message::Message { flags, ..message })
    }

    /// How many messages the whole answer has and whether it has ended, or the number of its error.
    fn judged<const N: usize>(messages: [(u16, (u16, i32)); N]) -> Result<(usize, bool), i32> {
        let mut answer = Answer::default();
        let taken = messages
            .into_iter()
            .try_for_each(|(flags, message)| take(&mut answer, flags, message));
        let ended = answer.ended;
        taken
            .and_then(|()| answer.whole())
            .map(|raws| (raws.len(), ended))
            .map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    #[test]
    fn an_answer_counts_when_its_end_has_come() {
        assert_eq!(
            judged([(2, ROUTE), (2, ROUTE), (2, done(0))]),
            Ok((2, true))
        );
        assert_eq!(judged([(0, error(0))]), Ok((0, true)));
        assert_eq!(judged([(0, ROUTE)]), Ok((1, true)));
        assert_eq!(judged([(2, ROUTE)]), Ok((1, false)));
        assert_eq!(judged([(0, (1, 0))]), Ok((0, false)));
    }

    #[test]
    fn an_answer_fails_as_its_end_says() {
        assert_eq!(judged([(0, error(-libc::EEXIST))]), Err(libc::EEXIST));
        let codes = [
            (-libc::EMSGSIZE, Err(libc::EMSGSIZE)),
            (i32::MIN, Err(i32::MAX)),
        ];
        for (code, outcome) in codes {
            assert_eq!(judged([(2, ROUTE), (2, done(code))]), outcome);
        }
        let overrun = (message::OVERRUN, 0);
        assert_eq!(judged([(2, ROUTE), (0, overrun)]), Err(libc::ENOBUFS));
    }

    #[test]
    fn a_list_that_changed_meanwhile_does_not_count() {
        let late = 2 | flag::INTERRUPTED;
        for flags in [[late, 2, 2], [2, late, 2], [2, 2, late]] {
            let [first, second, end] = flags;
            let list = [(first, ROUTE), (second, ROUTE), (end, done(0))];
            assert_eq!(judged(list), Err(libc::EINTR), "{flags:?}");
        }
    }

    #[test]
    fn a_question_has_one_answer() {
        let mut answer = Answer::default();
        assert!(Answer::default().first().is_err());
        take(&mut answer, 0, ROUTE).unwrap();
        assert_eq!(answer.first().unwrap().kind, libc::RTM_NEWROUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn socket_without_an_answer_is_broken() {
        let handle = Handle::mute();
        assert!(!handle.is_broken());
        let listed = handle.list(Message::<RouteHeader>::default()).await;
        assert_eq!(listed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(handle.is_broken());
    }

    #[tokio::test]
    async fn socket_of_a_request_that_nobody_waited_for_is_broken() {
        let handle = Handle::open().unwrap();
        let links = handle.list(Message::<LinkHeader>::default()).await;
        assert!(!links.unwrap().is_empty());
        assert!(!handle.is_broken());
        let handle = Handle::mute();
        let listed = handle.list(Message::<LinkHeader>::default());
        assert!(timeout(Duration::ZERO, listed).await.is_err());
        assert!(handle.is_broken());
    }
}
