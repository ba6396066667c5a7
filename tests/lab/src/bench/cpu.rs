//! Who used the processor: the lab's threads, the two daemons, and whoever else was there.

use std::fs;

use crate::portal::{Portal, Side};
use crate::traffic::FLOW_THREAD;

/// Cores used in a stretch of time (1.0 is one whole core).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cpu {
    /// The emulator's thread, with the kernel's work for the packets that it delivers.
    pub(super) emulator: f64,
    /// The ends of the TCP flows.
    pub(super) flows: f64,
    /// The local portal's daemon.
    pub(super) local: f64,
    /// The remote portal's daemon.
    pub(super) remote: f64,
    /// All else, the kernel's own threads too: on a quiet machine next to nothing.
    pub(super) others: f64,
}

/// Ticks of the kernel's accounting at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    emulator: u64,
    flows: u64,
    daemons: [u64; 2],
    busy: u64,
    all: u64,
    cores: u64,
}

impl Reading {
    /// What `/proc` says now. What it does not say counts as nothing.
    pub(super) fn now(portals: &[Portal]) -> Self {
        let mut reading = Self::default();
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        for task in tasks.flatten() {
            let path = task.path().join("stat");
            let Some((name, ticks)) = fs::read_to_string(path).ok().as_deref().and_then(parse)
            else {
                continue;
            };
            match name.as_str() {
                "emulator" => reading.emulator += ticks,
                FLOW_THREAD => reading.flows += ticks,
                _ => {}
            }
        }
        for portal in portals {
            let path = format!("/proc/{}/stat", portal.process.id());
            let stat = fs::read_to_string(path).ok();
            let ticks = stat.as_deref().and_then(parse).map_or(0, |found| found.1);
            reading.daemons[usize::from(portal.side == Side::Remote)] += ticks;
        }
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        (reading.busy, reading.all, reading.cores) = parse_system(&system);
        reading
    }

    /// The use between an earlier reading and this.
    pub(super) fn since(&self, earlier: &Self) -> Cpu {
        // Cores times its share of all time there was: the length of a tick cancels out.
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        let cores = |now: u64, then: u64| now.saturating_sub(then) as f64 / all * self.cores as f64;
        let mut cpu = Cpu {
            emulator: cores(self.emulator, earlier.emulator),
            flows: cores(self.flows, earlier.flows),
            local: cores(self.daemons[0], earlier.daemons[0]),
            remote: cores(self.daemons[1], earlier.daemons[1]),
            others: 0.0,
        };
        let known = cpu.emulator + cpu.flows + cpu.local + cpu.remote;
        cpu.others = (cores(self.busy, earlier.busy) - known).max(0.0);
        cpu
    }
}

/// Name, and user and system time in ticks, of a `stat` file (proc_pid_stat(5)).
pub(crate) fn parse(stat: &str) -> Option<(String, u64)> {
    // The name is in brackets and may hold any character, a bracket too.
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    // The tail begins with the third field; times are the 14th and 15th.
    let mut times = tail.split_whitespace().skip(14 - 3).take(2);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some((name, user + system))
}

/// Busy ticks, all ticks and the number of cores, of `/proc/stat` (proc_stat(5)).
pub(crate) fn parse_system(stat: &str) -> (u64, u64, u64) {
    let mut busy = 0;
    let mut all = 0;
    let mut cores = 0;
    for line in stat.lines() {
        let Some(rest) = line.strip_prefix("cpu") else {
            break;
        };
        let Some(total) = rest.strip_prefix(' ') else {
            cores += 1;
            continue;
        };
        // User, nice, system, idle, waiting for a disk, interrupts, soft interrupts, stolen; what
        // follows is contained in the first two.
        let times = total.split_whitespace().take(8);
        for (i, ticks) in times
            .filter_map(|time| time.parse::<u64>().ok())
            .enumerate()
        {
            all += ticks;
            busy += if matches!(i, 3 | 4) { 0 } else { ticks };
        }
    }
    (busy, all, cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(("a) b".into(), 42)));
        assert_eq!(parse("nothing"), None);
        let system = "cpu  10 0 20 60 5 1 4 0 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5 6\n";
        assert_eq!(parse_system(system), (35, 100, 2));
    }

    #[test]
    fn shares_add_up() {
        let before = Reading::default();
        let after = Reading {
            emulator: 50,
            flows: 20,
            daemons: [30, 10],
            busy: 120,
            all: 200,
            cores: 2,
        };
        let cpu = after.since(&before);
        assert_eq!((cpu.emulator, cpu.flows), (0.5, 0.2));
        assert_eq!((cpu.local, cpu.remote), (0.3, 0.1));
        assert!((cpu.others - 0.1).abs() < 1e-9);
    }
}
