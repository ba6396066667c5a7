//! rtnetlink (RFC 3549; linux/rtnetlink.h), as much of it as is spoken here. The connection is
//! netlink-proto's, the headers are netlink-packet-route's; the attributes stay bytes until one is
//! asked for. That crate's own messages know each attribute of every kind of device, queue and tunnel,
//! which was a fifth of a router's program, and fail as a whole when they cannot read a single one.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use rtnetlink::packet_route::address::AddressHeader;
use rtnetlink::packet_route::link::LinkHeader;
use rtnetlink::packet_route::neighbour::NeighbourHeader;
use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::packet_route::rule::RuleHeader;
use rtnetlink::proto::{ConnectionHandle, new_connection};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::attributes::Attributes;

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

/// A message as it goes over the connection.
#[derive(Debug)]
pub(super) struct Raw {
    kind: u16,
    bytes: Vec<u8>,
}

impl Raw {
    /// One of this type and content.
    #[cfg(test)]
    pub(super) fn new(kind: u16, bytes: Vec<u8>) -> Self {
        Self { kind, bytes }
    }

    /// Its type.
    pub(super) fn kind(&self) -> u16 {
        self.kind
    }

    /// What follows netlink's header.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            kind: header.message_type,
            bytes: payload.to_vec(),
        })
    }
}

/// The kernel's answer to a request, as far as it has come.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<Raw>,
    /// Acknowledged, or a list's end.
    ended: bool,
    /// What was listed changed meanwhile: something may be missing, or there twice.
    interrupted: bool,
}

impl Answer {
    /// Takes the next message; an error when it says that the request failed.
    fn take(&mut self, message: NetlinkMessage<Raw>) -> io::Result<()> {
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(raw) => self.messages.push(raw),
            // Prints as the kernel's words and number. Without a code it is the acknowledgement.
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            // A list that fails on its way says so at its end.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => self.ended = true,
            NetlinkPayload::Overrun(_) => {
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            }
            _ => {}
        }
        Ok(())
    }

    /// All of it; an error when it broke off (the socket was closed), or is inconsistent (EINTR).
    fn whole(self) -> io::Result<Vec<Raw>> {
        if !self.ended {
            return Err(closed());
        }
        if self.interrupted {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        Ok(self.messages)
    }

    /// The one message that answers a question: nothing ends it, for nothing follows.
    fn first(self) -> io::Result<Raw> {
        self.messages.into_iter().next().ok_or_else(closed)
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

fn closed() -> io::Error {
    io::Error::other("the netlink socket was closed")
}

/// Asks the kernel.
#[derive(Debug)]
pub(super) struct Handle {
    connection: ConnectionHandle<Raw>,
    talk: JoinHandle<()>,
    /// A request went out whose answer did not come, or not yet.
    unanswered: Cell<bool>,
}

impl Handle {
    /// Opens a socket. Must be called within a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = new_connection(NETLINK_ROUTE)?;
        // Lists can then ask for a part (Linux 4.20); older kernels list everything.
        let _ = connection
            .socket_mut()
            .socket_mut()
            .set_netlink_get_strict_chk(true);
        // Else an answer that broke off would look like one that ended.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        Ok(Self::of(handle, tokio::spawn(connection)))
    }

    fn of(connection: ConnectionHandle<Raw>, talk: JoinHandle<()>) -> Self {
        Self {
            connection,
            talk,
            unanswered: Cell::new(false),
        }
    }

    /// A socket whose answers are all lost.
    #[cfg(test)]
    pub(super) fn mute() -> Self {
        let (talk, connection, _) = new_connection::<Raw>(NETLINK_ROUTE).unwrap();
        // It is kept, and never runs.
        let silent = async move {
            let _talk = talk;
            std::future::pending().await
        };
        Self::of(connection, tokio::spawn(silent))
    }

    /// True when the next request needs another socket: this one is closed, or left a request
    /// without its answer, also one that the caller waited for no longer.
    pub(super) fn is_broken(&self) -> bool {
        self.unanswered.get() || self.talk.is_finished()
    }

    /// Everything of this kind, or what of it the request names.
    pub(super) async fn list<H: Header>(&self, request: Message<H>) -> io::Result<Vec<Message<H>>> {
        let mut tries = 0;
        let listed = loop {
            tries += 1;
            let bytes = request.to_bytes();
            let answer = self.exchange(H::NEW + 2, NLM_F_DUMP, bytes).await?;
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
        let answer = self.exchange(H::NEW + 2, 0, request.to_bytes()).await?;
        read(&answer.first()?)
    }

    /// Adds what there must not be yet (EEXIST).
    pub(super) async fn add<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, NLM_F_CREATE | NLM_F_EXCL, message)
            .await
    }

    /// Adds, or puts in the place of what there is.
    pub(super) async fn replace<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, NLM_F_CREATE | NLM_F_REPLACE, message)
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
        let flags = NLM_F_ACK | flags;
        let answer = self.exchange(kind, flags, message.to_bytes()).await?;
        answer.whole().map(drop)
    }

    /// Sets what differs in what there is.
    pub(super) async fn set<H: Header>(&self, message: &Message<H>) -> io::Result<()> {
        self.change(H::NEW, 0, message).await
    }

    /// Sends a request and waits for what comes in answer to it, in bounded time.
    async fn exchange(&self, kind: u16, flags: u16, bytes: Vec<u8>) -> io::Result<Answer> {
        self.unanswered.set(true);
        let slow = |_| {
            let text = format!("the kernel gave no answer in {} s", PATIENCE.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let raw = Raw { kind, bytes };
        let request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(raw));
        let kernel = SocketAddr::new(0, 0);
        let sent = self.connection.request(request, kernel);
        let mut stream = sent.map_err(|_| closed())?;
        let mut answer = Answer::default();
        let mut outcome = Ok(());
        while let Some(message) = timeout(PATIENCE, stream.next()).await.map_err(slow)? {
            outcome = answer.take(message);
            if outcome.is_err() {
                break;
            }
        }
        // An error of the kernel's is an answer too.
        self.unanswered
            .set(outcome.is_ok() && !answer.ended && answer.messages.is_empty());
        outcome.map(|()| answer)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.talk.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use rtnetlink::packet_core::{DoneMessage, ErrorMessage};

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

    fn message(flags: u16, payload: NetlinkPayload<Raw>) -> NetlinkMessage<Raw> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, payload)
    }

    fn route() -> NetlinkPayload<Raw> {
        NetlinkPayload::InnerMessage(Raw {
            kind: libc::RTM_NEWROUTE,
            bytes: vec![0; 12],
        })
    }

    fn done(code: i32) -> NetlinkPayload<Raw> {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkPayload::Done(done)
    }

    fn error(code: i32) -> NetlinkPayload<Raw> {
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(code);
        NetlinkPayload::Error(error)
    }

    /// How many messages the whole answer has, or the number of its error; 0 for one without.
    fn judged<const N: usize>(messages: [(u16, NetlinkPayload<Raw>); N]) -> Result<usize, i32> {
        let mut answer = Answer::default();
        messages
            .into_iter()
            .try_for_each(|(flags, payload)| answer.take(message(flags, payload)))
            .and_then(|()| answer.whole())
            .map(|raws| raws.len())
            .map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    #[test]
    fn an_answer_counts_when_its_end_has_come() {
        assert_eq!(judged([(2, route()), (2, route()), (2, done(0))]), Ok(2));
        assert_eq!(judged([(0, error(0))]), Ok(0));
        assert_eq!(judged([(2, route())]), Err(0));
        assert_eq!(judged([]), Err(0));
    }

    #[test]
    fn an_answer_fails_as_its_end_says() {
        assert_eq!(judged([(0, error(-libc::EEXIST))]), Err(libc::EEXIST));
        let codes = [
            (-libc::EMSGSIZE, Err(libc::EMSGSIZE)),
            (i32::MIN, Err(i32::MAX)),
        ];
        for (code, outcome) in codes {
            assert_eq!(judged([(2, route()), (2, done(code))]), outcome);
        }
        let overrun = NetlinkPayload::Overrun(Vec::new());
        assert_eq!(judged([(2, route()), (0, overrun)]), Err(libc::ENOBUFS));
    }

    #[test]
    fn a_list_that_changed_meanwhile_does_not_count() {
        let late = 2 | NLM_F_DUMP_INTR;
        for flags in [[late, 2, 2], [2, late, 2], [2, 2, late]] {
            let [first, second, end] = flags;
            let list = [(first, route()), (second, route()), (end, done(0))];
            assert_eq!(judged(list), Err(libc::EINTR), "{flags:?}");
        }
    }

    #[test]
    fn a_question_has_one_answer_and_no_end() {
        let mut answer = Answer::default();
        assert!(Answer::default().first().is_err());
        answer.take(message(0, route())).unwrap();
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
    async fn socket_that_was_closed_is_broken() {
        let handle = Handle::open().unwrap();
        let links = || handle.list(Message::<LinkHeader>::default());
        assert!(!links().await.unwrap().is_empty());
        assert!(!handle.is_broken());
        handle.talk.abort();
        assert!(links().await.is_err());
        assert!(handle.is_broken());
    }
}
