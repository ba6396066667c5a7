//! Pooled buffers: the data path takes and gives, it never allocates once warm.

/// One IP packet in a buffer of the pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packet(Vec<u8>);

impl Packet {
    /// The packet's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The buffer itself, to be filled: empty when it comes from [`Pool::take`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The packet's length, bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The memory it holds, bytes: a short packet's buffer is as large as a long one's.
    pub fn footprint(&self) -> usize {
        self.0.capacity()
    }

    /// True when nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Packet {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// A free list of packet buffers.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Packet>,
    capacity: usize,
}

/// Bytes of free buffers that are kept: 3,000 of 1,401 bytes, more than one burst of every path.
const MOST_FREE: usize = 4 << 20;

impl Pool {
    /// A pool whose buffers hold `capacity` bytes without growing.
    pub fn new(capacity: usize) -> Self {
        Self {
            free: Vec::new(),
            capacity,
        }
    }

    /// An empty buffer.
    pub fn take(&mut self) -> Packet {
        self.free
            .pop()
            .unwrap_or_else(|| Packet(Vec::with_capacity(self.capacity)))
    }

    /// How many free ones there are.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Moves free buffers to `into`, as many as there are up to `count`.
    pub fn spare(&mut self, count: usize, into: &mut Vec<Packet>) {
        let kept = self.free.len().saturating_sub(count);
        into.extend(self.free.drain(kept..));
    }

    /// Gives a buffer back.
    pub fn give(&mut self, mut packet: Packet) {
        // A smaller one would have to grow at its next use.
        let usable = self.capacity..=2 * self.capacity;
        if self.free.len() * self.capacity < MOST_FREE && usable.contains(&packet.0.capacity()) {
            packet.0.clear();
            self.free.push(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_buffer_comes_back_empty() {
        let mut pool = Pool::new(1500);
        let mut packet = pool.take();
        packet.buffer().extend_from_slice(&[1, 2, 3]);
        let place = packet.bytes().as_ptr();
        pool.give(packet);
        let again = pool.take();
        assert!(again.is_empty());
        assert_eq!(again.0.as_ptr(), place);
        assert_eq!(pool.take().0.capacity(), 1500);
    }

    /// The memory table's row of free buffers.
    #[test]
    fn free_buffers_are_bounded() {
        let mut pool = Pool::new(1500);
        for _ in 0..10_000 {
            pool.give(Packet(Vec::with_capacity(1500)));
            pool.give(Packet(Vec::with_capacity(70_000)));
        }
        assert!(pool.free() <= MOST_FREE / 1500 + 1);
        let held: usize = pool.free.iter().map(|it| it.0.capacity()).sum();
        assert!(held <= MOST_FREE + 2 * 1500, "{held}");
    }
}
