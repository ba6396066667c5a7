use proptest::prelude::*;

use super::super::virtio::{PartialChecksum, SegmentKind, Segmentation};
use super::super::{Segments, SplitError, VirtioHeader};
use super::reference::Plain;

fn kind(plain: &Plain) -> SegmentKind {
    match (plain.is_tcp, plain.is_v6) {
        (false, _) => SegmentKind::Udp,
        (true, false) => SegmentKind::TcpV4,
        (true, true) => SegmentKind::TcpV6,
    }
}

fn partial(plain: &Plain) -> PartialChecksum {
    let offset = if plain.is_tcp { 16 } else { 6 };
    PartialChecksum {
        start: plain.checksum_at() as u16 - offset,
        offset,
    }
}

fn header(plain: &Plain, size: u16) -> VirtioHeader {
    VirtioHeader {
        checksum: Some(partial(plain)),
        segmentation: Some(Segmentation {
            kind: kind(plain),
            size,
        }),
        headers: 0,
    }
}

fn split(header: &VirtioHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut segments = Segments::new(header, packet)?;
    let mut all = Vec::new();
    loop {
        let remaining = segments.remaining();
        let mut buffer = Vec::new();
        if !segments.write_next(&mut buffer) {
            assert_eq!(remaining, 0);
            return Ok(all);
        }
        assert_eq!(segments.remaining(), remaining - 1);
        all.push(buffer);
    }
}

prop_compose! {
    fn plain()(
        is_v6: bool,
        is_tcp: bool,
        tos: u8,
        id: u16,
        df: bool,
        between in 0_usize..3,
        numbers: (u32, u32, u16, u16),
        flags: u8,
        options in 0_usize..11,
        payload in prop::collection::vec(any::<u8>(), 1..3000),
    ) -> Plain {
        let between: Vec<u8> = vec![1; between * 8];
        Plain {
            tos,
            id,
            fragment: if df { 0x4000 } else { 0 },
            between,
            sequence: numbers.0,
            ack: numbers.1,
            window: numbers.2,
            urgent: numbers.3,
            flags,
            options: vec![1; options * 4],
            payload,
            ..Plain::new(is_v6, is_tcp)
        }
    }
}

proptest! {
    #[test]
    fn segments_are_those_of_the_reference(plain in plain(), size in 1_u16..1500) {
        let expected = plain.segments(size.into());
        let header = header(&plain, size);
        prop_assert_eq!(&split(&header, &plain.with_partial_checksum()).unwrap(), &expected);
        // A device's own coalescing leaves whole checksums.
        let whole = VirtioHeader { checksum: None, ..header };
        prop_assert_eq!(&split(&whole, &plain.bytes()).unwrap(), &expected);
    }

    #[test]
    fn a_single_packet_stays_or_gets_its_checksum(plain in plain()) {
        let header = VirtioHeader::default();
        prop_assert_eq!(split(&header, &plain.payload).unwrap(), [plain.payload.clone()]);
        let header = VirtioHeader { checksum: Some(partial(&plain)), ..header };
        let packet = plain.with_partial_checksum();
        prop_assert_eq!(split(&header, &packet).unwrap(), [plain.bytes()]);
    }

    #[test]
    fn nonsense_is_an_error_or_a_few_packets(
        bytes: [u8; 10],
        plain in plain(),
        size: u16,
        noise in prop::collection::vec((0_usize..120, any::<u8>()), 0..4),
        cut in 0_usize..120,
        is_cut: bool,
    ) {
        let mut packet = plain.with_partial_checksum();
        for (at, value) in noise {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        if is_cut {
            packet.truncate(cut);
        }
        let random = VirtioHeader::parse(&bytes);
        let mut said = header(&plain, size);
        for header in random.into_iter().chain([said, { said.checksum = None; said }]) {
            if let Ok(segments) = split(&header, &packet) {
                let payload: usize = segments.iter().map(Vec::len).sum();
                prop_assert!(segments.len() <= packet.len().max(1));
                prop_assert!(payload >= packet.len());
            }
        }
    }
}

#[test]
fn marks_and_ends_stand_where_they_belong() {
    let mut plain = Plain::new(false, true);
    plain.flags = 0xd9; // CWR, ECE, ACK, PSH, FIN
    plain.tos = 0x02;
    plain.payload = vec![7; 2500];
    let packets = split(&header(&plain, 1000), &plain.with_partial_checksum()).unwrap();
    let flags: Vec<u8> = packets.iter().map(|it| it[20 + 13]).collect();
    assert_eq!(flags, [0xd0, 0x50, 0x59]);
    let ids: Vec<u16> = packets
        .iter()
        .map(|it| u16::from_be_bytes([it[4], it[5]]))
        .collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0]);
    let lengths: Vec<usize> = packets.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1052, 1052, 552]);
    assert!(packets.iter().all(|it| it[1] == 0x02));
}

#[test]
fn datagrams_without_checksum_stay_without() {
    let mut plain = Plain::new(false, false);
    plain.payload = vec![7; 25];
    let mut packet = plain.bytes();
    packet[26..28].copy_from_slice(&[0, 0]);
    let header = VirtioHeader {
        checksum: None,
        ..header(&plain, 10)
    };
    let packets = split(&header, &packet).unwrap();
    assert_eq!(packets.len(), 3);
    assert!(packets.iter().all(|it| it[26..28] == [0, 0]));
}

#[test]
fn lies_are_told_apart() {
    let mut plain = Plain::new(false, true);
    plain.payload = vec![7; 25];
    let packet = plain.with_partial_checksum();
    let right = header(&plain, 10);
    assert!(split(&right, &packet).is_ok());

    let said = |kind, size| VirtioHeader {
        segmentation: Some(Segmentation { kind, size }),
        ..right
    };
    let kinds = [SegmentKind::TcpV6, SegmentKind::Udp];
    for header in kinds.map(|kind| said(kind, 10)) {
        assert_eq!(split(&header, &packet), Err(SplitError::Kind));
    }
    assert_eq!(split(&right, &packet[..60]), Err(SplitError::Kind));
    assert_eq!(
        split(&said(SegmentKind::TcpV4, 0), &packet),
        Err(SplitError::Size)
    );
    for (start, offset) in [(0, 16), (20, 6), (u16::MAX, u16::MAX), (70, 6)] {
        let header = VirtioHeader {
            checksum: Some(PartialChecksum { start, offset }),
            ..right
        };
        assert_eq!(split(&header, &packet), Err(SplitError::Checksum));
    }
    plain.fragment = 0x2000;
    assert_eq!(
        split(&right, &plain.with_partial_checksum()),
        Err(SplitError::Kind)
    );
    plain.fragment = 0;
    plain.payload.clear();
    assert_eq!(
        split(&right, &plain.with_partial_checksum()),
        Err(SplitError::Size)
    );
}
