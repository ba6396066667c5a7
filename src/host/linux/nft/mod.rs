//! Our one table of nf_tables, `inet netcombiner-<tunnel>`: written whole in one transaction, read
//! back and compared with what could be there. Over NETLINK_NETFILTER, so that no `nft` binary is
//! needed; the kernel answers before `send` returns, so the exchanges are not async.

mod encode;
mod expression;
mod legacy;
mod message;
pub(super) mod ruleset;
mod talk;

use std::io;

use super::attributes::{Attributes, attributes, find, text};
use crate::config::units::IfName;
use crate::route::lower::nft::model::Set;
use crate::route::lower::nft::{Table, table, table_name};
use crate::route::resource::Filter;
use crate::sorted;
use encode::{CHAIN_NAME, SET_ID, SET_NAME, TABLE};
use message::{Verb, flag};
use talk::{Batch, ask};

/// NFTA_TABLE_FLAGS: among them NFT_TABLE_F_DORMANT, which switches a table off.
const TABLE_FLAGS: u16 = 2;
/// NFTA_RULE_CHAIN.
const RULE_CHAIN: u16 = 2;
/// NFTA_RULE_EXPRESSIONS.
const RULE_EXPRESSIONS: u16 = 4;
/// NFTA_EXPR_NAME.
const EXPRESSION_NAME: u16 = 1;
/// NFTA_EXPR_DATA.
const EXPRESSION_DATA: u16 = 2;
/// NFTA_SET_ELEM_LIST_ELEMENTS; the list's table is 1 and its set 2.
const ELEMENTS: u16 = 3;

/// How many elements go into one message: an attribute ends at 64 KiB, and one is 56 bytes at most.
const ELEMENTS_A_MESSAGE: usize = 1000;

/// How often the table is read again when it changes meanwhile.
const LISTINGS: u32 = 5;

/// Replaces the table, whole, in one transaction: other packets see the old one or the new one.
pub(super) fn replace(filter: &Filter) -> io::Result<()> {
    let table = table(filter);
    let of_table = || Attributes::new().text(TABLE, &table.name);
    let mut batch = Batch::begin();
    batch.empty_table(&table.name);
    batch.add(Verb::NewTable, flag::CREATE, &of_table());
    for (number, set) in (1..).zip(&table.sets) {
        let attributes = of_table().join(&encode::set(set)).number(SET_ID, number);
        batch.add(Verb::NewSet, flag::CREATE, &attributes);
        for elements in encode::elements(set).chunks(ELEMENTS_A_MESSAGE) {
            let list = elements
                .iter()
                .fold(Attributes::new(), |list, element| list.nest(1, element));
            let attributes = of_table().text(SET_NAME, &set.name).nest(ELEMENTS, &list);
            batch.add(Verb::NewSetElement, flag::CREATE, &attributes);
        }
    }
    for chain in &table.chains {
        let attributes = of_table().join(&encode::chain(chain));
        batch.add(Verb::NewChain, flag::CREATE, &attributes);
        for rule in &chain.rules {
            let attributes = of_table()
                .text(RULE_CHAIN, chain.place.name)
                .nest(RULE_EXPRESSIONS, &encode::rule(rule));
            batch.add(Verb::NewRule, flag::CREATE | flag::APPEND, &attributes);
        }
    }
    batch.commit().map_err(|error| match error.raw_os_error() {
        // What nf_tables says when an expression's module is missing.
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => io::Error::new(
            error.kind(),
            format!(
                "{error}; the kernel lacks nf_tables, nft_ct or nft_nat (OpenWrt: kmod-nft-nat)"
            ),
        ),
        _ => error,
    })
}

/// Deletes the table with all in it; no error when there is none.
pub(super) fn remove(tunnel: &IfName) -> io::Result<()> {
    let mut batch = Batch::begin();
    batch.empty_table(&table_name(tunnel));
    batch.commit()
}

/// Our table as it stands in the kernel: the one of `known` that it is. When it is none of them
/// (somebody changed it, or an instance of another configuration left it), it has no clauses,
/// which is no state that is ever wanted, so it will be replaced.
pub(super) fn observe(tunnel: &IfName, known: &[Filter]) -> io::Result<Option<Filter>> {
    let mut tries = 0;
    let listed = loop {
        tries += 1;
        match Listed::read(&table_name(tunnel)) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) && tries < LISTINGS => {}
            listed => break listed?,
        }
    };
    let Some(listed) = listed else {
        return Ok(None);
    };
    let mut known = known.iter().filter(|filter| filter.tunnel == *tunnel);
    let found = known.find(|filter| listed.is(&table(filter)));
    Ok(Some(found.cloned().unwrap_or_else(|| Filter {
        tunnel: tunnel.clone(),
        clauses: sorted::Set::new(),
    })))
}

/// A table as the kernel lists it: runs of attributes.
struct Listed {
    table: Vec<Vec<u8>>,
    chains: Vec<Vec<u8>>,
    rules: Vec<Vec<u8>>,
    /// Each with its elements.
    sets: Vec<(Vec<u8>, Vec<SetElement>)>,
}

impl Listed {
    /// Reads it; nothing when there is none.
    fn read(name: &str) -> io::Result<Option<Self>> {
        let of_table = Attributes::new().text(TABLE, name);
        let list = |verb, attributes: &Attributes| -> io::Result<Vec<Vec<u8>>> {
            let mut listed = ask(verb, flag::DUMP, attributes)?;
            listed.retain(|run| find(run, TABLE).map(text) == Some(name));
            Ok(listed)
        };
        let table = match ask(Verb::GetTable, flag::ACK, &of_table) {
            Ok(answers) => answers,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    // No such table; or no nf_tables in this kernel.
                    Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut sets = Vec::new();
        for set in list(Verb::GetSet, &of_table)? {
            let name = find(&set, SET_NAME).map(text).unwrap_or_default();
            let mut elements = Vec::new();
            for run in list(Verb::GetSetElement, &of_table.clone().text(SET_NAME, name))? {
                elements.extend(attributes(find(&run, ELEMENTS).unwrap_or_default()).map(parts));
            }
            sets.push((set, elements));
        }
        Ok(Some(Self {
            table,
            sets,
            rules: list(Verb::GetRule, &of_table)?,
            chains: list(Verb::GetChain, &Attributes::new())?,
        }))
    }

    /// True when it is exactly as we would write `wanted`.
    fn is(&self, wanted: &Table) -> bool {
        let is_on = |run: &Vec<u8>| matches!(find(run, TABLE_FLAGS), None | Some([0, 0, 0, 0]));
        let rules = wanted.chains.iter().map(|chain| chain.rules.len());
        self.table.iter().all(is_on)
            && self.sets.len() == wanted.sets.len()
            && self.chains.len() == wanted.chains.len()
            && self.rules.len() == rules.sum::<usize>()
            && wanted.sets.iter().all(|set| self.has_set(set))
            && wanted.chains.iter().all(|chain| {
                let name = chain.place.name;
                let encoded = encode::chain(chain);
                let is_it = |run: &&Vec<u8>| find(run, CHAIN_NAME).map(text) == Some(name);
                let within = |run: &&Vec<u8>| find(run, RULE_CHAIN).map(text) == Some(name);
                let listed = self.rules.iter().filter(within);
                listed.clone().count() == chain.rules.len()
                    && self
                        .chains
                        .iter()
                        .find(is_it)
                        .is_some_and(|run| says(run, &encoded))
                    && listed
                        .zip(&chain.rules)
                        .all(|(run, rule)| same_steps(run, &encode::rule(rule)))
            })
    }

    fn has_set(&self, wanted: &Set) -> bool {
        let is_it = |(run, _): &&(Vec<u8>, _)| find(run, SET_NAME).map(text) == Some(&*wanted.name);
        let Some((run, elements)) = self.sets.iter().find(is_it) else {
            return false;
        };
        let encoded = encode::elements(wanted);
        let mut there: Vec<_> = elements.iter().collect();
        let here: Vec<_> = encoded
            .iter()
            .map(|element| parts((1, &element.0)))
            .collect();
        let mut here: Vec<_> = here.iter().collect();
        there.sort_unstable();
        here.sort_unstable();
        says(run, &encode::set(wanted)) && there == here
    }
}

/// NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_FLAGS and NFTA_SET_ELEM_DATA; the first and the last without
/// NFTA_DATA_VALUE around them.
type SetElement = (Vec<u8>, Vec<u8>, Vec<u8>);

fn parts((_, element): (u16, &[u8])) -> SetElement {
    let value = |kind| {
        let inner = find(element, kind).and_then(|inner| find(inner, 1));
        inner.unwrap_or_default().to_vec()
    };
    let flags = find(element, 3).unwrap_or_default().to_vec();
    (value(1), flags, value(2))
}

/// True when a listed run says all that we say; the kernel adds attributes of its own, within
/// nested ones too.
fn says(listed: &[u8], wanted: &Attributes) -> bool {
    wanted.iter().all(|(kind, value)| {
        find(listed, kind).is_some_and(|there| {
            there == value || kind == encode::CHAIN_HOOK && says(there, &Attributes(value.to_vec()))
        })
    })
}

/// True when the listed rule has the same expressions, and each says all that we said.
fn same_steps(run: &[u8], wanted: &Attributes) -> bool {
    let listed = find(run, RULE_EXPRESSIONS).unwrap_or_default();
    let mut listed = attributes(listed);
    let mut wanted = wanted.iter();
    loop {
        match (listed.next(), wanted.next()) {
            (None, None) => return true,
            (Some((_, there)), Some((_, here))) => {
                let name = |run| find(run, EXPRESSION_NAME).map(text);
                let data = |run| find(run, EXPRESSION_DATA).unwrap_or_default();
                if name(there) != name(here) || !says(data(there), &Attributes(data(here).to_vec()))
                {
                    return false;
                }
            }
            (None, Some(_)) | (Some(_), None) => return false,
        }
    }
}
