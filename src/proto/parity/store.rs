//! The receiver's half: what came lately, and what comes back.

use arrayvec::ArrayVec;

use super::{LENGTH, MOST_PARITIES, MOST_SPAN, MOST_SYMBOL, Parity, code};
use crate::proto::wire::PacketNumber;
use crate::proto::wire::frame::Malformed;

/// Datagrams whose frames are kept: a parity may be so far behind the first one of its group.
const PLACES: usize = 256;
/// After this many datagrams without parities the peer sends none any more: four times the copies.
const IDLE: u64 = 1024;

/// What is kept of a path whose peer sends parities.
#[derive(Debug)]
pub struct Store {
    /// By the low bits of the number: the number plus one, and the frames; none of datagrams without data.
    places: Vec<(u64, Vec<u8>)>,
    /// The group whose parities come.
    first: u64,
    span: u8,
    /// Nothing more of it is needed.
    done: bool,
    /// Which parities of it came, and their sums: of the first ones of these.
    had: ArrayVec<u8, MOST_PARITIES>,
    sums: [Vec<u8>; MOST_PARITIES],
}

impl Default for Store {
    fn default() -> Self {
        Self {
            places: vec![(0, Vec::new()); PLACES],
            first: 0,
            span: 0,
            done: true,
            had: ArrayVec::new(),
            sums: Default::default(),
        }
    }
}

impl Store {
    /// A datagram came: with these frames if it carries data.
    pub fn note(&mut self, number: PacketNumber, frames: &[u8]) {
        let (known, kept) = &mut self.places[number.0 as usize % PLACES];
        if *known > number.0 {
            return;
        }
        *known = number.0 + 1;
        kept.clear();
        if frames.len() <= MOST_SYMBOL {
            kept.extend_from_slice(frames);
        }
    }

    /// True when the peer sends no parities any more, as of this number.
    pub fn is_idle(&self, number: PacketNumber) -> bool {
        number.0 > self.first + IDLE
    }

    /// A parity came in the datagram `number`. True: [`Store::back`] gives what came back.
    pub fn on_parity(
        &mut self,
        number: PacketNumber,
        parity: &Parity<'_>,
    ) -> Result<bool, Malformed> {
        let first = parity.first(number).ok_or(Malformed)?;
        if first < self.first {
            // Overtaken by those of a later group.
            return Ok(false);
        }
        if first > self.first || self.span == 0 {
            if first < self.first + u64::from(self.span) {
                return Err(Malformed);
            }
            (self.first, self.span, self.done) = (first, parity.span, false);
            self.had.clear();
        }
        if self.done {
            return Ok(false);
        }
        let length = parity.sum.len();
        let is_other = !self.had.is_empty() && self.sums[0].len() != length;
        if parity.span != self.span || self.had.contains(&parity.index) || is_other {
            return Err(Malformed);
        }
        let sum = &mut self.sums[self.had.len()];
        sum.clear();
        sum.extend_from_slice(parity.sum);
        self.had.push(parity.index);
        let missing = (0..self.span).filter(|symbol| self.frames(*symbol).is_none());
        let missing: ArrayVec<u8, { MOST_SPAN as usize }> = missing.collect();
        if missing.len() > self.had.len() {
            return Ok(false);
        }
        self.done = true;
        self.had.truncate(missing.len());
        let mut sums = std::mem::take(&mut self.sums);
        let fits = (0..self.span).all(|symbol| {
            let frames = self.frames(symbol).unwrap_or_default();
            let fits = LENGTH + frames.len() <= length;
            for (parity, sum) in self.had.iter().zip(&mut sums).filter(|_| fits) {
                code::add_symbol(sum, frames, code::coefficient(*parity, symbol));
            }
            fits
        });
        self.sums = sums;
        if !fits {
            self.had.clear();
            return Err(Malformed);
        }
        self.solve(&missing);
        Ok(!missing.is_empty())
    }

    /// The frames of a datagram of the group, if it came.
    fn frames(&self, symbol: u8) -> Option<&[u8]> {
        let number = self.first + u64::from(symbol);
        let (known, frames) = &self.places[number as usize % PLACES];
        (*known == number + 1).then_some(frames)
    }

    /// Makes symbols of the sums, which consist of the missing symbols only (Gauss and Jordan). No pivot is
    /// zero.
    fn solve(&mut self, missing: &[u8]) {
        let count = missing.len();
        let mut matrix = [[0; MOST_PARITIES]; MOST_PARITIES];
        for (row, parity) in matrix.iter_mut().zip(&self.had) {
            for (factor, symbol) in row.iter_mut().zip(missing) {
                *factor = code::coefficient(*parity, *symbol);
            }
        }
        for pivot in 0..count {
            let scale = code::inverse(matrix[pivot][pivot]);
            let row = matrix[pivot].map(|factor| code::product(factor, scale));
            matrix[pivot] = row;
            let mut sum = std::mem::take(&mut self.sums[pivot]);
            code::scale(&mut sum, scale);
            for other in (0..count).filter(|other| *other != pivot) {
                let factor = matrix[other][pivot];
                for (a, b) in matrix[other].iter_mut().zip(row) {
                    *a ^= code::product(factor, b);
                }
                code::add(&mut self.sums[other], &sum, factor);
            }
            self.sums[pivot] = sum;
        }
    }

    /// The frames of the datagrams that came back.
    pub fn back(&self) -> impl Iterator<Item = Result<&[u8], Malformed>> {
        self.sums[..self.had.len()].iter().map(|symbol| {
            let (length, rest) = symbol.split_first_chunk().ok_or(Malformed)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (frames, zeros) = rest.split_at_checked(length).ok_or(Malformed)?;
            let is_whole = zeros.iter().all(|byte| *byte == 0);
            is_whole.then_some(frames).ok_or(Malformed)
        })
    }
}
