//! The rules, and the search for what breaks them.

use std::fmt;

use super::code::{bare, has_word};

/// One place that breaks a rule.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    found: String,
    advice: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.found, self.advice
        )
    }
}

/// Words that may not stand in some files.
struct Ban {
    /// Whether a file falls under it.
    files: fn(&str) -> bool,
    words: &'static [&'static str],
    /// Also in comments and literals, and in files that are not Rust.
    everywhere: bool,
    advice: &'static str,
}

/// The only files with `unsafe`: each a system call that no safe crate of ours offers.
pub(crate) const UNSAFE_FILES: [&str; 15] = [
    "src/abi_note.rs",
    "src/cli/run.rs",
    "src/daemon/lock.rs",
    "src/io/poll.rs",
    "src/io/secrecy.rs",
    "src/io/socket.rs",
    "src/io/tun/freebsd.rs",
    "src/io/tun/linux.rs",
    "src/io/tun/mtu.rs",
    "src/thread_name.rs",
    "tests/lab/src/net/priority.rs",
    "tests/lab/src/net/privilege.rs",
    "tests/lab/src/net/spawn.rs",
    "tests/lab/src/net/tap.rs",
    "tests/lab/src/traffic/tcp_info.rs",
];

/// The only files that read a clock: the daemon's, and the lab's own.
const CLOCKS: [&str; 2] = ["src/io/clock.rs", "tests/lab/src/clock.rs"];

/// The clock of control's timers, which tests can stop and set: only when spelled out.
const TOKIOS_CLOCK: &str = "tokio::time::Instant::now";

/// The modules that decide and touch nothing.
const PURE: [&str; 3] = ["src/proto/", "src/route/", "src/packet/"];

/// How far above `unsafe` its reason may begin, in lines: a comment, an attribute, a call's head.
const SAFETY_REACH: usize = 8;

/// A file longer than this is two things.
const MAX_LINES: usize = 600;

const BANS: [Ban; 8] = [
    Ban {
        files: |path| !CLOCKS.contains(&path),
        words: &["Instant::now", "SystemTime::now"],
        everywhere: false,
        advice: "time is an argument; only io/clock.rs reads it",
    },
    Ban {
        files: is_pure,
        words: &[
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "UnixStream",
            "UnixDatagram",
            "std::fs",
            "std::os",
            "std::process",
            "std::thread",
            "std::env",
            "std::time::Instant",
            "SystemTime",
            "File",
            "socket2",
            "libc",
            "tokio",
            "rtnetlink",
        ],
        everywhere: false,
        advice: "proto, route and packet are pure: give what it reads as an argument, and let io or \
                 host do what it decides",
    },
    Ban {
        files: is_pure,
        words: &[
            "crate::cli",
            "crate::control",
            "crate::daemon",
            "crate::host",
            "crate::io",
        ],
        everywhere: false,
        advice: "proto, route and packet know none of the modules that use them",
    },
    Ban {
        files: is_pure,
        words: &["std::{", "crate::{"],
        everywhere: false,
        advice: "one `use` a module here, so that this search sees which ones",
    },
    Ban {
        files: |_| true,
        words: &["AtomicU64", "AtomicI64"],
        everywhere: false,
        advice: "32-bit MIPS has no 64-bit atomics: count per thread, or use AtomicU32 or AtomicUsize",
    },
    Ban {
        files: |_| true,
        words: &["todo!", "unimplemented!", "#[ignore", "allow("],
        everywhere: false,
        advice: "finish it; an exception to a lint is `#[expect(.., reason = \"..\")]`",
    },
    Ban {
        files: |_| true,
        words: &[
            concat!("FIX", "ME"),
            concat!("XX", "X"),
            concat!("TO", "DO"),
        ],
        everywhere: true,
        advice: "do it now, or open an issue for it",
    },
    Ban {
        files: |_| true,
        words: &[
            concat!("index.crates", ".io"),
            concat!("static", ".crates", ".io"),
            concat!("//crates", ".io"),
            concat!("pypi", ".org"),
            concat!("pythonhosted", ".org"),
            concat!("debian", ".org"),
            concat!("npmjs", ".org"),
        ],
        everywhere: true,
        advice: "name packages, not the hosts they come from: the clients know those",
    },
];

fn is_pure(path: &str) -> bool {
    path == "src/config/units.rs" || PURE.iter().any(|folder| path.starts_with(folder))
}

/// What of a file breaks the rules.
pub(crate) fn violations(path: &str, text: &str) -> Vec<Violation> {
    let code = if path.ends_with(".rs") {
        bare(text)
    } else {
        String::new()
    };
    let mut found = banned(path, text, &code);
    found.extend(unsafe_places(path, text, &code));
    found.extend(shape(path, text, &code));
    found
}

/// Whether there is any `unsafe` in a file of Rust.
pub(crate) fn has_unsafe(text: &str) -> bool {
    has_word(&bare(text), "unsafe")
}

fn banned(path: &str, text: &str, code: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for ban in BANS.iter().filter(|ban| (ban.files)(path)) {
        let lines = if ban.everywhere { text } else { code }.lines();
        for (line, content) in lines.enumerate() {
            let content = &content.replace(TOKIOS_CLOCK, "tokio");
            let words = ban.words.iter().filter(|word| has_word(content, word));
            found.extend(words.map(|word| Violation {
                path: path.to_owned(),
                line: line + 1,
                found: format!("`{word}`"),
                advice: ban.advice,
            }));
        }
    }
    found
}

fn unsafe_places(path: &str, text: &str, code: &str) -> Vec<Violation> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (line, content) in code.lines().enumerate() {
        if !has_word(content, "unsafe") {
            continue;
        }
        let reason = &lines[line.saturating_sub(SAFETY_REACH)..=line];
        let advice = if !UNSAFE_FILES.contains(&path) {
            "`unsafe` has a short list of files (UNSAFE_FILES): use a safe crate, or argue for one more"
        } else if !reason.iter().any(|line| line.contains("// SAFETY:")) {
            "say right above why it is sound: `// SAFETY: ..`"
        } else {
            continue;
        };
        found.push(Violation {
            path: path.to_owned(),
            line: line + 1,
            found: "`unsafe`".to_owned(),
            advice,
        });
    }
    found
}

fn shape(path: &str, text: &str, code: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |line, what: String, advice| {
        found.push(Violation {
            path: path.to_owned(),
            line,
            found: what,
            advice,
        });
    };
    let lines = text.lines().count();
    if path.ends_with(".rs") && lines > MAX_LINES {
        add(lines, format!("{lines} lines"), "600 at most: split it");
    }
    let root = path.strip_suffix("mod.rs");
    if root.is_some_and(|root| PURE.contains(&root)) && !code.contains("#![forbid(unsafe_code)]") {
        add(
            1,
            "the module's head".to_owned(),
            "begin with `#![forbid(unsafe_code)]`",
        );
    }
    found
}
