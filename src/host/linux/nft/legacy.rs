//! The rules of ip_tables, the older kind, as the program that comes with them prints them. Its
//! time and its output are limited.

use std::io::Read as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;

use crate::io::clock;

/// How long all the programs together may take. A small router prints a thousand rules in a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// The most that is read of a program's output, bytes: fifty thousand rules.
const MOST_BYTES: usize = 8 << 20;
/// How often it is asked whether a program has ended.
const STEP: Duration = Duration::from_millis(10);
/// How long a killed program is waited for, in steps. The kernel may hold it for longer.
const STEPS_TO_DIE: u32 = 20;

/// The names of the tables of a family (`ip`, `ip6`); empty where the kernel has none.
pub(super) fn tables(kind: &str) -> String {
    let names = format!("/proc/thread-self/net/{kind}_tables_names");
    let names = std::fs::read_to_string(names).unwrap_or_default();
    names.trim().to_owned()
}

/// The rules of a family. An iptables of the newer kind prints what nf_tables holds.
pub(super) fn saved(kind: &str, deadline: Instant) -> Option<String> {
    let programs = [
        format!("{kind}tables-legacy-save"),
        format!("{kind}tables-save"),
    ];
    programs.iter().find_map(|program| {
        let text = printed(&mut Command::new(program), deadline)?;
        (!text.contains("nf_tables")).then_some(text)
    })
}

/// What a program prints that ends well and in time.
fn printed(command: &mut Command, deadline: Instant) -> Option<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let text = child.stdout.take().and_then(|out| read(out, deadline));
    let ended_well = end(&mut child, deadline);
    String::from_utf8(text?).ok().filter(|_| ended_well)
}

/// All that comes; `None` when it is too late, or too much.
fn read(mut out: ChildStdout, deadline: Instant) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = Timespec::try_from(deadline.duration_since(clock::now())).ok()?;
        let mut polled = [PollFd::new(&out, PollFlags::IN)];
        poll(&mut polled, Some(&left))
            .ok()
            .filter(|ready| *ready > 0)?;
        match out.read(&mut piece).ok()? {
            0 => return Some(text),
            length => text.extend_from_slice(piece.get(..length)?),
        }
        if text.len() > MOST_BYTES {
            return None;
        }
    }
}

/// Waits for its end, and kills it at the deadline. True: it ended well.
fn end(child: &mut Child, deadline: Instant) -> bool {
    while clock::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => sleep(STEP),
            Err(_) => break,
        }
    }
    // It may have ended just now.
    let _ = child.kill();
    for _ in 0..STEPS_TO_DIE {
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        sleep(STEP);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_hangs_or_never_stops_is_killed() {
        let soon = || clock::now() + Duration::from_millis(500);
        for script in [
            "exec sleep 600",
            "exec yes",
            "echo rules; exec sleep 600",
            // It closes its output, and goes on.
            "exec >&-; exec sleep 600",
        ] {
            let start = clock::now();
            assert_eq!(printed(&mut sh(script), soon()), None, "{script}");
            assert!(start.elapsed() < Duration::from_secs(60), "{script}");
        }
    }

    #[test]
    fn what_a_program_prints_is_read_whole() {
        let far = || clock::now() + Duration::from_secs(60);
        let long = "i=0; while [ $i -lt 2000 ]; do echo \"-A INPUT -p tcp --dport $i -j ACCEPT\"; i=$((i+1)); done";
        let text = printed(&mut sh(long), far()).unwrap();
        assert_eq!(text.lines().count(), 2000);
        assert_eq!(printed(&mut sh("echo half; exit 1"), far()), None);
        assert_eq!(printed(&mut Command::new("/no/such/program"), far()), None);
    }
}
