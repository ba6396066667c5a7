//! Processor time of the daemons and of the whole machine.

use std::fs;
use std::time::Duration;

use crate::bench::cpu::{parse, parse_system};
use crate::clock::{Clock, TICK};

/// What was used since the start of the lab's clock, or in a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// By the daemons with all their threads.
    pub(super) daemons: Duration,
    /// By everything, the kernel's work for packets too.
    pub(super) machine: Duration,
    /// The time that passed.
    pub(super) passed: Duration,
}

impl Used {
    /// What `/proc` says now of these processes. One that is gone counts as nothing.
    pub(super) fn now(clock: &Clock, daemons: &[u32]) -> Self {
        let ticks = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            parse(&stat).map(|(_, ticks)| ticks)
        };
        let daemons: u64 = daemons.iter().filter_map(ticks).sum();
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            daemons: time(daemons),
            machine: time(parse_system(&system).0),
            passed: clock.read(),
        }
    }

    /// The use between an earlier reading and this.
    pub(super) const fn since(&self, earlier: &Self) -> Self {
        Self {
            daemons: self.daemons.saturating_sub(earlier.daemons),
            machine: self.machine.saturating_sub(earlier.machine),
            passed: self.passed.saturating_sub(earlier.passed),
        }
    }
}

fn time(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}
