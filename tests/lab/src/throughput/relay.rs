//! The floor that any tunnel in user space pays: packets from a TUN into UDP datagrams and back,
//! in batches, and nothing else. No protocol, no protection.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;

use netcombiner::config::units::Mtu;
use netcombiner::io::Tun;
use netcombiner::io::poll::PollSet;
use netcombiner::io::udp::{ReceiveBuffer, UdpSocket};

use crate::error::{Context, Error};

/// What the lab's program is told to be a relay by.
pub const COMMAND: &str = "relay";

/// The port on both sides.
pub(super) const PORT: u16 = 4725;

/// Packets read from the TUN before the socket gets its turn, as in netcombiner's own loop.
const TUN_BATCH: usize = 64;
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
    let tun = Tun::open(&name, mtu).context("TUN")?;
    let udp = UdpSocket::listen(here.parse().context("HERE")?).context("UDP")?;
    let peer = peer.parse().context("PEER")?;
    relay(tun, udp, peer, mtu.bytes().into()).context("relay")
}

fn relay(tun: Tun, mut udp: UdpSocket, peer: SocketAddr, mtu: usize) -> io::Result<()> {
    let mut poll = PollSet::new()?;
    poll.add(&tun, TUN_KEY)?;
    poll.add(&udp, UDP_KEY)?;
    let mut ready = Vec::new();
    let mut received = ReceiveBuffer::default();
    let mut batch = Batch::default();
    let mut packet = vec![0; mtu];
    let mut is_watched = false;
    loop {
        poll.wait(None, &mut ready)?;
        for source in &ready {
            if source.key == TUN_KEY {
                from_tun(&tun, &mut udp, peer, &mut packet, &mut batch)?;
            } else {
                udp.flush();
                for _ in 0..RECEPTIONS {
                    if !udp.receive(&mut received)? {
                        break;
                    }
                    // A packet that the kernel does not want is lost, as on any wire.
                    received.for_each(|_, packet| drop(tun.write(packet)));
                }
            }
        }
        if is_watched != udp.is_blocked() {
            is_watched = !is_watched;
            poll.watch_writable(&udp, UDP_KEY, is_watched)?;
        }
    }
}

fn from_tun(
    tun: &Tun,
    udp: &mut UdpSocket,
    peer: SocketAddr,
    packet: &mut [u8],
    batch: &mut Batch,
) -> io::Result<()> {
    for _ in 0..TUN_BATCH {
        match tun.read(packet) {
            Ok(length) => batch.add(&packet[..length], |segment, bytes| {
                udp.send(peer, segment, bytes);
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    batch.end(|segment, bytes| {
        udp.send(peer, segment, bytes);
    });
    Ok(())
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
