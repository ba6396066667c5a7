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

/// A bucket that fills at the pacing rate and is emptied by sending. It may be overdrawn by the one
/// batch that empties it, which is paid back in time.
#[derive(Debug, Default)]
pub struct Pacer {
    /// Bytes that may be sent; negative: overdrawn.
    credit: i64,
    refilled: Instant,
}

impl Pacer {
    /// True when a datagram may be sent now at `rate`, bytes per second.
    pub fn ready(&mut self, now: Instant, rate: u64) -> bool {
        let earned = in_time(rate, now.since(self.refilled));
        if earned > 0 {
            let most = most(rate);
            let credit = self
                .credit
                .saturating_add(earned.min(i64::MAX as u64) as i64);
            self.credit = credit.min(most);
            // Only the time that whole bytes took is spent, or many small steps would slow us down.
            self.refilled = if credit > most {
                now
            } else {
                self.refilled + time_of(earned, rate)
            };
        }
        self.credit > 0
    }

    /// True when a datagram that is not to wait may be sent: it overdraws.
    pub fn ready_to_overdraw(&mut self, now: Instant, rate: u64) -> bool {
        self.ready(now, rate) || self.credit > -OVERDRAFT
    }

    /// True when the whole burst was unused at `ready`: nobody wanted to send.
    pub fn was_idle(&self, rate: u64) -> bool {
        self.credit >= most(rate)
    }

    /// Notes that so many bytes were sent.
    pub fn on_sent(&mut self, bytes: u64) {
        self.credit -= bytes as i64;
    }

    /// When the next datagram may be sent; rather a whole burst later than one at a time.
    pub fn next_ready(&self, rate: u64) -> Instant {
        let missing = (DATAGRAM as i64 - self.credit).max(1) as u64;
        self.refilled + time_of(missing, rate) + Duration::from_micros(1)
    }
}

/// The longest burst, bytes.
fn most(rate: u64) -> i64 {
    LEAST_BURST.max(in_time(rate, BURST)) as i64
}

/// The time that so many bytes take at `rate` bytes per second.
fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1))
}

/// Bytes at `rate` bytes per second in `time`.
fn in_time(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_micros() / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
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
