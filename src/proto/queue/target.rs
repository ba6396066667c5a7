//! How long packets may wait, and how long they are found to wait.

use std::time::Duration;

/// CoDel's target for flows that build no lasting queue (RFC 8289 section 4.3).
const LEAST_TARGET: Duration = Duration::from_millis(5);
/// CoDel's target for a bulk flow, at most; PROTOCOL.md 6 measured 40 ms to cost no throughput.
const MOST_TARGET: Duration = Duration::from_millis(50);
/// Beyond this round trip the limit grows by half of what is more: over 330 ms a flow that may queue for
/// 50 ms only fills 73 % of a link, with 0.43 of its round trip all of it (simulated).
const LONG: Duration = Duration::from_millis(200);
/// But a packet waits in no queue longer than this at times, so that the queue's own limit of 500 ms and
/// of 8 MiB are not what it meets.
const MOST_LONG_TARGET: Duration = Duration::from_millis(300);
/// Where packets wait for a far path, so much longer than that, a quarter: the wait has to be over
/// sooner than CoDel's patience.
const SPARE: u32 = 4;
/// CoDel's least interval.
const INTERVAL: Duration = Duration::from_millis(100);
/// Beyond the tunnel's own round trip: what lies between the portals and the flow's two ends.
const BEYOND: Duration = Duration::from_millis(20);

/// A packet may stay this long at times; beyond it for a whole interval, dropping begins. The
/// interval is the time that a sender needs to react (RFC 8289 section 4.2 and 4.3).
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) sojourn: Duration,
    pub(super) interval: Duration,
}

impl Target {
    /// How long a flow's packets wait, `sojourn` being what its first one did, `before` the flow's bytes
    /// when that one came and `backlog` those of now. Not longer than a packet that comes now will
    /// wait: the first one tells of the queue as it was, and a sender that has backed off since is not
    /// to be told again (B. Briscoe, "Rapid Signalling of Queue Dynamics", 2017).
    pub(super) fn delay(self, sojourn: Duration, before: usize, backlog: usize) -> Duration {
        if sojourn < self.sojourn || backlog >= before {
            return sojourn;
        }
        let micros = sojourn.as_micros() as u64 * backlog as u64 / before as u64;
        Duration::from_micros(micros)
    }
}

/// The target of the last round trip, number of flows and patience: it is asked for with every packet.
#[derive(Debug, Default)]
pub(super) struct KnownTarget(Option<((Duration, usize, Duration), Target)>);

impl KnownTarget {
    pub(super) fn of(&mut self, rtt: Duration, bulk_flows: usize, patience: Duration) -> Target {
        let asked = (rtt, bulk_flows, patience);
        match self.0 {
            Some((known, target)) if known == asked => target,
            _ => {
                let mut target = target(rtt, bulk_flows);
                target.sojourn = target.sojourn.max(patience + patience / SPARE);
                self.0 = Some((asked, target));
                target
            }
        }
    }
}

/// A single bulk flow needs a queue of 0.43 of its round trip to fill a link (CUBIC backs off to
/// 0.7); several share it (PROTOCOL.md 6).
fn target(rtt: Duration, bulk_flows: usize) -> Target {
    let rtt = rtt + BEYOND;
    let shared = (bulk_flows.max(1) as f64).sqrt();
    let most = MOST_TARGET + rtt.saturating_sub(LONG) / 2;
    let sojourn = rtt
        .div_f64(2.0 * shared)
        .clamp(LEAST_TARGET, most.min(MOST_LONG_TARGET));
    Target {
        sojourn,
        // A queue that is allowed to be long is a part of the round trip.
        interval: INTERVAL.max(2 * rtt + 2 * sojourn.saturating_sub(MOST_TARGET)),
    }
}
