//! The matches of iptables, as nf_tables carries them (linux/netfilter/xt_*.h): structures in the
//! machine's own byte order.

use super::probe::{ESTABLISHED, NEW, Probe};
use super::{Step, Verdict};

/// NFT_META_MARK.
const MARK: super::Source = super::Source::Meta(3);

/// A question of iptables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// What is asked.
    pub what: What,
    /// The rule wants the opposite.
    pub inverse: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The source port (true: or it), the destination port (true), in one of these ranges.
    Ports(bool, bool, Vec<(u16, u16)>),
    /// These flags of these (mask, value).
    Flags(u8, u8),
    /// In one of these states.
    State(u32),
    /// The destination's kind is one of these (1 << RTN_*).
    Kind(u32),
    /// The mark (value, mask).
    Mark(u32, u32),
}

impl Test {
    pub(super) fn ask(&self, probe: &Probe, hook: u8, marked: bool) -> Option<bool> {
        let [source, destination] = probe.ports;
        let answer = match &self.what {
            What::Ports(from, to, ranges) => Some(ranges.iter().any(|(first, last)| {
                let within = |port: u16| (*first..=*last).contains(&port);
                *from && within(source) || *to && within(destination)
            })),
            What::Flags(mask, value) => Some(probe.flags() & mask == *value),
            What::State(states) => Some(probe.state & states != 0),
            // What comes to this host is for one of its addresses (RTN_LOCAL).
            What::Kind(kinds) if hook == 1 => Some(kinds & 4 != 0),
            // Neither broadcast, anycast, multicast nor unreachable: unicast or local.
            What::Kind(kinds) if kinds & 6 == 0 => Some(false),
            What::Kind(_) => None,
            What::Mark(value, mask) => {
                let known = probe.field(hook, marked, MARK).is_some();
                known.then_some(value & mask == 0)
            }
        };
        answer.map(|is| is != self.inverse)
    }
}

/// A match: its name, revision and structure.
pub fn matching(name: &str, revision: u32, info: &[u8]) -> Vec<Step> {
    let steps = match (name, revision) {
        ("comment", _) => Some(Vec::new()),
        // As long as no limit is reached.
        ("limit", _) => Some(Vec::new()),
        ("tcp" | "udp", 0) => ports(name, info),
        ("multiport", 1) => multiport(info),
        ("conntrack", 1..=3) => conntrack(revision, info),
        ("state", 0) => number(info, 0).map(|states| vec![test(What::State(states), false)]),
        ("addrtype", 1) => address_kind(info),
        ("mark", 1) => number(info, 0).zip(number(info, 4)).map(|(value, mask)| {
            let inverse = info.get(8) == Some(&1);
            vec![test(What::Mark(value, mask), inverse)]
        }),
        _ => None,
    };
    steps.unwrap_or_else(|| vec![Step::Maybe])
}

/// A target: what a rule of iptables does.
pub fn target(name: &str) -> Step {
    match name {
        "REJECT" | "TARPIT" => Step::Verdict(Verdict::Drop),
        "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" => Step::Translate,
        "MARK" | "CONNMARK" => Step::Mark,
        "LOG" | "NFLOG" | "TCPMSS" | "CT" | "NOTRACK" | "CHECKSUM" | "CLASSIFY" | "DSCP"
        | "TOS" | "TRACE" | "SET" | "SECMARK" | "CONNSECMARK" | "TTL" | "HL" => Step::Pass,
        _ => Step::Verdict(Verdict::Unknown),
    }
}

/// What no packet is: over a limit.
pub fn never() -> Step {
    test(What::State(0), false)
}

pub(super) fn test(what: What, inverse: bool) -> Step {
    Step::Test(Test { what, inverse })
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?))
}

fn number(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?))
}

/// struct xt_tcp and xt_udp: two ranges, what else TCP has, and what is inverted.
fn ports(name: &str, info: &[u8]) -> Option<Vec<Step>> {
    let inverse = *info.get(if name == "tcp" { 11 } else { 8 })?;
    let mut steps = Vec::new();
    for (at, bit) in [(0, 1), (4, 2)] {
        let range = (half(info, at)?, half(info, at + 2)?);
        let is_inverse = inverse & bit != 0;
        if range != (0, u16::MAX) || is_inverse {
            let what = What::Ports(at == 0, at == 4, vec![range]);
            steps.push(test(what, is_inverse));
        }
    }
    if name == "tcp" {
        if info.get(8) != Some(&0) {
            steps.push(Step::Maybe);
        }
        let (mask, value) = (*info.get(9)?, *info.get(10)?);
        if mask != 0 {
            steps.push(test(What::Flags(mask, value), inverse & 4 != 0));
        }
    }
    Some(steps)
}

/// struct xt_multiport_v1: which end, how many, the ports, which of them begin a range, inverted.
fn multiport(info: &[u8]) -> Option<Vec<Step>> {
    let [end, count] = *info.first_chunk()?;
    let mut ranges = Vec::new();
    let mut index = 0;
    while index < usize::from(count).min(15) {
        let first = half(info, 2 + 2 * index)?;
        let is_range = *info.get(32 + index)? != 0;
        index += usize::from(is_range);
        ranges.push((first, half(info, 2 + 2 * index)?));
        index += 1;
    }
    let what = What::Ports(end != 1, end != 0, ranges);
    Some(vec![test(what, info.get(47) == Some(&1))])
}

/// struct xt_conntrack_mtinfo1 to 3: the state, and what else is asked for.
fn conntrack(revision: u32, info: &[u8]) -> Option<Vec<Step>> {
    /// XT_CONNTRACK_STATE and XT_CONNTRACK_STATUS.
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    let (asked, inverse) = (half(info, 146)?, half(info, 148)?);
    let states = match revision {
        1 => u16::from(*info.get(150)?),
        _ => half(info, 150)?,
    };
    let mut steps = Vec::new();
    if asked & STATE != 0 {
        // The bits of nf_tables except "untracked" (256 here); SNAT and DNAT are statuses.
        let mut bits = u32::from(states & 0xf);
        if states & 0x100 != 0 {
            bits |= super::probe::UNTRACKED;
        }
        // A translated packet is new or established as well.
        let translated = states & 0xc0 != 0;
        let knows = !translated || bits & (NEW | ESTABLISHED) == NEW | ESTABLISHED;
        steps.push(if knows {
            test(What::State(bits), inverse & STATE != 0)
        } else {
            Step::Maybe
        });
    }
    if asked & !STATE != 0 || asked & STATUS != 0 {
        steps.push(Step::Maybe);
    }
    Some(steps)
}

/// struct xt_addrtype_info_v1: kinds of source and destination, and flags.
fn address_kind(info: &[u8]) -> Option<Vec<Step>> {
    let (source, destination, flags) = (half(info, 0)?, half(info, 2)?, number(info, 4)?);
    // XT_ADDRTYPE_INVERT_DEST is 2; a look-up by device (4, 8) may answer otherwise.
    if source != 0 || flags & 0xd != 0 {
        return None;
    }
    let what = What::Kind(u32::from(destination));
    Some(vec![test(what, flags & 2 != 0)])
}
