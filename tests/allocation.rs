//! Once warm, a packet's whole way allocates nothing: out of a super-packet, through both tunnels and
//! into a super-packet again, in every mode, over one path and two.

#[path = "../benches/all/packets.rs"]
mod packets;
#[path = "../benches/all/pair.rs"]
mod pair;

use allocation_counter::{AllocationInfo, measure};
use netcombiner::config::Security;
use netcombiner::packet::Packet;
use netcombiner::packet::offload::{Joiner, Kinds, Segments};
use packets::{BATCH, segments, super_packet};
use pair::{Pair, Setting};

/// Rounds of a batch each: 45,000 packets and more.
const ROUNDS: usize = 1000;
/// What a round of a TUN under load brings at most: 128, and its last super-packet of 48 is taken whole.
const FULL_ROUND: usize = 175;

fn of_rounds(pair: &mut Pair) -> AllocationInfo {
    measure(|| {
        for _ in 0..ROUNDS {
            pair.round();
        }
    })
}

#[test]
fn a_tunnel_allocates_nothing_for_a_packet() {
    for (security, links, batch) in [
        (Security::Encrypt, 1, BATCH),
        (Security::Encrypt, 2, BATCH),
        (Security::Authenticate, 2, BATCH),
        (Security::None, 2, BATCH),
        (Security::None, 1, FULL_ROUND),
    ] {
        let setting = Setting {
            security,
            aes: true,
            links,
            batch,
        };
        let mut pair = Pair::new(setting);
        pair.take_delivered();
        let info = of_rounds(&mut pair);
        let delivered = pair.take_delivered();
        assert!(delivered >= (ROUNDS - 2) * batch, "{delivered}");
        assert!(pair.sent().iter().all(|sent| *sent > 10_000));
        assert_eq!(info.count_total, 0, "{setting:?}: {info:?}");
    }
}

#[test]
fn neither_does_splitting_and_joining() {
    let (header, bytes) = super_packet(BATCH);
    let kinds = Kinds {
        tcp: true,
        udp: true,
    };
    let mut joiner = Joiner::new(kinds);
    let mut free: Vec<Packet> = segments(BATCH);
    let mut given = 0;
    let mut round = || {
        let mut segments = Segments::new(&header, &bytes).unwrap();
        while let Some(mut packet) = free.pop() {
            packet.buffer().clear();
            assert!(segments.write_next(packet.buffer()));
            joiner.push(packet).unwrap();
        }
        joiner.flush(
            |group| given += group.parts().map(<[u8]>::len).sum::<usize>(),
            |packet| free.push(packet),
        );
    };
    round();
    let info = measure(|| (0..100).for_each(|_| round()));
    assert_eq!(given, 101 * bytes.len());
    assert_eq!(info.count_total, 0, "{info:?}");
}
