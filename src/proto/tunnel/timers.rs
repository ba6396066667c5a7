//! When what is due.

use std::time::Duration;

use super::Tunnel;
use crate::proto::Instant;
use crate::proto::event::PathState;
use crate::proto::path::Path;

/// The tunnel counts as busy, and its paths are asked more often, for this long after data.
const BUSY: Duration = Duration::from_secs(1);

impl Tunnel {
    /// Until when the tunnel counts as busy.
    pub(super) fn busy_until(&self) -> Instant {
        self.last_data + BUSY
    }

    /// The time of `poll_timeout` has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.keys_timeout(now);
        for path in self.paths.iter_mut().flatten() {
            path.on_timeout(now);
        }
        self.release(now);
        self.report(now);
    }

    /// When to call `handle_timeout`, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut due = [
            self.keys_due(),
            self.reorder.next_deadline(),
            self.steady.next_deadline(),
            self.inner.raise_at(),
        ]
        .into_iter()
        .flatten()
        .min();
        let mut sooner = |at: Option<Instant>| due = [due, at].into_iter().flatten().min();
        // Who goes sends nothing but that, when asked.
        let sends = self.keys.current().is_some() && !self.closing;
        let order = self.order();
        for path in self.paths.iter().flatten() {
            sooner(path.loss_at);
            sooner(path.worse_at());
            if sends {
                sooner(control_due(path, self.busy_until()));
                sooner(self.tail_due(path, &order));
                let due = path.cover.as_ref().and_then(|cover| cover.due());
                sooner(due.and_then(|due| Some(path.paced_until()?.max(due))));
            }
        }
        if sends && let Some(head) = self.queue.chosen() {
            for id in order.iter().filter(|id| self.fits(*id, head.length)) {
                let paced = self.path(id).and_then(Path::paced_until);
                sooner(paced.map(|at| at.max(self.turn_of(id, &order, &head))));
            }
        }
        if sends {
            sooner(self.repair_due(&order));
            sooner(self.second_due(&order));
        }
        due
    }
}

/// Where data goes without a tag, one datagram in so many is sealed all the same: it anchors the
/// numbers of the others, which may be 4,096 away from it.
pub(super) const SEAL_EVERY: u32 = 1024;

/// When a path has something to say besides data.
pub(super) fn control_due(path: &Path, busy_until: Instant) -> Option<Instant> {
    let at_once = |due: bool| due.then(Instant::default);
    let urgent = at_once(path.urgent.is_some());
    if path.place.is_none() {
        return urgent;
    }
    let status = at_once(path.status_due && path.state == PathState::Up);
    let seal = at_once(path.bare_run >= SEAL_EVERY);
    [
        urgent,
        status,
        seal,
        path.proof_due(),
        path.arrivals.due(),
        path.probe_due(busy_until),
        path.mtu_due(),
    ]
    .into_iter()
    .flatten()
    .min()
}
