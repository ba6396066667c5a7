//! Fast recovery, loss recovery, and taking them back, as Linux does it.

use std::time::Duration;

use super::control::{NO_THRESHOLD, State};
use super::sender::Sender;

/// Proportional rate reduction (RFC 6937), in segments.
#[derive(Debug, Clone, Copy)]
pub struct Reduction {
    prior_window: u32,
    delivered: u32,
    out: u32,
}

impl Reduction {
    /// A segment is sent while it lasts.
    pub const fn on_sent(&mut self) {
        self.out += 1;
    }
}

/// What is needed to take a reduction back.
#[derive(Debug, Clone, Copy)]
pub struct Undo {
    /// The first unacknowledged segment when it began.
    marker: u64,
    /// Copies of which the peer has not said that they were superfluous; nothing: none sent yet.
    pending: Option<u32>,
    window: u32,
    threshold: u32,
}

impl Undo {
    /// A segment is sent again.
    pub fn on_resent(&mut self) {
        self.pending = Some(self.pending.unwrap_or_default() + 1);
    }

    fn all_superfluous(&self) -> bool {
        self.pending == Some(0)
    }
}

/// What an acknowledgement brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct News {
    /// It moved the cumulative acknowledgement.
    pub advanced: bool,
    /// Segments newly delivered.
    pub delivered: u32,
    /// Segments newly held for lost.
    pub lost: u32,
    /// It was the original, not the copy, that was acknowledged: its time stamp is older.
    pub delayed: bool,
    /// A segment sent once, before the timeout, was acknowledged.
    pub original: bool,
    /// A copy was held for lost.
    pub copy_lost: bool,
}

impl Sender {
    /// Goes through the states of recovery.
    pub(super) fn alert(&mut self, now: Duration, prior_una: u64, news: &mut News) {
        if self.state == State::Recovery && self.board.una >= self.high {
            if !self.undo_if(news.delayed) {
                self.rack.on_recovered();
                self.end_reduction();
            }
            self.open(now);
        } else if self.state == State::Loss && self.board.una >= self.high {
            self.undo_if(news.delayed);
            self.undo = None;
            self.open(now);
        }
        match self.state {
            State::Recovery => {
                if news.advanced && news.delayed && self.undo.is_some() {
                    // A hole was filled by a late segment, not by its copy.
                    self.note_reordering(prior_una);
                    if self.board.resent_out > 0 {
                        return;
                    }
                    self.take_back(true);
                    self.open(now);
                } else if self.duplicate_undo() {
                    self.open(now);
                }
                self.detect(now, news);
                if self.state != State::Recovery && self.board.any_lost() {
                    self.enter_recovery(now);
                }
            }
            State::Loss => {
                // Eifel (RFC 3522), and F-RTO with selective acknowledgements (RFC 5682).
                let for_nothing = news.original || (news.delayed && news.advanced);
                if for_nothing && self.undo.is_some() {
                    self.take_back(true);
                    self.open(now);
                }
                self.detect(now, news);
                if self.state != State::Loss && self.board.any_lost() {
                    self.enter_recovery(now);
                }
            }
            State::Open | State::Disorder => {
                self.duplicate_undo();
                self.detect(now, news);
                if self.board.any_lost() {
                    self.enter_recovery(now);
                } else {
                    self.state = if self.board.sacked_out > 0 {
                        State::Disorder
                    } else {
                        State::Open
                    };
                }
            }
        }
    }

    /// Holds for lost what has been under way too long. Returns when to look again.
    pub(super) fn detect(&mut self, now: Duration, news: &mut News) -> Option<Duration> {
        if !self.rack.advanced {
            return None;
        }
        let eager = matches!(self.state, State::Recovery | State::Loss)
            || self.board.sacked_out >= self.reordering;
        let window = self
            .rack
            .window(eager, self.rtt.least(), self.rtt.smoothed());
        let copies = self.board.resent_out;
        let mut wait = None;
        while let Some(oldest) = self.board.oldest() {
            match self.rack.patience(now, oldest, window) {
                None => break,
                Some(Duration::ZERO) => {
                    news.lost += u32::from(self.board.mark_lost(oldest.1));
                }
                Some(patience) => {
                    wait = Some(now + patience);
                    break;
                }
            }
        }
        news.copy_lost |= self.board.resent_out < copies;
        self.rack.advanced = false;
        if let Some(at) = wait {
            self.arm_reorder(at);
        }
        wait
    }

    fn enter_recovery(&mut self, now: Duration) {
        self.count.recoveries += 1;
        let in_flight = self.board.in_flight();
        self.begin_undo();
        if self.reduction.is_none() {
            self.begin_reduction();
        }
        self.state = State::Recovery;
        self.controller
            .on_state(now, State::Recovery, &mut self.window, in_flight);
    }

    fn begin_undo(&mut self) {
        let threshold = match self.state {
            State::Open | State::Disorder => self.window.ssthresh.max(self.window.cwnd / 4 * 3),
            State::Recovery | State::Loss => self.window.ssthresh,
        };
        self.undo = Some(Undo {
            marker: self.board.una,
            pending: (self.board.resent_out > 0).then_some(self.board.resent_out),
            window: self.window.cwnd,
            threshold,
        });
        self.resend_stamp = None;
    }

    fn begin_reduction(&mut self) {
        self.high = self.board.next();
        self.probe_high = None;
        self.window.forget_growth();
        self.reduction = Some(Reduction {
            prior_window: self.window.cwnd,
            delivered: 0,
            out: 0,
        });
        self.window.ssthresh = self.controller.threshold(&self.window);
    }

    fn end_reduction(&mut self) {
        if self.controller.owns_window() {
            self.reduction = None;
        } else if self.reduction.take().is_some() && self.window.ssthresh < NO_THRESHOLD {
            self.window.cwnd = self.window.ssthresh;
        }
    }

    /// The window while it is being reduced.
    pub(super) fn reduce(&mut self, news: &News) {
        let Some(reduction) = &mut self.reduction else {
            return;
        };
        if news.delivered == 0 || reduction.prior_window == 0 {
            return;
        }
        reduction.delivered += news.delivered;
        let in_flight = self.board.in_flight();
        let ssthresh = self.window.ssthresh;
        let mut send = if in_flight > ssthresh {
            let due = (u64::from(ssthresh) * u64::from(reduction.delivered))
                .div_ceil(u64::from(reduction.prior_window));
            (due as u32).saturating_sub(reduction.out)
        } else {
            let mut send = reduction
                .delivered
                .saturating_sub(reduction.out)
                .max(news.delivered);
            if news.advanced && news.lost == 0 {
                send += 1;
            }
            send.min(ssthresh - in_flight)
        };
        if reduction.out == 0 {
            send = send.max(1);
        }
        self.window.cwnd = in_flight + send;
    }

    fn open(&mut self, now: Duration) {
        self.reduction = None;
        self.state = if self.board.sacked_out > 0 {
            State::Disorder
        } else {
            State::Open
        };
        let in_flight = self.board.in_flight();
        self.controller
            .on_state(now, self.state, &mut self.window, in_flight);
    }

    fn undo_if(&mut self, delayed: bool) -> bool {
        let superfluous = self.undo.is_some_and(|undo| undo.all_superfluous());
        let take_back = self.undo.is_some() && (superfluous || delayed);
        if take_back {
            self.take_back(false);
        }
        take_back
    }

    /// All copies were reported superfluous.
    fn duplicate_undo(&mut self) -> bool {
        let superfluous = self.undo.is_some_and(|undo| undo.all_superfluous());
        if superfluous {
            self.rack.on_duplicate_undo();
            self.take_back(false);
        }
        superfluous
    }

    fn take_back(&mut self, unmark: bool) {
        let Some(undo) = self.undo.take() else { return };
        self.count.undone += 1;
        if unmark {
            self.board.unmark_lost();
        }
        if !self.controller.owns_window() {
            self.window.cwnd = self.window.cwnd.max(undo.window);
        }
        self.window.ssthresh = self.window.ssthresh.max(undo.threshold);
        self.controller.on_undo(&mut self.window);
        self.rack.advanced = true;
        self.reduction = None;
    }

    /// The peer reports that it got the segments up to `end` twice.
    pub(super) fn on_duplicate(&mut self, prior_una: u64, end: u64, segments: u32) {
        if self.rack.reordering_seen {
            self.rack.duplicate_seen = true;
        }
        if let Some(undo) = &mut self.undo
            && end <= prior_una
            && end > undo.marker
            && let Some(pending) = &mut undo.pending
        {
            *pending = pending.saturating_sub(segments);
        }
    }

    /// A segment that was sent once came later than one behind it.
    pub(super) fn note_reordering(&mut self, number: u64) {
        let Some(highest) = self.board.highest_sacked() else {
            return;
        };
        if number >= highest {
            return;
        }
        self.rack.reordering_seen = true;
        // The kernel's limit (tcp_max_reordering).
        let distance = (highest - number).min(300) as u32;
        self.reordering = self.reordering.max(distance);
    }

    /// The retransmission timer fired: all is held for lost.
    pub(super) fn enter_loss(&mut self, now: Duration) {
        self.count.timeouts += 1;
        if matches!(self.state, State::Open | State::Disorder) || self.board.una >= self.high {
            self.begin_undo();
            self.window.ssthresh = self.controller.threshold(&self.window);
        }
        let una = self.board.una;
        for (number, sent) in self.board.missing() {
            // What left within the last round trip may still arrive.
            if number == una || sent + self.rack.rtt() <= now {
                self.board.mark_lost(number);
            }
        }
        self.reduction = None;
        self.window.forget_growth();
        self.window.cwnd = self.board.in_flight() + 1;
        self.state = State::Loss;
        self.high = self.board.next();
        let in_flight = self.board.in_flight();
        self.controller
            .on_state(now, State::Loss, &mut self.window, in_flight);
    }
}
