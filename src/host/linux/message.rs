//! The framing of netlink (RFC 3549 section 2.2; linux/netlink.h): messages in datagrams, written and
//! read one by one.

use std::io;

/// struct nlmsghdr, bytes.
const HEADER: usize = 16;

/// NLM_F_* flags (linux/netlink.h).
pub(super) mod flag {
    /// Every request has it.
    pub(in super::super) const REQUEST: u16 = 0x1;
    /// One of several, whose end is [`super::DONE`].
    pub(in super::super) const MULTI: u16 = 0x2;
    /// An answer is wanted even when all went well.
    pub(in super::super) const ACK: u16 = 0x4;
    /// What was listed changed meanwhile.
    pub(in super::super) const INTERRUPTED: u16 = 0x10;
    /// Put it in the place of what there is.
    pub(in super::super) const REPLACE: u16 = 0x100;
    /// There must not be one yet.
    pub(in super::super) const EXCLUSIVE: u16 = 0x200;
    /// All of them.
    pub(in super::super) const DUMP: u16 = 0x300;
    /// Make it when it is not there.
    pub(in super::super) const CREATE: u16 = 0x400;
    /// Put it behind the others.
    pub(in super::super) const APPEND: u16 = 0x800;
}

/// NLMSG_ERROR: also the acknowledgement, with error 0.
pub(super) const ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump.
pub(super) const DONE: u16 = 3;
/// NLMSG_OVERRUN: something of the answer is lost.
pub(super) const OVERRUN: u16 = 4;
/// NLMSG_MIN_TYPE: the first type that is no control message.
pub(super) const FIRST: u16 = 16;

/// Adds one request to a datagram: its header, and what it is made of.
pub(super) fn push(datagram: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: [&[u8]; 2]) {
    let length = HEADER + body[0].len() + body[1].len();
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&kind.to_ne_bytes());
    datagram.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&[0; 4]); // the port of the sender: the kernel knows it
    for part in body {
        datagram.extend_from_slice(part);
    }
}

/// A message read from the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// What it says of itself.
    pub(super) flags: u16,
    /// Of the request that it answers.
    pub(super) sequence: u32,
    /// The number of the socket whose request it answers, or which made the change that it reports.
    pub(super) port: u32,
    /// What comes after the header.
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// What an [`ERROR`] or [`DONE`] message says: an error, unless it is a mere acknowledgement.
    pub(super) fn outcome(&self) -> io::Result<()> {
        let code = self.payload.first_chunk().copied();
        match code.map_or(0, i32::from_ne_bytes) {
            0.. => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        }
    }
}

/// The messages of a datagram; stops at the first that is broken.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let whole = rest.get(..length)?;
        let message = Message {
            kind: u16::from_ne_bytes(*whole.get(4..)?.first_chunk()?),
            flags: u16::from_ne_bytes(*whole.get(6..)?.first_chunk()?),
            sequence: u32::from_ne_bytes(*whole.get(8..)?.first_chunk()?),
            port: u32::from_ne_bytes(*whole.get(12..)?.first_chunk()?),
            payload: whole.get(HEADER..)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_is_read() {
        let mut datagram = Vec::new();
        for sequence in [5, 6] {
            push(
                &mut datagram,
                0x0a06,
                flag::ACK,
                sequence,
                [&[1; 4], b"rest"],
            );
        }
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[1].kind, read[1].flags, read[1].sequence),
            (0x0a06, 5, 6)
        );
        assert_eq!(read[0].payload, b"\x01\x01\x01\x01rest");
    }

    #[test]
    fn broken_input_ends() {
        let mut datagram = Vec::new();
        push(&mut datagram, ERROR, 0, 1, [&[0; 4], b"some"]);
        for end in 0..datagram.len() {
            assert_eq!(messages(&datagram[..end]).count(), 0, "{end}");
        }
        // Lengths of nothing must not loop for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn an_error_is_told_by_its_number() {
        let outcome = |code: i32| {
            let mut datagram = Vec::new();
            push(&mut datagram, ERROR, 0, 1, [&code.to_ne_bytes(), &[]]);
            let outcome = messages(&datagram).next().unwrap().outcome();
            outcome.map_err(|error| error.raw_os_error())
        };
        assert_eq!(outcome(0), Ok(()));
        assert_eq!(outcome(-libc::EEXIST), Err(Some(libc::EEXIST)));
        assert_eq!(outcome(i32::MIN), Err(Some(i32::MAX)));
    }
}
