//! What `plan` prints: one folder a case under `tests/plan`, with the configuration and the links
//! that go in and the text that comes out. `UPDATE_GOLDEN=1` writes the text anew.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of these tests fail as the tests do"
)]

#[path = "config/support.rs"]
mod support;

mod plan {
    mod golden;
    mod nft;
    mod pf;
    mod pf_host;
    mod pf_model;
    mod pf_rows;
    mod recipe;
}

use std::path::PathBuf;

use netcombiner::cli::plan::{System, Wish, write};
use netcombiner::config::Config;
use netcombiner::route::Observed;

/// The folder of all cases.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

/// The names of all cases.
fn cases() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "only {names:?}");
    names
}

/// The input of a case.
fn case(name: &str) -> (Config, Observed) {
    let read = |file| std::fs::read_to_string(folder().join(name).join(file)).unwrap();
    let (config, warnings) = support::parse(&read("config.toml")).unwrap();
    assert_eq!(warnings, [], "{name}");
    (config, Observed::parse(&read("links.json")).unwrap())
}

/// What is printed for a case.
fn text(name: &str, system: System, down: bool, json: bool) -> String {
    let (config, observed) = case(name);
    let mut out = Vec::new();
    let wish = Wish { system, down, json };
    write(&mut out, &config, &observed, None, wish).unwrap();
    String::from_utf8(out).unwrap()
}
