//! The floor that any tunnel in user space pays: packets from a TUN into UDP datagrams and back,
//! in batches, with the same offloads and the same code for them as netcombiner. No protocol, no
//! protection, no order.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;

use netcombiner::config::units::Mtu;
use netcombiner::io::Tun;
use netcombiner::io::poll::PollSet;
use netcombiner::io::tun::TunBuffer;
use netcombiner::io::udp::{ReceiveBuffer, UdpSocket};
use netcombiner::packet::Pool;
use netcombiner::packet::offload::Joiner;
use netcombiner::proto::event::{Cutting, SocketId, Transmit};

use crate::error::{Context, Error};

/// What the lab's program is told to be a relay by.
pub const COMMAND: &str = "relay";

/// The port on both sides.
pub(super) const PORT: u16 = 4725;

/// Packets read from the TUN before the socket gets its turn, as in netcombiner's own loop.
const TUN_BATCH: usize = 128;
/// Receptions, each of up to 16 GRO datagrams, before the TUN gets its turn.
const RECEPTIONS: usize = 4;
/// The most bytes of one GSO send, as in netcombiner's own.
const SEND_BYTES: usize = 65_000;

const TUN_KEY: usize = 0;
const UDP_KEY: usize = 1;

/// Relays between a new TUN and a peer until it is killed: `DEVICE MTU HERE PEER`.
pub fn run(arguments: &[OsString]) -> Result<(), Error> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let &[device, mtu, here, peer] = words.as_slice() else {
        return Err(Error::failed("a relay needs DEVICE MTU HERE PEER"));
    };
    let name = device.parse().context("DEVICE")?;
    let mtu = mtu.parse().ok().and_then(Mtu::new);
    let mtu = mtu.ok_or_else(|| Error::failed("that is no MTU"))?;
    let tun = Tun::open(&name, mtu, true, false).context("TUN")?;
    let udp = UdpSocket::listen(here.parse().context("HERE")?).context("UDP")?;
    let peer = peer.parse().context("PEER")?;
    let relay = Relay {
        joiner: Joiner::new(tun.joins()),
        tun,
        udp,
        peer,
        read: TunBuffer::default(),
        packet: Vec::new(),
        batch: Batch::default(),
        received: ReceiveBuffer::default(),
        pool: Pool::new(mtu.bytes().into()),
    };
    relay.run().context("relay")
}

struct Relay {
    tun: Tun,
    udp: UdpSocket,
    peer: SocketAddr,
    /// What the TUN is read into, and one packet of it.
    read: TunBuffer,
    packet: Vec<u8>,
    batch: Batch,
    received: ReceiveBuffer,
    /// Packets on their way to the TUN.
    joiner: Joiner,
    pool: Pool,
}

impl Relay {
    fn run(mut self) -> io::Result<()> {
        let mut poll = PollSet::new()?;
        poll.add(&self.tun, TUN_KEY)?;
        poll.add(&self.udp, UDP_KEY)?;
        let mut ready = Vec::new();
        let mut is_watched = false;
        loop {
            poll.wait(None, &mut ready)?;
            for source in &ready {
                match source.key {
                    TUN_KEY => self.serve_tun()?,
                    _ => self.serve_udp()?,
                }
            }
            if is_watched != self.udp.is_blocked() {
                is_watched = !is_watched;
                poll.watch_writable(&self.udp, UDP_KEY, is_watched)?;
            }
        }
    }

    fn serve_tun(&mut self) -> io::Result<()> {
        let mut send = |segment: usize, bytes: &[u8]| {
            let transmit = Transmit {
                socket: SocketId(0),
                destination: self.peer,
                segment_size: segment,
                cutting: Cutting::IfRefused,
                ect: false,
                answers: false,
            };
            self.udp.send(&transmit, bytes);
        };
        let mut packets = 0;
        while packets < TUN_BATCH {
            match self.tun.receive(&mut self.read) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            packets += 1;
            let Ok(mut segments) = self.read.segments() else {
                continue;
            };
            self.packet.clear();
            while segments.write_next(&mut self.packet) {
                self.batch.add(&self.packet, &mut send);
                self.packet.clear();
                packets += 1;
            }
        }
        self.batch.end(&mut send);
        Ok(())
    }

    fn serve_udp(&mut self) -> io::Result<()> {
        self.udp.flush();
        for _ in 0..RECEPTIONS {
            if !self.udp.receive(&mut self.received)? {
                break;
            }
            let (pool, joiner, tun) = (&mut self.pool, &mut self.joiner, &self.tun);
            self.received.for_each(|_, run, length, _| {
                for bytes in run.chunks(length) {
                    if joiner.is_full() {
                        give(tun, joiner, pool);
                    }
                    let mut packet = pool.take();
                    packet.buffer().extend_from_slice(bytes);
                    // It is not full.
                    let _ = joiner.push(packet);
                }
            });
        }
        give(&self.tun, &mut self.joiner, &mut self.pool);
        Ok(())
    }
}

fn give(tun: &Tun, joiner: &mut Joiner, pool: &mut Pool) {
    // A packet that the kernel does not want is lost, as on any wire.
    joiner.flush(|group| drop(tun.send(&group)), |packet| pool.give(packet));
}

/// Packets of one size that leave in one GSO send; the last may be shorter.
#[derive(Debug, Default)]
struct Batch {
    segment: usize,
    bytes: Vec<u8>,
}

impl Batch {
    /// Adds a packet; what is full or does not fit together is sent.
    fn add(&mut self, packet: &[u8], mut send: impl FnMut(usize, &[u8])) {
        if packet.len() > self.segment || self.bytes.len() + packet.len() > SEND_BYTES {
            self.end(&mut send);
        }
        if self.bytes.is_empty() {
            self.segment = packet.len();
        }
        self.bytes.extend_from_slice(packet);
        if packet.len() < self.segment {
            self.end(&mut send);
        }
    }

    /// Sends what is there.
    fn end(&mut self, mut send: impl FnMut(usize, &[u8])) {
        if !self.bytes.is_empty() {
            send(self.segment, &self.bytes);
        }
        self.segment = 0;
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_of_one_size_with_a_shorter_end() {
        let mut sent = Vec::new();
        let mut batch = Batch::default();
        for length in [100, 100, 60, 60, 100, 1400] {
            batch.add(&vec![1; length], |segment, bytes| {
                sent.push((segment, bytes.len()));
            });
        }
        batch.end(|segment, bytes| sent.push((segment, bytes.len())));
        batch.end(|_, _| panic!("nothing is left"));
        assert_eq!(sent, [(100, 260), (60, 60), (100, 100), (1400, 1400)]);
    }

    #[test]
    fn no_send_is_longer_than_a_datagram() {
        let mut sent = Vec::new();
        let mut batch = Batch::default();
        for _ in 0..100 {
            batch.add(&[1; 1400], |_, bytes| sent.push(bytes.len()));
        }
        batch.end(|_, bytes| sent.push(bytes.len()));
        assert_eq!(sent.iter().sum::<usize>(), 140_000);
        assert!(sent.iter().all(|length| *length <= SEND_BYTES), "{sent:?}");
    }
}
