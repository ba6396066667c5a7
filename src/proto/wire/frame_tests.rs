//! Frames there and back, and nonsense.

use proptest::prelude::*;

use super::*;
use crate::proto::Instant;
use crate::proto::parity::Parity;

fn path(id: u8) -> PathId {
    PathId::new(id).unwrap()
}

#[test]
fn every_frame_there_and_back() {
    let mut out = Vec::new();
    let order = Order {
        bucket: Bucket(9),
        sequence: Sequence::new(0xab_cdef),
        mask: 0b101,
        wait: true,
        settled: false,
    };
    let settled = Order {
        wait: false,
        settled: true,
        ..order
    };
    put_ping(&mut out);
    put_challenge(&mut out, *b"12345678");
    put_response(&mut out, *b"abcdefgh");
    put_status(&mut out, path(3), 7, 20_000);
    put_data(&mut out, Some(order), b"first", false);
    put_data(&mut out, None, b"second", false);
    put_close(&mut out);
    put_forward(&mut out, Bucket(200), Sequence::new(0x01_0203));
    put_data(&mut out, Some(settled), b"third", true);
    let frames: Vec<_> = Frames::new(&out).collect::<Result<_, _>>().unwrap();
    assert_eq!(
        frames,
        [
            Frame::Ping,
            Frame::Challenge(*b"12345678"),
            Frame::Response(*b"abcdefgh"),
            Frame::Status {
                path: path(3),
                metric: 7,
                rate_cap: 20_000
            },
            Frame::Data {
                order: Some(order),
                packet: b"first"
            },
            Frame::Data {
                order: None,
                packet: b"second"
            },
            Frame::Close,
            Frame::Forward {
                bucket: Bucket(200),
                sequence: Sequence::new(0x01_0203)
            },
            Frame::Data {
                order: Some(settled),
                packet: b"third"
            },
        ]
    );
}

#[test]
fn flags_of_order_need_an_order() {
    for flag in [WAIT, SETTLED] {
        let body = [DATA | flag, 1, 2, 3];
        assert_eq!(Frames::new(&body).next(), Some(Err(Malformed)));
    }
}

#[test]
fn padding_ends_a_datagram() {
    let mut out = vec![PING];
    pad(&mut out, 20);
    assert_eq!(Frames::new(&out).count(), 1);
    assert_eq!(out.len(), 20);
}

#[test]
fn sequences_wrap() {
    let last = Sequence::new(0xff_ffff);
    assert_eq!(last.next(), Sequence::new(0));
    assert_eq!(last.next().ahead_of(last), 1);
    assert_eq!(last.ahead_of(Sequence::new(2)), -3);
}

#[test]
fn an_ack_is_cut_to_its_room() {
    let mut ranges = Ranges::default();
    for n in 0..100u64 {
        ranges.insert(PacketNumber(2 * n));
    }
    let head = AckHead {
        path: path(0),
        received_at: Stamp::of(Instant::from_micros(80)),
        bytes: 1,
        ecn: EcnCounts::default(),
    };
    for (room, count) in [(19, 0), (20, 1), (27, 2), (28, 3), (1000, 1 + MOST_RANGES)] {
        let mut out = Vec::new();
        assert_eq!(put_ack(&mut out, head, &ranges, room), count > 0);
        assert!(out.len() <= room);
        if count > 0 {
            let Some(Ok(Frame::Ack(ack))) = Frames::new(&out).next() else {
                panic!("an ack was put")
            };
            assert_eq!(ack.ranges(PacketNumber(198)).count(), count);
        }
    }
}

#[test]
fn an_ack_byte_by_byte() {
    let mut ranges = Ranges::default();
    for number in [7, 8, 11] {
        ranges.insert(PacketNumber(number));
    }
    let head = AckHead {
        path: path(2),
        received_at: Stamp::of(Instant::from_micros(8 * 0x01_0203)),
        bytes: 0x0405_0607,
        ecn: EcnCounts {
            ect0: 0x0809,
            ce: 0x0a0b,
        },
    };
    let mut out = Vec::new();
    assert!(put_ack(&mut out, head, &ranges, 100));
    let expected = [
        1, 2, 0, 0, 0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 0, 0, 0, 2, 0, 1,
    ];
    assert_eq!(out, expected);
}

#[test]
fn a_parity_byte_by_byte() {
    let parity = Parity {
        back: 70,
        span: 66,
        index: 3,
        sum: &[9, 8, 0, 0],
    };
    let mut out = Vec::new();
    put_parity(&mut out, parity);
    assert_eq!(out, [9, 70, 66, 3, 9, 8, 0, 0]);
    let mut frames = Frames::new(&out);
    assert_eq!(frames.next(), Some(Ok(Frame::Parity(parity))));
    assert_eq!(frames.next(), None);
    for length in 1..4 {
        let mut frames = Frames::new(&out[..length]);
        assert_eq!(frames.next(), Some(Err(Malformed)));
    }
}

proptest! {
    #[test]
    fn acks_there_and_back(numbers in proptest::collection::btree_set(0u64..300, 1..60)) {
        let mut ranges = Ranges::default();
        for n in &numbers {
            ranges.insert(PacketNumber(*n));
        }
        let head = AckHead { path: path(1), received_at: Stamp::of(Instant::from_micros(8000)), bytes: 5, ecn: EcnCounts { ect0: 6, ce: 0x0107 } };
        let mut out = Vec::new();
        prop_assert!(put_ack(&mut out, head, &ranges, 2000));
        let Some(Ok(Frame::Ack(ack))) = Frames::new(&out).next() else { panic!("an ack was put") };
        let largest = *numbers.last().unwrap();
        prop_assert_eq!(u64::from(ack.largest), largest);
        prop_assert_eq!((ack.bytes, ack.ecn), (head.bytes, head.ecn));
        let got: std::collections::BTreeSet<u64> =
            ack.ranges(PacketNumber(largest)).flat_map(|(low, high)| low.0..=high.0).collect();
        // At most 33 ranges are told, the newest ones.
        prop_assert!(got.is_subset(&numbers));
        let least = *got.first().unwrap();
        prop_assert_eq!(got, numbers.range(least..).copied().collect());
    }

    #[test]
    fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), largest in any::<u64>()) {
        for frame in Frames::new(&bytes).flatten() {
            if let Frame::Ack(ack) = frame {
                let _ = ack.ranges(PacketNumber(largest)).count();
            }
        }
    }
}
