//! Field section E: a slow link beside a fast one never costs more than it brings.
//!
//! The whole sweep takes minutes: `cargo run --release -p netcombiner-sim -- --sweep`. This test holds
//! the code to a few of its rows.

use netcombiner_sim::sweep;

/// Field row E: the kinds of rows, both directions, at least 97 % of the best link alone (or what the
/// row says).
#[test]
fn never_below_the_best_link() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let rows = sweep::run(&sweep::quick(), threads, 1);
    let short: Vec<&str> = rows
        .iter()
        .filter(|row| !row.holds())
        .map(|row| row.case.name.as_str())
        .collect();
    assert!(short.is_empty(), "{short:?}\n{}", sweep::text(&rows));
}
