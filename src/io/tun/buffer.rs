//! The memory that a TUN is read into.

use std::io;

use crate::packet::offload::virtio::VIRTIO_HEADER_LEN;
use crate::packet::offload::{LONGEST, Segments, SplitError, VirtioHeader};

/// One packet or super-packet of the kernel: 64 KiB, made once.
#[derive(Debug)]
pub struct TunBuffer {
    /// The header, and behind it the packet.
    storage: Vec<u8>,
    filled: usize,
}

impl Default for TunBuffer {
    fn default() -> Self {
        Self {
            storage: vec![0; VIRTIO_HEADER_LEN + LONGEST],
            filled: 0,
        }
    }
}

impl TunBuffer {
    /// Lets `read` put something in, with its header or without.
    pub(super) fn fill(
        &mut self,
        header: bool,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let begin = if header { 0 } else { VIRTIO_HEADER_LEN };
        self.storage[..VIRTIO_HEADER_LEN].fill(0);
        self.filled = 0;
        self.filled = begin + read(&mut self.storage[begin..])?;
        Ok(())
    }

    /// The packets of what was read last.
    ///
    /// # Errors
    /// When it is not what its header says.
    pub fn segments(&self) -> Result<Segments<'_>, SplitError> {
        let (header, packet) = self
            .storage
            .get(..self.filled)
            .and_then(|bytes| bytes.split_first_chunk())
            .ok_or(SplitError::Header)?;
        let header = VirtioHeader::parse(header).ok_or(SplitError::Header)?;
        Segments::new(&header, packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(header: bool, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
        let mut buffer = TunBuffer::default();
        let filled = buffer.fill(header, |into| {
            into[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        assert!(filled.is_ok());
        let mut segments = buffer.segments()?;
        let mut packets = Vec::new();
        let mut packet = Vec::new();
        while segments.write_next(&mut packet) {
            packets.push(std::mem::take(&mut packet));
        }
        Ok(packets)
    }

    #[test]
    fn with_and_without_a_header_the_packet_is_the_same() {
        let packet = [0x45, 1, 2, 3];
        assert_eq!(packets(false, &packet).unwrap(), [packet]);
        let mut bytes = vec![0; VIRTIO_HEADER_LEN];
        bytes.extend(packet);
        assert_eq!(packets(true, &bytes).unwrap(), [packet]);
        assert_eq!(packets(true, &bytes[..9]), Err(SplitError::Header));
        bytes[1] = 77;
        assert_eq!(packets(true, &bytes), Err(SplitError::Header));
    }

    #[test]
    fn a_failed_read_leaves_nothing() {
        let mut buffer = TunBuffer::default();
        buffer.fill(true, |_| Ok(100)).unwrap();
        let failed = buffer.fill(true, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
        assert_eq!(buffer.segments().unwrap_err(), SplitError::Header);
    }
}
