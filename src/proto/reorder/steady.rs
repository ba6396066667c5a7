//! Evens out the delay of a long way with jitter, for TCP: CUBIC takes a round trip that grows by 16 ms for a
//! queue, and ends its slow start (HyStart). Over 330 ms with 15 ms of jitter to either side a flow left
//! slow start with a window of 144 packets, where the path holds 1,200, and needed 15 s more to fill it
//! (simulated).

use std::collections::VecDeque;
use std::time::Duration;

use crate::packet::Packet;
use crate::packet::ip::is_tcp;
use crate::proto::Instant;

/// Over a shorter round trip nothing is held: there a flow is quick to grow, and people wait for answers.
pub(in crate::proto) const LONG_RTT: Duration = Duration::from_millis(150);
/// No packet is held longer: the range of a jitter of 40 ms to either side.
const MOST_HELD: Duration = Duration::from_millis(80);
/// What would be held for less time goes at once: timers of a busy router are 1 ms late.
const LEAST_HELD: Duration = Duration::from_millis(1);
/// Bytes that may be held: 80 ms of 400 Mbit/s.
const MOST_BYTES: usize = 4 << 20;
/// What is held goes in portions so far apart, microseconds. HyStart also ends slow start when
/// acknowledgements come less than 2 ms apart for half a round trip, and those of paced packets do (Linux's
/// `hystart_ack_delta_us`; simulated).
const PORTION: u64 = 4000;

/// Packets that are in order and wait for their time.
#[derive(Debug, Default)]
pub(in crate::proto) struct Steady {
    line: VecDeque<(Instant, Packet)>,
    bytes: usize,
}

impl Steady {
    /// When the portion goes that what is due at `by` belongs to.
    pub(in crate::proto) fn portion(by: Instant) -> Instant {
        Instant::from_micros(by.as_micros().next_multiple_of(PORTION))
    }

    /// Holds the TCP packets of `out` from `from` on until a time. None overtakes another.
    pub(in crate::proto) fn hold(
        &mut self,
        now: Instant,
        until: Instant,
        from: usize,
        out: &mut VecDeque<Packet>,
    ) {
        let last = self.line.back().map(|(at, _)| *at);
        let until = until.min(now + MOST_HELD).max(last.unwrap_or_default());
        if last.is_none() && until < now + LEAST_HELD || from >= out.len() {
            return;
        }
        for packet in out.split_off(from) {
            if is_tcp(packet.bytes()) {
                self.bytes += packet.footprint();
                self.line.push_back((until, packet));
            } else {
                out.push_back(packet);
            }
        }
        if self.bytes > MOST_BYTES {
            self.release(now + MOST_HELD, out);
        }
    }

    /// Delivers what was held long enough.
    pub(in crate::proto) fn release(&mut self, now: Instant, out: &mut VecDeque<Packet>) {
        while self.line.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, packet)) = self.line.pop_front() {
                self.bytes -= packet.footprint();
                out.push_back(packet);
            }
        }
    }

    /// When the first one is to go.
    pub(in crate::proto) fn next_deadline(&self) -> Option<Instant> {
        self.line.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1000 * (1000 + ms))
    }

    fn packet(protocol: u8) -> Packet {
        let mut bytes = [0; 40];
        (bytes[0], bytes[9]) = (0x45, protocol);
        Packet::from(&bytes[..])
    }

    /// Field row E: TCP over a long way with jitter sees an even delay; others do not wait, and nothing
    /// overtakes.
    #[test]
    fn tcp_waits_for_its_time_and_others_do_not() {
        let mut steady = Steady::default();
        let mut out = VecDeque::from([packet(6)]);
        out.extend([packet(6), packet(17), packet(6)]);
        steady.hold(at(0), at(20), 1, &mut out);
        assert_eq!((out.len(), steady.next_deadline()), (2, Some(at(20))));
        // It came later, and by a path that holds nothing.
        out.push_back(packet(6));
        steady.hold(at(5), at(5), 2, &mut out);
        steady.release(at(19), &mut out);
        assert_eq!(out.len(), 2);
        steady.release(at(20), &mut out);
        assert_eq!((out.len(), steady.next_deadline()), (5, None));
        steady.hold(at(30), at(30), 4, &mut out);
        assert_eq!(out.len(), 5);
        // Never longer than the most.
        steady.hold(at(30), at(3000), 4, &mut out);
        assert_eq!(steady.next_deadline(), Some(at(110)));
    }

    /// Field row E: HyStart sees no train of acknowledgements that are less than 2 ms apart.
    #[test]
    fn what_is_held_goes_in_portions() {
        let portions = [0, 1, 4, 5].map(|ms| Steady::portion(at(ms)));
        assert_eq!(portions, [at(0), at(4), at(4), at(8)]);
    }
}
