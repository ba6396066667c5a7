//! rtnetlink (RFC 3549; linux/rtnetlink.h), as much of it as is spoken here. The connection is
//! netlink-proto's, the headers are netlink-packet-route's; the attributes stay bytes until one is
//! asked for. That crate's own messages know each attribute of every kind of device, queue and tunnel,
//! which was a fifth of a router's program, and fail as a whole when they cannot read a single one.

use std::convert::Infallible;
use std::io;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::packet_route::address::AddressHeader;
use rtnetlink::packet_route::link::LinkHeader;
use rtnetlink::packet_route::neighbour::NeighbourHeader;
use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::packet_route::rule::RuleHeader;
use rtnetlink::proto::{Connection, ConnectionHandle, new_connection};
use rtnetlink::sys::SocketAddr;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::attributes::Attributes;

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
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.header.buffer_len()];
        self.header.emit(&mut bytes);
        bytes.extend_from_slice(&self.attributes.0);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
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

/// Asks the kernel, by a [`Connection`] that somebody has to poll.
#[derive(Debug)]
pub(super) struct Handle(ConnectionHandle<Raw>);

impl Handle {
    /// Opens a socket.
    pub(super) fn open() -> io::Result<(Connection<Raw>, Self)> {
        let (connection, handle, _) = new_connection(NETLINK_ROUTE)?;
        Ok((connection, Self(handle)))
    }

    /// Everything of this kind, or what of it the request names.
    pub(super) async fn list<H: Header>(&self, request: Message<H>) -> io::Result<Vec<Message<H>>> {
        self.get(NLM_F_DUMP, request).await
    }

    /// The answer to one question.
    pub(super) async fn ask<H: Header>(&self, request: Message<H>) -> io::Result<Message<H>> {
        let answers = self.get(0, request).await?;
        let none = || io::Error::other("the kernel gave no answer");
        answers.into_iter().next().ok_or_else(none)
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

    async fn get<H: Header>(&self, flags: u16, request: Message<H>) -> io::Result<Vec<Message<H>>> {
        let answers = self.exchange(H::NEW + 2, flags, request.to_bytes()).await?;
        let listed = answers.iter().filter(|answer| answer.kind == H::NEW);
        let parse = |answer: &Raw| Message::parse(&answer.bytes);
        Ok(listed.filter_map(parse).collect())
    }

    async fn change<H: Header>(
        &self,
        kind: u16,
        flags: u16,
        message: &Message<H>,
    ) -> io::Result<()> {
        let flags = NLM_F_ACK | flags;
        self.exchange(kind, flags, message.to_bytes()).await?;
        Ok(())
    }

    /// Sends a request and waits for all of its answer.
    async fn exchange(&self, kind: u16, flags: u16, bytes: Vec<u8>) -> io::Result<Vec<Raw>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let raw = Raw { kind, bytes };
        let request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(raw));
        let closed = |_| io::Error::other("the netlink socket was closed");
        let kernel = SocketAddr::new(0, 0);
        let mut stream = self.0.request(request, kernel).map_err(closed)?;
        let mut answers = Vec::new();
        while let Some(answer) = stream.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(raw) => answers.push(raw),
                // Prints as the kernel's words and number.
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(answers)
    }
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
    }
}
