//! Packets made, checked and cut in the plainest way: nothing here is shared with what is tested.

/// A TCP or UDP packet by its fields.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    pub(super) is_v6: bool,
    pub(super) is_tcp: bool,
    /// The last byte of both addresses, and the source port's.
    pub(super) flow: u8,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) id: u16,
    /// IPv4's flags and fragment place.
    pub(super) fragment: u16,
    /// IPv4's options or IPv6's destination options header; a multiple of 4 or of 8 bytes.
    pub(super) between: Vec<u8>,
    pub(super) sequence: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Plain {
    pub(super) fn new(is_v6: bool, is_tcp: bool) -> Self {
        Self {
            is_v6,
            is_tcp,
            flow: 1,
            tos: 0,
            ttl: 64,
            id: 0xfffe,
            fragment: 0x4000,
            between: Vec::new(),
            sequence: 0xffff_ff00,
            ack: 77,
            flags: 0x10,
            window: 501,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: Vec::new(),
        }
    }

    fn ip(&self, protocol: u8, behind: usize) -> Vec<u8> {
        let mut ip = Vec::new();
        let behind = behind + self.between.len();
        if self.is_v6 {
            ip.extend([0x60 | self.tos >> 4, self.tos << 4, 0x12, 0x34]);
            ip.extend((behind as u16).to_be_bytes());
            ip.extend([
                if self.between.is_empty() {
                    protocol
                } else {
                    60
                },
                self.ttl,
            ]);
            ip.extend([0x20; 15]);
            ip.push(self.flow);
            ip.extend([0x30; 15]);
            ip.push(self.flow);
            ip.extend(&self.between);
            if !self.between.is_empty() {
                ip[40] = protocol;
                ip[41] = (self.between.len() / 8 - 1) as u8;
            }
        } else {
            ip.extend([0x45 + (self.between.len() / 4) as u8, self.tos]);
            ip.extend(((20 + behind) as u16).to_be_bytes());
            ip.extend(self.id.to_be_bytes());
            ip.extend(self.fragment.to_be_bytes());
            ip.extend([self.ttl, protocol, 0, 0]);
            ip.extend([10, 0, 0, self.flow, 10, 0, 1, self.flow]);
            ip.extend(&self.between);
            let sum = !plain_sum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        ip
    }

    /// The transport's header, checksum zero.
    fn header(&self) -> Vec<u8> {
        let mut header = vec![0x9c, self.flow, 0x01, 0xbb];
        if self.is_tcp {
            header.extend(self.sequence.to_be_bytes());
            header.extend(self.ack.to_be_bytes());
            header.push((((20 + self.options.len()) / 4) << 4) as u8);
            header.push(self.flags);
            header.extend(self.window.to_be_bytes());
            header.extend([0, 0]);
            header.extend(self.urgent.to_be_bytes());
            header.extend(&self.options);
        } else {
            header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            header.extend([0, 0]);
        }
        header
    }

    pub(super) fn checksum_at(&self) -> usize {
        let at = if self.is_tcp { 16 } else { 6 };
        at + self.between.len() + if self.is_v6 { 40 } else { 20 }
    }

    fn pseudo(&self, ip: &[u8], length: usize) -> Vec<u8> {
        let addresses = if self.is_v6 { 8..40 } else { 12..20 };
        let mut pseudo = ip[addresses].to_vec();
        pseudo.extend([0, if self.is_tcp { 6 } else { 17 }]);
        pseudo.extend((length as u16).to_be_bytes());
        pseudo
    }

    /// The whole packet, both checksums right.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut behind = self.header();
        behind.extend(&self.payload);
        let mut packet = self.ip(if self.is_tcp { 6 } else { 17 }, behind.len());
        let mut summed = self.pseudo(&packet, behind.len());
        summed.extend(&behind);
        let mut sum = !plain_sum(&summed);
        if sum == 0 && !self.is_tcp {
            sum = 0xffff;
        }
        packet.extend(&behind);
        let at = self.checksum_at();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The whole packet as the kernel gives it with the checksum still to be completed.
    pub(super) fn with_partial_checksum(&self) -> Vec<u8> {
        let mut packet = self.bytes();
        let start = self.checksum_at() - if self.is_tcp { 16 } else { 6 };
        let sum = plain_sum(&self.pseudo(&packet, packet.len() - start));
        let at = self.checksum_at();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The segments, each made from its fields.
    pub(super) fn segments(&self, size: usize) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        let count = self.payload.len().div_ceil(size);
        for (number, payload) in self.payload.chunks(size).enumerate() {
            let mut segment = self.clone();
            segment.payload = payload.to_vec();
            segment.id = self.id.wrapping_add(number as u16);
            segment.sequence = self.sequence.wrapping_add((number * size) as u32);
            if number != 0 {
                segment.flags &= 0x7f;
            }
            if number != count - 1 {
                segment.flags &= 0xff - 0x09;
            }
            segments.push(segment.bytes());
        }
        segments
    }
}

/// RFC 1071, word by word.
pub(super) fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
