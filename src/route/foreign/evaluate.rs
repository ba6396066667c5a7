//! Leads a packet through the chains of others, with three answers to each question: yes, no, maybe.

use std::cell::Cell;
use std::cmp::Ordering;

use super::probe::{Byte, NEW, UNTRACKED};
use super::{Base, Chain, Element, Probe, Ruleset, Set, Source, Step, Verdict, Way};

/// NFT_REG_1 to 4 are 16 bytes each behind the verdict's; NFT_REG32_00 (8) begins where NFT_REG_1 does.
const REGISTERS: usize = 80;

/// nf_tables' own limit of calls within calls (NFT_JUMP_STACK_SIZE).
const DEPTH: u32 = 16;

/// So many steps are done for one packet: milliseconds. A ruleset of more is answered by "maybe".
const STEPS: u32 = 200_000;

/// NFT_CMP_*.
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;

/// May or must a packet be dropped, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropper<'a> {
    /// The chain that the kernel calls.
    pub(super) base: &'a Chain,
    /// The chain with the rule; the same when it is the policy that drops.
    pub(super) chain: &'a Chain,
    /// Its policy drops.
    pub(super) by_policy: bool,
    /// Every such packet is dropped; else what is not understood decides.
    pub(super) certain: bool,
}

/// What may become of a packet: a set of these.
mod fate {
    pub(super) const ACCEPT: u8 = 1;
    pub(super) const DROP: u8 = 2;
    /// Back to the caller, or to the policy.
    pub(super) const BACK: u8 = 4;
    /// On with the next rule.
    pub(super) const NEXT: u8 = 8;
    /// Accepted with another address.
    pub(super) const TRANSLATE: u8 = 16;
    pub(super) const ANY: u8 = 7;
}

/// Yes, no, or maybe (nothing).
type Answer = Option<bool>;

struct Walk<'a, 'p> {
    rules: &'a Ruleset,
    probe: &'p Probe,
    hook: u8,
    /// Somebody writes marks: what they are is not known.
    marked: bool,
    steps: Cell<u32>,
    /// The last rule that drops for certain, else the first that may.
    dropped_by: Cell<Option<&'a Chain>>,
}

impl Ruleset {
    /// Every chain of the kernel's that drops this packet, or may.
    pub(super) fn droppers(&self, probe: &Probe) -> Vec<Dropper<'_>> {
        let mut droppers = Vec::new();
        for (base, at) in self.bases() {
            if at.nat || !probe.way.hooks().contains(&at.hook) || !sees(base, probe) {
                continue;
            }
            let walk = self.walk(probe, at);
            let mut fate = walk.chain(base, 0);
            let to_policy = fate & fate::BACK != 0;
            if to_policy {
                fate &= !fate::BACK;
                fate |= if at.drops { fate::DROP } else { fate::ACCEPT };
            }
            if fate & fate::DROP != 0 {
                let by = walk.dropped_by.get();
                droppers.push(Dropper {
                    base,
                    chain: by.unwrap_or(base),
                    by_policy: at.drops && to_policy && (by.is_none() || fate == fate::DROP),
                    certain: fate == fate::DROP,
                });
            }
        }
        droppers
    }

    /// True when it matters to these rules that connections to a port of this host are tracked: what
    /// is untracked would be dropped where a tracked packet passes, or could be.
    pub(super) fn needs_state(&self, probe: &Probe) -> bool {
        let drops = |state, answer: bool| {
            let mut probe = Probe {
                state,
                ..probe.clone()
            };
            if answer {
                probe.way = Way::Out;
                std::mem::swap(&mut probe.from, &mut probe.to);
                std::mem::swap(&mut probe.iif, &mut probe.oif);
                probe.ports.reverse();
            }
            let droppers = self.droppers(&probe);
            (!droppers.is_empty(), droppers.iter().any(|it| it.certain))
        };
        let translates = |(base, at): (&Chain, Base)| {
            let may = || self.walk(probe, at).chain(base, 0) & !(fate::ACCEPT | fate::BACK) != 0;
            at.nat && at.hook == 0 && sees(base, probe) && may()
        };
        // A port that a container has is one of the host's by translation alone.
        self.bases().any(translates)
            || [(NEW, false), (super::probe::ESTABLISHED, true)]
                .into_iter()
                .any(|(state, answer)| drops(state, answer) != drops(UNTRACKED, answer))
    }

    fn walk<'a, 'p>(&'a self, probe: &'p Probe, at: Base) -> Walk<'a, 'p> {
        let marks = |chain: &Chain| chain.rules.iter().flatten().any(|step| *step == Step::Mark);
        Walk {
            rules: self,
            probe,
            hook: at.hook,
            marked: self.chains.iter().any(marks),
            steps: Cell::new(STEPS),
            dropped_by: Cell::new(None),
        }
    }
}

fn sees(chain: &Chain, probe: &Probe) -> bool {
    match chain.family {
        super::Family::Inet => true,
        super::Family::Ip => probe.from.is_ipv4(),
        super::Family::Ip6 => probe.from.is_ipv6(),
    }
}

impl<'a> Walk<'a, '_> {
    /// What a chain may do.
    fn chain(&self, chain: &'a Chain, depth: u32) -> u8 {
        if depth > DEPTH {
            return fate::ANY;
        }
        let mut fates = 0;
        for rule in &chain.rules {
            let fate = self.rule(chain, rule, depth);
            fates |= fate & !fate::NEXT;
            if fate & fate::NEXT == 0 {
                return fates;
            }
        }
        fates | fate::BACK
    }

    /// What a rule may do.
    fn rule(&self, chain: &'a Chain, rule: &'a [Step], depth: u32) -> u8 {
        let mut registers = [None; REGISTERS];
        let mut sure = true;
        let mut ends = None;
        for step in rule {
            let left = self.steps.get();
            if left == 0 {
                return fate::ANY;
            }
            self.steps.set(left - 1);
            let answer = match step {
                Step::Verdict(verdict) => {
                    ends = Some(self.verdict(chain, verdict, sure, depth));
                    break;
                }
                Step::Lookup {
                    set,
                    from,
                    inverse,
                    to,
                } => {
                    let found = self.look_up(chain, set, &registers, *from);
                    if *to == Some(0) {
                        let fate = self.mapped(chain, &found, sure, depth);
                        if fate == fate::NEXT && found.sure.is_none() {
                            return fate::NEXT;
                        }
                        ends = Some(fate);
                        break;
                    }
                    if let Some(to) = to {
                        let value = found.sure.and_then(|it| it.value.as_ref());
                        let value = value.map(|value| value.iter().copied().map(Some).collect());
                        store(&mut registers, *to, value);
                    }
                    found.answer().map(|is| is != *inverse)
                }
                Step::Translate => {
                    ends = Some(fate::TRANSLATE);
                    break;
                }
                Step::Load(..)
                | Step::Compare(..)
                | Step::Range(..)
                | Step::Bits { .. }
                | Step::Swap(..)
                | Step::Put(..)
                | Step::Forget(_)
                | Step::Test(_)
                | Step::Pass
                | Step::Mark
                | Step::Maybe => self.question(step, &mut registers),
            };
            match answer {
                Some(false) => return fate::NEXT,
                None => sure = false,
                Some(true) => {}
            }
        }
        match ends {
            None => fate::NEXT,
            Some(fate) if sure => fate,
            Some(fate) => fate | fate::NEXT,
        }
    }

    fn verdict(&self, chain: &'a Chain, verdict: &'a Verdict, sure: bool, depth: u32) -> u8 {
        match verdict {
            Verdict::Accept => fate::ACCEPT,
            Verdict::Drop => {
                if sure || self.dropped_by.get().is_none() {
                    self.dropped_by.set(Some(chain));
                }
                fate::DROP
            }
            Verdict::Return => fate::BACK,
            Verdict::Continue => fate::NEXT,
            Verdict::Unknown => fate::ANY,
            Verdict::Jump(name) | Verdict::Goto(name) => {
                let Some(target) = self.rules.chain(chain, name) else {
                    return fate::ANY;
                };
                let fate = self.chain(target, depth + 1);
                // What comes back from a jump goes on here.
                if matches!(verdict, Verdict::Jump(_)) && fate & fate::BACK != 0 {
                    fate & !fate::BACK | fate::NEXT
                } else {
                    fate
                }
            }
        }
    }

    /// What the verdict of a map may do.
    fn mapped(&self, chain: &'a Chain, found: &Found<'a>, sure: bool, depth: u32) -> u8 {
        let verdict = |element: &'a Element| match &element.verdict {
            Some(verdict) => self.verdict(chain, verdict, sure && found.is_certain(), depth),
            None => fate::ANY,
        };
        if let Some(element) = found.sure {
            return verdict(element);
        }
        let fates = found.maybe.iter().map(|element| verdict(element));
        let unknown = if found.partial { fate::ANY } else { 0 };
        fates.fold(fate::NEXT | unknown, |all, fate| all | fate)
    }

    /// The answer of a step that neither ends a rule nor looks into a set.
    fn question(&self, step: &Step, registers: &mut [Byte; REGISTERS]) -> Answer {
        match step {
            Step::Load(to, source) => {
                store(registers, *to, self.field(*source));
                Some(true)
            }
            Step::Put(to, value) => {
                let value = value.iter().copied().map(Some).collect();
                store(registers, *to, Some(value));
                Some(true)
            }
            Step::Forget(to) => {
                store(registers, *to, None);
                Some(true)
            }
            Step::Bits {
                from,
                to,
                mask,
                xor,
            } => {
                let value = read(registers, *from, mask.len());
                let changed = value.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| {
                    // What is masked out is known whatever it was.
                    let byte = if *mask == 0 { Some(0) } else { *byte };
                    byte.map(|byte| byte & mask ^ xor)
                });
                let changed = changed.collect();
                store(registers, *to, Some(changed));
                Some(true)
            }
            Step::Swap(from, to, size, length) => {
                let mut value = read(registers, *from, *length).to_vec();
                // The network's order is this machine's where it is big-endian.
                if cfg!(target_endian = "little") {
                    value.chunks_mut((*size).max(1)).for_each(<[Byte]>::reverse);
                }
                store(registers, *to, Some(value));
                Some(true)
            }
            Step::Compare(register, operator, value) => {
                let order = order(read(registers, *register, value.len()), value);
                let is = |wanted: fn(Ordering) -> bool| order.map(wanted);
                match *operator {
                    EQUAL => equal(read(registers, *register, value.len()), value),
                    DIFFERENT => {
                        equal(read(registers, *register, value.len()), value).map(|is| !is)
                    }
                    2 => is(Ordering::is_lt),
                    3 => is(Ordering::is_le),
                    4 => is(Ordering::is_gt),
                    _ => is(Ordering::is_ge),
                }
            }
            Step::Range(register, inverse, [first, last]) => {
                let value = read(registers, *register, first.len());
                within(value, first, last).map(|is| is != *inverse)
            }
            Step::Test(test) => test.ask(self.probe, self.hook, self.marked),
            Step::Pass | Step::Mark => Some(true),
            Step::Maybe | Step::Lookup { .. } | Step::Translate | Step::Verdict(_) => None,
        }
    }

    fn field(&self, source: Source) -> Option<Vec<Byte>> {
        self.probe.field(self.hook, self.marked, source)
    }

    fn look_up(
        &self,
        chain: &Chain,
        name: &str,
        registers: &[Byte; REGISTERS],
        from: u32,
    ) -> Found<'a> {
        let mut found = Found {
            sure: None,
            maybe: Vec::new(),
            partial: true,
        };
        let Some(set) = self.rules.set(chain, name) else {
            return found;
        };
        let cost = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
        self.steps.set(self.steps.get().saturating_sub(cost / 8));
        found.partial = set.partial;
        find(set, registers, from, &mut found);
        if found.sure.is_none() && found.maybe.is_empty() && !set.partial {
            found.sure = set.elements.iter().find(|element| element.key.is_empty());
        }
        found
    }
}

/// What of a set matches.
struct Found<'a> {
    sure: Option<&'a Element>,
    maybe: Vec<&'a Element>,
    /// There may be more than is known of.
    partial: bool,
}

impl Found<'_> {
    fn answer(&self) -> Answer {
        if self.sure.is_some() {
            Some(true)
        } else if self.partial || !self.maybe.is_empty() {
            None
        } else {
            Some(false)
        }
    }

    fn is_certain(&self) -> bool {
        self.sure.is_some()
    }
}

fn find<'a>(set: &'a Set, registers: &[Byte; REGISTERS], from: u32, found: &mut Found<'a>) {
    // Where an interval begins or ends before the value, the nearest.
    let mut nearest: Option<&Element> = None;
    for element in set.elements.iter().filter(|it| !it.key.is_empty()) {
        let value = read(registers, from, element.key.len());
        let answer = match &element.last {
            Some(last) => within_fields(value, &element.key, last, &set.fields),
            None if set.intervals => match order(value, &element.key) {
                Some(Ordering::Less) => Some(false),
                None => None,
                Some(Ordering::Equal | Ordering::Greater) => {
                    let rank = |it: &Element| (it.key.clone(), !it.is_end);
                    if nearest.is_none_or(|other| rank(other) < rank(element)) {
                        nearest = Some(element);
                    }
                    continue;
                }
            },
            None => equal(value, &element.key),
        };
        match answer {
            Some(true) => found.sure = Some(element),
            None if !element.is_end => found.maybe.push(element),
            None | Some(false) => {}
        }
    }
    if let Some(element) = nearest.filter(|element| !element.is_end) {
        found.sure = Some(element);
    }
}

/// Field by field: each begins at a register of 32 bits.
fn within_fields(value: &[Byte], first: &[u8], last: &[u8], fields: &[usize]) -> Answer {
    if fields.is_empty() {
        return within(value, first, last);
    }
    let mut at = 0;
    let mut all = Some(true);
    for length in fields {
        let part = at..at + length;
        let (Some(value), Some(first), Some(last)) = (
            value.get(part.clone()),
            first.get(part.clone()),
            last.get(part),
        ) else {
            return None;
        };
        match within(value, first, last) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => all = None,
        }
        at += length.next_multiple_of(4);
    }
    all
}

fn offset(register: u32) -> usize {
    match register {
        0..8 => register as usize * 16,
        _ => 16 + (register as usize - 8) * 4,
    }
}

fn read(registers: &[Byte; REGISTERS], register: u32, length: usize) -> &[Byte] {
    let from = offset(register).min(REGISTERS);
    let to = from.saturating_add(length).min(REGISTERS);
    registers.get(from..to).unwrap_or_default()
}

/// `None`: unknown. The rest of the last word is zero.
fn store(registers: &mut [Byte; REGISTERS], register: u32, value: Option<Vec<Byte>>) {
    let from = offset(register).min(REGISTERS);
    let Some(mut value) = value else {
        registers[from..].fill(None);
        return;
    };
    value.resize(value.len().next_multiple_of(4), Some(0));
    for (byte, value) in registers[from..].iter_mut().zip(value) {
        *byte = value;
    }
}

fn equal(value: &[Byte], wanted: &[u8]) -> Answer {
    let mut answer = (value.len() == wanted.len()).then_some(true);
    for (byte, wanted) in value.iter().zip(wanted) {
        match byte {
            Some(byte) if byte == wanted => {}
            Some(_) => return Some(false),
            None => answer = None,
        }
    }
    answer
}

fn order(value: &[Byte], other: &[u8]) -> Option<Ordering> {
    if value.len() != other.len() {
        return None;
    }
    for (byte, other) in value.iter().zip(other) {
        let order = (*byte)?.cmp(other);
        if order.is_ne() {
            return Some(order);
        }
    }
    Some(Ordering::Equal)
}

fn within(value: &[Byte], first: &[u8], last: &[u8]) -> Answer {
    match (order(value, first), order(value, last)) {
        (Some(Ordering::Less), _) | (_, Some(Ordering::Greater)) => Some(false),
        (Some(_), Some(_)) => Some(true),
        (None, _) | (_, None) => None,
    }
}
