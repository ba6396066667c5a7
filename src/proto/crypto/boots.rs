//! Which initiations of the peer were seen: the defence against replayed ones.
//!
//! Within one run of the peer (one boot id) the counter only grows. Between runs there is no order,
//! for routers have no clock that survives: a recorded initiation of an old run looks like a
//! restart. So a new boot id is only *tentative* until its session proves to be alive; not before
//! does it retire the run that was known to be alive.

use super::hello::{BootId, Hello};

/// How many runs that ended are remembered: none of their initiations is accepted.
const RETIRED: usize = 16;
/// How many runs that never proved to be alive are remembered.
const TENTATIVE: usize = 8;

/// A run of the peer and its highest counter.
#[derive(Debug, Clone, Copy)]
struct Run {
    boot: BootId,
    counter: u64,
}

/// The runs of the peer.
#[derive(Debug, Default)]
pub(super) struct Boots {
    alive: Option<Run>,
    tentative: Ring<Run, TENTATIVE>,
    retired: Ring<BootId, RETIRED>,
}

impl Boots {
    /// True for the run that proved to be alive.
    pub(super) fn is_alive(&self, hello: &Hello) -> bool {
        self.alive.is_some_and(|run| run.boot == hello.boot)
    }

    /// Notes an authentic initiation; false, when it is not newer than what was seen.
    pub(super) fn accept(&mut self, hello: &Hello) -> bool {
        if self.retired.iter().any(|boot| *boot == hello.boot) {
            return false;
        }
        let known = self
            .alive
            .iter_mut()
            .chain(self.tentative.iter_mut())
            .find(|run| run.boot == hello.boot);
        match known {
            Some(run) if hello.counter <= run.counter => false,
            Some(run) => {
                run.counter = hello.counter;
                true
            }
            None => {
                self.tentative.push(Run {
                    boot: hello.boot,
                    counter: hello.counter,
                });
                true
            }
        }
    }

    /// Notes that the run proved to be alive; the one before it has ended.
    pub(super) fn confirm(&mut self, hello: &Hello) {
        if self.retired.iter().any(|boot| *boot == hello.boot) || self.is_alive(hello) {
            return;
        }
        // A response names the peer's newest initiation, which may still be on its way.
        let counter = self
            .tentative
            .take(|run| run.boot == hello.boot)
            .map_or(hello.counter.saturating_sub(1), |run| run.counter);
        let run = Run {
            boot: hello.boot,
            counter,
        };
        if let Some(ended) = self.alive.replace(run) {
            self.retired.push(ended.boot);
        }
    }
}

/// The newest `N` of a kind.
#[derive(Debug)]
struct Ring<T, const N: usize> {
    items: [Option<T>; N],
    next: usize,
}

impl<T: Copy, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self {
            items: [None; N],
            next: 0,
        }
    }
}

impl<T: Copy, const N: usize> Ring<T, N> {
    fn push(&mut self, item: T) {
        self.items[self.next] = Some(item);
        self.next = (self.next + 1) % N;
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }

    fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        self.items
            .iter_mut()
            .find(|item| item.as_ref().is_some_and(&wanted))?
            .take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    fn hello(boot: u8, counter: u64) -> Hello {
        Hello {
            boot: BootId::from_bytes([boot; 8]),
            counter,
            security: Security::Encrypt,
            aes: false,
            parity: false,
        }
    }

    #[test]
    fn the_counter_of_a_run_must_grow() {
        for confirmed in [false, true] {
            let mut boots = Boots::default();
            assert!(boots.accept(&hello(1, 5)));
            if confirmed {
                boots.confirm(&hello(1, 5));
            }
            assert!(!boots.accept(&hello(1, 5)));
            assert!(!boots.accept(&hello(1, 4)));
            assert!(boots.accept(&hello(1, 6)));
            assert!(boots.accept(&hello(1, u64::MAX)));
            assert!(!boots.accept(&hello(1, u64::MAX)));
        }
    }

    #[test]
    fn a_run_that_ended_stays_ended() {
        let mut boots = Boots::default();
        for boot in 0..=RETIRED as u8 {
            assert!(boots.accept(&hello(boot, 1)));
            boots.confirm(&hello(boot, 1));
        }
        for boot in 0..RETIRED as u8 {
            assert!(!boots.accept(&hello(boot, 100)), "{boot}");
        }
        assert!(boots.accept(&hello(RETIRED as u8, 2)));
    }

    #[test]
    fn recorded_initiations_of_runs_never_seen_do_not_lock_the_peer_out() {
        let mut boots = Boots::default();
        assert!(boots.accept(&hello(1, 1)));
        boots.confirm(&hello(1, 1));
        for recorded in 100..200 {
            boots.accept(&hello(recorded, 1));
        }
        assert!(boots.accept(&hello(1, 2)), "the living run is not retired");
        assert!(!boots.accept(&hello(1, 2)));
    }

    #[test]
    fn a_counter_seen_before_the_confirmation_counts_after_it() {
        let mut boots = Boots::default();
        assert!(boots.accept(&hello(1, 1)));
        assert!(boots.accept(&hello(1, 7)));
        boots.confirm(&hello(1, 1));
        assert!(!boots.accept(&hello(1, 7)));
        assert!(boots.accept(&hello(1, 8)));
    }

    #[test]
    fn a_peer_that_answered_is_alive_without_an_initiation() {
        let mut boots = Boots::default();
        boots.confirm(&hello(1, 3));
        assert!(!boots.accept(&hello(1, 2)));
        assert!(boots.accept(&hello(1, 3)), "it was under way");
        assert!(!boots.accept(&hello(1, 3)));
        boots.confirm(&hello(2, 0));
        assert!(!boots.accept(&hello(1, 9)));
        assert!(boots.accept(&hello(2, 1)));
        boots.confirm(&hello(1, 9));
        assert!(!boots.accept(&hello(1, 10)), "a late proof of an ended run");
    }
}
