//! The handshake as a whole, and frozen vectors of its wire format.

use crate::proto::Entropy;

/// A repeatable generator (SplitMix64), for tests only.
pub(in crate::proto::crypto) struct TestEntropy(u64);

impl TestEntropy {
    pub(in crate::proto::crypto) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for TestEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ z >> 31).to_le_bytes()[..chunk.len()]);
        }
    }
}
