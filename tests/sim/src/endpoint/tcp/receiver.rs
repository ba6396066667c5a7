//! The receiving end: what it acknowledges and when, and the window it offers.

use std::time::Duration;

use super::rtt::at_tick;
use super::window::ReceiveWindow;
use crate::endpoint::ranges::Ranges;
use crate::packet::MOST_SACKS;

/// Acknowledgements without delay at the start and after trouble (Linux: TCP_MAX_QUICKACKS).
const QUICK: u32 = 16;
/// A delayed acknowledgement waits so long (Linux: TCP_DELACK_MIN).
const DELAY: Duration = Duration::from_millis(40);
/// Duplicates that are sent at once before they are thinned out (Linux: TCP_FASTRETRANS_THRESH).
const DUPLICATES: u32 = 3;
/// Thinned out they are so far apart: a millisecond, but no more than a twentieth of the round trip
/// (Linux: tcp_comp_sack_delay_ns, tcp_comp_sack_rtt_percent).
const THINNED: Duration = Duration::from_millis(1);
const THINNED_SHARE: u32 = 20;
/// Ranges remembered by the order in which they last grew (Linux: 4).
const REMEMBERED: usize = 4;

/// The receiving end, in segments.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The next segment expected.
    pub next: u64,
    held: Ranges,
    recent: Vec<(u64, u64)>,
    duplicate: Option<(u64, u64)>,
    /// The stamp to echo: of the last segment that came in order (RFC 7323 section 4.3).
    pub echo: u32,
    /// What was expected when the last acknowledgement went out.
    acknowledged: u64,
    /// Answers sent without delay since the start or the last trouble.
    sent_quickly: u32,
    duplicates: u32,
    duplicates_at: u64,
    delayed: Option<Duration>,
    thinned: Option<Duration>,
    window: ReceiveWindow,
}

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The next segment expected.
    pub next: u64,
    /// Ranges of segments; a duplicate first.
    pub sacks: [(u64, u64); MOST_SACKS],
    /// How many.
    pub sack_count: usize,
    /// Room behind `next`, bytes.
    pub room: u32,
    /// The stamp to echo.
    pub echo: u32,
}

impl Receiver {
    /// A segment of `size` bytes with the stamp `stamp` came; `rtt` is the round trip as the
    /// receiver knows it. Returns the answer if one is sent at once.
    pub fn on_segment(
        &mut self,
        now: Duration,
        number: u64,
        (stamp, size): (u32, u32),
        rtt: Duration,
    ) -> Option<Answer> {
        let was = self.next;
        let mut at_once = false;
        if number < self.next || self.held.around(number).is_some() {
            self.duplicate = Some((number, number + 1));
            self.sent_quickly = 0;
            at_once = true;
        } else if number == self.next {
            self.next += 1;
            self.echo = stamp;
            if let Some((_, end)) = self.held.first().filter(|(from, _)| *from == self.next) {
                self.next = end;
                self.held.forget_below(end);
                self.recent.retain(|range| range.1 > end);
                // A gap is filled (RFC 5681 section 4.2).
                at_once = self.held.is_empty();
            }
            self.window
                .on_delivered(now, (self.next - was) * u64::from(size), size, rtt);
        } else {
            self.hold(number);
            self.window.on_held(size);
        }
        let thin = !self.held.is_empty();
        if at_once || self.next >= self.acknowledged + 2 || self.sent_quickly < QUICK {
            self.sent_quickly = (self.sent_quickly + 1).min(QUICK);
            return Some(self.answer(size));
        }
        if !thin {
            self.delayed.get_or_insert(at_tick(now + DELAY));
            return None;
        }
        if self.duplicates_at != self.next {
            self.duplicates_at = self.next;
            self.duplicates = 0;
        }
        if self.duplicates < DUPLICATES {
            self.duplicates += 1;
            return Some(self.answer(size));
        }
        self.thinned
            .get_or_insert(now + THINNED.min(rtt / THINNED_SHARE));
        None
    }

    /// When [`Receiver::wake`] has something to do.
    pub fn next_timer(&self) -> Option<Duration> {
        self.delayed.into_iter().chain(self.thinned).min()
    }

    /// Time has passed: a late answer, perhaps.
    pub fn wake(&mut self, now: Duration, size: u32) -> Option<Answer> {
        (self.next_timer()? <= now).then(|| self.answer(size))
    }

    fn hold(&mut self, number: u64) {
        self.held.insert(number, number + 1, |_, _| {});
        let Some(range) = self.held.around(number) else {
            return;
        };
        self.recent
            .retain(|known| known.1 < range.0 || known.0 > range.1);
        self.recent.insert(0, range);
        self.recent.truncate(REMEMBERED);
    }

    /// The answer now.
    pub fn answer(&mut self, size: u32) -> Answer {
        (self.delayed, self.thinned) = (None, None);
        self.acknowledged = self.next;
        let mut sacks = [(0, 0); MOST_SACKS];
        let mut sack_count = 0;
        for range in self
            .duplicate
            .take()
            .into_iter()
            .chain(self.recent.iter().copied())
        {
            if sack_count < MOST_SACKS {
                sacks[sack_count] = range;
                sack_count += 1;
            }
        }
        Answer {
            next: self.next,
            sacks,
            sack_count,
            room: self.window.room(size),
            echo: self.echo,
        }
    }
}
