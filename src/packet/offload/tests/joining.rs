use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{Joiner, Kinds, LONGEST, MOST_PACKETS, MOST_SEGMENTS, Segments, VirtioHeader};
use super::reference::Plain;
use crate::packet::Packet;

const BOTH: Kinds = Kinds {
    tcp: true,
    udp: true,
};

/// The groups, each as what is written to the device, and the buffers that came back.
fn join(kinds: Kinds, packets: &[Vec<u8>]) -> Vec<(usize, VirtioHeader, Vec<u8>)> {
    let mut joiner = Joiner::new(kinds);
    for packet in packets {
        joiner.push(Packet::from(packet.as_slice())).unwrap();
    }
    let mut groups = Vec::new();
    let mut back = 0;
    joiner.flush(
        |group| {
            assert_eq!(group.parts().count(), group.segments());
            let header = VirtioHeader::parse(&group.header().to_bytes()).unwrap();
            let joined = (
                group.segments(),
                header,
                group.parts().flatten().copied().collect(),
            );
            let mut again = Vec::new();
            group.split(|packet| again.push(packet.to_vec()));
            assert_eq!(again, split(std::slice::from_ref(&joined)));
            groups.push(joined);
        },
        |_| back += 1,
    );
    assert_eq!(back, packets.len());
    // A new one begins.
    joiner.flush(
        |_| panic!("a group is left"),
        |_| panic!("a packet is left"),
    );
    groups
}

fn split(groups: &[(usize, VirtioHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (count, header, bytes) in groups {
        assert!(bytes.len() <= LONGEST && *count <= MOST_SEGMENTS);
        let mut segments = Segments::new(header, bytes).unwrap();
        assert_eq!(segments.remaining(), *count);
        let mut buffer = Vec::new();
        while segments.write_next(&mut buffer) {
            packets.push(std::mem::take(&mut buffer));
        }
    }
    packets
}

/// What two packets must share for their order to matter: the addresses, and the rest where both
/// tell it.
fn order_matters(a: &[u8], b: &[u8]) -> bool {
    fn addresses(packet: &[u8]) -> Option<&[u8]> {
        match packet.first()? >> 4 {
            4 => packet.get(12..20),
            6 => packet.get(8..40),
            _ => None,
        }
    }
    /// Protocol and ports of an unfragmented packet without options.
    fn ports(packet: &[u8]) -> Option<(u8, &[u8])> {
        match packet[0] {
            0x45 if packet[6] & 0x3f == 0 && packet[7] == 0 => Some((packet[9], &packet[20..24])),
            _ if packet[0] >> 4 == 6 && packet[6] != 60 => Some((packet[6], &packet[40..44])),
            _ => None,
        }
    }
    addresses(a) == addresses(b)
        && match (ports(a), ports(b)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
}

/// Nothing is lost, made up, changed, or overtaken by its own flow.
fn check(packets: &[Vec<u8>]) {
    for kinds in [BOTH, Kinds { udp: false, ..BOTH }, Kinds::default()] {
        let given = split(&join(kinds, packets));
        assert_eq!(given.len(), packets.len());
        let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (place, packet) in given.iter().enumerate().rev() {
            places.entry(packet).or_default().push(place);
        }
        let place: Vec<usize> = packets
            .iter()
            .map(|packet| {
                let left = places.get_mut(packet.as_slice());
                left.and_then(Vec::pop)
                    .expect("every packet is given as it was")
            })
            .collect();
        for (first, a) in packets.iter().enumerate() {
            for (second, b) in packets.iter().enumerate().skip(first + 1) {
                if order_matters(a, b) {
                    assert!(
                        place[first] < place[second],
                        "{first} and {second} changed places"
                    );
                }
            }
        }
    }
}

/// What makes a packet differ from the next of its flow.
#[derive(Debug, Clone, Copy)]
enum Twist {
    None,
    Flags(u8),
    Tos(u8),
    Ttl,
    Fragment(u16),
    Between,
    Ack,
    Window,
    Urgent,
    Options,
    Id,
    Gap,
    Again,
    /// Changes a byte anywhere: a checksum, a length, a version.
    Byte(usize, u8),
    /// The other zero, or UDP's "none".
    Checksum(u16),
    Longer,
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        30 => Just(Twist::None),
        2 => prop::sample::select(vec![0x18_u8, 0x11, 0x50, 0x90, 0x30, 0x14, 0x12, 0x00])
            .prop_map(Twist::Flags),
        1 => any::<u8>().prop_map(Twist::Tos),
        1 => (0_u8..4).prop_map(Twist::Tos),
        1 => Just(Twist::Ttl),
        1 => prop::sample::select(vec![0_u16, 0x2000, 0x0001, 0x8000, 0xc000])
            .prop_map(Twist::Fragment),
        1 => Just(Twist::Between),
        1 => Just(Twist::Ack),
        1 => Just(Twist::Window),
        1 => Just(Twist::Urgent),
        1 => Just(Twist::Options),
        1 => Just(Twist::Id),
        1 => Just(Twist::Gap),
        1 => Just(Twist::Again),
        3 => (0_usize..90, any::<u8>()).prop_map(|(at, value)| Twist::Byte(at, value)),
        1 => prop::sample::select(vec![0_u16, 0xffff]).prop_map(Twist::Checksum),
        1 => Just(Twist::Longer),
    ]
}

/// Flows that mostly go on as they began, between each other.
fn traffic(steps: &[(u8, usize, u8, Twist)]) -> Vec<Vec<u8>> {
    let mut flows: BTreeMap<u8, Plain> = BTreeMap::new();
    let mut packets = Vec::new();
    for &(flow, length, fill, twist) in steps {
        let next = flows.entry(flow).or_insert_with(|| {
            let mut plain = Plain::new(flow & 1 != 0, flow & 2 != 0);
            // Flows 4 and up are others between the same addresses.
            plain.flow = flow;
            plain
        });
        let mut plain = next.clone();
        plain.payload = (0..length)
            .map(|at| (at as u8).wrapping_mul(fill))
            .collect();
        let mut advance = plain.payload.len() as u32;
        let mut steps_of_id = 1_u16;
        match twist {
            Twist::None | Twist::Byte(..) | Twist::Checksum(_) | Twist::Longer => {}
            Twist::Flags(flags) => plain.flags = flags,
            Twist::Tos(tos) => plain.tos = tos,
            Twist::Ttl => plain.ttl = 63,
            Twist::Fragment(fragment) => plain.fragment = fragment,
            Twist::Between => plain.between = vec![1; 8],
            Twist::Ack => plain.ack += 1,
            Twist::Window => plain.window += 1,
            Twist::Urgent => plain.urgent = 1,
            Twist::Options => plain.options = vec![1; 8],
            Twist::Id => steps_of_id = 0,
            Twist::Gap => plain.sequence = plain.sequence.wrapping_add(1),
            Twist::Again => (advance, steps_of_id) = (0, 0),
        }
        let mut bytes = plain.bytes();
        match twist {
            Twist::Byte(at, value) if at < bytes.len() => bytes[at] = value,
            Twist::Checksum(sum) => {
                let at = plain.checksum_at();
                bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Twist::Longer => bytes.push(0),
            Twist::Byte(..)
            | Twist::None
            | Twist::Flags(_)
            | Twist::Tos(_)
            | Twist::Ttl
            | Twist::Fragment(_)
            | Twist::Between
            | Twist::Ack
            | Twist::Window
            | Twist::Urgent
            | Twist::Options
            | Twist::Id
            | Twist::Gap
            | Twist::Again => {}
        }
        packets.push(bytes);
        next.sequence = plain.sequence.wrapping_add(advance);
        next.id = plain.id.wrapping_add(steps_of_id);
    }
    packets
}

fn steps(flows: u8, most: usize) -> impl Strategy<Value = Vec<(u8, usize, u8, Twist)>> {
    let length = prop_oneof![8 => Just(60_usize), 2 => 0_usize..60, 1 => 60_usize..64];
    prop::collection::vec((0..flows, length, any::<u8>(), twist()), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_joined_can_be_split_into_what_it_was(steps in steps(6, 60)) {
        check(&traffic(&steps));
    }

    #[test]
    fn also_with_more_flows_than_are_kept_open(steps in steps(40, 120)) {
        check(&traffic(&steps));
    }

    #[test]
    fn nonsense_goes_through_as_it_is(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10),
        version in prop::sample::select(vec![0x45_u8, 0x46, 0x60, 0]),
    ) {
        let mut packets = packets;
        for packet in &mut packets {
            if let Some(first) = packet.first_mut() && version != 0 {
                *first = version;
            }
        }
        let groups = join(BOTH, &packets);
        prop_assert!(groups.iter().all(|(count, ..)| *count == 1));
        prop_assert_eq!(groups.into_iter().map(|it| it.2).collect::<Vec<_>>(), packets);
    }
}

fn run(plain: &Plain, count: usize, size: usize) -> Vec<Vec<u8>> {
    let mut plain = plain.clone();
    plain.payload = (0..count * size).map(|at| at as u8).collect();
    plain.segments(size)
}

#[test]
fn a_run_becomes_one_and_interleaved_flows_as_many() {
    for (is_v6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let plain = Plain::new(is_v6, is_tcp);
        let packets = run(&plain, 40, 1300);
        let groups = join(BOTH, &packets);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].0, 40);
        let header = groups[0].1;
        assert_eq!(header.segmentation.unwrap().size, 1300);
        assert_eq!(usize::from(header.headers), packets[0].len() - 1300);
        assert_eq!(split(&groups), packets);

        let others: Vec<Vec<Vec<u8>>> = (1..=8)
            .map(|flow| {
                run(
                    &Plain {
                        flow,
                        ..plain.clone()
                    },
                    10,
                    1300,
                )
            })
            .collect();
        let mixed: Vec<Vec<u8>> = (0..10)
            .flat_map(|turn| others.iter().map(move |flow| flow[turn].clone()))
            .collect();
        let groups = join(BOTH, &mixed);
        assert_eq!(groups.len(), 8);
        assert!(groups.iter().all(|(count, ..)| *count == 10));
    }
}

#[test]
fn a_group_has_its_limits() {
    let counts = |packets: &[Vec<u8>]| -> Vec<usize> {
        join(BOTH, packets).iter().map(|group| group.0).collect()
    };
    let tcp = Plain::new(false, true);
    // 65,535 bytes: 48 x 1,350 + 52 is the last that fits.
    assert_eq!(counts(&run(&tcp, 60, 1350)), [48, 12]);
    assert_eq!(counts(&run(&tcp, 100, 100)), [MOST_SEGMENTS, 36]);
    // A shorter one and one with PSH are the last; a longer one starts again.
    let mut packets = run(&tcp, 3, 100);
    packets.extend(run(
        &Plain {
            sequence: tcp.sequence.wrapping_add(300),
            id: tcp.id.wrapping_add(3),
            ..tcp.clone()
        },
        1,
        99,
    ));
    packets.extend(run(
        &Plain {
            sequence: tcp.sequence.wrapping_add(399),
            id: tcp.id.wrapping_add(4),
            flags: 0x18,
            ..tcp
        },
        4,
        100,
    ));
    assert_eq!(counts(&packets), [4, 4]);
    assert_eq!(split(&join(BOTH, &packets)), packets);
}

#[test]
fn a_wrong_checksum_is_passed_on_alone_and_as_it_is() {
    for is_tcp in [false, true] {
        for broken in 0..5 {
            let plain = Plain::new(false, is_tcp);
            for at in [10, plain.checksum_at(), plain.bytes().len() + 3] {
                let mut packets = run(&plain, 5, 100);
                packets[broken][at] ^= 1;
                let groups = join(BOTH, &packets);
                assert_eq!(split(&groups), packets);
                assert!(
                    groups
                        .iter()
                        .any(|group| group.0 == 1 && group.2 == packets[broken]),
                    "{at}"
                );
            }
        }
    }
}

/// One's complement has two zeros: a checker takes both, splitting makes one.
#[test]
fn of_two_zeros_only_our_own_is_joined() {
    let counts = |packets: &[Vec<u8>]| -> Vec<usize> {
        let groups = join(BOTH, packets);
        assert_eq!(split(&groups), packets);
        groups.iter().map(|group| group.0).collect()
    };
    for is_tcp in [false, true] {
        let mut plain = Plain::new(false, is_tcp);
        // The second packet's sum is zero: what its checksum would be stands in its payload.
        plain.payload = vec![0; 300];
        let at = plain.checksum_at();
        let second = &plain.segments(100)[1];
        plain.payload[198..200].copy_from_slice(&second[at..at + 2]);
        let (ours, other) = if is_tcp { (0, 0xff) } else { (0xff, 0) };
        let mut packets = plain.segments(100);
        assert_eq!(packets[1][at..at + 2], [ours; 2]);
        assert_eq!(counts(&packets), [3]);
        packets[1][at..at + 2].fill(other);
        assert_eq!(counts(&packets), [1, 1, 1]);
    }

    let mut plain = Plain::new(false, true);
    plain.payload = vec![7; 300];
    plain.id = 0xffff;
    let second = &plain.segments(100)[1];
    plain.id = u16::from_be_bytes([second[10], second[11]]).wrapping_sub(1);
    let mut packets = plain.segments(100);
    assert_eq!(packets[1][10..12], [0, 0]);
    assert_eq!(counts(&packets), [3]);
    packets[1][10..12].fill(0xff);
    assert_eq!(counts(&packets), [1, 1, 1]);
}

#[test]
fn a_full_one_gives_packets_back() {
    let mut joiner = Joiner::new(BOTH);
    for packet in run(&Plain::new(false, true), MOST_PACKETS, 1) {
        assert!(joiner.push(Packet::from(packet.as_slice())).is_ok());
    }
    assert!(joiner.is_full());
    assert_eq!(joiner.push(Packet::default()), Err(Packet::default()));
    let mut groups = 0;
    joiner.flush(|_| groups += 1, drop);
    assert_eq!(groups, MOST_PACKETS / MOST_SEGMENTS);
    assert!(!joiner.is_full());

    joiner.stop_joining();
    for packet in run(&Plain::new(false, true), 3, 100) {
        assert!(joiner.push(Packet::from(packet.as_slice())).is_ok());
    }
    let mut groups = 0;
    joiner.flush(|_| groups += 1, drop);
    assert_eq!(groups, 3);
}
