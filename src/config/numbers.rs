//! The numbers of tables, rules and marks: none of the kernel's, none twice, in the right order.

use std::ops::RangeInclusive;

use super::Numbers;
use super::reader::Fields;
use super::report::Report;
use super::units::{RulePref, TableId};
use crate::proto::wire::MAX_PATHS;

/// Our tables and preferences are three neighbours (dissertation 3.3: 19, 20, 21).
const NEIGHBOURS: u32 = 3;
/// Preferences that are free for us: 0 is the kernel's look-up of `local`, 32766 that of `main`.
const PREFS: RangeInclusive<i128> = 1..=32765;
/// The links' tables: one a path.
const LINK_TABLES: u32 = MAX_PATHS as u32;

pub(super) fn read(fields: &Fields<'_>, report: &mut Report<'_>) -> Numbers {
    let mut numbers = Numbers::default();
    // The base is a preference too, and its last neighbour must be one.
    let bases = *PREFS.start()..=*PREFS.end() - i128::from(NEIGHBOURS - 1);
    if let Some(base) = fields.number("table_base", bases, "a first table", report) {
        numbers.table_base = TableId(base);
    }
    if let Some(pref) = fields.number("keep_pref", PREFS, "a preference", report) {
        numbers.keep_pref = RulePref(pref);
    }
    if let Some(pref) = fields.number("link_pref", PREFS, "a preference", report) {
        numbers.link_pref = RulePref(pref);
    }
    let most = i128::from(u32::MAX - LINK_TABLES);
    if let Some(base) = fields.number("link_table_base", 1..=most, "a first table", report) {
        numbers.link_table_base = TableId(base);
    }
    let word = 1..=i128::from(u32::MAX);
    if let Some(mask) = fields.number("mark_mask", word.clone(), "a mask", report) {
        numbers.mark_mask = mask;
    }
    if let Some(mark) = fields.number("mark", word, "a mark", report) {
        numbers.mark = mark;
    }
    order(&numbers, fields, report);
    tables(&numbers, fields, report);
    marks(&numbers, fields, report);
    numbers
}

/// The mask holds two values: the mark of the host's own connections, and that of the client's.
fn marks(numbers: &Numbers, fields: &Fields<'_>, report: &mut Report<'_>) {
    let (mark, mask) = (numbers.mark, numbers.mark_mask);
    let wrong = if mark & !mask != 0 {
        format!("has bits outside of its mask {mask:#x} (keep mark within mark_mask)")
    } else if numbers.client_mark().is_none() {
        format!(
            "is all of its mask {mask:#x}, which leaves no value for the client's connections \
             (add a bit to mark_mask)"
        )
    } else {
        return;
    };
    let key = if fields.get("mark").is_some() {
        "mark"
    } else {
        "mark_mask"
    };
    report.error(&fields.at(key), format!("the mark {mark:#x} {wrong}"));
}

/// The kernel asks rules in rising order: what stays on the host, the links, then the tunnel.
fn order(numbers: &Numbers, fields: &Fields<'_>, report: &mut Report<'_>) {
    let (keep, link, base) = (
        numbers.keep_pref.0,
        numbers.link_pref.0,
        numbers.table_base.0,
    );
    let mut check = |lower: (&'static str, u32), upper: (&'static str, u32)| {
        if lower.1 < upper.1 {
            return;
        }
        let key = if fields.get(lower.0).is_some() {
            lower.0
        } else {
            upper.0
        };
        report.error(
            &fields.at(key),
            format!(
                "{} {} is not below {} {} (the rules must stand in the order keep_pref < \
                 link_pref < table_base)",
                lower.0, lower.1, upper.0, upper.1
            ),
        );
    };
    check(("keep_pref", keep), ("link_pref", link));
    check(("link_pref", link), ("table_base", base));
}

fn tables(numbers: &Numbers, fields: &Fields<'_>, report: &mut Report<'_>) {
    let ours = |first: u32, count: u32| first..=first + (count - 1);
    let tunnel = ours(numbers.table_base.0, NEIGHBOURS);
    let links = ours(numbers.link_table_base.0, LINK_TABLES);
    for (key, range) in [("table_base", &tunnel), ("link_table_base", &links)] {
        if *range.start() <= 255 && *range.end() >= 253 {
            report.error(
                &fields.at(key),
                format!(
                    "the tables {}-{} hold one of the kernel's own (253-255)",
                    range.start(),
                    range.end()
                ),
            );
        }
    }
    if links.start() <= tunnel.end() && tunnel.start() <= links.end() {
        report.error(
            &fields.at("link_table_base"),
            format!(
                "the links' tables {}-{} overlap the tunnel's {}-{}",
                links.start(),
                links.end(),
                tunnel.start(),
                tunnel.end()
            ),
        );
    }
}
