//! The table of all cases stands in `table.txt`: a change in behaviour shows in review.
//!
//! `UPDATE_SNAPSHOT=1 cargo test -p netcombiner-sim --test snapshot` rewrites it.

use std::path::Path;
use std::time::Duration;

use netcombiner_sim::{cases, suite, table};

/// How long the flows last: what the controllers do they do in this time, and the test takes less
/// than a minute.
const LASTS: Duration = Duration::from_secs(20);

#[test]
fn the_table_is_the_one_in_the_repository() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("table.txt");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let rows = suite::run(&cases::all(LASTS), true, threads);
    let now = table::text(&rows);
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(&path, now).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    if now == known {
        return;
    }
    let (known, now): (Vec<&str>, Vec<&str>) = (known.lines().collect(), now.lines().collect());
    for line in known.iter().filter(|line| !now.contains(line)) {
        println!("-{line}");
    }
    for line in now.iter().filter(|line| !known.contains(line)) {
        println!("+{line}");
    }
    panic!(
        "the behaviour changed; when it is meant to: \
         UPDATE_SNAPSHOT=1 cargo test -p netcombiner-sim --test snapshot"
    );
}
