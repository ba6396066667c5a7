//! Netlink's attributes (linux/netlink.h, struct nlattr): runs of type, length and value, written and
//! read one by one. Lengths and types are in the host's byte order.

use std::net::IpAddr;

/// A run of attributes in the making, or as the kernel sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(pub(super) Vec<u8>);

impl Attributes {
    /// None yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they are.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Values here are names, numbers, and rules of some hundred bytes.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in network byte order, as nf_tables has them.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a number in the host's byte order, as rtnetlink has them.
    pub(super) fn native(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds an address, 4 or 16 bytes.
    pub(super) fn ip(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(kind, &address.octets()),
            IpAddr::V6(address) => self.bytes(kind, &address.octets()),
        }
    }

    /// Adds a name, with its NUL.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds attributes within an attribute. Without NLA_F_NESTED: nf_tables does not ask for it
    /// and lists its own expressions without, so that what is sent and listed compare equal.
    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind, &inner.0)
    }

    /// Adds the attributes of another run.
    pub(super) fn join(mut self, more: &Self) -> Self {
        self.0.extend_from_slice(&more.0);
        self
    }

    /// Type and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(&self.0)
    }

    /// The value of the first of this type.
    pub(super) fn find(&self, kind: u16) -> Option<&[u8]> {
        find(&self.0, kind)
    }
}

/// The attributes of a run, type and value, without the flag bits of the type; ends at the first that
/// is broken.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let whole = rest.get(..length)?;
        let kind = u16::from_ne_bytes(*whole.get(2..)?.first_chunk()?);
        let value = whole.get(4..)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // NLA_TYPE_MASK: the two upper bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        Some((kind & 0x3fff, value))
    })
}

/// The value of the first attribute of this type.
pub(super) fn find(run: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(run).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// A name without its NUL.
pub(super) fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// A number in the host's byte order.
pub(super) fn native(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// An IP address; nothing for a label, a link-layer address and the like.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_is_read() {
        let addresses = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([1; 16])];
        let run = Attributes::new()
            .text(1, "nc0")
            .number(2, 7)
            .nest(3, &Attributes::new().bytes(0x4001, &[9]))
            .native(4, 7)
            .ip(5, addresses[0])
            .ip(6, addresses[1]);
        let listed: Vec<_> = run.iter().collect();
        assert_eq!(text(listed[0].1), "nc0");
        assert_eq!(listed[1], (2, &[0, 0, 0, 7][..]));
        assert_eq!(find(listed[2].1, 1), Some(&[9][..]));
        assert_eq!(run.find(4).and_then(native), Some(7));
        assert_eq!(
            [5, 6].map(|kind| run.find(kind).and_then(ip)),
            addresses.map(Some)
        );
        assert_eq!(run.find(7), None);
        assert_eq!((native(&[1]), ip(&[1; 5])), (None, None));
    }

    #[test]
    fn broken_input_ends() {
        let run = Attributes::new().text(1, "device");
        for end in 0..4 + "device".len() {
            assert_eq!(attributes(&run.0[..end]).count(), 0, "{end}");
        }
        // Lengths of nothing must not loop for ever.
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }
}
