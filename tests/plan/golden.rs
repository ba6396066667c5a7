//! The text of each case, both systems, both ways.

use netcombiner::cli::plan::System;

use crate::{cases, folder, text};

const FILES: [(&str, System, bool); 4] = [
    ("linux.txt", System::Linux, false),
    ("linux-down.txt", System::Linux, true),
    ("freebsd.txt", System::FreeBsd, false),
    ("freebsd-down.txt", System::FreeBsd, true),
];

#[test]
fn the_plans_are_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for name in cases() {
        for (file, system, down) in FILES {
            let path = folder().join(&name).join(file);
            let text = text(&name, system, down, false);
            if update {
                std::fs::write(&path, &text).unwrap();
            } else if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                wrong.push(format!("{}:\n{text}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these differ from their files (UPDATE_GOLDEN=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn json_holds_the_same_operations() {
    for name in cases() {
        for (_, system, down) in FILES {
            let json: Vec<String> = serde_json::from_str(&text(&name, system, down, true)).unwrap();
            let lines: String = json.iter().map(|line| format!("{line}\n")).collect();
            assert_eq!(lines, text(&name, system, down, false));
        }
    }
}
