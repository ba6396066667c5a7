//! Records: a length of 32 bits, big endian, and that many bytes (dissertation 3.2.1).

use thiserror::Error;

use crate::proto::wire::{HEADER_LEN, STAMP_LEN};

/// The bytes of a record's length.
pub(super) const LENGTH_LEN: usize = 4;
/// The longest record that is believed: no datagram of ours is longer than a UDP one. Whoever says
/// more speaks another protocol.
pub(super) const MAX_RECORD: usize = 65_535;
/// The shortest record that is believed: a header and a send time. Shorter ones only make work.
const MIN_RECORD: usize = HEADER_LEN + STAMP_LEN;
/// The peer does not speak our records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a record of {0} bytes was announced: too short, or too long for what the sender may say yet"
)]
pub(super) struct BadRecord(pub(super) u32);

/// Appends one datagram as a record.
pub(super) fn append(out: &mut Vec<u8>, datagram: &[u8]) {
    let length = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(datagram);
}

/// Cuts a stream of bytes into records, however it was cut on its way.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    /// The room that the next read may fill, of at least `size` bytes.
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // One record that is half here, and a read.
        let wanted = self.end + size;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Bytes of its buffer.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Says how much of the room was filled.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// The next whole record, of at most `most` bytes.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<&mut [u8]>, BadRecord> {
        let waiting = &self.buffer[self.start..self.end];
        let Some((length, rest)) = waiting.split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*length);
        let length = usize::try_from(announced)
            .ok()
            .filter(|length| (MIN_RECORD..=most).contains(length))
            .ok_or(BadRecord(announced))?;
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start + LENGTH_LEN;
        self.start = from + length;
        Ok(Some(&mut self.buffer[from..self.start]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(reader: &mut Reader, bytes: &[u8]) {
        reader.room(64 * 1024)[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
    }

    #[test]
    fn records_survive_any_cutting() {
        let datagrams: Vec<Vec<u8>> = (0..40u8)
            .map(|n| vec![n; MIN_RECORD + usize::from(n) * 37])
            .collect();
        let mut stream = Vec::new();
        for datagram in &datagrams {
            append(&mut stream, datagram);
        }
        for cut in [1, 2, 3, 5, 7, 1000, stream.len()] {
            let mut reader = Reader::default();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                feed(&mut reader, piece);
                while let Some(record) = reader.next(MAX_RECORD).unwrap() {
                    got.push(record.to_vec());
                }
            }
            assert_eq!(got, datagrams, "cut into pieces of {cut}");
        }
    }

    #[test]
    fn the_longest_record_passes_and_a_longer_one_is_refused() {
        let mut reader = Reader::default();
        let mut stream = Vec::new();
        append(&mut stream, &[7; MAX_RECORD]);
        for piece in stream.chunks(64 * 1024) {
            assert_eq!(reader.next(MAX_RECORD), Ok(None));
            feed(&mut reader, piece);
        }
        assert_eq!(
            reader.next(MAX_RECORD).unwrap().map(|it| it.len()),
            Some(MAX_RECORD)
        );
        assert_eq!(reader.next(MAX_RECORD), Ok(None));
        feed(&mut reader, &65_536u32.to_be_bytes());
        assert_eq!(reader.next(MAX_RECORD), Err(BadRecord(65_536)));
    }

    #[test]
    fn empty_and_tiny_records_end_the_connection() {
        for length in [0u8, 1, 10] {
            let mut reader = Reader::default();
            let mut stream = Vec::new();
            append(&mut stream, &vec![0; length.into()]);
            feed(&mut reader, &stream);
            assert_eq!(reader.next(MAX_RECORD), Err(BadRecord(length.into())));
        }
    }

    #[test]
    fn another_protocol_is_refused_at_once() {
        for garbage in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[0xff; 100]] {
            let mut reader = Reader::default();
            feed(&mut reader, garbage);
            assert!(reader.next(MAX_RECORD).is_err());
        }
    }

    #[test]
    fn memory_stays_bounded() {
        let mut reader = Reader::default();
        let mut stream = Vec::new();
        append(&mut stream, &[1; 60_000]);
        for _ in 0..100 {
            for piece in stream.chunks(30_000) {
                feed(&mut reader, piece);
                while reader.next(MAX_RECORD).unwrap().is_some() {}
            }
        }
        assert!(reader.buffer.len() <= 2 * MAX_RECORD + 64 * 1024);
    }
}
