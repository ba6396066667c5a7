//! What the kernel hands over in one piece arrives as it was, and without that as well.

use std::net::UdpSocket;

use netcombiner::io::udp::SendReport;
use netcombiner::proto::event::{Cutting, SocketId, Transmit};
use netcombiner_lab::error::Context;
use netcombiner_lab::prelude::*;
use serde_json::json;

use super::support::{Case, Outcome, Setup, case};

const MS: Duration = Duration::from_millis(1);

/// Enough for bursts on the way, so that there is something to join.
fn fast(line: &str) -> Setup {
    Setup {
        links: vec![LinkSpec::symmetric(150.0, 5); 2],
        options: ConfigOptions {
            local: line.into(),
            remote: line.into(),
            ..ConfigOptions::default()
        },
        ..Setup::default()
    }
}

/// What the kernel counted at a portal's TUN: packets out of it, which the portal wrote, and
/// packets into it. A super-packet is one.
fn counted(portal: &Namespace) -> Result<(u64, u64), Error> {
    let text = portal
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?
        .context("cannot read the devices' counters")?;
    let numbers: Vec<u64> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nc0:"))
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        // Received: bytes, packets and six more; then sent.
        [_, received, _, _, _, _, _, _, _, sent, ..] => Ok((*received, *sent)),
        _ => Err(Error::failed(format!("no nc0 in {text}"))),
    }
}

/// A packet of the tunnel for each of the kernel's?
#[derive(Debug, PartialEq, Eq)]
enum Pieces {
    OneForOne,
    Fewer,
}

fn pieces(kernel: u64, tunnel: &serde_json::Value) -> Pieces {
    // What was sent before and after the tunnel's own count differs by some.
    match tunnel.as_u64() {
        Some(tunnel) if kernel * 10 < tunnel * 9 => Pieces::Fewer,
        _ => Pieces::OneForOne,
    }
}

/// TCP both ways, every byte checked. Then how both portals' kernels handed it over.
fn carry(case: &Case, pieces_are: &Pieces) -> Outcome {
    for sender in [Sender::Connector, Sender::Listener] {
        let connection = Connection::new(&case.lab.client, &case.lab.server, SERVER, sender);
        transfer(&connection, 20_000_000, 5000 * MS)?;
    }
    for (side, host) in [
        (Side::Local, &case.lab.local),
        (Side::Remote, &case.lab.remote),
    ] {
        let (written, read) = counted(host)?;
        let traffic = case.show(side)?["traffic"].clone();
        assert_eq!(
            pieces(read, &traffic["packets_in"]),
            *pieces_are,
            "{side:?}: {read} read, {traffic}"
        );
        assert_eq!(
            pieces(written, &traffic["packets_out"]),
            *pieces_are,
            "{side:?}: {written} written, {traffic}"
        );
    }
    Ok(())
}

#[test]
fn tcp_crosses_the_tun_in_large_pieces_bit_by_bit() {
    case(fast(""), |case| -> Outcome {
        let _portals = case.up()?;
        for side in Side::BOTH {
            let offloads = case.show(side)?["offloads"].clone();
            assert_eq!(offloads["tun_tcp"], true, "{side:?}: {offloads}");
        }
        carry(case, &Pieces::Fewer)
    });
}

#[test]
fn without_offloads_a_packet_is_a_packet() {
    case(fast("offload = false"), |case| -> Outcome {
        let _portals = case.up()?;
        for side in Side::BOTH {
            assert_eq!(
                case.show(side)?["offloads"],
                json!({ "tun_tcp": false, "tun_udp": false, "udp_gso": 1, "udp_gro": 1 })
            );
        }
        carry(case, &Pieces::OneForOne)
    });
}

#[test]
fn datagrams_sent_in_one_piece_arrive_one_by_one() {
    const DATAGRAMS: u16 = 40;
    case(fast(""), |case| -> Outcome {
        let _portals = case.up()?;
        let server = case.lab.server.run(|| UdpSocket::bind((SERVER, 9000)))??;
        server.set_read_timeout(Some(5000 * MS))?;
        let mut client = case
            .lab
            .client
            .run(|| netcombiner::io::udp::UdpSocket::listen((PUBLIC, 9001).into()))??;
        // 40 of 900 bytes, and one of 7: a size of its own.
        let mut bytes = Vec::new();
        for number in 0..DATAGRAMS {
            bytes.extend((0..900_u16).map(|at| (at * 7 + number) as u8));
        }
        bytes.extend([200; 7]);
        let before = counted(&case.lab.local)?.1;
        let report = client.send(
            &Transmit {
                socket: SocketId(0),
                destination: (SERVER, 9000).into(),
                segment_size: 900,
                cutting: Cutting::IfRefused,
                ect: true,
                answers: false,
            },
            &bytes,
        );
        assert_eq!(report, SendReport::default());
        let mut buffer = [0; 2000];
        for expected in bytes.chunks(900) {
            let length = server.recv(&mut buffer)?;
            assert!(buffer[..length] == *expected);
        }
        let pieces = counted(&case.lab.local)?.1 - before;
        // Before Linux 6.2 the kernel cuts them itself.
        if case.show(Side::Local)?["offloads"]["tun_udp"] == true {
            assert!(pieces < 10, "{pieces}");
        }
        Ok(())
    });
}
