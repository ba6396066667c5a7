//! BLAKE2s (RFC 7693) in the two forms the tunnel needs: a hash, and a hash with a key.

use blake2::digest::consts::{U16, U32};
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::Zeroizing;

/// The length of a short MAC, bytes.
pub(super) const MAC_LEN: usize = 16;

/// A state of keyed BLAKE2s with 16 bytes of output, to be cloned for each message.
pub(super) type Mac16 = Blake2sMac<U16>;

/// A MAC state under `key`.
pub(super) fn mac16_state(key: &[u8; 32]) -> Mac16 {
    <Mac16 as KeyInit>::new(key.into())
}

/// The hash of `label` followed by `data`.
pub(super) fn hash(label: &str, data: &[u8]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    Digest::update(&mut hash, label.as_bytes());
    Digest::update(&mut hash, data);
    hash.finalize().into()
}

/// 16 bytes of MAC over `parts`, one after the other.
pub(super) fn mac16(key: &[u8; 32], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    updated(mac16_state(key), parts)
        .finalize()
        .into_bytes()
        .into()
}

/// Whether `mac` is that of `parts`; takes the same time whichever byte differs.
pub(super) fn mac16_is(key: &[u8; 32], parts: &[&[u8]], mac: &[u8; MAC_LEN]) -> bool {
    updated(mac16_state(key), parts).verify(mac.into()).is_ok()
}

/// A key made of `secret` for the one purpose that `label` names.
pub(super) fn derive(secret: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    keyed32(secret, &[label.as_bytes()])
}

/// 32 bytes of keyed hash over `parts`, one after the other.
pub(super) fn keyed32(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let state = <Blake2sMac<U32> as KeyInit>::new(key.into());
    Zeroizing::new(updated(state, parts).finalize().into_bytes().into())
}

fn updated<M: Mac>(mut state: M, parts: &[&[u8]]) -> M {
    for part in parts {
        state.update(part);
    }
    state
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
    fn a_mac_depends_on_key_and_data() {
        let mac = mac16(&[1; 32], &[b"ab", b"c"]);
        assert_eq!(mac, mac16(&[1; 32], &[b"abc"]));
        assert!(mac16_is(&[1; 32], &[b"abc"], &mac));
        assert!(!mac16_is(&[2; 32], &[b"abc"], &mac));
        assert!(!mac16_is(&[1; 32], &[b"abd"], &mac));
    }
}
