//! Randomness from the system.

use std::io;

use crate::proto::Entropy;

/// The system's random number generator.
#[derive(Debug)]
pub struct SystemEntropy(());

impl SystemEntropy {
    /// The generator, once it has given a first byte: from then on it never fails (getrandom(2)
    /// waits until the pool is filled, and only then).
    ///
    /// # Errors
    /// When the system has no generator, as in a chroot without `/dev/urandom` on an old kernel.
    pub fn new() -> io::Result<Self> {
        let mut first = [0];
        getrandom::fill(&mut first).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(()))
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        if let Err(error) = getrandom::fill(out) {
            // A router's program panics without a word: what the log has is all that is told.
            log::error!("the system's random number generator failed: {error}");
            // Keys of no randomness would be worse than no program.
            panic!("the system's random number generator failed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut entropy = SystemEntropy::new().unwrap();
        let mut draws = [[0; 32]; 2];
        for draw in &mut draws {
            entropy.fill(draw);
        }
        assert_ne!(draws[0], draws[1]);
        assert_ne!(draws[0], [0; 32]);
    }
}
