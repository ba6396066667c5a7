//! Our one table of nf_tables, `inet netcombiner-<tunnel>`: written whole in one transaction, read
//! back rule by rule. Over NETLINK_NETFILTER, so that no `nft` binary is needed; the exchanges are
//! a few kilobytes that the kernel answers before `send` returns, so they are not async.

mod expression;
mod message;
mod table;

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::attributes::{Attributes, attributes, find, text};
use crate::config::units::IfName;
use crate::route::lower::nft::table_name;
use crate::route::resource::Filter;
use message::{BATCH_BEGIN, BATCH_END, FAMILY_ANY, FAMILY_INET, Verb, flag};
use table::Chain;

/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE are all 1.
const TABLE: u16 = 1;
/// NFTA_TABLE_FLAGS: among them NFT_TABLE_F_DORMANT, which switches a table off.
const TABLE_FLAGS: u16 = 2;
/// NFTA_CHAIN_NAME.
const CHAIN_NAME: u16 = 3;
/// NFTA_CHAIN_HOOK.
const CHAIN_HOOK: u16 = 4;
/// NFTA_CHAIN_TYPE.
const CHAIN_TYPE: u16 = 7;
/// NFTA_HOOK_HOOKNUM.
const HOOK_NUMBER: u16 = 1;
/// NFTA_HOOK_PRIORITY.
const HOOK_PRIORITY: u16 = 2;
/// NFTA_RULE_CHAIN.
const RULE_CHAIN: u16 = 2;
/// NFTA_RULE_EXPRESSIONS.
const RULE_EXPRESSIONS: u16 = 4;
/// NFTA_RULE_USERDATA.
const RULE_USERDATA: u16 = 7;
/// NFTA_EXPR_NAME.
const EXPRESSION_NAME: u16 = 1;
/// NFTA_EXPR_DATA.
const EXPRESSION_DATA: u16 = 2;

/// Replaces the table, whole, in one transaction: other packets see the old one or the new one.
pub(super) fn replace(filter: &Filter) -> io::Result<()> {
    let table = table_name(&filter.tunnel);
    let mut batch = Batch::begin();
    batch.empty_table(&table);
    batch.add(
        Verb::NewTable,
        flag::CREATE,
        &Attributes::new().text(TABLE, &table),
    );
    let rules = table::rules(filter);
    for chain in table::chains(&rules) {
        batch.add(Verb::NewChain, flag::CREATE, &encode_chain(&table, chain));
    }
    for rule in rules {
        let attributes = Attributes::new()
            .text(TABLE, &table)
            .text(RULE_CHAIN, rule.chain)
            .nest(RULE_EXPRESSIONS, &rule.steps.0)
            .bytes(RULE_USERDATA, &userdata(&rule.comment));
        batch.add(Verb::NewRule, flag::CREATE | flag::APPEND, &attributes);
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

/// Our table as it stands in the kernel. When it is not exactly as we write it (somebody changed
/// it), it has no clauses, which is no state that is ever wanted, so it will be replaced.
pub(super) fn observe(tunnel: &IfName) -> io::Result<Option<Filter>> {
    let name = table_name(tunnel);
    let of_table = Attributes::new().text(TABLE, &name);
    let answers = match ask(Verb::GetTable, flag::ACK, &of_table) {
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
    let mut untouched = answers
        .iter()
        .all(|run| matches!(find(run, TABLE_FLAGS), None | Some([0, 0, 0, 0])));

    let ours = |run: &Vec<u8>| find(run, TABLE).map(text) == Some(&*name);
    let mut rules = ask(Verb::GetRule, flag::DUMP, &of_table)?;
    rules.retain(ours);
    let clauses = rules.iter().filter_map(|run| table::parse(comment(run)));
    let mut filter = Filter {
        tunnel: tunnel.clone(),
        clauses: clauses.collect(),
    };
    let wanted = table::rules(&filter);
    let mut chains = ask(Verb::GetChain, flag::DUMP, &Attributes::new())?;
    chains.retain(ours);
    untouched &= chains.len() == table::chains(&wanted).count()
        && rules.len() == wanted.len()
        && table::chains(&wanted).all(|chain| {
            let listed = rules.iter().filter(|run| is_in(run, chain));
            let wanted = wanted.iter().filter(|rule| rule.chain == chain.name);
            let same = |(run, rule): (&Vec<u8>, &table::Rule)| {
                comment(run) == rule.comment && same_steps(run, &rule.steps.0)
            };
            chains.iter().any(|run| is_chain(run, chain)) && listed.zip(wanted).all(same)
        });
    if !untouched {
        filter.clauses.clear();
    }
    Ok(Some(filter))
}

fn encode_chain(table: &str, chain: Chain) -> Attributes {
    let hook = Attributes::new()
        .number(HOOK_NUMBER, chain.hook)
        .bytes(HOOK_PRIORITY, &chain.priority.to_be_bytes());
    Attributes::new()
        .text(TABLE, table)
        .text(CHAIN_NAME, chain.name)
        .nest(CHAIN_HOOK, &hook)
        .text(CHAIN_TYPE, chain.kind)
}

fn is_chain(run: &[u8], chain: Chain) -> bool {
    let hook = find(run, CHAIN_HOOK).unwrap_or_default();
    find(run, CHAIN_NAME).map(text) == Some(chain.name)
        && find(run, CHAIN_TYPE).map(text) == Some(chain.kind)
        && find(hook, HOOK_NUMBER) == Some(&chain.hook.to_be_bytes()[..])
        && find(hook, HOOK_PRIORITY) == Some(&chain.priority.to_be_bytes()[..])
}

fn is_in(run: &[u8], chain: Chain) -> bool {
    find(run, RULE_CHAIN).map(text) == Some(chain.name)
}

/// NFTNL_UDATA_RULE_COMMENT as nft writes it: type 0, length, text with its NUL.
fn userdata(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

fn comment(run: &[u8]) -> &str {
    match find(run, RULE_USERDATA) {
        Some([0, _, comment @ ..]) => text(comment),
        _ => "",
    }
}

/// True when the listed rule has the same expressions, and each says all that we said; the kernel
/// adds attributes of its own.
fn same_steps(run: &[u8], wanted: &Attributes) -> bool {
    let listed = find(run, RULE_EXPRESSIONS).unwrap_or_default();
    let mut listed = attributes(listed);
    let mut wanted = attributes(&wanted.0);
    loop {
        match (listed.next(), wanted.next()) {
            (None, None) => return true,
            (Some((_, there)), Some((_, here))) => {
                let name = |run| find(run, EXPRESSION_NAME).map(text);
                let there_data = find(there, EXPRESSION_DATA).unwrap_or_default();
                let here_data = find(here, EXPRESSION_DATA).unwrap_or_default();
                if name(there) != name(here)
                    || attributes(here_data)
                        .any(|(kind, value)| find(there_data, kind) != Some(value))
                {
                    return false;
                }
            }
            (None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

/// A transaction in the making.
struct Batch {
    datagram: Vec<u8>,
    sequence: u32,
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Self {
            datagram: Vec::new(),
            sequence: 0,
        };
        batch.frame(BATCH_BEGIN);
        batch
    }

    /// Begins or ends the batch: the "resource" is the subsystem that it is for.
    fn frame(&mut self, kind: u16) {
        message::push(
            &mut self.datagram,
            kind,
            0,
            self.sequence,
            (FAMILY_ANY, message::SUBSYSTEM),
            &Attributes::new(),
        );
        self.sequence += 1;
    }

    fn add(&mut self, verb: Verb, flags: u16, attributes: &Attributes) {
        message::push(
            &mut self.datagram,
            verb.kind(),
            flags | flag::ACK,
            self.sequence,
            (FAMILY_INET, 0),
            attributes,
        );
        self.sequence += 1;
    }

    /// Leaves no table of this name, whether there was one or not: deleting one that is not there
    /// would be an error.
    fn empty_table(&mut self, table: &str) {
        let attributes = Attributes::new().text(TABLE, table);
        self.add(Verb::NewTable, flag::CREATE, &attributes);
        self.add(Verb::DeleteTable, 0, &attributes);
    }

    /// Sends all; the kernel does all or nothing.
    fn commit(mut self) -> io::Result<()> {
        let last = self.sequence - 1;
        self.frame(BATCH_END);
        let socket = open()?;
        socket.send(&self.datagram, 0)?;
        loop {
            let (answer, _) = socket.recv_from_full()?;
            for message in message::messages(&answer) {
                if message.kind != message::ERROR {
                    continue;
                }
                if message.error() != 0 {
                    return Err(io::Error::from_raw_os_error(message.error()));
                }
                if message.sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

/// Asks for tables, chains or rules; gives the attributes of each.
fn ask(verb: Verb, flags: u16, attributes: &Attributes) -> io::Result<Vec<Vec<u8>>> {
    let mut datagram = Vec::new();
    message::push(
        &mut datagram,
        verb.kind(),
        flags,
        1,
        (FAMILY_INET, 0),
        attributes,
    );
    let socket = open()?;
    socket.send(&datagram, 0)?;
    let mut answers = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            match message.kind {
                message::DONE => return Ok(answers),
                message::ERROR if message.error() == 0 => return Ok(answers),
                message::ERROR => return Err(io::Error::from_raw_os_error(message.error())),
                _ => answers.push(message.body().to_vec()),
            }
        }
    }
}

/// A socket to the kernel alone, one for each exchange: nothing is left over for the next.
fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}
