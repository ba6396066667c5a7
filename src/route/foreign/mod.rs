//! Packet filters of others: which of the tunnel's packets they drop, as far as can be told from their
//! rules. `host` reads them from the kernel; here a described packet is led through them.
//!
//! What is not understood is not guessed at: a rule may match or not, and then a packet may be
//! dropped. Only what is dropped for certain is called so.

mod advice;
mod evaluate;
mod iptables;
mod probe;
mod questions;
pub mod xt;

use std::net::IpAddr;

use evaluate::Dropper;
use probe::{Device, Probe, Way};
pub use questions::{Finding, findings, needs_state};

use super::links::ObservedLink;
use crate::plain::plain;
use xt::Test;

/// The packet filters of a host except our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sorted by family, table and name.
    chains: Vec<Chain>,
    sets: Vec<Set>,
    /// The index of the tunnel's device, where it is there: rules may name it so.
    pub tunnel_index: Option<u32>,
    /// There are rules of the older kind (ip_tables), which change without a notice.
    pub legacy: bool,
    /// Those rules of the older kind could not be read.
    pub unread: bool,
    /// No packet filter could be read: there may be any rules.
    pub unknown: bool,
}

/// The families of tables that see IP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Both.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// As nft(8) writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where the kernel calls it; `None`: other chains do.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Vec<Step>>,
    /// It is one of ip_tables, the older kind, which nft(8) does not see.
    pub legacy: bool,
}

/// The kernel's call of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// NF_INET_*: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u8,
    /// The lower, the earlier.
    pub priority: i32,
    /// What comes to its end is dropped.
    pub drops: bool,
    /// It translates addresses: only the first packet of a connection comes by.
    pub nat: bool,
}

/// The step of a rule: a question, or what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Puts something of the packet into a register.
    Load(u32, Source),
    /// Compares a register: NFT_CMP_* and the value.
    Compare(u32, u32, Vec<u8>),
    /// In a range, or (true) outside of it.
    Range(u32, bool, [Vec<u8>; 2]),
    /// (register & mask) ^ xor.
    Bits {
        /// Read.
        from: u32,
        /// Written.
        to: u32,
        /// And.
        mask: Vec<u8>,
        /// Exclusive or.
        xor: Vec<u8>,
    },
    /// Turns the byte order of numbers: read, written, bytes of a number, bytes in all.
    Swap(u32, u32, usize, usize),
    /// Looks a register up.
    Lookup {
        /// The set's name.
        set: String,
        /// The register.
        from: u32,
        /// Matches what is not in it.
        inverse: bool,
        /// Where the value goes that a map holds; 0: it is a verdict.
        to: Option<u32>,
    },
    /// Puts a value into a register.
    Put(u32, Vec<u8>),
    /// Puts something unknown into a register.
    Forget(u32),
    /// A match of iptables.
    Test(Test),
    /// Goes on without doing anything that matters here.
    Pass,
    /// Writes the packet's or the connection's mark.
    Mark,
    /// Matches or not.
    Maybe,
    /// Translates an address, and accepts.
    Translate,
    /// Ends the rule.
    Verdict(Verdict),
}

/// What of a packet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// NFT_META_*.
    Meta(u32),
    /// NFT_CT_*.
    Ct(u32),
    /// NFT_PAYLOAD_*, offset and length, bytes.
    Header(u32, usize, usize),
    /// The kind of the destination (RTN_*).
    DestinationKind,
}

/// How a rule ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Through this chain.
    Accept,
    /// Dropped or rejected.
    Drop,
    /// Back to the caller.
    Return,
    /// On with the next rule.
    Continue,
    /// To another chain, and back.
    Jump(String),
    /// To another chain.
    Goto(String),
    /// Anything.
    Unknown,
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its elements are the ends of intervals.
    pub intervals: bool,
    /// The lengths of the fields of a concatenation, bytes.
    pub fields: Vec<usize>,
    /// What is in it.
    pub elements: Vec<Element>,
    /// There are more elements than were read.
    pub partial: bool,
}

/// An element of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Its key, or the first of an interval; empty: whatever is not in the set.
    pub key: Vec<u8>,
    /// The last of an interval.
    pub last: Option<Vec<u8>>,
    /// An interval ends before this.
    pub is_end: bool,
    /// The verdict of a map.
    pub verdict: Option<Verdict>,
    /// The value of a map.
    pub value: Option<Vec<u8>>,
}

impl Ruleset {
    /// Of these.
    pub fn new(mut chains: Vec<Chain>, sets: Vec<Set>) -> Self {
        chains.sort_by(|a, b| a.key().cmp(&b.key()));
        Self {
            chains,
            sets,
            ..Self::default()
        }
    }

    /// Adds the rules that `iptables-save` prints.
    pub fn add_legacy(&mut self, family: Family, text: &str) {
        let (chains, sets) = iptables::read(family, text);
        self.chains.extend(chains);
        self.sets.extend(sets);
        self.chains.sort_by(|a, b| a.key().cmp(&b.key()));
    }

    /// The chain of this name in the table of another.
    fn chain(&self, near: &Chain, name: &str) -> Option<&Chain> {
        let key = (near.legacy, near.family, near.table.as_str(), name);
        let found = self.chains.binary_search_by(|it| it.key().cmp(&key));
        self.chains.get(found.ok()?)
    }

    fn has_chain(&self, near: &Chain, name: &str) -> bool {
        self.chain(near, name).is_some()
    }

    fn set(&self, near: &Chain, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| {
            (set.family, set.table.as_str(), set.name.as_str())
                == (near.family, near.table.as_str(), name)
        })
    }

    /// The chains that the kernel calls, with where.
    fn bases(&self) -> impl Iterator<Item = (&Chain, Base)> {
        self.chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base?)))
    }

    /// Who else forwards on this host: the chains that translate addresses for others, or let pass what
    /// is forwarded, except for what names the tunnel's device `nc0`.
    pub fn forwarders(&self, tunnel: &str) -> Vec<String> {
        let forwards = |chain: &&Chain| self.forwarding(chain, tunnel).next().is_some();
        let found = self.chains.iter().filter(forwards);
        found.map(|chain| plain(&chain.title())).collect()
    }

    /// True when one of these forwarders has a rule for a device: by its name, its index, or its networks.
    pub fn forwards(&self, forwarders: &[String], tunnel: &str, link: &ObservedLink) -> bool {
        self.chains.iter().any(|chain| {
            forwarders.contains(&plain(&chain.title()))
                && self
                    .forwarding(chain, tunnel)
                    .any(|rule| self.names(chain, rule, link))
        })
    }

    fn names(&self, chain: &Chain, rule: &[Step], link: &ObservedLink) -> bool {
        let (name, index) = (padded(link.device.as_str()), link.index.to_ne_bytes());
        let mut loaded = None;
        let mut masked: &[u8] = &[];
        let holds = |offset: usize, value: &[u8], mask: &[u8]| {
            let same = |octets: &[u8]| {
                let masks = mask.iter().copied().chain(std::iter::repeat(0xff));
                let own = octets.iter().zip(masks).map(|(octet, mask)| octet & mask);
                octets.len() >= value.len() && own.zip(value).all(|(own, it)| own == *it)
            };
            // The source and the destination (RFC 791, RFC 8200).
            link.addresses.iter().any(|own| match own.address() {
                IpAddr::V4(own) => [12, 16].contains(&offset) && same(&own.octets()),
                IpAddr::V6(own) => [8, 24].contains(&offset) && same(&own.octets()),
            })
        };
        rule.iter().any(|step| match (step, loaded) {
            (Step::Load(_, source), _) => {
                (loaded, masked) = (Some(*source), &[]);
                false
            }
            (Step::Bits { mask, .. }, _) => {
                masked = mask;
                false
            }
            (Step::Compare(_, _, value), Some(Source::Meta(6 | 7))) => {
                !value.is_empty() && name.starts_with(value)
            }
            (Step::Compare(_, _, value), Some(Source::Meta(4 | 5))) => *value == index,
            (Step::Compare(_, 0, value), Some(Source::Header(1, offset, _))) => {
                holds(offset, value, masked)
            }
            (Step::Lookup { set, .. }, Some(Source::Meta(4..=7))) => {
                let set = self.set(chain, set);
                let mut elements = set.into_iter().flat_map(|set| &set.elements);
                elements.any(|it| it.key == name || it.key == index)
            }
            _ => false,
        })
    }

    /// The rules by which a chain forwards for others.
    fn forwarding<'a>(
        &'a self,
        chain: &'a Chain,
        tunnel: &str,
    ) -> impl Iterator<Item = &'a Vec<Step>> {
        let name = padded(tunnel);
        let ours = move |rule: &[Step]| {
            rule.iter()
                .any(|step| matches!(step, Step::Compare(_, 0, value) if name.starts_with(value)))
        };
        let accepts = |rule: &[Step]| {
            let accepts = matches!(rule.last(), Some(Step::Verdict(Verdict::Accept)));
            accepts && names_a_device(rule)
        };
        // Docker and libvirt accept in chains of their own, called from the forward hook's.
        let has_hook = |chain: &Chain, hook: u8| {
            let same_table =
                |(it, base): (&Chain, Base)| it.near(chain) && base.hook == hook && !base.nat;
            self.bases().any(same_table)
        };
        let forwards = match chain.base {
            Some(base) => base.hook == 2,
            None => has_hook(chain, 2) && !chain.name.to_ascii_lowercase().contains("input"),
        };
        chain.rules.iter().filter(move |rule| {
            (rule.contains(&Step::Translate) || forwards && accepts(rule)) && !ours(rule)
        })
    }
}

impl Chain {
    fn key(&self) -> (bool, Family, &str, &str) {
        (self.legacy, self.family, &self.table, &self.name)
    }

    fn near(&self, other: &Self) -> bool {
        (self.legacy, self.family, &self.table) == (other.legacy, other.family, &other.table)
    }

    /// `chain FORWARD of table ip filter`.
    pub fn title(&self) -> String {
        let kind = if self.legacy { "iptables-legacy " } else { "" };
        format!(
            "chain {} of {kind}table {} {}",
            self.name,
            self.family.word(),
            self.table
        )
    }
}

/// True when a rule names a device other than the loopback, by which nothing is forwarded.
fn names_a_device(rule: &[Step]) -> bool {
    let (mut devices, mut loopbacks) = (0, 0);
    let mut register = None;
    for step in rule {
        if let Step::Load(to, Source::Meta(4..=7)) = step {
            devices += 1;
            register = Some(*to);
        }
        // By name or by index, which is 1 everywhere (LOOPBACK_IFINDEX).
        if let Step::Compare(from, 0, value) = step
            && register == Some(*from)
        {
            let is_loopback = *value == padded("lo") || *value == 1u32.to_ne_bytes();
            loopbacks += i32::from(is_loopback);
            register = None;
        }
    }
    devices > loopbacks
}

/// A device's name as it is compared (IFNAMSIZ).
pub fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

#[cfg(test)]
mod tests;
