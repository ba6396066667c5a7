//! Spreads a window over a round trip (RFC 9002 section 7.7): a bucket of bytes.

use std::time::Duration;

use super::DATAGRAM;
use crate::proto::Instant;

/// The least burst, bytes: two datagrams, as BBR's send quantum (draft-ietf-ccwg-bbr section 5.6.3),
/// so that a batch is worth a system call.
const LEAST_BURST: u64 = 2 * DATAGRAM;
/// The longest burst: 2 ms of the rate. Timers of a busy router are late by about 1 ms; what was
/// missed then must still fit.
const BURST: Duration = Duration::from_millis(2);

/// What a flow that sends now and then may overdraw: two datagrams (PROTOCOL.md 4.1).
const OVERDRAFT: i64 = 2 * DATAGRAM as i64;

/// Credit is counted in millionths of a byte: what a rate of bytes per second earns in a microsecond is
/// whole then, however often the bucket is looked at.
const SCALE: i64 = 1_000_000;

/// The deepest debt, bytes: a batch. What a connection without a cap carries must not count against a cap
/// that comes later.
const MOST_DEBT: i64 = 65_536;

/// A bucket that fills at the pacing rate and is emptied by sending. It may be overdrawn by the one
/// datagram that empties it, which is paid back in time.
#[derive(Debug, Default)]
pub struct Pacer {
    /// What may be sent, millionths of a byte; negative: overdrawn.
    credit: i64,
    refilled: Instant,
}

impl Pacer {
    /// True when a datagram may be sent now at `rate`, bytes per second.
    pub fn ready(&mut self, now: Instant, rate: u64) -> bool {
        let time = now.since(self.refilled);
        let earned = rate.saturating_mul(time.as_micros() as u64);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(most(rate));
        self.refilled = self.refilled.max(now);
        self.credit > 0
    }

    /// True when a datagram that is not to wait may be sent: it overdraws.
    pub fn ready_to_overdraw(&mut self, now: Instant, rate: u64) -> bool {
        self.ready(now, rate) || self.credit > -OVERDRAFT * SCALE
    }

    /// True when the whole burst was unused at `ready`: nobody wanted to send.
    pub fn was_idle(&self, rate: u64) -> bool {
        self.credit >= most(rate)
    }

    /// Notes that so many bytes were sent.
    pub fn on_sent(&mut self, bytes: u64) {
        self.credit = self
            .credit
            .saturating_sub(scaled(bytes))
            .max(-MOST_DEBT * SCALE);
    }

    /// When to send again: when half a burst is earned, so that a system call sends a batch.
    pub fn next_ready(&self, rate: u64) -> Instant {
        let missing = (most(rate) / 2 - self.credit).max(1);
        let micros = missing / i64::try_from(rate.max(1)).unwrap_or(i64::MAX) + 1;
        self.refilled + Duration::from_micros(micros as u64)
    }
}

/// Bytes in millionths.
fn scaled(bytes: u64) -> i64 {
    i64::try_from(bytes).map_or(i64::MAX, |bytes| bytes.saturating_mul(SCALE))
}

/// The longest burst, millionths of a byte.
fn most(rate: u64) -> i64 {
    let burst = rate.saturating_mul(BURST.as_micros() as u64);
    scaled(LEAST_BURST).max(i64::try_from(burst).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate() {
        let rate = 1_250_000; // 10 Mbit/s
        let mut pacer = Pacer::default();
        let mut now = Instant::from_micros(0);
        let mut sent = 0;
        while now < Instant::from_micros(10_000_000) {
            while pacer.ready(now, rate) {
                pacer.on_sent(1200);
                sent += 1200;
            }
            now = pacer.next_ready(rate).max(now + Duration::from_micros(1));
        }
        let off = sent as f64 / (rate as f64 * 10.0) - 1.0;
        assert!(off.abs() < 0.005, "{off}");
    }

    #[test]
    fn keeps_the_rate_however_often_it_is_asked() {
        let rate = 36_780_001;
        let mut pacer = Pacer::default();
        let mut sent = 0;
        for micros in (7..2_000_000).step_by(7) {
            if pacer.ready(Instant::from_micros(micros), rate) {
                pacer.on_sent(1433);
                sent += 1433;
            }
        }
        let off = sent as f64 / (rate as f64 * 2.0) - 1.0;
        assert!(off.abs() < 0.001, "{off}");
    }

    #[test]
    fn a_debt_is_paid_while_nobody_asks() {
        let mut pacer = Pacer::default();
        let rate = 20_000;
        assert!(pacer.ready(Instant::from_micros(60_000_000), rate));
        (0..1000).for_each(|_| pacer.on_sent(1433));
        assert!(!pacer.ready(Instant::from_micros(61_000_000), rate));
        assert!(pacer.ready(Instant::from_micros(64_000_000), rate));
    }

    #[test]
    fn idleness_earns_one_burst_only() {
        let mut pacer = Pacer::default();
        let now = Instant::from_micros(60_000_000);
        let mut burst = 0;
        while pacer.ready(now, 12_500_000) {
            pacer.on_sent(1250);
            burst += 1250;
        }
        assert_eq!(burst, 25_000); // 2 ms at 100 Mbit/s
    }
}
