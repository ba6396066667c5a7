//! Whatever comes, and however much, the daemons' memory stays below what ARCHITECTURE.md says.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use netcombiner::packet::ecn::Codepoint;
use netcombiner_lab::error::Context;
use netcombiner_lab::prelude::*;
use netcombiner_lab::usage::Memory;

use super::support::wire::{Datagram, Forger, Tap};
use super::support::{Case, Outcome, Setup, case, eventually};

const MS: Duration = Duration::from_millis(1);

const MIB: u64 = 1 << 20;

/// What a flood of the tunnel's own users may cost beyond the idle state: ARCHITECTURE.md, "Memory".
/// The queue, what is kept for repairs and the pool; what waits for its turn; batches and backlogs.
const BY_USERS: u64 = 48 * MIB;

/// What strangers may cost by datagrams: the pages of the reception's buffer that were never used.
const BY_DATAGRAMS: u64 = MIB;

/// And by connections: 32 of them with 8 KiB in and as much out, and their sockets.
const BY_CONNECTIONS: u64 = 4 * MIB;

/// Datagrams of a burst: of 1,400 bytes some ten times what the links carry meanwhile.
const BURST: usize = 60_000;

/// Flows at once: more than the queue has buckets.
const FLOWS: u16 = 400;

#[test]
fn a_flood_of_packets_fills_the_queue_and_no_more() {
    flooded(BY_USERS, |case, _| {
        for (flows, to) in [
            (sockets(&case.lab.client, PUBLIC)?, SERVER),
            (sockets(&case.lab.server, SERVER)?, PUBLIC),
        ] {
            for length in [172, 1372] {
                burst(&flows, to, length)?;
            }
        }
        Ok(())
    });
}

#[test]
fn forgeries_from_many_sources_cost_no_memory() {
    flooded(BY_DATAGRAMS, |case, handshakes| {
        let forger = Forger::start(&case.lab.internet)?;
        let mut noise = 1_u32;
        for number in 0..40_000_u32 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut payload = handshakes[number as usize % handshakes.len()].clone();
            match number % 4 {
                // As it was, with a right first MAC, from somebody else.
                0 => {}
                // With another ephemeral key.
                1 => payload[8..12].copy_from_slice(&noise.to_be_bytes()),
                // A datagram of a session that is not there.
                2 => payload[..4].copy_from_slice(&noise.to_be_bytes()),
                _ => payload = noise.to_be_bytes().repeat(350),
            }
            let port = (noise >> 16) as u16 | 1024;
            forger.send(&Datagram {
                from: (Ipv4Addr::new(198, 51, 100, (noise >> 8) as u8), port),
                to: (PUBLIC, PORT),
                codepoint: Codepoint::Experienced,
                payload,
            });
            pause(number);
        }
        Ok(())
    });
}

#[test]
fn connections_from_strangers_cost_little_memory() {
    flooded(BY_CONNECTIONS, |case, _| {
        let mut held = Vec::new();
        for number in 0..600 {
            let stream = case.lab.server.run(|| TcpStream::connect((PUBLIC, PORT)))?;
            // Half a record, as long as there may be. Who is refused cannot write it.
            if let Ok(mut stream) = stream {
                let _ = stream.write_all(&[0, 0, 0xff, 0xff]);
                let _ = stream.set_nonblocking(true);
                let _ = stream.write_all(&[7; 60_000]);
                held.push(stream);
            }
            pause(number);
        }
        assert!(!held.is_empty());
        Ok(())
    });
}

/// Field row A4: a recorded initiation is sent as record after record by connections that never read, one
/// and then 32, and opened anew as often as they end; the client's ping stays as it was.
#[test]
fn answers_that_nobody_reads_cost_little_memory_and_no_time() {
    for connections in [1, 32] {
        flooded(BY_CONNECTIONS, |case, handshakes| {
            let lab = &case.lab;
            let quiet = Probe::ping(&lab.client, SERVER, 50 * MS, 20)?.finish();
            let mut record = (handshakes[0].len() as u32).to_be_bytes().to_vec();
            record.extend(&handshakes[0]);
            let records = record.repeat(400);
            let stop = AtomicBool::new(false);
            let trips = std::thread::scope(|scope| {
                for _ in 0..connections {
                    scope.spawn(|| replay(lab, &records, &stop));
                }
                let trips = Probe::ping(&lab.client, SERVER, 50 * MS, 100).map(Probe::finish);
                stop.store(true, Ordering::Relaxed);
                trips
            })?;
            assert!(trips.answered >= 95, "{trips:?}");
            let median = trips.median();
            assert!(median < quiet.median() + 30 * MS, "{median:?}, {quiet:?}");
            Ok(())
        });
    }
}

/// Sends the records by connection after connection, and reads nothing.
fn replay(lab: &Lab, records: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Ok(mut stream)) = lab.server.run(|| TcpStream::connect((PUBLIC, PORT))) {
            let _ = stream.set_write_timeout(Some(20 * MS));
            while !stop.load(Ordering::Relaxed) && stream.write_all(records).is_ok() {
                std::thread::sleep(5 * MS);
            }
        }
        std::thread::sleep(20 * MS);
    }
}

/// Both daemons' memory before, in and after a flood, which is given the local portal's real
/// initiations; and the tunnel still carries.
fn flooded(most: u64, flood: impl FnOnce(&Case, &[Vec<u8>]) -> Outcome) {
    let setup = Setup {
        links: vec![LinkSpec::symmetric(20.0, 15); 4],
        ..Setup::default()
    };
    case(setup, |case| -> Outcome {
        let tap = Tap::start(&case.lab.internet)?;
        let (remote, local) = case.up()?;
        let seen = tap.finish().into_iter().map(|datagram| datagram.payload);
        let handshakes: Vec<_> = seen.filter(|it| it.first() == Some(&0x10)).collect();
        assert!(!handshakes.is_empty());
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        let daemons = [&remote, &local].map(|portal| (portal.side, portal.process.id()));
        let idle = daemons.map(|(_, pid)| Memory::of(pid));
        flood(case, &handshakes)?;
        for ((side, pid), idle) in daemons.into_iter().zip(idle) {
            let idle = idle?;
            let flooded = Memory::of(pid)?;
            let grown = flooded.peak.saturating_sub(idle.resident);
            assert!(grown <= most, "{side:?}: {idle:?}, then {flooded:?}");
            eprintln!("{side:?}: {idle:?}, then {flooded:?}");
        }
        case.wait_for_paths(4)?;
        // The rest of the flood is still on its way.
        eventually("every ping is answered again", || {
            Ok(case.pings(&case.lab.client, SERVER)? == 20)
        })?;
        Ok(())
    });
}

/// A socket a flow.
fn sockets(host: &Namespace, address: Ipv4Addr) -> Result<Vec<UdpSocket>, Error> {
    (0..FLOWS)
        .map(|_| {
            host.run(|| UdpSocket::bind((address, 0)))?
                .context("a flow")
        })
        .collect()
}

/// Sends datagrams, each of the next flow.
fn burst(flows: &[UdpSocket], to: Ipv4Addr, length: usize) -> Outcome {
    let payload = vec![0x5a; length];
    for number in 0..BURST {
        // Nobody listens there, and what does not fit is lost: as it should be.
        let _ = flows[number % flows.len()].send_to(&payload, (to, 9));
        pause(number as u32);
    }
    Ok(())
}

/// The other processes need a processor too.
fn pause(number: u32) {
    if number % 64 == 63 {
        std::thread::sleep(MS);
    }
}
