//! The packet filter's table: one model, made from a [`Filter`], and two renderings of it: the
//! text for nft(8) here, netlink's messages in `host::linux::nft`.
//!
//! To add a clause:
//! 1. a variant of [`FilterClause`](crate::route::resource::FilterClause), which says what it is for; the order of the variants is the
//!    order of the rules within a chain;
//! 2. a function in `clauses.rs` that adds its rules by [`Table::rule`], and its sets;
//! 3. the clause among those of `route::local` or `route::remote`;
//! 4. a match or a statement that is missing is a variant of [`Part`]: its text in `text.rs`, its
//!    netlink in `host/linux/nft/encode.rs`, which the compiler asks for.
//!
//! Nothing is read back from the kernel: what stands there is compared with the tables that could
//! be there. So a clause needs no other form.

mod border;
mod clauses;
pub mod model;
mod outside;
mod text;
mod untracked;

pub use model::{Part, Table};

use crate::config::units::IfName;
use crate::route::resource::Filter;

/// The name of a tunnel's table (family `inet`).
pub fn table_name(tunnel: &IfName) -> String {
    format!("netcombiner-{tunnel}")
}

/// The table that a filter stands for.
pub fn table(filter: &Filter) -> Table {
    let mut table = Table::new(table_name(&filter.tunnel));
    for clause in &filter.clauses {
        clauses::add(&mut table, clause);
    }
    table
}

/// A script that puts the table in the place of the one before, in one transaction.
pub fn script(filter: &Filter) -> String {
    text::script(&table(filter))
}
