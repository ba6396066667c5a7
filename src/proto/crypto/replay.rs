//! The replay window of a path: which packet numbers were seen (RFC 6479).

use thiserror::Error;

use crate::proto::wire::PacketNumber;

/// Why a packet number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// It was seen.
    #[error("a packet number that was seen")]
    Duplicate,
    /// It is older than the window reaches.
    #[error("a packet number older than the window")]
    TooOld,
}

/// The bits of the ring. Needed are rate x the longest reordering within a path: 1 Gbit/s x 50 ms
/// is 4.4 k packets (PROTOCOL.md section 2.2); this is 1 KiB per path.
const RING_BITS: u64 = 8192;
/// How far back the window reaches. Less than the ring by the widest word of any machine, for the
/// newest word is cleared as a whole (RFC 6479 section 3), and the same on each.
const WINDOW: u64 = RING_BITS - 64;
const WORD_BITS: u64 = usize::BITS as u64;
const WORDS: usize = (RING_BITS / WORD_BITS) as usize;

/// Which packet numbers of a path were seen.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    highest: u64,
    ring: [usize; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            highest: 0,
            ring: [0; WORDS],
        }
    }
}

impl ReplayWindow {
    /// A window that saw nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a number may come. It says nothing of the datagram: [`Self::commit`] only after its
    /// tag proved right, or a forger moves the window.
    pub fn check(&self, number: PacketNumber) -> Result<(), ReplayError> {
        let PacketNumber(number) = number;
        if number > self.highest {
            return Ok(());
        }
        if self.highest - number >= WINDOW {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = place(number);
        if self.ring[word] & bit != 0 {
            return Err(ReplayError::Duplicate);
        }
        Ok(())
    }

    /// Notes that a number came. One older than the window changes nothing.
    pub fn commit(&mut self, number: PacketNumber) {
        let PacketNumber(number) = number;
        if number > self.highest {
            // Words between the newest and the new one: they hold bits of one turn ago.
            let ahead = number / WORD_BITS - self.highest / WORD_BITS;
            for step in 1..=ahead.min(WORDS as u64) {
                let (word, _) = place(self.highest.wrapping_add(step * WORD_BITS));
                self.ring[word] = 0;
            }
            self.highest = number;
        } else if self.highest - number >= WINDOW {
            return;
        }
        let (word, bit) = place(number);
        self.ring[word] |= bit;
    }
}

/// The word of a number in the ring, and its bit there.
fn place(number: u64) -> (usize, usize) {
    let word = (number / WORD_BITS) % WORDS as u64;
    (word as usize, 1 << (number % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Takes a number as the tunnel does.
    fn take(window: &mut ReplayWindow, number: u64) -> Result<(), ReplayError> {
        let number = PacketNumber(number);
        window.check(number)?;
        window.commit(number);
        Ok(())
    }

    const SEEN: Result<(), ReplayError> = Err(ReplayError::Duplicate);
    const OLD: Result<(), ReplayError> = Err(ReplayError::TooOld);
    const NEW: Result<(), ReplayError> = Ok(());

    #[test]
    fn a_table_of_numbers() {
        let mut window = ReplayWindow::new();
        for (number, expected) in [
            (0, NEW),
            (0, SEEN),
            (1, NEW),
            (1, SEEN),
            (9, NEW),
            (8, NEW),
            (7, NEW),
            (7, SEEN),
            (WINDOW, NEW),
            (WINDOW - 1, NEW),
            (WINDOW - 1, SEEN),
            (WINDOW - 2, NEW),
            (2, NEW),
            (2, SEEN),
            (0, OLD),
            (WINDOW + 16, NEW),
            (3, OLD),
            (WINDOW + 16, SEEN),
            (WINDOW * 4, NEW),
            (WINDOW * 4 - (WINDOW - 1), NEW),
            (10, OLD),
            (WINDOW * 4 - WINDOW, OLD),
            (WINDOW * 4 - (WINDOW + 1), OLD),
            (WINDOW * 4 - (WINDOW - 2), NEW),
            (WINDOW * 4 + 1 - WINDOW, SEEN),
            (0, OLD),
            (u64::MAX, NEW),
            (u64::MAX, SEEN),
            (u64::MAX - WINDOW + 1, NEW),
            (u64::MAX - WINDOW, OLD),
            (WINDOW * 4 + 2, OLD),
        ] {
            assert_eq!(take(&mut window, number), expected, "{number}");
        }
    }

    #[test]
    fn a_whole_window_backwards_and_forwards() {
        let mut window = ReplayWindow::new();
        for number in 1..=WINDOW {
            assert_eq!(take(&mut window, number), NEW);
        }
        assert_eq!(take(&mut window, 0), OLD);
        for number in (1..=WINDOW).rev() {
            assert_eq!(take(&mut window, number), SEEN);
        }

        let mut window = ReplayWindow::new();
        for number in (1..=WINDOW).rev() {
            assert_eq!(take(&mut window, number), NEW);
        }
        assert_eq!(take(&mut window, 0), OLD);

        // The newest first, then the oldest that still fits.
        let mut window = ReplayWindow::new();
        assert_eq!(take(&mut window, WINDOW - 1), NEW);
        assert_eq!(take(&mut window, 0), NEW);
        assert_eq!(take(&mut window, 0), SEEN);
    }

    #[test]
    fn a_check_alone_changes_nothing_and_an_old_commit_neither() {
        let mut window = ReplayWindow::new();
        let far = (1 << 40) + 5;
        window.check(PacketNumber(far)).unwrap();
        assert_eq!(take(&mut window, 0), NEW);
        assert_eq!(take(&mut window, far), NEW);
        window.commit(PacketNumber(0));
        assert_eq!(take(&mut window, 1 << 40), NEW, "shares its bit with 0");
    }

    /// What the window should be.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn take(&mut self, number: u64) -> Result<(), ReplayError> {
            let highest = self.0.last().copied().unwrap_or(0);
            if number <= highest && highest - number >= WINDOW {
                OLD
            } else if self.0.insert(number) {
                NEW
            } else {
                SEEN
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_set_it_stands_for(
            start in prop_oneof![Just(0), Just(u64::MAX / 2), Just(u64::from(u32::MAX) - 9000)],
            steps in prop::collection::vec(
                prop_oneof![
                    -9000_i64..9000,
                    -70_i64..70,
                    -20_000_i64..60_000,
                    (-2_i64..=2).prop_map(|i| i - WINDOW as i64),
                ],
                1..400,
            ),
        ) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            let mut highest: u64 = start;
            for step in steps {
                let number = highest.saturating_add_signed(step);
                prop_assert_eq!(take(&mut window, number), model.take(number));
                highest = highest.max(number);
            }
        }
    }
}
