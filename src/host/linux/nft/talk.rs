//! Transactions and questions over a socket to nf_tables.

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt::set_socket_send_buffer_size_force;
use socket2::SockRef;

use super::super::attributes::Attributes;
use super::super::netlink::PATIENCE;
use super::encode::TABLE;
use super::message::{self, BATCH_BEGIN, BATCH_END, FAMILY_ANY, FAMILY_INET, Verb, flag};

/// Where the flags of a message stand (struct nlmsghdr).
const FLAGS: usize = 6;

/// A transaction in the making. It is one datagram, or the kernel would not take it as one.
pub(super) struct Batch {
    datagram: Vec<u8>,
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    pub(super) fn begin() -> Self {
        let mut batch = Self {
            datagram: Vec::new(),
            sequence: 0,
            last: 0,
        };
        batch.frame(BATCH_BEGIN);
        batch
    }

    /// Begins or ends the batch: the "resource" is the subsystem that it is for.
    fn frame(&mut self, kind: u16) {
        message::push(
            &mut self.datagram,
            kind,
            0,
            self.sequence,
            (FAMILY_ANY, message::SUBSYSTEM),
            &Attributes::new(),
        );
        self.sequence += 1;
    }

    pub(super) fn add(&mut self, verb: Verb, flags: u16, attributes: &Attributes) {
        self.last = self.datagram.len();
        message::push(
            &mut self.datagram,
            verb.kind(),
            flags,
            self.sequence,
            (FAMILY_INET, 0),
            attributes,
        );
        self.sequence += 1;
    }

    /// Leaves no table of this name, whether there was one or not: deleting one that is not there
    /// would be an error.
    pub(super) fn empty_table(&mut self, table: &str) {
        let attributes = Attributes::new().text(TABLE, table);
        self.add(Verb::NewTable, flag::CREATE, &attributes);
        self.add(Verb::DeleteTable, 0, &attributes);
    }

    /// Sends all; the kernel does all or nothing. It is asked to acknowledge the last message
    /// alone, as thousands of answers would not fit into the socket; errors come unasked.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let last = self.sequence - 1;
        if let Some(low) = self.datagram.get_mut(self.last + FLAGS..)
            && let Some(flags) = low.first_chunk_mut()
        {
            *flags = (u16::from_ne_bytes(*flags) | flag::ACK).to_ne_bytes();
        }
        self.frame(BATCH_END);
        let socket = open()?;
        // A datagram larger than the buffer is refused ("Message too long"), and the usual limit
        // (net.core.wmem_max) is 208 KiB. Where a user namespace may not go beyond it, what is
        // larger is refused by `send`.
        let _ = set_socket_send_buffer_size_force(&socket, 2 * self.datagram.len());
        socket.send(&self.datagram, 0)?;
        loop {
            let (answer, _) = socket.recv_from_full()?;
            for message in message::messages(&answer) {
                if message.kind != message::ERROR {
                    continue;
                }
                message.outcome()?;
                if message.sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

/// Asks for tables, chains, rules, sets or elements; gives the attributes of each. EINTR: they
/// changed while they were listed.
pub(super) fn ask(verb: Verb, flags: u16, attributes: &Attributes) -> io::Result<Vec<Vec<u8>>> {
    let mut datagram = Vec::new();
    message::push(
        &mut datagram,
        verb.kind(),
        flags,
        1,
        (FAMILY_INET, 0),
        attributes,
    );
    let socket = open()?;
    socket.send(&datagram, 0)?;
    let mut answers = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            if message.flags & flag::INTERRUPTED != 0 {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            match message.kind {
                message::DONE | message::ERROR => return message.outcome().map(|()| answers),
                _ => answers.push(message::body(message.payload).to_vec()),
            }
        }
    }
}

/// A socket to the kernel alone, one for each exchange: nothing is left over for the next.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // An error does not repeat the message that it is about, which may be large. Older kernels
    // than 4.3 do not know this.
    let _ = socket.set_cap_ack(true);
    // The answer is there when the request has been sent, or it was lost.
    SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
