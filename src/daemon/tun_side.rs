//! The TUN's half of the packet path: super-packets split on the way in, packets joined on the way
//! out. It knows nothing of the tunnel, so it can have a thread of its own (`tun_thread`).

use std::io;

use crate::io::Tun;
use crate::io::tun::TunBuffer;
use crate::packet::Packet;
use crate::packet::offload::{Group, Joiner};

/// Packets read before the other side gets its turn. A super-packet of 64 KiB has 48, and the one
/// that reaches this number is taken whole: three at least, about 0.2 ms of work.
const BATCH: usize = 128;

/// A kernel that refuses so many joined packets in a row understands none. One that refuses one may
/// have been given something odd by a user of the tunnel.
const MOST_REFUSED: u32 = 16;

/// The open TUN with its buffers.
#[derive(Debug)]
pub(super) struct TunSide {
    tun: Tun,
    /// What is read into.
    read: TunBuffer,
    /// Packets of one round on their way to the TUN.
    joiner: Joiner,
    /// Joined packets that the kernel refused since it took one.
    refused_in_row: u32,
    count: Count,
}

/// What went wrong since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Packets that the kernel did not take.
    pub(super) refused: u64,
    /// Super-packets that were not what they said.
    pub(super) not_split: u64,
    /// The kernel refuses joined packets.
    pub(super) stopped_joining: bool,
}

impl Count {
    /// Adds what was counted elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.not_split += other.not_split;
        self.stopped_joining |= other.stopped_joining;
    }
}

impl TunSide {
    pub(super) fn new(tun: Tun) -> Self {
        Self {
            joiner: Joiner::new(tun.joins()),
            tun,
            read: TunBuffer::default(),
            refused_in_row: 0,
            count: Count::default(),
        }
    }

    pub(super) fn tun(&self) -> &Tun {
        &self.tun
    }

    pub(super) fn into_tun(self) -> Tun {
        self.tun
    }

    /// What was counted since the last call.
    pub(super) fn take_count(&mut self) -> Count {
        std::mem::take(&mut self.count)
    }

    /// Reads a bounded number of packets: each into a buffer that `empty` gives, then to `take`.
    /// Gives false when nothing is left to be read.
    ///
    /// # Errors
    /// When the device is gone.
    pub(super) fn read(
        &mut self,
        mut empty: impl FnMut() -> Packet,
        mut take: impl FnMut(Packet),
    ) -> io::Result<bool> {
        let mut packets = 0;
        while packets < BATCH {
            packets += 1;
            if let Err(error) = self.tun.receive(&mut self.read) {
                match error.raw_os_error() {
                    // FreeBSD says EHOSTDOWN until the device has an address.
                    Some(libc::EAGAIN | libc::EINTR | libc::EHOSTDOWN) => return Ok(false),
                    // A super-packet for which the header has no word is gone; the next is another.
                    Some(libc::EINVAL | libc::ENOMEM | libc::ENOBUFS) => {
                        self.count.not_split += 1;
                        continue;
                    }
                    Some(_) | None => return Err(error),
                }
            }
            let Ok(mut segments) = self.read.segments() else {
                self.count.not_split += 1;
                continue;
            };
            packets += segments.remaining().saturating_sub(1);
            while segments.remaining() > 0 {
                let mut packet = empty();
                segments.write_next(packet.buffer());
                take(packet);
            }
        }
        Ok(true)
    }

    /// Takes a packet to be written with the next [`TunSide::flush`], or before. `back` gets buffers
    /// that are free again.
    pub(super) fn write(&mut self, packet: Packet, back: impl FnMut(Packet)) {
        if let Err(packet) = self.joiner.push(packet) {
            self.flush(back);
            // It is empty now.
            let _ = self.joiner.push(packet);
        }
    }

    /// Writes all that waits.
    pub(super) fn flush(&mut self, back: impl FnMut(Packet)) {
        let (tun, count, refused) = (&self.tun, &mut self.count, &mut self.refused_in_row);
        let give = |group: Group<'_>| {
            let joined = group.segments() > 1;
            match tun.send(&group) {
                Ok(()) if joined => *refused = 0,
                Ok(()) => {}
                Err(error) if joined && error.raw_os_error() == Some(libc::EINVAL) => {
                    *refused += 1;
                    group.split(|packet| {
                        count.refused += u64::from(tun.send_packet(packet).is_err());
                    });
                }
                Err(_) => count.refused += group.segments() as u64,
            }
        };
        self.joiner.flush(give, back);
        if self.refused_in_row >= MOST_REFUSED {
            self.joiner.stop_joining();
            self.refused_in_row = 0;
            self.count.stopped_joining = true;
        }
    }
}
