//! Randomness that repeats.

use netcombiner::proto::Entropy;
use netcombiner_lab::emulator::Rng;

/// Bytes that a seed decides.
#[derive(Debug)]
pub struct Seeded(pub Rng);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.0.bits() as u8);
    }
}
