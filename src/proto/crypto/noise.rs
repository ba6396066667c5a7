//! The Noise handshake, with our own randomness under it.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::blake::NoiseHash;
use super::identity::Identity;
use crate::proto::Entropy;

/// The handshake's pattern and algorithms, by their name in the Noise specification.
const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Names the protocol and its version; portals that differ in it do not understand each other.
pub(super) const PROLOGUE: &[u8] = b"netcombiner v1";
/// The message of the pattern at whose end the pre-shared key is mixed in.
const PSK_POSITION: u8 = 2;

/// A handshake that will write the initiation.
pub(super) fn initiator(identity: &Identity, entropy: &mut dyn Entropy) -> HandshakeState {
    build(identity, PROLOGUE, entropy, true)
}

/// A handshake that will read an initiation.
pub(super) fn responder(identity: &Identity, entropy: &mut dyn Entropy) -> HandshakeState {
    build(identity, PROLOGUE, entropy, false)
}

/// As [`initiator`] and [`responder`], with a prologue of the caller's.
#[expect(
    clippy::expect_used,
    reason = "the pattern is a constant, every key has 32 bytes by its type, each is given once"
)]
pub(super) fn build(
    identity: &Identity,
    prologue: &[u8],
    entropy: &mut dyn Entropy,
    initiator: bool,
) -> HandshakeState {
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(&mut *seed);
    let params = PATTERN.parse().expect("a constant that parses");
    let build = || {
        let builder = Builder::with_resolver(params, Box::new(Resolver(seed)))
            .prologue(prologue)?
            .local_private_key(identity.private.bytes())?
            .psk(PSK_POSITION, identity.preshared.bytes())?;
        if initiator {
            builder
                .remote_public_key(identity.peer.bytes())?
                .build_initiator()
        } else {
            builder.build_responder()
        }
    };
    build().expect("all the pattern needs is there")
}

/// X25519 (RFC 7748).
#[expect(
    clippy::expect_used,
    reason = "the crate is built with the feature use-curve25519"
)]
pub(super) fn x25519() -> Box<dyn Dh> {
    DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .expect("X25519 is built in")
}

/// snow's own X25519 and cipher, our BLAKE2s, and a handshake's one random number, drawn beforehand: a
/// handshake makes exactly one ephemeral key, and snow wants a generator that it owns. The choice is a
/// constant here, so that the linker leaves out what is never chosen: BLAKE2b alone is 27 kB on MIPS.
struct Resolver(Zeroizing<[u8; 32]>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let ours = matches!(choice, DHChoice::Curve25519);
        ours.then(x25519)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        let ours = matches!(choice, HashChoice::Blake2s);
        ours.then(|| Box::new(NoiseHash::default()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its 32 bytes once; a second key of the same bytes would be a disaster, so it is an error.
struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != seed.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*seed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_given_once() {
        let mut draw = OneDraw(Some(Zeroizing::new([7; 32])));
        let mut out = [0; 32];
        assert_eq!(draw.try_fill_bytes(&mut out), Ok(()));
        assert_eq!(out, [7; 32]);
        assert_eq!(draw.try_fill_bytes(&mut out), Err(snow::Error::Rng));
    }
}
