//! Loss detection by time (RFC 8985) with the kernel's adaptive reordering window.

use std::time::Duration;

/// How many recoveries an enlarged window outlives (RFC 8985 section 7.1: 16).
const PERSIST: u32 = 16;
/// The window's steps at most (Linux: 255 quarters of the least round trip).
const MOST_STEPS: u32 = 255;

/// What is known of the newest delivery and of reordering.
#[derive(Debug, Clone, Default)]
pub struct Rack {
    /// The delivered segment that was sent last: when, and its number.
    newest: Option<(Duration, u64)>,
    /// The round trip of the segment delivered last.
    rtt: Duration,
    /// A delivery came that detection has not looked at yet.
    pub advanced: bool,
    /// The network was seen to reorder.
    pub reordering_seen: bool,
    steps: u32,
    persist: u32,
    /// A segment was sent again for nothing.
    pub duplicate_seen: bool,
    /// Deliveries when the window was last enlarged.
    enlarged_at: u64,
}

impl Rack {
    /// A segment was delivered. `ambiguous`: it was sent twice, and came back faster than possible.
    pub fn on_delivered(&mut self, now: Duration, sent: Duration, number: u64, ambiguous: bool) {
        if ambiguous {
            return;
        }
        self.advanced = true;
        self.rtt = now.saturating_sub(sent);
        if self.newest.is_none_or(|newest| (sent, number) > newest) {
            self.newest = Some((sent, number));
        }
    }

    /// Enlarges the window when a duplicate was reported, once a round trip; `sampled` is what was
    /// delivered when the newest delivered segment was sent.
    pub fn adapt(&mut self, sampled: Option<u64>, delivered: u64) {
        let Some(sampled) = sampled else { return };
        if sampled < self.enlarged_at {
            self.duplicate_seen = false;
        }
        if self.duplicate_seen {
            self.steps = (self.steps.max(1) + 1).min(MOST_STEPS);
            self.duplicate_seen = false;
            self.enlarged_at = delivered;
            self.persist = PERSIST;
        } else if self.persist == 0 {
            self.steps = 1;
        }
    }

    /// A recovery ended without an undo.
    pub const fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
    }

    /// A recovery was undone by duplicates.
    pub const fn on_duplicate_undo(&mut self) {
        if self.persist < PERSIST {
            self.persist += 1;
        }
    }

    /// The round trip of the segment delivered last.
    pub const fn rtt(&self) -> Duration {
        self.rtt
    }

    /// How long a segment may be late: not at all while no reordering was seen and `eager`.
    pub fn window(&self, eager: bool, least: Duration, srtt: Duration) -> Duration {
        if !self.reordering_seen && eager {
            return Duration::ZERO;
        }
        (least / 4 * self.steps.max(1)).min(srtt)
    }

    /// How long a segment sent at `sent` may still stay out; nothing when no later one was
    /// delivered. Zero: it is lost.
    pub fn patience(
        &self,
        now: Duration,
        (sent, number): (Duration, u64),
        window: Duration,
    ) -> Option<Duration> {
        self.newest.filter(|newest| *newest > (sent, number))?;
        Some((self.rtt + window).saturating_sub(now.saturating_sub(sent)))
    }
}
