//! How long packets may wait, and how long they are found to wait.

use std::time::Duration;

/// CoDel's target for flows that build no lasting queue (RFC 8289 section 4.3).
const LEAST_TARGET: Duration = Duration::from_millis(5);
/// CoDel's target for a bulk flow, at most; PROTOCOL.md 6 measured 40 ms to cost no throughput.
const MOST_TARGET: Duration = Duration::from_millis(50);
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

/// The target of the last round trip and number of flows: it is asked for with every packet.
#[derive(Debug, Default)]
pub(super) struct KnownTarget(Option<(Duration, usize, Target)>);

impl KnownTarget {
    pub(super) fn of(&mut self, rtt: Duration, bulk_flows: usize) -> Target {
        match self.0 {
            Some((known_rtt, known_flows, target))
                if (known_rtt, known_flows) == (rtt, bulk_flows) =>
            {
                target
            }
            _ => {
                let target = target(rtt, bulk_flows);
                self.0 = Some((rtt, bulk_flows, target));
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
    let sojourn = rtt.div_f64(2.0 * shared).clamp(LEAST_TARGET, MOST_TARGET);
    Target {
        sojourn,
        interval: INTERVAL.max(2 * rtt),
    }
}
