//! The borders of the house: what may be written where.
//!
//! Each rule is a search of the tree's text, so it holds for the code of every system, whichever
//! one the tests run on. Code is searched without its comments and the contents of its strings.
//! Test code inside `src` is held to the same rules: none of it has needed an exception.

mod house {
    pub(crate) mod code;
    mod planted;
    pub(crate) mod rules;
}

use std::path::Path;
use std::{fs, io};

use house::rules::{self, Violation};

/// The tree's text files, by their paths from its root with `/` between the names.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    add(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut found)
        .unwrap_or_else(|error| panic!("the tree cannot be read: {error}"));
    found.sort();
    found
}

fn add(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" && name != ".git" {
                add(&entry.path(), &format!("{path}/"), found)?;
            }
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            found.push((path, text));
        }
    }
    Ok(())
}

fn assert_none(violations: &[Violation]) {
    let list: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(
        list.is_empty(),
        "{} found:\n{}",
        list.len(),
        list.join("\n")
    );
}

#[test]
fn every_file_keeps_the_borders() {
    let files = files();
    let sources = files.iter().filter(|(path, _)| path.starts_with("src/"));
    assert!(
        sources.count() > 50,
        "the tree was not found: {}",
        files.len()
    );
    let violations: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| rules::violations(path, text))
        .collect();
    assert_none(&violations);
}

#[test]
fn the_list_of_unsafe_files_is_no_longer_than_needed() {
    let files = files();
    let uses_it = |path: &str| {
        let text = files.iter().find(|file| file.0 == path);
        text.is_some_and(|(_, text)| rules::has_unsafe(text))
    };
    let stale: Vec<_> = rules::UNSAFE_FILES
        .into_iter()
        .filter(|path| !uses_it(path))
        .collect();
    assert_eq!(
        stale, [""; 0],
        "without `unsafe`: take them off UNSAFE_FILES"
    );
}

/// Small files named after one thing each are how the house stays readable.
#[test]
fn files_are_small() {
    let files = files();
    let mut lengths: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.starts_with("src/") && path.ends_with(".rs"))
        .map(|(_, text)| text.lines().count())
        .collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < 250, "the median file of src has {median} lines");
}
