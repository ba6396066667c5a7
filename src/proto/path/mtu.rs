//! The longest datagram that a path carries uncut, found by probing (DPLPMTUD, RFC 8899).
//!
//! A probe is a sealed PING and padding, acknowledged like any other datagram; its loss is no sign of
//! congestion. Every size is one of the UDP payload, bytes. What was not proven yet may be sent all the
//! same: *cut*, that is with leave for the network (IPv4) or the sender's kernel (IPv6) to make
//! fragments of it. So neither a new path nor a search ever holds data up, and a suspicion costs a
//! round trip of fragments when it was false.

use std::time::Duration;

use super::MAX_ACK_DELAY;
use super::rtt::Rtt;
use crate::proto::Instant;

/// Passes everywhere: the least datagram that an IPv4 host takes, with its headers (576 bytes, RFC 1122
/// section 3.3.2; RFC 8899's MIN_PLPMTU). The tunnel's own messages are shorter.
const SMALLEST: u16 = 576 - 28 - 36;
/// Times that a size is tried (RFC 8899 section 5.1.2, MAX_PROBES).
const MOST_TRIES: u8 = 3;
/// A path that carries less than what is wanted is probed again after this (RFC 8899 section 5.1.1,
/// PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// The search ends when it is this near, bytes: 1 % of a datagram is not worth three round trips more.
const STEP: u16 = 16;
/// A probe of which nothing was heard at all, not even by the PING behind it, is sent again after this
/// at the earliest: a path that is silent is not probed, and says nothing of its MTU.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// So many long datagrams lost one after the other, while something sent later arrived, and the path
/// may have become a black hole. A false suspicion costs one probe.
const SUSPECTS: u32 = 3;
/// The same of datagrams that the network may cut: their fragments do not pass. What follows is dear
/// (the path carries no such packet), and a burst of loss is not to bring it about.
const CUT_SUSPECTS: u32 = 8;
/// The MTUs of links that are met, IP packets, bytes: Ethernet, PPPoE, tunnels (6in4, GRE, L2TP),
/// WireGuard, LTE, IPv6's least; and what carries QUIC's 1,200 bytes (RFC 8899's BASE_PLPMTU).
const LINKS: [u16; 10] = [1500, 1492, 1480, 1460, 1440, 1420, 1400, 1358, 1280, 1228];

/// What a probe is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The datagram's length, bytes.
    pub length: u16,
    /// The network may cut it: it asks whether fragments pass.
    pub cut: bool,
}

/// How a datagram left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Passage {
    /// It must not be cut.
    #[default]
    Whole,
    /// The network may cut it.
    Cut,
    /// It asks whether its length passes.
    Probe,
}

/// What acknowledgements and losses say about datagrams longer than the smallest that every path carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Long {
    /// The longest one that was not cut, and its number.
    longest: Option<(u32, u64)>,
    /// The shortest of them.
    shortest: u32,
    /// The first and the last of them.
    numbers: Option<(u64, u64)>,
    /// How many.
    count: u32,
    /// How many that the network was free to cut, and the newest of them.
    cut: u32,
    cut_last: u64,
    /// The newest probe.
    probe: Option<u64>,
}

impl Long {
    /// Takes one in.
    pub fn add(&mut self, number: u64, bytes: u32, passage: Passage) {
        if bytes <= u32::from(SMALLEST) {
            return;
        }
        match passage {
            Passage::Cut => {
                self.cut += 1;
                self.cut_last = self.cut_last.max(number);
            }
            Passage::Probe => self.probe = self.probe.max(Some(number)),
            Passage::Whole => {
                self.longest = self.longest.max(Some((bytes, number)));
                let shortest = if self.count == 0 {
                    bytes
                } else {
                    self.shortest
                };
                self.shortest = shortest.min(bytes);
                let (first, last) = self.numbers.unwrap_or((number, number));
                self.numbers = Some((first.min(number), last.max(number)));
                self.count += 1;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sizes between what passes and what does not are tried.
    Search,
    /// What passes is so little that it has to be known whether fragments do.
    CutTest,
    /// The size is known; a larger one is tried then.
    Done(Option<Instant>),
}

/// A path's MTU.
#[derive(Debug, Clone)]
pub struct PathMtu {
    /// What nobody needs more of.
    most: u16,
    /// A datagram that has to pass, cut if need be: with the least packet that IPv6 asks of a link.
    needed: u16,
    /// IP and UDP headers.
    headers: u16,
    /// Passes uncut, as a probe has shown.
    passes: u16,
    /// Does not.
    fails: u16,
    /// The result of the last search.
    settled: Option<u16>,
    /// Fragments pass, as far as is known.
    cuts: bool,
    phase: Phase,
    /// When the last search that was through wanted a larger size to be tried.
    raise: Option<Instant>,
    /// What is to be tried before all others: what is likely.
    first: Option<u16>,
    tries: u8,
    /// The probe under way, its number, and when it left.
    flying: Option<(Probe, u64, Instant)>,
    /// The newest long datagram that arrived, and the newest of the longest: number and length.
    arrived: [(u64, u32); 2],
    /// The newest one that arrived in spite of leave to cut it.
    cut_arrived: u64,
    /// The first of the long ones that were lost since, the shortest, and how many.
    suspects: Option<(u64, u32)>,
    suspected: u32,
    cut_suspects: u32,
    /// A probe left, and a PING is to follow it: what is lost is then known after a round trip.
    pub follow: bool,
    /// The result is another one.
    pub changed: bool,
}

impl PathMtu {
    /// Of a path of which nothing is known. `most`: what is needed at most; `needed`: what has to pass
    /// at least, in fragments if need be.
    pub fn new(most: u16, needed: u16) -> Self {
        Self {
            most,
            needed: needed.min(most),
            headers: 28,
            passes: SMALLEST,
            fails: most + 1,
            settled: None,
            cuts: true,
            phase: Phase::Search,
            raise: None,
            first: Some(most),
            tries: 0,
            flying: None,
            arrived: [(0, 0); 2],
            cut_arrived: 0,
            suspects: None,
            suspected: 0,
            cut_suspects: 0,
            follow: false,
            changed: false,
        }
    }

    /// The path has another way through the network (or a first one): all is to be learned again.
    /// `ipv6`: what its headers are; a stream (TCP) carries all lengths.
    pub fn restart(&mut self, ipv6: bool, stream: bool) {
        let settled = self.settled;
        *self = Self {
            headers: if ipv6 { 48 } else { 28 },
            settled,
            changed: true,
            ..Self::new(self.most, self.needed)
        };
        if stream {
            self.passes = self.most;
            self.finish(Instant::default());
        }
    }

    /// The peer restarted: datagrams are counted from zero.
    pub fn renumber(&mut self) {
        self.forget_probe();
        self.arrived = [(0, 0); 2];
        self.cut_arrived = 0;
        self.clear_suspicion();
    }

    /// What was in flight is not waited for any more.
    pub fn forget_probe(&mut self) {
        self.flying = None;
        self.follow = false;
    }

    /// Passes uncut, as far as is proven; bytes.
    pub fn proven(&self) -> u16 {
        self.passes
    }

    /// True when a datagram of this length may be sent on the path, cut if it has to be.
    pub fn carries(&self, length: usize) -> bool {
        length <= usize::from(self.passes) || self.cuts
    }

    /// True when a datagram of this length leaves with leave to be cut.
    pub fn is_cut(&self, length: usize) -> bool {
        length > usize::from(self.passes)
    }

    /// The longest datagram that is sent uncut when the search is through; what is wanted, before the
    /// first one.
    pub fn settled(&self) -> u16 {
        self.settled.unwrap_or(self.most)
    }

    #[cfg(test)]
    fn cuts(&self) -> bool {
        self.cuts
    }

    /// Nothing longer passes, not even in fragments. Nothing: it does, or that is being found out.
    pub fn carried_at_most(&self) -> Option<u16> {
        (!self.cuts && matches!(self.phase, Phase::Done(_))).then_some(self.passes)
    }

    /// The longest IP packet that is proven to pass; nothing while that is being found out.
    pub fn link(&self) -> Option<u16> {
        (self.passes > SMALLEST || matches!(self.phase, Phase::Done(_)))
            .then_some(self.passes + self.headers)
    }

    /// True until the size is known.
    pub fn searches(&self) -> bool {
        !matches!(self.phase, Phase::Done(_))
    }

    /// When the next probe is to leave, on a path that is up.
    pub fn due(&self, rtt: &Rtt) -> Option<Instant> {
        match (self.phase, self.flying) {
            (Phase::Done(raise), _) => raise,
            (Phase::Search | Phase::CutTest, None) => Some(Instant::default()),
            (Phase::Search | Phase::CutTest, Some((_, _, at))) => {
                Some(at + (3 * rtt.probe_timeout(MAX_ACK_DELAY)).max(LEAST_PATIENCE))
            }
        }
    }

    /// The probe that is due; [`PathMtu::on_probe_sent`] follows.
    pub fn probe(&mut self) -> Probe {
        if let Phase::Done(_) = self.phase {
            // The raise timer. Of fragments nothing new is known.
            let cuts = self.cuts;
            self.fails = self.most + 1;
            self.search_from(Some(self.most));
            self.cuts = cuts;
        }
        match self.phase {
            Phase::CutTest => Probe {
                length: self.needed,
                cut: true,
            },
            Phase::Search | Phase::Done(_) => Probe {
                length: self.first.unwrap_or_else(|| self.next_size()),
                cut: false,
            },
        }
    }

    /// The probe leaves as this number.
    pub fn on_probe_sent(&mut self, now: Instant, probe: Probe, number: u64) {
        self.flying = Some((probe, number, now));
        self.follow = true;
    }

    /// These were acknowledged.
    pub fn on_arrived(&mut self, now: Instant, arrived: Long) {
        if arrived.cut > 0 {
            self.cut_suspects = 0;
            self.cut_arrived = self.cut_arrived.max(arrived.cut_last);
        }
        if let Some((bytes, number)) = arrived.longest {
            let [newest, longest] = &mut self.arrived;
            *newest = (*newest).max((number, bytes));
            if bytes >= longest.1 {
                *longest = (longest.0.max(number), bytes);
            }
            if self
                .suspects
                .is_some_and(|(first, shortest)| number > first && bytes >= shortest)
            {
                self.clear_suspicion();
            }
        }
        if let Some(probe) = self.answered(arrived.probe) {
            self.on_probe_arrived(now, probe);
        }
    }

    /// These are held for lost: something that was sent later arrived.
    pub fn on_lost(&mut self, now: Instant, lost: Long) {
        self.suspect(lost);
        if let Some(probe) = self.answered(lost.probe) {
            self.flying = None;
            self.tries += 1;
            if self.tries >= MOST_TRIES {
                self.on_probe_failed(now, probe);
            }
        }
        if self.suspected >= SUSPECTS {
            self.doubt();
        }
        if self.cut_suspects >= CUT_SUSPECTS {
            self.doubt_cuts();
        }
    }

    /// The probe under way, when this is its number.
    fn answered(&self, number: Option<u64>) -> Option<Probe> {
        let (probe, flying, _) = self.flying?;
        (number == Some(flying)).then_some(probe)
    }

    /// The kernel refused a datagram of this length: the device takes no longer ones.
    pub fn on_refused(&mut self, now: Instant, length: usize) {
        let Ok(length) = u16::try_from(length) else {
            return;
        };
        if length <= SMALLEST || length >= self.fails {
            return;
        }
        match self.flying {
            Some((probe, ..)) if probe.length == length && !probe.cut => {
                self.on_probe_failed(now, probe);
            }
            _ if length <= self.passes => {
                self.fails = length;
                self.doubt();
            }
            _ => {}
        }
    }

    fn suspect(&mut self, lost: Long) {
        // One that was sent later and came says that fragments pass.
        if lost.cut_last > self.cut_arrived {
            self.cut_suspects += lost.cut;
        }
        let (Some((longest, _)), Some((first, last))) = (lost.longest, lost.numbers) else {
            return;
        };
        // One as long was sent later and came: these were lost by chance. And what is known to be too
        // long is no news.
        let later = |(number, bytes): &(u64, u32)| *number > last && *bytes >= longest;
        let by_chance = self.arrived.iter().any(later);
        if by_chance || lost.shortest >= u32::from(self.fails) {
            return;
        }
        let shortest = self
            .suspects
            .map_or(lost.shortest, |(_, bytes)| bytes.min(lost.shortest));
        let first = self.suspects.map_or(first, |(before, _)| before.min(first));
        self.suspects = Some((first, shortest));
        self.suspected += lost.count;
    }

    fn clear_suspicion(&mut self) {
        self.suspects = None;
        self.suspected = 0;
    }

    /// What passed may pass no more: until that is known, everything long is cut.
    fn doubt(&mut self) {
        self.clear_suspicion();
        self.arrived = [(0, 0); 2];
        if self.passes > SMALLEST {
            let first = Some(self.passes).filter(|passes| *passes < self.fails);
            self.passes = SMALLEST;
            self.search_from(first);
        }
    }

    /// Fragments may pass no more.
    fn doubt_cuts(&mut self) {
        self.cut_suspects = 0;
        match self.phase {
            // Only what was on its way when the TUN shrank is so long.
            Phase::Done(_) if self.passes >= self.needed => return,
            Phase::Done(_) => {
                self.phase = Phase::CutTest;
                self.tries = 0;
            }
            Phase::Search | Phase::CutTest => {}
        }
        self.cuts = false;
        self.changed = true;
    }

    fn search_from(&mut self, first: Option<u16>) {
        self.phase = Phase::Search;
        self.first = first;
        self.tries = 0;
        self.flying = None;
        self.cuts = true;
        self.cut_suspects = 0;
    }

    fn on_probe_arrived(&mut self, now: Instant, probe: Probe) {
        (self.flying, self.first, self.tries) = (None, None, 0);
        if probe.cut {
            self.cuts = true;
            self.end(now);
            return;
        }
        self.passes = self.passes.max(probe.length);
        if self.fails <= self.passes {
            // What failed was bad luck.
            self.fails = self.most + 1;
        }
        self.go_on(now);
    }

    fn on_probe_failed(&mut self, now: Instant, probe: Probe) {
        (self.flying, self.first, self.tries) = (None, None, 0);
        if probe.cut {
            self.cuts = false;
            self.end(now);
            return;
        }
        self.fails = self.fails.min(probe.length);
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        if self.passes < self.most && self.fails - self.passes > STEP {
            return;
        }
        if self.passes < self.needed {
            self.phase = Phase::CutTest;
        } else {
            self.finish(now);
        }
    }

    fn finish(&mut self, now: Instant) {
        self.cuts = true;
        self.end(now);
    }

    fn end(&mut self, now: Instant) {
        // A false suspicion does not put it off.
        let before = self
            .raise
            .filter(|at| *at > now && self.settled == Some(self.passes));
        self.raise = (self.passes < self.most).then(|| before.unwrap_or(now + RAISE_AFTER));
        self.phase = Phase::Done(self.raise);
        self.settled = Some(self.passes);
        self.changed = true;
    }

    /// The middle one of the sizes that links are known to have, else the middle.
    fn next_size(&self) -> u16 {
        let sizes = || {
            let sizes = LINKS.iter().map(|mtu| mtu - self.headers);
            sizes.filter(|size| *size > self.passes && *size < self.fails)
        };
        let middle = sizes().count() / 2;
        sizes()
            .nth(middle)
            .unwrap_or(self.passes + (self.fails - self.passes) / 2)
    }
}

#[cfg(test)]
#[path = "mtu_tests.rs"]
mod tests;
