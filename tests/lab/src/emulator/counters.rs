//! What a direction of a link has done.

use std::time::Duration;

/// Counters of one direction of a link, from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets offered.
    pub packets: u64,
    /// Bytes offered.
    pub bytes: u64,
    /// Packets that came out.
    pub out_packets: u64,
    /// Bytes that came out.
    pub out_bytes: u64,
    /// Packets dropped because the queue was full.
    pub dropped_queue: u64,
    /// Packets dropped by the policer.
    pub dropped_policer: u64,
    /// Packets that the AQM dropped because they could not be marked.
    pub dropped_aqm: u64,
    /// Packets dropped because they can be marked.
    pub dropped_capable: u64,
    /// Packets marked (CE).
    pub marked: u64,
    /// Packets lost on the wire.
    pub dropped_loss: u64,
    /// Packets swallowed by an outage.
    pub dropped_outage: u64,
    /// The most bytes that waited.
    pub queue_peak: usize,
    /// Queue and transmission time of all transmitted packets together.
    pub queue_time: Duration,
    /// Queue and transmission time of the slowest packet.
    pub queue_time_max: Duration,
    /// Packets transmitted, lost ones too: what `queue_time` is the sum of.
    pub transmitted: u64,
    /// Packets that the kernel did not take when they came out (the device was down).
    pub refused: u64,
}

impl Counters {
    pub(super) const fn offered(&mut self, size: usize) {
        self.packets += 1;
        self.bytes += size as u64;
    }

    pub(super) const fn delivered(&mut self, size: usize) {
        self.out_packets += 1;
        self.out_bytes += size as u64;
    }

    pub(super) fn sent(&mut self, waited: Duration) {
        self.transmitted += 1;
        self.queue_time += waited;
        self.queue_time_max = self.queue_time_max.max(waited);
    }

    /// Mean time from offer to the last bit sent.
    pub fn mean_queue_time(&self) -> Duration {
        let packets = u32::try_from(self.transmitted.max(1)).unwrap_or(u32::MAX);
        self.queue_time / packets
    }

    /// All packets that did not come out and never will.
    pub const fn dropped(&self) -> u64 {
        self.dropped_queue
            + self.dropped_policer
            + self.dropped_aqm
            + self.dropped_capable
            + self.dropped_loss
            + self.dropped_outage
    }
}
