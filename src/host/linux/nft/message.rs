//! The messages of nf_tables' netlink (linux/netfilter/nfnetlink.h, nf_tables.h).

use super::super::attributes::Attributes;

/// One message's header and its nfgenmsg, bytes.
pub(super) const HEADER: usize = 20;

/// NLM_F_* flags (linux/netlink.h).
pub(super) mod flag {
    /// Every request has it.
    pub(in super::super) const REQUEST: u16 = 0x1;
    /// An answer is wanted even when all went well.
    pub(in super::super) const ACK: u16 = 0x4;
    /// What was listed changed meanwhile.
    pub(in super::super) const INTERRUPTED: u16 = 0x10;
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
/// NFNL_MSG_BATCH_BEGIN.
pub(super) const BATCH_BEGIN: u16 = 16;
/// NFNL_MSG_BATCH_END.
pub(super) const BATCH_END: u16 = 17;
/// NFNL_SUBSYS_NFTABLES.
pub(super) const SUBSYSTEM: u16 = 10;
/// NFPROTO_UNSPEC.
pub(super) const FAMILY_ANY: u8 = 0;
/// NFPROTO_INET: IPv4 and IPv6 in one table (Linux 5.2 for NAT).
pub(super) const FAMILY_INET: u8 = 1;

/// NFT_MSG_*: what is asked of nf_tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Verb {
    /// Add a table.
    NewTable = 0,
    /// List a table.
    GetTable = 1,
    /// Delete a table with all in it.
    DeleteTable = 2,
    /// Add a chain.
    NewChain = 3,
    /// List chains.
    GetChain = 4,
    /// Add a rule.
    NewRule = 6,
    /// List rules.
    GetRule = 7,
    /// Add a set or a map.
    NewSet = 9,
    /// List sets and maps.
    GetSet = 10,
    /// Add elements to a set.
    NewSetElement = 12,
    /// List the elements of a set.
    GetSetElement = 13,
}

impl Verb {
    /// The message's type: the subsystem in the upper byte.
    pub(super) fn kind(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Adds one message to a datagram.
pub(super) fn push(
    datagram: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &Attributes,
) {
    let length = u32::try_from(HEADER + attributes.0.len()).unwrap_or(u32::MAX);
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&kind.to_ne_bytes());
    datagram.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&[0; 4]); // the port of the sender: the kernel knows it
    datagram.extend_from_slice(&[family, 0]); // NFNETLINK_V0
    datagram.extend_from_slice(&resource.to_be_bytes());
    datagram.extend_from_slice(&attributes.0);
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
    /// What comes after the netlink header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The error number of an [`ERROR`] message, 0 for a mere acknowledgement.
    pub(super) fn error(&self) -> i32 {
        self.payload
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code).saturating_neg())
    }

    /// The attributes behind the nfgenmsg, as a run.
    pub(super) fn body(&self) -> &'a [u8] {
        self.payload.get(4..).unwrap_or_default()
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
            payload: whole.get(16..)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::attributes::{attributes, text};
    use super::*;

    #[test]
    fn written_is_read() {
        let run = Attributes::new().text(1, "nc0");
        let mut datagram = Vec::new();
        for sequence in [5, 6] {
            push(
                &mut datagram,
                Verb::NewRule.kind(),
                flag::ACK,
                sequence,
                (FAMILY_INET, 0),
                &run,
            );
        }
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].sequence), (0x0a06, 6));
        let listed: Vec<_> = attributes(read[0].body()).collect();
        assert_eq!(text(listed[0].1), "nc0");
    }

    #[test]
    fn broken_input_ends() {
        let mut datagram = Vec::new();
        push(
            &mut datagram,
            ERROR,
            0,
            1,
            (FAMILY_ANY, 0),
            &Attributes::new().text(1, "table"),
        );
        for end in 0..datagram.len() {
            assert_eq!(messages(&datagram[..end]).count(), 0, "{end}");
        }
        // Lengths of nothing must not loop for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
