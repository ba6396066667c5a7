//! The round trip and the retransmission timeout (RFC 6298, with the floor of Linux).

use std::time::Duration;

/// The variation's share of the timeout is never less (Linux: TCP_RTO_MIN).
const RTO_FLOOR: Duration = Duration::from_millis(200);
/// The first timeout (RFC 6298 section 2.1), and the longest (Linux: TCP_RTO_MAX).
pub const RTO_INITIAL: Duration = Duration::from_secs(1);
const RTO_MOST: Duration = Duration::from_secs(120);
/// The kernel's clock tick: its timers fire at the next one (HZ = 250 here and in Debian).
const TICK: Duration = Duration::from_millis(4);

/// When a timer of the kernel's wheel that is set to `at` really fires.
pub fn at_tick(at: Duration) -> Duration {
    let ticks = at.as_micros().div_ceil(TICK.as_micros());
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The estimates.
#[derive(Debug, Clone, Default)]
pub struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    least: Option<Duration>,
    /// How often the timeout was doubled.
    backoff: u32,
}

impl RttEstimator {
    /// A round trip was measured.
    pub fn on_sample(&mut self, rtt: Duration) {
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        match &mut self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                *smoothed = (*smoothed * 7 + rtt) / 8;
            }
        }
        self.backoff = 0;
    }

    /// The timer fired.
    pub const fn back_off(&mut self) {
        self.backoff += 1;
    }

    /// Smoothed; zero before the first sample.
    pub fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or_default()
    }

    /// The least ever; zero before the first sample.
    pub fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }

    /// The timeout.
    pub fn timeout(&self) -> Duration {
        let base = self.smoothed.map_or(RTO_INITIAL, |smoothed| {
            smoothed + (self.variation * 4).max(RTO_FLOOR)
        });
        base.saturating_mul(1 << self.backoff.min(10)).min(RTO_MOST)
    }
}
