//! The rules find what they are for, and nothing else.

use super::rules::violations;

/// The line of each violation that a text would have as this file.
fn lines(path: &str, text: &str) -> Vec<String> {
    let found = violations(path, text);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let unsafe_block = format!("{} {{ call() }}", "unsafe");
    let cases = [
        ("src/daemon/mod.rs", "let now = Instant::now();", "time is"),
        ("tests/cli.rs", "std::time::SystemTime::now()", "time is"),
        ("src/proto/a.rs", "use std::net::UdpSocket;", "are pure"),
        ("src/route/a/b.rs", "std::fs::read(path)", "are pure"),
        ("src/packet/a.rs", "unused(); libc::close(1)", "are pure"),
        ("src/config/units.rs", "use tokio::time;", "are pure"),
        ("src/proto/a.rs", "tokio::time::Instant::now()", "are pure"),
        ("src/route/a.rs", "use crate::host::Host;", "know none"),
        ("src/proto/a.rs", "use std::{fs, io};", "one `use`"),
        ("src/daemon/a.rs", "atomic::AtomicU64", "64-bit"),
        ("src/io/a.rs", "match x { _ => todo!() }", "finish it"),
        ("tests/a.rs", "#[ignore]", "finish it"),
        ("src/a.rs", "#![allow(dead_code)]", "finish it"),
        ("src/a.rs", concat!("// FIX", "ME: later"), "do it now"),
        ("README.md", concat!("XX", "X"), "do it now"),
        (".ci/run", concat!("curl pypi", ".org"), "name packages"),
        ("src/cli/args.rs", &unsafe_block, "short list"),
        ("src/io/poll.rs", &unsafe_block, "SAFETY"),
        ("src/proto/mod.rs", "//! The tunnel.", "forbid(unsafe_code)"),
        ("src/a.rs", &"\n".repeat(601), "split it"),
    ];
    for (path, text, advice) in cases {
        let found = lines(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(found[0].contains(advice), "{path}: {text}: {found:?}");
        assert!(found[0].starts_with(path), "{found:?}");
    }
}

#[test]
fn a_violation_names_its_line() {
    let found = lines("src/a.rs", "fn a() {}\n\n    dbg(Instant::now());\n");
    assert!(
        found[0].starts_with("src/a.rs:3: `Instant::now`"),
        "{found:?}"
    );
}

#[test]
fn what_is_only_said_breaks_no_rule() {
    let documented = "// SAFETY: it is.\n".to_owned() + "unsafe" + " { call() }";
    let cases = [
        ("src/io/clock.rs", "Instant::now()"),
        ("src/io/udp.rs", "use std::net::UdpSocket;"),
        ("src/host/reconciler.rs", "tokio::time::Instant::now()"),
        (
            "src/proto/a.rs",
            "// libc, \"tokio\" and std::fs\nlet a = 1;",
        ),
        (
            "src/proto/a.rs",
            r##"let a = r#"libc" "#; let b = 'l'; let c: &'a u8;"##,
        ),
        (
            "src/proto/a.rs",
            "/* libc /* tokio */ std::fs */ let a = \"\\\" libc\";",
        ),
        (
            "src/proto/a.rs",
            "let unsafe_code = my_libc(libc_like, profile);",
        ),
        ("src/a.rs", "fn disallow(x: u8) {} // allow(unused)"),
        (
            "Cargo.lock",
            "registry+https://github.com/rust-lang/crates.io-index",
        ),
        ("src/route/mod.rs", "//! Head.\n#![forbid(unsafe_code)]\n"),
        ("src/io/poll.rs", &documented),
        ("src/a.rs", &"\n".repeat(600)),
    ];
    for (path, text) in cases {
        let found = lines(path, text);
        assert!(found.is_empty(), "{path}: {text}: {found:?}");
    }
}
