//! The described packet, and what a rule can ask of it.

use std::net::IpAddr;

use super::Source;

/// NF_CT_STATE_BIT of nf_conntrack_common.h: the first packet of a connection.
pub(super) const NEW: u32 = 8;
/// After the first answer.
pub(super) const ESTABLISHED: u32 = 2;
/// Without connection tracking.
pub(super) const UNTRACKED: u32 = 64;

/// IPS_DST_NAT: the destination was translated.
const STATUS_TRANSLATED: u32 = 0x20;
/// IPS_CONFIRMED, IPS_ASSURED, IPS_SEEN_REPLY.
const STATUS_ANSWERED: u32 = 0xe;
/// IPPROTO_TCP.
const TCP: u8 = 6;

/// A byte of the packet, where it is known.
pub(super) type Byte = Option<u8>;

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its name.
    pub(super) name: String,
    /// Its index; u32::MAX is nobody's.
    pub(super) index: u32,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To this host.
    In,
    /// Through it.
    Through,
    /// From it.
    Out,
}

impl Way {
    /// The hooks that it comes by (NF_INET_*).
    pub(super) fn hooks(self) -> &'static [u8] {
        match self {
            Self::In => &[0, 1],
            Self::Through => &[0, 2, 4],
            Self::Out => &[3, 4],
        }
    }
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// Where it goes.
    pub(super) way: Way,
    /// It comes by this device.
    pub(super) iif: Option<Device>,
    /// It leaves by this device.
    pub(super) oif: Option<Device>,
    /// From there.
    pub(super) from: IpAddr,
    /// To there, of the same family.
    pub(super) to: IpAddr,
    /// IPPROTO_*.
    pub(super) protocol: u8,
    /// Source and destination.
    pub(super) ports: [u16; 2],
    /// One of the states.
    pub(super) state: u32,
    /// Its destination was translated.
    pub(super) translated: bool,
}

impl Probe {
    /// What a rule at this hook gets when it asks; `marked`: others write marks.
    pub(super) fn field(&self, hook: u8, marked: bool, source: Source) -> Option<Vec<Byte>> {
        let iif = self.iif.as_ref().filter(|_| hook != 3);
        let oif = self.oif.as_ref().filter(|_| hook > 1);
        let v4 = self.from.is_ipv4();
        let name = |device: Option<&Device>| {
            known(&super::padded(device.map_or("", |device| &device.name)))
        };
        let index =
            |device: Option<&Device>| known(&device.map_or(0, |device| device.index).to_ne_bytes());
        let number = |number: u32| known(&number.to_ne_bytes());
        Some(match source {
            // NFT_META_*: protocol, mark, iif, oif, iifname, oifname.
            Source::Meta(1) if v4 => known(&[8, 0]),
            Source::Meta(1) => known(&[0x86, 0xdd]),
            Source::Meta(3) if !marked => number(0),
            Source::Meta(4) => index(iif),
            Source::Meta(5) => index(oif),
            Source::Meta(6) => name(iif),
            Source::Meta(7) => name(oif),
            // nfproto, l4proto, pkttype (PACKET_HOST), secpath.
            Source::Meta(15) => known(&[if v4 { 2 } else { 10 }]),
            Source::Meta(16) => known(&[self.protocol]),
            Source::Meta(19 | 25) => known(&[0]),
            // iifgroup and oifgroup: everybody's is 0 until somebody gives it another.
            Source::Meta(21 | 22) => return None,
            // NFT_CT_*: state, direction, status, mark, protocol family and number.
            Source::Ct(0) => number(self.state),
            Source::Ct(1) if self.state == NEW => known(&[0]),
            Source::Ct(2) => number(self.status()),
            Source::Ct(3) if !marked => number(0),
            Source::Ct(7) => known(&[if v4 { 2 } else { 10 }]),
            Source::Ct(10) => known(&[self.protocol]),
            // NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER.
            Source::Header(1, offset, length) => part(&self.network_header(), offset, length)?,
            Source::Header(2, offset, length) => part(&self.transport_header(), offset, length)?,
            // RTN_LOCAL.
            Source::DestinationKind if hook == 1 => number(2),
            Source::Meta(_) | Source::Ct(_) | Source::Header(..) | Source::DestinationKind => {
                return None;
            }
        })
    }

    pub(super) fn status(&self) -> u32 {
        let answered = u32::from(self.state == ESTABLISHED) * STATUS_ANSWERED;
        answered | (u32::from(self.translated) * STATUS_TRANSLATED)
    }

    /// RFC 791 section 3.1, RFC 8200 section 3. Identification, length and checksum are anything.
    fn network_header(&self) -> Vec<Byte> {
        let mut bytes = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut bytes = vec![None; 20];
                put(&mut bytes, 0, &[0x45, 0]);
                put(&mut bytes, 6, &[0x40, 0, 60, self.protocol]);
                put(&mut bytes, 12, &from.octets());
                put(&mut bytes, 16, &to.octets());
                return bytes;
            }
            _ => vec![None; 40],
        };
        put(&mut bytes, 0, &[0x60]);
        put(&mut bytes, 6, &[self.protocol, 60]);
        for (at, address) in [(8, self.from), (24, self.to)] {
            if let IpAddr::V6(address) = address {
                put(&mut bytes, at, &address.octets());
            }
        }
        bytes
    }

    fn transport_header(&self) -> Vec<Byte> {
        let mut bytes = vec![None; 20];
        put(&mut bytes, 0, &self.ports[0].to_be_bytes());
        put(&mut bytes, 2, &self.ports[1].to_be_bytes());
        if self.protocol == TCP {
            put(&mut bytes, 13, &[self.flags()]);
        }
        bytes
    }

    /// SYN for the first, then ACK (RFC 9293 section 3.1).
    pub(super) fn flags(&self) -> u8 {
        if self.state == ESTABLISHED { 0x10 } else { 2 }
    }
}

fn known(bytes: &[u8]) -> Vec<Byte> {
    bytes.iter().copied().map(Some).collect()
}

fn put(bytes: &mut [Byte], at: usize, value: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(at).zip(value) {
        *byte = Some(*value);
    }
}

fn part(bytes: &[Byte], offset: usize, length: usize) -> Option<Vec<Byte>> {
    Some(bytes.get(offset..offset.checked_add(length)?)?.to_vec())
}
