//! Which flow a packet belongs to: a keyed hash of its addresses, protocol and ports.

use std::hash::{DefaultHasher, Hasher};

use super::ip::is_packet;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// UDP-Lite, SCTP and DCCP have their ports where UDP has them.
const OTHERS_WITH_PORTS: [u8; 3] = [136, 132, 33];

/// A hash that packets of one flow share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowHash(pub u32);

/// Hashes packets to flows, with a secret of this process, so that nobody outside can aim at
/// another flow's bucket.
#[derive(Debug, Clone, Copy)]
pub struct FlowHasher {
    secret: u64,
    /// The last one's: a super-packet's packets follow each other.
    last: Option<(Key, FlowHash)>,
}

/// What tells flows apart: version and protocol, addresses, ports (zero where there are none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    kind: [u8; 2],
    addresses: [u8; 32],
    ports: [u8; 4],
}

impl FlowHasher {
    /// A hasher with a secret.
    pub fn new(secret: u64) -> Self {
        Self { secret, last: None }
    }

    /// The flow of an IP packet; nothing when the bytes are no IP packet, whole and of the length
    /// they say.
    pub fn flow(&mut self, packet: &[u8]) -> Option<FlowHash> {
        if !is_packet(packet) {
            return None;
        }
        let key = match packet.first()? >> 4 {
            4 => key_v4(packet)?,
            _ => key_v6(packet)?,
        };
        if let Some((last, hash)) = self.last
            && last == key
        {
            return Some(hash);
        }
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write(&key.kind);
        hasher.write(&key.addresses);
        hasher.write(&key.ports);
        let hash = FlowHash(hasher.finish() as u32);
        self.last = Some((key, hash));
        Some(hash)
    }
}

fn key_v4(packet: &[u8]) -> Option<Key> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let protocol = header[9];
    let mut addresses = [0; 32];
    addresses[..8].copy_from_slice(&header[12..20]);
    // A fragment, even the first one, goes without ports: all of them must share the flow.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    Some(Key {
        kind: [4, protocol],
        addresses,
        ports: if fragment {
            [0; 4]
        } else {
            ports(protocol, &packet[header_len..])
        },
    })
}

fn key_v6(packet: &[u8]) -> Option<Key> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let next_header = header[6];
    let mut addresses = [0; 32];
    addresses.copy_from_slice(&header[8..]);
    Some(Key {
        kind: [6, next_header],
        addresses,
        // Behind extension headers ports are not looked for: such flows are rare and only share a
        // bucket.
        ports: ports(next_header, &packet[40..]),
    })
}

fn ports(protocol: u8, payload: &[u8]) -> [u8; 4] {
    let has_ports = matches!(protocol, TCP | UDP) || OTHERS_WITH_PORTS.contains(&protocol);
    let ports = payload.first_chunk().filter(|_| has_ports);
    ports.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn udp4(source_port: u16, fragment: u16) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 1, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend_from_slice(&source_port.to_be_bytes());
        packet.extend_from_slice(&[0, 53, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn flows_differ_by_port_and_fragments_do_not() {
        let mut hasher = FlowHasher::new(7);
        let mut flow = |packet: &[u8]| hasher.flow(packet).unwrap();
        assert_eq!(flow(&udp4(1000, 0)), flow(&udp4(1000, 0)));
        assert_ne!(flow(&udp4(1000, 0)), flow(&udp4(1001, 0)));
        assert_eq!(flow(&udp4(1000, 0x2000)), flow(&udp4(1001, 0x00b9)));
        assert_ne!(
            FlowHasher::new(8).flow(&udp4(1000, 0)),
            hasher.flow(&udp4(1000, 0))
        );
    }

    #[test]
    fn what_is_no_packet_has_no_flow() {
        let mut hasher = FlowHasher::new(7);
        let good = udp4(1, 0);
        assert!(hasher.flow(&good).is_some());
        assert_eq!(hasher.flow(&good[..27]), None);
        assert_eq!(hasher.flow(&[]), None);
        assert_eq!(hasher.flow(&[0x50; 60]), None);
        let mut short_header = good;
        short_header[0] = 0x44;
        assert_eq!(hasher.flow(&short_header), None);
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            FlowHasher::new(1).flow(&bytes);
        }
    }
}
