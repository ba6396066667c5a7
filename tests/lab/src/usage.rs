//! What `/proc` says of a process: its memory, its processor time, how often it wakes up.

use std::fs;
use std::time::Duration;

use crate::bench::cpu::parse;
use crate::clock::TICK;
use crate::error::{Context, Error};

/// Memory of a process, bytes (`/proc/PID/status`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was resident since the last [`Memory::reset_peak`].
    pub peak: u64,
    /// Of `resident`: its own, heap and stacks.
    pub anonymous: u64,
    /// Of `resident`: pages of files, the program itself above all. The kernel can drop them.
    pub file: u64,
}

impl Memory {
    /// What it is now.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"));
        Ok(Self::parse(
            &text.context(format!("no process {pid} any more"))?,
        ))
    }

    /// From now on the peak is counted anew.
    pub fn reset_peak(pid: u32) -> Result<(), Error> {
        // proc_pid_clear_refs(5): 5 resets the peak resident set size.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")
    }

    fn parse(status: &str) -> Self {
        let bytes = |name| field(status, name).unwrap_or(0) * 1024;
        Self {
            resident: bytes("VmRSS"),
            peak: bytes("VmHWM"),
            anonymous: bytes("RssAnon"),
            file: bytes("RssFile"),
        }
    }
}

/// The number behind a name in a `status` file of `/proc`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.split_whitespace().next()?.parse().ok()
}

/// What a process did since it started, or in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// User and system time of all threads, exact to 10 ms.
    pub processor: Duration,
    /// How often a thread went to sleep by itself: each time it was awake, and for one reason.
    pub wake_ups: u64,
    /// Threads that there are.
    pub threads: u64,
}

impl Work {
    /// Since it started.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let gone = || format!("no process {pid} any more");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context(gone())?;
        let ticks = parse(&stat).map_or(0, |(_, ticks)| ticks);
        let mut work = Self {
            processor: TICK * u32::try_from(ticks).unwrap_or(u32::MAX),
            ..Self::default()
        };
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).context(gone())?;
        for task in tasks.flatten() {
            // One that ends meanwhile is none.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else {
                continue;
            };
            work.wake_ups += field(&status, "voluntary_ctxt_switches").unwrap_or(0);
            work.threads += 1;
        }
        Ok(work)
    }

    /// Between an earlier reading and this.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(earlier.processor),
            wake_ups: self.wake_ups.saturating_sub(earlier.wake_ups),
            threads: self.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_status() {
        let status = "Name:\tnetcombiner\nVmHWM:\t    9000 kB\nVmRSS:\t    8000 kB\n\
                      RssAnon:\t    3000 kB\nRssFile:\t    5000 kB\nThreads:\t3\n";
        let memory = Memory {
            resident: 8_192_000,
            peak: 9_216_000,
            anonymous: 3_072_000,
            file: 5_120_000,
        };
        assert_eq!(Memory::parse(status), memory);
        assert_eq!(field(status, "Rss"), None);
    }

    #[test]
    fn of_ourselves_there_is_something() -> Result<(), Error> {
        let pid = std::process::id();
        let before = Work::of(pid)?;
        std::thread::sleep(Duration::from_millis(1));
        let work = Work::of(pid)?.since(&before);
        assert!(work.wake_ups > 0 && work.threads > 0, "{work:?}");
        let memory = Memory::of(pid)?;
        assert!(memory.peak >= memory.resident, "{memory:?}");
        assert!(memory.anonymous > 0 && memory.file > 0, "{memory:?}");
        Ok(())
    }
}
