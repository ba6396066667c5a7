//! The arithmetic: a systematic Cauchy Reed-Solomon code over GF(256).
//!
//! A parity is the sum of all symbols of its group, each times 1 / (x + y): x is the parity's number, y the
//! symbol's, and no two of them are equal. Every square part of such a matrix can be inverted, so any `n`
//! parities bring back any `n` symbols.

use super::{LENGTH, MOST_PARITIES};

/// x^8 + x^4 + x^3 + x^2 + 1 without its highest term: the polynomial of RFC 5510 for bytes.
const POLYNOMIAL: u8 = 0x1d;

/// The factor of a symbol in a parity.
pub(super) fn coefficient(parity: u8, symbol: u8) -> u8 {
    inverse(parity ^ (symbol + MOST_PARITIES as u8))
}

fn double(a: u8) -> u8 {
    (a << 1) ^ ((a >> 7) * POLYNOMIAL)
}

pub(super) fn product(a: u8, b: u8) -> u8 {
    (0..8)
        .rev()
        .fold(0, |sum, bit| double(sum) ^ (((b >> bit) & 1) * a))
}

/// 1 / `a`, which is its 254th power. Zero stays zero.
pub(super) fn inverse(a: u8) -> u8 {
    let (mut power, mut result) = (a, 1);
    for _ in 1..8 {
        power = product(power, power);
        result = product(result, power);
    }
    result
}

/// The products of all bytes with a factor.
struct Row([u8; 256]);

impl Row {
    fn of(factor: u8) -> Self {
        let mut row = [0; 256];
        for byte in 1..256 {
            row[byte] = double(row[byte / 2]) ^ ((byte as u8 & 1) * factor);
        }
        Self(row)
    }

    fn add(&self, sum: &mut [u8], bytes: &[u8]) {
        for (sum, byte) in sum.iter_mut().zip(bytes) {
            *sum ^= self.0[usize::from(*byte)];
        }
    }
}

/// Adds the symbol of these frames, times a factor. The sum is no shorter.
pub(super) fn add_symbol(sum: &mut [u8], frames: &[u8], factor: u8) {
    let row = Row::of(factor);
    let [.., high, low] = frames.len().to_be_bytes();
    row.add(sum, &[high, low]);
    row.add(&mut sum[LENGTH..], frames);
}

/// Adds another sum of the same length, times a factor.
pub(super) fn add(sum: &mut [u8], other: &[u8], factor: u8) {
    Row::of(factor).add(sum, other);
}

/// Multiplies a sum.
pub(super) fn scale(sum: &mut [u8], factor: u8) {
    let row = Row::of(factor);
    for byte in sum {
        *byte = row.0[usize::from(*byte)];
    }
}
