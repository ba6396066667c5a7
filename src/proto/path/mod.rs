//! One path: a way to the peer with its own packet numbers, round trip, controller and state.

mod arrivals;
mod ecn;
mod gate;
mod liveness;
mod meter;
mod mtu;
mod owd;
mod place;
mod queue_limit;
mod rtt;
mod sending;

use std::time::Duration;

use super::Instant;
use super::congestion::{AckEvent, Arrival, CeEvent, DATAGRAM, Estimate, LossEvent, OneWayDelay};
use super::crypto::ReplayWindow;
use super::event::{EcnState, PathState};
use super::parity::{Cover, Store};
use super::recovery::{Lost, Sent, SentPackets};
use super::scheduler::Loses;
use super::wire::frame::AckFrame;
use super::wire::{PacketNumber, PathId, Stamp};
use crate::config::Transport;
use crate::config::units::Bitrate;

pub use arrivals::{Arrivals, MAX_ACK_DELAY};
pub use ecn::Ecn;
use ecn::Marks;
pub use gate::Gate;
pub use liveness::{Liveness, Verdict};
pub use meter::Meter;
pub use mtu::{Long, Passage, PathMtu, Probe};
pub use owd::Owd;
pub use place::{Opener, Place, Proof, Urgent};
use queue_limit::QueueLimit;
pub use rtt::Rtt;

/// How long a question for a proof waits for its answer before it is asked again: first, and at most.
const PROOF_RETRY: Duration = Duration::from_millis(250);
const PROOF_RETRY_MOST: Duration = Duration::from_millis(750);
/// On a standby path that did not answer so often, 5 s, it waits longer: 10 bytes a second.
const PROOF_TRIES_STANDBY: u32 = 8;
const PROOF_RETRY_STANDBY: Duration = Duration::from_secs(10);
/// Questions that a path that does not answer is remembered to have been asked: at one in 250 ms
/// answers may take 8 s.
const MOST_QUESTIONS: usize = 32;

/// The side that waits for peers asks a path that fell silent no longer than this after it last heard
/// from it: the other side opened the path, and asks as long as it has the link.
const WAITING_ASKS: Duration = Duration::from_secs(30);

/// Datagrams of which nothing is known, at most: 94 MB under way, 750 ms of 1 Gbit/s. A peer that
/// acknowledges the oldest only, again and again, makes us remember no more.
pub(super) const MOST_FLYING: usize = 65_536;

/// A path that loses more than this share makes flows wait for repairs.
const LOSSY: f32 = 0.001;
/// The share is that of about so many datagrams: 1.6 s at 30 Mbit/s, a quarter of an hour of probes.
const LOSS_MEMORY: u64 = 4096;
/// And it is known when so many were sent: of 1,000 one lossy enough loses one, of these two.
const TRIED: u64 = 2048;

/// One path of the tunnel.
#[derive(Debug)]
pub struct Path {
    /// Which.
    pub id: PathId,
    /// Set on the portal that opened it.
    pub opener: Option<Opener>,
    /// UDP or TCP.
    pub transport: Transport,
    /// Where its datagrams go, once proven (or configured).
    pub place: Option<Place>,
    /// A place that has to prove itself: a new path's, or where the peer roamed to.
    pub proof: Option<Proof>,
    /// What must leave at once.
    pub urgent: Option<Urgent>,
    /// What it is good for.
    pub state: PathState,
    /// The state that the owner was told last.
    pub reported: PathState,
    /// Its tier.
    pub metric: u8,
    /// A path of a lower tier is up: nothing needs this one now, and it may cost money.
    pub standby: bool,
    /// The cap of our side and the cap that the peer asked for.
    pub caps: [Option<Bitrate>; 2],
    /// The STATUS frame has to be sent.
    pub status_due: bool,
    /// What was sent.
    pub sent: SentPackets,
    /// Its round trip.
    pub rtt: Rtt,
    /// How long its datagrams take to the peer.
    pub owd: Owd,
    /// Bytes that the peer had received when it acknowledged last.
    received_by_peer: u64,
    queue_limit: QueueLimit,
    /// How long its datagrams may be.
    pub mtu: PathMtu,
    /// Whether its data can be marked.
    pub ecn: Ecn,
    /// What lets it send.
    pub gate: Gate,
    /// The rate that datagrams leave at now, as [`Path::set_pace`] found it.
    pace: Option<u64>,
    /// What came in.
    pub arrivals: Arrivals,
    /// What came in once.
    pub replay: ReplayWindow,
    /// The same of datagrams without a tag (security `none`), which strangers can forge: they must
    /// not push aside what is authentic.
    pub replay_bare: ReplayWindow,
    /// The largest authentic number that came.
    pub largest_sealed: PacketNumber,
    /// When that one was sent, by the peer's clock: later ones were sent later.
    pub newest_sent: Option<Stamp>,
    /// Datagrams without a tag sent since the last one with.
    pub bare_run: u32,
    /// When the next datagram in flight is held for lost.
    pub loss_at: Option<Instant>,
    /// When it last carried data, either way.
    pub carried: Instant,
    /// Whether it answers.
    pub liveness: Liveness,
    /// When something authentic last came.
    pub heard: Instant,
    /// The share of datagrams that was lost lately.
    loss: f32,
    /// Of how many that is known, up to `TRIED`.
    tried: u64,
    /// The group of datagrams that is being sent, where parities follow it.
    pub cover: Option<Box<Cover>>,
    /// What came lately, where the peer sends parities.
    pub store: Option<Box<Store>>,
    /// Counters.
    pub count: Count,
}

/// A path's counters.
#[derive(Debug, Default)]
pub struct Count {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Datagrams held for lost.
    pub lost: u64,
    /// Datagrams that were held for lost and came.
    pub spurious: u64,
    /// Rate sent.
    pub sent: Meter,
    /// Rate received.
    pub received: Meter,
    /// Datagrams that left an empty queue behind.
    pub limited: u64,
}

/// What an acknowledgement told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// What became of datagrams.
    News,
    /// The same, and that one of the clocks has jumped: [`Path::forget_clock`] is to follow on every
    /// path.
    Leap,
    /// Of a datagram that we never sent, as far as we remember: we were set back to an earlier state.
    Unsent,
}

impl Path {
    /// A path that has no place yet.
    pub fn new(id: PathId, transport: Transport, gate: Gate, mtu: PathMtu, ecn: bool) -> Self {
        Self {
            id,
            opener: None,
            transport,
            place: None,
            proof: None,
            urgent: None,
            state: PathState::Down,
            reported: PathState::Down,
            metric: 0,
            standby: false,
            caps: [None; 2],
            status_due: false,
            sent: SentPackets::default(),
            rtt: Rtt::default(),
            owd: Owd::default(),
            received_by_peer: 0,
            queue_limit: QueueLimit::default(),
            mtu,
            ecn: Ecn::new(ecn),
            gate,
            pace: None,
            arrivals: Arrivals::default(),
            replay: ReplayWindow::new(),
            replay_bare: ReplayWindow::new(),
            largest_sealed: PacketNumber(0),
            newest_sent: None,
            bare_run: 0,
            loss_at: None,
            carried: Instant::default(),
            liveness: Liveness::default(),
            heard: Instant::default(),
            loss: 0.0,
            tried: 0,
            cover: None,
            store: None,
            count: Count::default(),
        }
    }

    /// The peer restarted: its numbers and ours start again, under new keys.
    pub fn restart(&mut self) {
        self.sent = SentPackets::default();
        self.arrivals = Arrivals::default();
        self.replay = ReplayWindow::new();
        self.replay_bare = ReplayWindow::new();
        self.largest_sealed = PacketNumber(0);
        // Its clock is another one, and it counts from zero.
        self.newest_sent = None;
        self.received_by_peer = 0;
        self.forget_clock();
        self.mtu.renumber();
        self.ecn.restart();
        self.loss_at = None;
        self.urgent = None;
        (self.cover, self.store) = (None, None);
        self.status_due = self.opener.is_some();
    }

    /// One of the clocks jumped: nothing measured with both of them holds any more.
    pub fn forget_clock(&mut self) {
        self.owd = Owd::default();
        self.queue_limit = QueueLimit::default();
        self.restart_control();
    }

    /// The number that the next received datagram probably has.
    pub fn expected(&self) -> PacketNumber {
        self.largest_sealed
    }

    /// Begins to prove the place it has: a new one, or one that was silent.
    pub fn begin_proof(&mut self, place: Place, token: [u8; 8]) {
        // The answer to a question that was asked already is as good.
        let waiting = self.proof.filter(|proof| proof.place == place);
        let token = waiting.map_or(token, |proof| proof.token);
        self.place = Some(place);
        self.state = PathState::Validating;
        self.proof = Some(Proof {
            place,
            token,
            asked: None,
            tries: 0,
        });
    }

    /// The socket is gone.
    pub fn close(&mut self) {
        self.place = None;
        self.proof = None;
        self.urgent = None;
        self.state = PathState::Down;
        self.give_up_in_flight();
    }

    /// The proof of a place came from there. True when it was the one asked for.
    pub fn on_response(&mut self, now: Instant, from: Place, token: [u8; 8]) -> bool {
        let proof = self
            .proof
            .filter(|proof| proof.token == token && proof.place == from);
        let Some(proof) = proof else { return false };
        self.proof = None;
        if self.place != Some(from) || self.state != PathState::Up {
            // Another way through the network: what was measured on the old one is void, and what
            // flew there says nothing of this one.
            self.give_up_in_flight();
            self.restart_control();
            self.rtt = Rtt::default();
            self.owd = Owd::default();
            self.queue_limit = QueueLimit::default();
            self.ecn.test_again();
            self.mtu
                .restart(from.remote.is_ipv6(), self.transport == Transport::Tcp);
            if let Some(asked) = proof.asked.filter(|_| proof.tries == 1) {
                self.rtt.update(now.since(asked), Duration::ZERO);
            }
        }
        self.place = Some(from);
        self.state = PathState::Up;
        self.liveness = Liveness::proven(now);
        true
    }

    /// When the question for a proof is to be asked (again), by the side that may ask first.
    pub fn proof_due(&self) -> Option<Instant> {
        let proof = self
            .proof
            .filter(|proof| self.opener.is_some() && Some(proof.place) == self.place)?;
        let pause = if self.standby && proof.tries >= PROOF_TRIES_STANDBY {
            PROOF_RETRY_STANDBY
        } else {
            let pause = PROOF_RETRY * 2u32.saturating_pow(proof.tries.saturating_sub(1).min(4));
            pause.min(PROOF_RETRY_MOST)
        };
        let again = |asked| asked + pause;
        Some(proof.asked.map_or(Instant::default(), again))
    }

    /// What its silence means now.
    pub fn verdict(&self) -> Option<Verdict> {
        match self.state {
            PathState::Up => Some(Verdict::Alive),
            PathState::Suspect => Some(Verdict::Suspect),
            PathState::Dead => Some(Verdict::Dead),
            PathState::Validating | PathState::Down => None,
        }
    }

    /// When a probe is due.
    pub fn probe_due(&self, busy_until: Instant) -> Option<Instant> {
        let flying = self.sent.in_flight() > 0;
        let verdict = self.verdict()?;
        let at = self
            .liveness
            .probe_at(verdict, flying, busy_until, self.standby, &self.rtt);
        let is_ours = self.opener.is_some() || verdict != Verdict::Dead;
        (is_ours || at <= self.heard + WAITING_ASKS).then_some(at)
    }

    /// When it is to be asked for a longer datagram, or the PING behind such a probe is due.
    pub fn mtu_due(&self) -> Option<Instant> {
        if self.state != PathState::Up {
            return None;
        }
        if self.mtu.follow {
            return Some(Instant::default());
        }
        let due = self.mtu.due(&self.rtt);
        // Whether more passes by now is asked when it is needed.
        due.filter(|_| !self.standby || self.mtu.searches())
    }

    /// When its state gets worse if nothing is heard.
    pub fn worse_at(&self) -> Option<Instant> {
        match self.state {
            PathState::Up => self.liveness.suspect_at(self.sent.oldest_sent(), &self.rtt),
            PathState::Suspect => self.liveness.dead_at(&self.rtt),
            PathState::Dead | PathState::Validating | PathState::Down => None,
        }
    }

    /// Looks at losses and silence.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.loss_at.is_some_and(|at| at <= now) {
            self.detect_lost(now);
        }
        if self.worse_at().is_some_and(|at| at <= now) {
            if self.state == PathState::Up {
                self.state = PathState::Suspect;
            } else {
                self.state = PathState::Dead;
                self.give_up_in_flight();
                self.restart_control();
            }
        }
    }

    /// Accounts for an acknowledgement of this path's datagrams, which left the peer at `ack_sent` by
    /// the clock that stamped `received_at`.
    pub fn on_ack(&mut self, now: Instant, ack: &AckFrame<'_>, ack_sent: Stamp) -> Told {
        let mut told = Told::News;
        let expected = self.sent.next_number();
        let largest = PacketNumber::expand(ack.largest, expected);
        if largest >= expected {
            return Told::Unsent;
        }
        let in_flight_before = self.sent.in_flight();
        let acked = self.sent.on_ack(largest, ack.ranges(largest));
        self.count.spurious += acked.spurious;
        let received_at = Stamp::expand(ack.received_at, ack_sent);
        self.queue_limit.on_delivered(now, ack.bytes, received_at);
        // An acknowledgement that was overtaken by a later one says less.
        let more = ack.bytes.wrapping_sub(self.received_by_peer as u32);
        if more <= u32::MAX / 2 {
            self.received_by_peer += u64::from(more);
        }
        let arrival = acked.largest.map(|largest| Arrival {
            sent_at: largest.at,
            sent: largest.total,
            received_at,
            received: self.received_by_peer,
            limited: largest.limited,
        });
        if let Some(arrival) = arrival {
            let delay = ack_sent.since(received_at);
            let sample = now.since(arrival.sent_at);
            self.rtt.update(sample, delay);
            self.queue_limit.on_rtt(now, sample);
            let one_way = OneWayDelay::new(arrival.sent_at, received_at);
            if !self.owd.update(now, one_way, sample) {
                told = Told::Leap;
            }
        }
        let srtt = self.rtt.smoothed().unwrap_or_default();
        let marks = self.ecn.on_ack(now, ack.ecn, &acked, srtt);
        self.note_share(0, acked.datagrams);
        self.mtu.on_arrived(now, acked.long);
        if let Some(newest_sent) = acked.newest_sent {
            self.liveness.on_answer(now);
            if self.state == PathState::Dead {
                // The questions that were lost on a dead link say nothing of congestion.
                self.state = PathState::Up;
                self.give_up_in_flight();
                return told;
            }
            if self.state == PathState::Suspect {
                self.state = PathState::Up;
            }
            if acked.bytes > 0 && told == Told::News {
                let event = AckEvent {
                    now,
                    bytes: acked.bytes,
                    newest_sent,
                    in_flight_before,
                    srtt,
                    min_rtt: self.rtt.min().unwrap_or_default(),
                    arrival,
                };
                self.gate.controller.on_ack(&event);
            }
            if let Some(Marks { marked, of }) = marks {
                self.gate.controller.on_ce(&CeEvent {
                    now,
                    marked,
                    of,
                    newest_sent,
                });
            }
        }
        self.detect_lost(now);
        told
    }

    fn detect_lost(&mut self, now: Instant) {
        let threshold = self.rtt.loss_threshold();
        let ect_from = self.ecn.tested_from();
        let (lost, next) = self.sent.detect_lost(now, threshold, ect_from);
        self.loss_at = next;
        self.note_lost(lost);
        self.mtu.on_lost(now, lost.long);
        self.ecn.on_lost(now, lost.ect);
        if let Some(newest_sent) = lost.newest_sent {
            self.gate.controller.on_loss(&LossEvent {
                now,
                bytes: lost.bytes,
                newest_sent,
            });
        }
    }

    fn give_up_in_flight(&mut self) {
        let lost = self.sent.abandon();
        self.loss_at = None;
        self.mtu.forget_probe();
        self.note_lost(lost);
    }

    fn note_lost(&mut self, lost: Lost) {
        self.note_share(lost.datagrams, 0);
        self.count.lost += lost.datagrams;
        self.status_due |= lost.status && self.opener.is_some();
    }

    fn restart_control(&mut self) {
        self.gate.controller.on_restart();
    }

    /// The kernel takes so many bytes more on this TCP connection.
    pub fn set_budget(&mut self, bytes: usize) {
        if let Some(budget) = &mut self.gate.budget {
            *budget = bytes;
        }
    }

    /// The rate to send at, bytes per second; nothing: unpaced.
    fn rate(&self) -> Option<u64> {
        let cap = self
            .caps
            .iter()
            .flatten()
            .map(|cap| cap.bytes_per_second())
            .min();
        let own = self.gate.controller.pacing_rate(self.rtt.smoothed());
        [own, cap].into_iter().flatten().min()
    }

    /// True when the window has room for a datagram.
    fn has_room(&self) -> bool {
        let controller = &self.gate.controller;
        let mut window = controller.window();
        if controller.fills_queues() {
            window = self.queue_limit.apply(window, self.rtt.smoothed());
        }
        self.sent.in_flight() + DATAGRAM <= window && self.gate.is_writable()
    }

    /// Takes the rate of this moment for the datagrams of a batch.
    pub fn set_pace(&mut self) {
        self.pace = self.rate();
    }

    /// True when window and pacing let a datagram of data go now; one that is not to wait may overdraw
    /// the pacer a little.
    pub fn may_send(&mut self, now: Instant, urgent: bool) -> bool {
        let rate = self.pace;
        let has_room = self.has_room();
        let pacer = &mut self.gate.pacer;
        has_room
            && rate.is_none_or(|rate| {
                if urgent {
                    pacer.ready_to_overdraw(now, rate)
                } else {
                    pacer.ready(now, rate)
                }
            })
    }

    /// Notes, before a datagram is sent, whether the source is the limit: it leaves an empty queue
    /// behind, or had left the path unused.
    pub fn note_limited(&mut self, emptied: bool) {
        let idle = self.pace.is_some_and(|rate| self.gate.pacer.was_idle(rate));
        self.count.limited += u64::from(emptied || idle);
    }

    /// When pacing lets the next datagram of data go; nothing when the window does not, or now.
    pub fn paced_until(&self) -> Option<Instant> {
        let rate = self.rate()?;
        self.has_room().then(|| self.gate.pacer.next_ready(rate))
    }

    /// The window, bytes; for a TCP path what the kernel takes now.
    pub fn window(&self) -> u64 {
        match self.gate.budget {
            Some(budget) => self.sent.in_flight() + budget as u64,
            None => self.gate.controller.window(),
        }
    }

    /// What its controller found out.
    pub fn estimate(&self) -> Option<Estimate> {
        self.gate.controller.estimate()
    }

    /// Whether it loses more than one datagram in a thousand.
    pub fn loses(&self) -> Loses {
        if self.loss > LOSSY {
            Loses::Some
        } else if self.tried < TRIED {
            Loses::Unknown
        } else {
            Loses::Nothing
        }
    }

    /// The share of datagrams that was lost lately.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// Bytes that the peer had received of it when it acknowledged last.
    pub fn delivered(&self) -> u64 {
        self.received_by_peer
    }

    fn note_share(&mut self, lost: u64, arrived: u64) {
        self.tried = TRIED.min(self.tried + lost + arrived);
        let all = (lost + arrived).min(LOSS_MEMORY) as f32;
        let share = lost as f32 / (lost + arrived).max(1) as f32;
        self.loss += (share - self.loss) * all / LOSS_MEMORY as f32;
    }
}
