//! The sender's half: the group that is being sent, and its parities.

use std::time::Duration;

use super::{LENGTH, MOST_PARITIES, MOST_SPAN, MOST_SYMBOL, code};
use crate::proto::Instant;

/// Datagrams with data in a group at most: 20 ms at 40 Mbit/s. A larger group needs a smaller share of
/// parities, but what it lost comes back later.
const MOST: u8 = 64;
/// A group is open no longer than this: below the 16 ms by which a round trip must not grow, or CUBIC ends
/// its slow start (HyStart, RFC 9406).
const OPEN_FOR: Duration = Duration::from_millis(16);
/// The share of groups that may lose more than comes back: 40 Mbit/s over 330 ms are 18 groups a round trip,
/// so that is one in 55 round trips.
const LEFT: f32 = 0.001;
/// One parity for this many datagrams at most once the path's rate is known: 12 % of it.
const EACH: u8 = 8;

/// The group that is being sent.
#[derive(Debug, Default)]
pub struct Cover {
    first: u64,
    span: u8,
    /// Datagrams with data.
    count: u8,
    opened: Instant,
    /// Its parities, if it becomes full.
    parities: usize,
    sums: [Vec<u8>; MOST_PARITIES],
    /// The share of datagrams that the path loses.
    loss: f32,
    /// The path's rate is still searched for: it has room for more parities.
    room: bool,
}

impl Cover {
    /// What the path is like now.
    pub fn set(&mut self, loss: f32, room: bool) {
        (self.loss, self.room) = (loss, room);
    }

    /// A datagram with data leaves: its number, and its frames.
    pub fn add(&mut self, now: Instant, number: u64, frames: &[u8]) {
        if self.count == 0 {
            (self.first, self.opened) = (number, now);
            self.parities = self.wanted(MOST);
            self.sums.iter_mut().for_each(Vec::clear);
        }
        let symbol = number - self.first;
        if self.count >= MOST || symbol >= u64::from(MOST_SPAN) || frames.len() > MOST_SYMBOL {
            return;
        }
        let symbol = symbol as u8;
        (self.count, self.span) = (self.count + 1, symbol + 1);
        for (parity, sum) in (0..).zip(&mut self.sums[..self.parities]) {
            if sum.len() < LENGTH + frames.len() {
                sum.resize(LENGTH + frames.len(), 0);
            }
            code::add_symbol(sum, frames, code::coefficient(parity, symbol));
        }
    }

    /// How many parities so many datagrams need: losses are independent, so their number is Poisson's.
    fn wanted(&self, count: u8) -> usize {
        let most = if self.room {
            count
        } else {
            count.div_ceil(EACH)
        };
        let lost = f32::from(count) * self.loss;
        let (mut parities, mut left) = (0, lost);
        while left > LEFT && parities < MOST_PARITIES.min(usize::from(most)) {
            parities += 1;
            left *= lost / (parities + 1) as f32;
        }
        parities
    }

    /// True when the group takes nothing more.
    pub fn is_full(&self) -> bool {
        self.count >= MOST || self.span >= MOST_SPAN
    }

    /// When the group's parities are to be sent.
    pub fn due(&self) -> Option<Instant> {
        if self.is_full() {
            return Some(Instant::default());
        }
        (self.count > 0).then(|| self.opened + OPEN_FOR)
    }

    /// Ends the group. Gives its first number, its span and its parities, which are all of one length.
    pub fn close(&mut self) -> (u64, u8, &[Vec<u8>]) {
        let parities = self.wanted(self.count).min(self.parities);
        self.count = 0;
        (
            self.first,
            std::mem::take(&mut self.span),
            &self.sums[..parities],
        )
    }
}
