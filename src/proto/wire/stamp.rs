//! Times on the wire: 24 bits of a monotonic clock in units of 8 us, so they wrap after 134 s.

use std::time::Duration;

use crate::proto::Instant;

/// The unit of a stamp, microseconds: fine enough for pacing, coarse enough to wrap late.
const UNIT_MICROS: u64 = 8;
/// Stamps are taken modulo 2^24.
const MASK: u64 = 0xff_ffff;

/// A time of some clock in units of 8 us, whole: differences of two of one clock are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// This clock's reading.
    pub fn of(now: Instant) -> Self {
        Self(now.as_micros() / UNIT_MICROS)
    }

    /// The three bytes on the wire.
    pub fn encode(self) -> [u8; 3] {
        let [.., a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The stamp nearest to `reference` (one of the same clock) that has these low bits.
    pub fn expand(bytes: [u8; 3], reference: Self) -> Self {
        let low = u64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]));
        let ahead = low.wrapping_sub(reference.0) & MASK;
        if ahead <= MASK / 2 {
            Self(reference.0 + ahead)
        } else {
            // Behind, unless that were before the clock's start.
            Self(
                reference
                    .0
                    .checked_sub(MASK + 1 - ahead)
                    .unwrap_or(reference.0 + ahead),
            )
        }
    }

    /// The first stamp from `least` on that has these low bits.
    pub fn expand_after(bytes: [u8; 3], least: Self) -> Self {
        let low = u64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]));
        Self(least.0 + (low.wrapping_sub(least.0) & MASK))
    }

    /// The first stamp of a peer, of which nothing is known yet. It starts one wrap up, so that
    /// stamps behind it can still be told.
    pub fn first(bytes: [u8; 3]) -> Self {
        Self(MASK + 1 + u64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])))
    }

    /// The time from `earlier` to this one, zero when that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0) * UNIT_MICROS)
    }

    /// The stamp of this clock so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0 + time.as_micros() as u64 / UNIT_MICROS)
    }

    /// The stamp of this clock so much earlier.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time.as_micros() as u64 / UNIT_MICROS))
    }

    /// How far apart two stamps are.
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0) * UNIT_MICROS)
    }

    /// Microseconds of the clock.
    pub fn as_micros(self) -> u64 {
        self.0 * UNIT_MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_across_the_wrap() {
        let reference = Stamp(0x1ff_fffe);
        assert_eq!(Stamp::expand([0, 0, 3], reference), Stamp(0x200_0003));
        assert_eq!(
            Stamp::expand([0xff, 0xff, 0xf0], reference),
            Stamp(0x1ff_fff0)
        );
        assert_eq!(Stamp::expand(Stamp(77).encode(), Stamp(80)), Stamp(77));
        assert_eq!(Stamp::expand_after([0, 0, 3], reference), Stamp(0x200_0003));
        let again = Stamp::expand_after([0xff, 0xff, 0xfd], reference);
        assert_eq!(again, Stamp(0x2ff_fffd));
        assert_eq!(
            Stamp::expand([0xff, 0xff, 0xff], Stamp(2)),
            Stamp(0xff_ffff)
        );
    }
}
