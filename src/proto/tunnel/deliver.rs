//! Packets that came: put in order, held for an even delay, delivered.

use super::Tunnel;
use crate::proto::Instant;
use crate::proto::reorder::{LONG_RTT, Steady};
use crate::proto::wire::frame::Order;
use crate::proto::wire::{PathId, Stamp};

impl Tunnel {
    /// A packet came. False: it came before.
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        order: Option<Order>,
        packet: &[u8],
        sent: Stamp,
        bare: bool,
    ) -> bool {
        self.last_data = now;
        let mut buffer = self.pool.take();
        buffer.buffer().extend_from_slice(packet);
        let Some(order) = order else {
            self.delivered.push_back(buffer);
            return true;
        };
        self.note_under_way(now, order.mask);
        let out = &mut self.delivered;
        if let Err((_, copy)) = self.reorder.insert(now, order, sent, buffer, bare, out) {
            self.count.copies += 1;
            self.pool.give(copy);
            return false;
        }
        true
    }

    /// Delivers what need not wait any longer.
    pub(super) fn release(&mut self, now: Instant) {
        let before = self.delivered.len();
        self.reorder.release(now, &mut self.delivered);
        self.steady.hold(now, now, before, &mut self.delivered);
        self.steady.release(now, &mut self.delivered);
    }

    /// Holds what is to be delivered, from `from` on, until all that was sent when it was has come by this
    /// path; without a time it is late, and waits only for what is held already.
    pub(super) fn hold(&mut self, now: Instant, id: PathId, sent: Option<Stamp>, from: usize) {
        let long = self.quickest.is_some_and(|rtt| rtt > LONG_RTT);
        let due = sent.and_then(|sent| self.reorder.due_when_quiet(now, id, sent));
        let until = due.filter(|_| long).map(|by| Steady::portion(by.max(now)));
        self.steady
            .hold(now, until.unwrap_or(now), from, &mut self.delivered);
    }
}
