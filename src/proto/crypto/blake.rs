//! BLAKE2s (RFC 7693) in the two forms the tunnel needs: a hash, and a hash with a key.

use blake2s_simd::{BLOCKBYTES, Hash, OUTBYTES, Params, State};
use zeroize::Zeroizing;

/// The length of a short MAC, bytes.
pub(super) const MAC_LEN: usize = 16;

/// The hash of `label` followed by `data`.
pub(super) fn hash(label: &str, data: &[u8]) -> [u8; 32] {
    let mut state = State::new();
    state.update(label.as_bytes()).update(data);
    *state.finalize().as_array()
}

/// 16 bytes of MAC over `parts`, one after the other.
pub(super) fn mac16(key: &[u8; 32], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(keyed(key, MAC_LEN, parts).as_bytes());
    mac
}

/// Whether `mac` is that of `parts`; takes the same time whichever byte differs.
pub(super) fn mac16_is(key: &[u8; 32], parts: &[&[u8]], mac: &[u8; MAC_LEN]) -> bool {
    // `Hash` compares in constant time.
    keyed(key, MAC_LEN, parts) == mac[..]
}

/// A key made of `secret` for the one purpose that `label` names.
pub(super) fn derive(secret: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    keyed32(secret, &[label.as_bytes()])
}

/// 32 bytes of keyed hash over `parts`, one after the other.
pub(super) fn keyed32(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*keyed(key, OUTBYTES, parts).as_array())
}

fn keyed(key: &[u8; 32], length: usize, parts: &[&[u8]]) -> Hash {
    let mut state = Params::new().hash_length(length).key(key).to_state();
    for part in parts {
        state.update(part);
    }
    state.finalize()
}

/// BLAKE2s for the Noise handshake. snow would bring a second implementation: 7 kB of a router's program.
#[derive(Debug, Default)]
pub(super) struct NoiseHash(State);

impl snow::types::Hash for NoiseHash {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        BLOCKBYTES
    }

    fn hash_len(&self) -> usize {
        OUTBYTES
    }

    fn reset(&mut self) {
        self.0 = State::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut() {
            *out = *self.0.finalize().as_array();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_rfc_7693() {
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(hash("a", b"bc"), expected);
    }

    #[test]
    fn every_form_agrees_with_another_implementation() {
        use blake2::digest::consts::{U16, U32};
        use blake2::digest::{Digest as _, KeyInit, Mac as _};

        let key = [9; 32];
        for length in [0, 1, 63, 64, 65, 200] {
            let data: Vec<u8> = (0..length).collect();
            let (front, back) = data.split_at(data.len() / 2);
            let mut mac = <blake2::Blake2sMac<U16> as KeyInit>::new(&key.into());
            mac.update(&data);
            assert_eq!(
                mac16(&key, &[front, back])[..],
                mac.finalize().into_bytes()[..]
            );
            let mut mac = <blake2::Blake2sMac<U32> as KeyInit>::new(&key.into());
            mac.update(&data);
            assert_eq!(
                keyed32(&key, &[front, back])[..],
                mac.finalize().into_bytes()[..]
            );
            let digest = blake2::Blake2s256::digest(&data);
            assert_eq!(hash("", &data)[..], digest[..]);

            let mut noise: Box<dyn snow::types::Hash> = Box::new(NoiseHash::default());
            for _ in 0..2 {
                let mut out = [0; 64];
                noise.reset();
                noise.input(front);
                noise.input(back);
                noise.result(&mut out);
                assert_eq!((&out[..32], &out[32..]), (&digest[..], &[0; 32][..]));
            }
        }
    }

    #[test]
    fn a_mac_depends_on_key_and_data() {
        let mac = mac16(&[1; 32], &[b"ab", b"c"]);
        assert_eq!(mac, mac16(&[1; 32], &[b"abc"]));
        assert!(mac16_is(&[1; 32], &[b"abc"], &mac));
        assert!(!mac16_is(&[2; 32], &[b"abc"], &mac));
        assert!(!mac16_is(&[1; 32], &[b"abd"], &mac));
    }
}
