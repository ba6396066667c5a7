//! Is a packet one of these kinds? A look at a few bytes for each, no allocation.

use crate::config::{Class, PortProtocol};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

/// Kinds of packets.
#[derive(Debug, Clone, Default)]
pub struct Classes(Vec<Class>);

impl Classes {
    /// These kinds.
    pub fn new(classes: Vec<Class>) -> Self {
        Self(classes)
    }

    /// True when an IP packet is one of them. A fragment behind the first has no ports, nor has what
    /// lies behind IPv6 extension headers.
    pub fn contain(&self, packet: &[u8]) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some(view) = View::of(packet) else {
            return false;
        };
        self.0.iter().any(|class| view.is(class))
    }
}

struct View {
    dscp: u8,
    protocol: u8,
    /// Source and destination.
    ports: Option<[u16; 2]>,
}

impl View {
    fn of(packet: &[u8]) -> Option<Self> {
        let (dscp, protocol, payload) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; 20] = packet.first_chunk()?;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
                let payload = packet.get(usize::from(header[0] & 0x0f) * 4..);
                (header[1] >> 2, header[9], payload.filter(|_| fragment == 0))
            }
            6 => {
                let header: &[u8; 40] = packet.first_chunk()?;
                let traffic_class = (header[0] << 4) | (header[1] >> 4);
                (traffic_class >> 2, header[6], packet.get(40..))
            }
            _ => return None,
        };
        let ports = payload
            .and_then(|payload| payload.first_chunk::<4>())
            .filter(|_| matches!(protocol, TCP | UDP))
            .map(|[a, b, c, d]| [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]);
        Some(Self {
            dscp,
            protocol,
            ports,
        })
    }

    fn is(&self, class: &Class) -> bool {
        match *class {
            Class::All => true,
            Class::Icmp => matches!(self.protocol, ICMP | ICMP_V6),
            Class::Dscp(code) => self.dscp == code,
            Class::Ports {
                protocol,
                first,
                last,
            } => {
                let number = match protocol {
                    PortProtocol::Tcp => TCP,
                    PortProtocol::Udp => UDP,
                };
                let within = |port: &u16| (first..=last).contains(port);
                self.protocol == number && self.ports.iter().flatten().any(within)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classes(texts: &[&str]) -> Classes {
        Classes::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn v4(protocol: u8, tos: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        ports
            .iter()
            .for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend([0, 8, 0, 0]);
        packet
    }

    fn v6(next: u8, class: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 8, next, 64];
        packet.resize(40, 0);
        ports
            .iter()
            .for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend([0, 8, 0, 0]);
        packet
    }

    #[test]
    fn by_port_code_point_and_protocol() {
        let calls = classes(&["udp:5004-5060", "dscp:ef", "icmp"]);
        for make in [v4, v6] {
            assert!(calls.contain(&make(UDP, 0, [5060, 9])));
            assert!(calls.contain(&make(UDP, 0, [9, 5004])));
            assert!(!calls.contain(&make(UDP, 0, [5061, 5003])));
            assert!(!calls.contain(&make(TCP, 0, [5060, 5060])));
            assert!(calls.contain(&make(TCP, 46 << 2 | 1, [1, 1])));
            assert!(!calls.contain(&make(TCP, 45 << 2, [1, 1])));
        }
        assert!(calls.contain(&v4(ICMP, 0, [0, 0])) && calls.contain(&v6(ICMP_V6, 0, [0, 0])));
        let mut fragment = v4(UDP, 0, [5060, 5060]);
        fragment[7] = 1;
        assert!(!calls.contain(&fragment));
        assert!(classes(&["all"]).contain(&fragment));
        assert!(!Classes::default().contain(&v4(UDP, 0, [5060, 5060])));
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            classes(&["udp:1", "dscp:0", "icmp"]).contain(&bytes);
        }
    }
}
