//! The rules of ip_tables, the older kind of packet filter, as `iptables-save` prints them.

use std::net::IpAddr;

use super::probe::{ESTABLISHED, NEW, UNTRACKED};
use super::xt::{What, target, test};
use super::{Base, Chain, Family, Set, Source, Step, Verdict, padded};
use crate::config::units::Prefix;

/// A register for what is asked next (NFT_REG_1).
const REGISTER: u32 = 1;

/// Reads chains and their rules; what is not understood may match or not.
pub(super) fn read(family: Family, text: &str) -> (Vec<Chain>, Vec<Set>) {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let name = words.next().unwrap_or_default();
            chains.push(Chain {
                family,
                table: table.to_owned(),
                name: name.to_owned(),
                base: base(table, name, words.next() == Some("DROP")),
                rules: Vec::new(),
                legacy: true,
            });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let chain = words.first().and_then(|name| {
                chains
                    .iter_mut()
                    .find(|it| it.table == table && it.name == *name)
            });
            if let Some(chain) = chain {
                chain.rules.push(steps(family, &words[1..]));
            }
        }
    }
    (chains, Vec::new())
}

fn base(table: &str, name: &str, drops: bool) -> Option<Base> {
    let names = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let hook = names.iter().position(|it| *it == name)?;
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" => 100,
        _ => 0,
    };
    Some(Base {
        hook: u8::try_from(hook).ok()?,
        priority,
        drops,
        nat: table == "nat",
    })
}

/// The words of a line; one in quotes may hold blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in line.chars() {
        let word = words.last_mut();
        match letter {
            '\\' if quoted && !escaped => escaped = true,
            '"' if !escaped => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => {
                escaped = false;
                if let Some(word) = word {
                    word.push(letter);
                }
            }
        }
    }
    words
}

fn steps(family: Family, words: &[String]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    let mut inverse = false;
    while let Some(option) = words.next() {
        if option == "!" {
            inverse = true;
            continue;
        }
        let value = match words.peek() {
            Some(next) if !next.starts_with('-') && *next != "!" => words.next(),
            _ => None,
        };
        let value = value.unwrap_or_default();
        let understood = match option {
            "-m" | "--comment" | "--limit" | "--limit-burst" | "--reject-with" => Some(Vec::new()),
            "-s" => address(family, value, 0, inverse),
            "-d" => address(family, value, 1, inverse),
            "-i" => Some(device(value, 6, inverse)),
            "-o" => Some(device(value, 7, inverse)),
            "-p" => protocol(value, inverse),
            "--sport" | "--sports" => ports(value, (true, false), inverse),
            "--dport" | "--dports" => ports(value, (false, true), inverse),
            "--ports" => ports(value, (true, true), inverse),
            "--ctstate" | "--state" => states(value, inverse),
            "--dst-type" => kinds(value, inverse),
            "-j" | "-g" => Some(vec![ending(option, value)]),
            _ => None,
        };
        let is_end = option == "-j" || option == "-g";
        steps.extend(understood.unwrap_or_else(|| vec![Step::Maybe]));
        if is_end {
            // What follows says how the target does it.
            break;
        }
        inverse = false;
    }
    steps
}

fn ending(option: &str, name: &str) -> Step {
    match (option, name) {
        ("-g", _) => Step::Verdict(Verdict::Goto(name.to_owned())),
        (_, "ACCEPT") => Step::Verdict(Verdict::Accept),
        (_, "DROP") => Step::Verdict(Verdict::Drop),
        (_, "RETURN") => Step::Verdict(Verdict::Return),
        _ => {
            let known = target(name);
            if known == Step::Verdict(Verdict::Unknown) {
                // Not one of iptables' own: a chain.
                return Step::Verdict(Verdict::Jump(name.to_owned()));
            }
            known
        }
    }
}

fn compare(source: Source, value: Vec<u8>, inverse: bool) -> Vec<Step> {
    vec![
        Step::Load(REGISTER, source),
        Step::Compare(REGISTER, u32::from(inverse), value),
    ]
}

fn device(name: &str, key: u32, inverse: bool) -> Vec<Step> {
    let value = match name.strip_suffix('+') {
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => padded(name),
    };
    compare(Source::Meta(key), value, inverse)
}

/// `which`: 0 the source, 1 the destination.
fn address(family: Family, text: &str, which: usize, inverse: bool) -> Option<Vec<Step>> {
    let prefix: Prefix = text.parse().ok()?;
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let offset = match family {
        Family::Ip6 => 8 + 16 * which,
        Family::Ip | Family::Inet => 12 + 4 * which,
    };
    let value = octets(prefix.network().address());
    let length = usize::from(prefix.length());
    let mask = (0..value.len()).map(|at| {
        let bits = length.saturating_sub(at * 8).min(8);
        !(u8::MAX
            .checked_shr(u32::try_from(bits).unwrap_or(8))
            .unwrap_or(0))
    });
    let mask: Vec<u8> = mask.collect();
    Some(vec![
        Step::Load(REGISTER, Source::Header(1, offset, value.len())),
        Step::Bits {
            from: REGISTER,
            to: REGISTER,
            xor: vec![0; mask.len()],
            mask,
        },
        Step::Compare(REGISTER, u32::from(inverse), value),
    ])
}

fn protocol(name: &str, inverse: bool) -> Option<Vec<Step>> {
    let number = match name {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "ipv6-icmp" | "icmpv6" => 58,
        other => other.parse().ok()?,
    };
    Some(compare(Source::Meta(16), vec![number], inverse))
}

fn ports(text: &str, (from, to): (bool, bool), inverse: bool) -> Option<Vec<Step>> {
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let first = if first.is_empty() { "0" } else { first };
        let last = if last.is_empty() { "65535" } else { last };
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>()?;
    Some(vec![test(What::Ports(from, to, ranges), inverse)])
}

fn states(text: &str, inverse: bool) -> Option<Vec<Step>> {
    let mut bits = 0;
    for word in text.split(',') {
        bits |= match word {
            "NEW" => NEW,
            "ESTABLISHED" => ESTABLISHED,
            "RELATED" => 4,
            "INVALID" => 1,
            "UNTRACKED" => UNTRACKED,
            _ => return None,
        };
    }
    Some(vec![test(What::State(bits), inverse)])
}

fn kinds(text: &str, inverse: bool) -> Option<Vec<Step>> {
    // RTN_UNSPEC and what follows.
    const KINDS: [&str; 7] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
    ];
    let mut bits = 0;
    for word in text.split(',') {
        bits |= 1 << KINDS.iter().position(|kind| *kind == word)?;
    }
    Some(vec![test(What::Kind(bits), inverse)])
}
