//! The packet filters of others, read whole: tables, chains, rules and sets of nf_tables, and what
//! there is of the older ip_tables.

use std::io;

use rustix::net::netdevice::name_to_index;

use super::super::attributes::{Attributes, attributes, find, text};
use super::encode::TABLE;
use super::legacy;
use super::message::{self, flag};
use super::talk::open;
use super::{EXPRESSION_DATA, EXPRESSION_NAME, RULE_CHAIN, RULE_EXPRESSIONS, TABLE_FLAGS};
use crate::config::units::IfName;
use crate::io::clock;
use crate::route::foreign::{
    Base, Chain, Element, Family, Ruleset, Set, Source, Step, Verdict, xt,
};

/// NFT_MSG_GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN.
const TABLES: u16 = 1;
const CHAINS: u16 = 4;
const RULES: u16 = 7;
const SETS: u16 = 10;
const ELEMENTS: u16 = 13;
const GENERATION: u16 = 16;

/// So many messages of some hundred elements are read of a set. Of a longer one, a blocklist, it is
/// not known what is not in it.
const MOST_MESSAGES: usize = 64;

/// The families that ip_tables has, as its files call them.
const FAMILIES: [(Family, &str); 2] = [(Family::Ip, "ip"), (Family::Ip6, "ip6")];

/// How often all is read again when somebody changes it meanwhile.
const TRIES: u32 = 3;

/// The number of the ruleset's last change; `None`: there is no nf_tables.
pub(in super::super) fn generation() -> Option<u32> {
    let answers = dump(GENERATION, 0, 0, &Attributes::new(), 1).ok()?;
    number(&answers.first()?.1, 1)
}

/// True when there are tables of ip_tables, the older kind.
pub(in super::super) fn has_legacy() -> bool {
    FAMILIES
        .iter()
        .any(|(_, kind)| !legacy::tables(kind).is_empty())
}

/// All but our own table. Without nf_tables in the kernel there is none.
pub(in super::super) fn read(tunnel: &IfName) -> io::Result<Ruleset> {
    let mut tries = 1;
    let mut rules = loop {
        let before = generation();
        let rules = match before {
            Some(_) => read_once(tunnel)?,
            None => Ruleset::default(),
        };
        if tries == TRIES || generation() == before {
            break rules;
        }
        tries += 1;
    };
    rules.tunnel_index = index(tunnel);
    let deadline = clock::now() + legacy::PATIENCE;
    for (family, kind) in FAMILIES {
        if legacy::tables(kind).is_empty() {
            continue;
        }
        rules.legacy = true;
        match legacy::saved(kind, deadline) {
            Some(text) => rules.add_legacy(family, &text),
            None => rules.unread = true,
        }
    }
    Ok(rules)
}

/// The index of a device, where it is there.
fn index(device: &IfName) -> Option<u32> {
    name_to_index(open().ok()?, device.as_str()).ok()
}

fn read_once(tunnel: &IfName) -> io::Result<Ruleset> {
    let none = Attributes::new();
    let own = crate::route::lower::nft::table_name(tunnel);
    // Ours, and those that are switched off (NFT_TABLE_F_DORMANT).
    let mut left_out = Vec::new();
    for (family, run) in dump(TABLES, flag::DUMP, 0, &none, usize::MAX)? {
        let name = find(&run, TABLE).map(text).unwrap_or_default();
        if name == own || number(&run, TABLE_FLAGS).unwrap_or(0) & 1 != 0 {
            left_out.push((family, name.to_owned()));
        }
    }
    let table = |family: u8, run: &[u8]| {
        let name = find(run, TABLE).map(text).unwrap_or_default().to_owned();
        let kind = match family {
            1 => Family::Inet,
            2 => Family::Ip,
            10 => Family::Ip6,
            _ => return None,
        };
        (!left_out.contains(&(family, name.clone()))).then_some((kind, name))
    };
    let mut chains: Vec<Chain> = Vec::new();
    for (number, run) in dump(CHAINS, flag::DUMP, 0, &none, usize::MAX)? {
        if let Some((family, table)) = table(number, &run) {
            chains.push(Chain {
                family,
                table,
                name: named(&run, 3),
                base: base(&run),
                rules: Vec::new(),
                legacy: false,
            });
        }
    }
    // Rules come chain by chain: where the last one was put, the next one belongs most often.
    let mut at = 0;
    for (number, run) in dump(RULES, flag::DUMP, 0, &none, usize::MAX)? {
        let Some((family, table)) = table(number, &run) else {
            continue;
        };
        let name = named(&run, RULE_CHAIN);
        let is_it = |it: &Chain| (it.family, &it.table, &it.name) == (family, &table, &name);
        if !chains.get(at).is_some_and(is_it) {
            at = chains.iter().position(is_it).unwrap_or(usize::MAX);
        }
        if let Some(chain) = chains.get_mut(at) {
            chain
                .rules
                .push(steps(find(&run, RULE_EXPRESSIONS).unwrap_or_default()));
        }
    }
    let mut sets = Vec::new();
    for (number, run) in dump(SETS, flag::DUMP, 0, &none, usize::MAX)? {
        if let Some((family, table)) = table(number, &run) {
            sets.push(set(number, family, table, &run)?);
        }
    }
    Ok(Ruleset::new(chains, sets))
}

/// NFTA_CHAIN_HOOK 4 with NFTA_HOOK_HOOKNUM 1 and _PRIORITY 2, NFTA_CHAIN_POLICY 5 and _TYPE 7 of a chain
/// that the kernel calls.
fn base(run: &[u8]) -> Option<Base> {
    let hook = find(run, 4)?;
    Some(Base {
        hook: u8::try_from(number(hook, 1)?).ok()?,
        priority: number(hook, 2)?.cast_signed(),
        // NF_DROP.
        drops: number(run, 5) == Some(0),
        nat: named(run, 7) == "nat",
    })
}

/// NFTA_SET_NAME 2, _FLAGS 3 (INTERVAL 4), _DESC 9 with _CONCAT 2, whose elements hold a length.
fn set(number_of_family: u8, family: Family, table: String, run: &[u8]) -> io::Result<Set> {
    let name = named(run, 2);
    let fields = find(run, 9).and_then(|it| find(it, 2)).unwrap_or_default();
    let fields = attributes(fields).filter_map(|(_, field)| number(field, 1));
    let wanted = Attributes::new().text(1, &table).text(2, &name);
    let listed = dump(
        ELEMENTS,
        flag::DUMP,
        number_of_family,
        &wanted,
        MOST_MESSAGES,
    )?;
    let mut elements = Vec::new();
    for (_, run) in &listed {
        // NFTA_SET_ELEM_LIST_ELEMENTS.
        let listed = find(run, 3).unwrap_or_default();
        elements.extend(attributes(listed).map(|(_, run)| element(run)));
    }
    Ok(Set {
        family,
        table,
        name,
        intervals: number(run, 3).unwrap_or(0) & 4 != 0,
        fields: fields.map(|length| length as usize).collect(),
        partial: listed.len() >= MOST_MESSAGES,
        elements,
    })
}

/// NFTA_SET_ELEM_KEY 1, _DATA 2, _FLAGS 3 (INTERVAL_END 1), _KEY_END 10.
fn element(run: &[u8]) -> Element {
    let value = |kind| {
        find(run, kind)
            .and_then(|it| find(it, 1))
            .map(<[u8]>::to_vec)
    };
    Element {
        key: value(1).unwrap_or_default(),
        last: value(10),
        is_end: number(run, 3).unwrap_or(0) & 1 != 0,
        verdict: find(run, 2).and_then(|it| find(it, 2)).map(verdict),
        value: value(2),
    }
}

/// NFTA_VERDICT_CODE 1 and _CHAIN 2.
fn verdict(run: &[u8]) -> Verdict {
    match number(run, 1).unwrap_or(u32::MAX).cast_signed() {
        1 => Verdict::Accept,
        -1 | -2 => Verdict::Continue,
        -3 => Verdict::Jump(named(run, 2)),
        -4 => Verdict::Goto(named(run, 2)),
        -5 => Verdict::Return,
        // An error number may stand above NF_DROP.
        code if code & 0xff == 0 => Verdict::Drop,
        _ => Verdict::Unknown,
    }
}

fn steps(expressions: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (_, expression) in attributes(expressions) {
        let name = find(expression, EXPRESSION_NAME).map(text);
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        match step(name.unwrap_or_default(), data) {
            Some(read) => steps.extend(read),
            None => steps.extend([Step::Maybe, Step::Forget(1)]),
        }
    }
    steps
}

/// An expression by its attributes, `NFTA_NAME_*` of linux/netfilter/nf_tables.h. `None`: it is not
/// understood.
fn step(name: &str, data: &[u8]) -> Option<Vec<Step>> {
    let at = |kind| number(data, kind);
    let value = |kind| {
        find(data, kind)
            .and_then(|it| find(it, 1))
            .map(<[u8]>::to_vec)
    };
    // What writes a mark; another thing that is written does not matter here.
    let written = |is_mark| if is_mark { Step::Mark } else { Step::Pass };
    let one = match name {
        "meta" if find(data, 3).is_some() => written(at(2) == Some(3)),
        "ct" if find(data, 4).is_some() => written(at(2) == Some(3)),
        "payload" if find(data, 5).is_some() => Step::Pass,
        "meta" => Step::Load(at(1)?, Source::Meta(at(2)?)),
        "ct" => Step::Load(at(1)?, Source::Ct(at(2)?)),
        "payload" => {
            let header = Source::Header(at(2)?, at(3)? as usize, at(4)? as usize);
            Step::Load(at(1)?, header)
        }
        "cmp" => Step::Compare(at(1)?, at(2)?, value(3)?),
        "range" => Step::Range(at(1)?, at(2)? != 0, [value(3)?, value(4)?]),
        // Shifts are not asked for here.
        "bitwise" if at(6).unwrap_or(0) != 0 => Step::Forget(at(2)?),
        "bitwise" => Step::Bits {
            from: at(1)?,
            to: at(2)?,
            mask: value(4)?,
            xor: value(5)?,
        },
        "byteorder" => Step::Swap(at(1)?, at(2)?, at(5)? as usize, at(4)? as usize),
        "lookup" => Step::Lookup {
            set: named(data, 1),
            from: at(2)?,
            to: at(3),
            inverse: at(5).unwrap_or(0) & 1 != 0,
        },
        "immediate" if at(1) == Some(0) => {
            Step::Verdict(verdict(find(data, 2).and_then(|it| find(it, 2))?))
        }
        "immediate" => Step::Put(at(1)?, value(2)?),
        // RESULT is ADDRTYPE, of the destination alone.
        "fib" if at(2) == Some(3) && at(3) == Some(2) => {
            Step::Load(at(1)?, Source::DestinationKind)
        }
        "fib" => Step::Forget(at(1)?),
        // "Over" a limit is what nothing here comes to.
        "limit" => within_limit(at(5)),
        "connlimit" | "quota" => within_limit(at(2)),
        "dynset" if find(data, 7).is_none() && find(data, 10).is_none() => Step::Pass,
        "counter" | "log" | "notrack" | "last" | "objref" | "flow_offload" | "dup" => Step::Pass,
        "reject" => Step::Verdict(Verdict::Drop),
        "masq" | "nat" | "redir" => Step::Translate,
        "tproxy" | "queue" | "synproxy" | "fwd" => Step::Verdict(Verdict::Unknown),
        "match" => return Some(xt::matching(&named(data, 1), at(2)?, find(data, 3)?)),
        "target" => xt::target(&named(data, 1)),
        _ => return None,
    };
    Some(vec![one])
}

fn within_limit(flags: Option<u32>) -> Step {
    if flags.unwrap_or(0) & 1 == 0 {
        Step::Pass
    } else {
        xt::never()
    }
}

/// A number in network byte order.
fn number(run: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(run, kind)?.first_chunk()?))
}

fn named(run: &[u8], kind: u16) -> String {
    find(run, kind).map(text).unwrap_or_default().to_owned()
}

/// Asks for everything of a kind, of one family or of all (0): the family and the attributes of each,
/// at most `most`.
fn dump(
    kind: u16,
    flags: u16,
    family: u8,
    wanted: &Attributes,
    most: usize,
) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let mut datagram = Vec::new();
    let kind = message::SUBSYSTEM << 8 | kind;
    message::push(&mut datagram, kind, flags, 1, (family, 0), wanted);
    let socket = open()?;
    socket.send(&datagram, 0)?;
    let mut answers = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            match message.kind {
                message::DONE | message::ERROR => return message.outcome().map(|()| answers),
                _ => {
                    let family = message.payload.first().copied().unwrap_or(0);
                    answers.push((family, message::body(message.payload).to_vec()));
                    // The rest goes with the socket.
                    if answers.len() >= most {
                        return Ok(answers);
                    }
                }
            }
        }
    }
}
