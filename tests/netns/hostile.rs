//! What strangers send to the real sockets changes nothing and is counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use netcombiner_lab::prelude::*;

use super::support::wire::{Datagram, Forger, Tap};
use super::support::{Case, Outcome, Setup, case, eventually};

const MS: Duration = Duration::from_millis(1);

/// How many datagrams of the client are numbered and counted.
const NUMBERED: u32 = 40;

#[test]
fn a_replayed_datagram_is_delivered_once() {
    for lines in [
        "security = \"encrypt\"",
        "security = \"none\"\ni_understand_data_is_not_protected = true",
    ] {
        let mut setup = Setup::default();
        setup.options.local = lines.into();
        setup.options.remote = lines.into();
        case(setup, |case| -> Outcome {
            let _portals = case.up()?;
            let tap = Tap::start(&case.lab.internet)?;
            let (server, client) = numbered(case)?;
            let mut got = receive_all(&server);
            let recorded = to_the_remote(tap.finish());
            assert!(recorded.len() >= NUMBERED as usize, "{}", recorded.len());
            let before = counted(case, "replayed")?;
            let forger = Forger::start(&case.lab.internet)?;
            for _ in 0..3 {
                recorded.iter().for_each(|datagram| forger.send(datagram));
                std::thread::sleep(20 * MS);
            }
            // From a stranger's own address, too.
            for datagram in &recorded {
                forger.send(&Datagram {
                    from: (SERVER_GATEWAY, 4000),
                    ..datagram.clone()
                });
            }
            got.extend(receive_all(&server));
            got.sort_unstable();
            assert_eq!(got, (0..NUMBERED).collect::<Vec<_>>(), "{lines}");
            eventually("the replays are counted", || {
                Ok(counted(case, "replayed")? >= before + u64::from(NUMBERED))
            })?;
            // And nobody followed the stranger.
            let status = case.show(Side::Remote)?.to_string();
            assert!(!status.contains(&SERVER_GATEWAY.to_string()), "{status}");
            drop(client);
            still_well(case)
        });
    }
}

#[test]
fn forged_datagrams_amid_a_transfer_break_nothing() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        let tap = Tap::start(&lab.internet)?;
        let connection = Connection::new(&lab.client, &lab.server, SERVER, Sender::Connector);
        transfer(&connection, 200_000, 5000 * MS)?;
        let seen = tap.finish();
        assert!(seen.len() > 100, "{}", seen.len());
        let forgeries = forgeries(&seen);
        let (sent, stop) = (forgeries.len(), AtomicBool::new(false));
        let before = [Side::Remote, Side::Local].map(|side| case.discards(side));
        std::thread::scope(|scope| -> Outcome {
            let forging = scope.spawn(|| -> Result<usize, Error> {
                let forger = Forger::start(&lab.internet)?;
                let mut rounds = 0;
                while rounds == 0 || !stop.load(Ordering::Relaxed) {
                    for (i, datagram) in forgeries.iter().enumerate() {
                        forger.send(datagram);
                        if i % 32 == 0 {
                            // The links carry some hundred a second beside the transfer.
                            std::thread::sleep(5 * MS);
                        }
                    }
                    rounds += 1;
                }
                Ok(rounds)
            });
            let up = transfer(&connection, 2_000_000, 8000 * MS);
            let down = Connection {
                sender: Sender::Listener,
                ..connection.clone()
            };
            let down = transfer(&down, 2_000_000, 8000 * MS);
            stop.store(true, Ordering::Relaxed);
            let rounds = forging.join().map_err(|_| "the forger panicked")??;
            assert!(rounds > 0);
            up?;
            down?;
            Ok(())
        })?;
        for (side, before) in [Side::Remote, Side::Local].into_iter().zip(before) {
            let (before, after) = (before?, case.discards(side)?);
            assert!(
                after > before + 100,
                "{side:?}: {before} to {after} of {sent}"
            );
        }
        still_well(case)
    });
}

#[test]
fn garbage_at_the_udp_port_is_counted_and_gets_no_long_answer() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let stranger = case.lab.server.run(|| UdpSocket::bind((SERVER, 0)))??;
        stranger.set_read_timeout(Some(300 * MS))?;
        stranger.connect((PUBLIC, PORT))?;
        let before = case.discards(Side::Remote)?;
        let (mut sent, mut noise) = (0, Noise(7));
        for first in 0..=255_u8 {
            for length in [0, 1, 7, 8, 23, 72, 148, 1400] {
                let mut garbage: Vec<u8> = (0..length).map(|_| noise.byte()).collect();
                if let Some(byte) = garbage.first_mut() {
                    *byte = first;
                }
                sent += garbage.len();
                stranger.send(&garbage)?;
            }
            std::thread::sleep(MS);
        }
        let (mut answered, mut buffer) = (0, [0; 2000]);
        while let Ok(length) = stranger.recv(&mut buffer) {
            answered += length;
        }
        assert!(answered <= sent, "{answered} bytes were answered to {sent}");
        assert!(case.discards(Side::Remote)? > before + 500);
        still_well(case)
    });
}

#[test]
fn garbage_at_the_tcp_port_is_closed_and_is_in_nobodys_way() {
    let mut setup = Setup::default();
    setup.options.link = "transport = \"tcp\"".into();
    case(setup, |case| -> Outcome {
        let remote = case.start(Side::Remote)?;
        let connect = || case.lab.server.run(|| TcpStream::connect((PUBLIC, PORT)));
        // Lengths nobody has: closed at once.
        for head in [[0xff; 4], [0x00, 0x01, 0x00, 0x00], *b"GET "] {
            let mut stream = connect()??;
            stream.set_read_timeout(Some(5000 * MS))?;
            stream.write_all(&head)?;
            let _ = stream.write_all(&[0; 100]);
            // An end or a reset, but no time-out.
            let end = stream.read(&mut [0; 100]);
            let waited =
                matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(
                !waited && end.as_ref().is_ok_and(|it| *it == 0) | end.is_err(),
                "{end:?}"
            );
        }
        // Half records and silence: many, and they stay.
        let mut held = Vec::new();
        for i in 0..60_u32 {
            let mut stream = connect()??;
            match i % 3 {
                0 => stream.write_all(&[0, 0])?,
                1 => stream.write_all(&[0, 0, 4, 0, 0x10, 1, 2, 3])?,
                _ => {}
            }
            held.push(stream);
        }
        // The peer finds a place all the same.
        let _local = case.start(Side::Local)?;
        case.wait_for_paths(2)?;
        still_well(case)?;
        drop((held, remote));
        Ok(())
    });
}

#[test]
fn a_recorded_handshake_does_not_disturb_a_session() {
    case(Setup::default(), |case| -> Outcome {
        let tap = Tap::start(&case.lab.internet)?;
        let _portals = case.up()?;
        let recorded = to_the_remote(tap.finish());
        let handshakes = recorded.iter().filter(|it| it.payload[0] == 0x10);
        assert!(handshakes.clone().count() > 0);
        let forger = Forger::start(&case.lab.internet)?;
        for _ in 0..50 {
            handshakes
                .clone()
                .for_each(|datagram| forger.send(datagram));
            std::thread::sleep(10 * MS);
        }
        assert_eq!(case.paths_up()?.len(), 2);
        still_well(case)
    });
}

/// The client sends numbered datagrams to the server; both sockets.
fn numbered(case: &Case) -> Result<(UdpSocket, UdpSocket), Box<dyn std::error::Error>> {
    let server = case.lab.server.run(|| UdpSocket::bind((SERVER, 9000)))??;
    let client = case.lab.client.run(|| UdpSocket::bind((PUBLIC, 9001)))??;
    for number in 0..NUMBERED {
        client.send_to(&number.to_be_bytes(), (SERVER, 9000))?;
        std::thread::sleep(2 * MS);
    }
    Ok((server, client))
}

fn receive_all(socket: &UdpSocket) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut buffer = [0; 2000];
    let _ = socket.set_read_timeout(Some(500 * MS));
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let number = buffer[..length].try_into().map(u32::from_be_bytes);
        numbers.push(number.unwrap_or(u32::MAX));
    }
    numbers
}

fn to_the_remote(seen: Vec<Datagram>) -> Vec<Datagram> {
    seen.into_iter()
        .filter(|datagram| datagram.to == (PUBLIC, PORT) && !datagram.payload.is_empty())
        .collect()
}

fn counted(case: &Case, cause: &str) -> Result<u64, Error> {
    Ok(case.show(Side::Remote)?["discards"][cause]
        .as_u64()
        .unwrap_or(0))
}

/// Replays, every truncation, flipped bits and other people's addresses, to both portals.
fn forgeries(seen: &[Datagram]) -> Vec<Datagram> {
    let mut noise = Noise(1);
    let mut forgeries = Vec::new();
    for (i, datagram) in seen.iter().take(300).enumerate() {
        let with = |payload: Vec<u8>| Datagram {
            payload,
            ..datagram.clone()
        };
        let whole = &datagram.payload;
        forgeries.push(datagram.clone());
        forgeries.push(with(whole[..i % whole.len().max(1)].to_vec()));
        let mut flipped = whole.clone();
        let at = noise.below(flipped.len());
        flipped[at] ^= 1 << (noise.byte() % 8);
        forgeries.push(with(flipped));
        let mut longer = whole.clone();
        longer.push(noise.byte());
        forgeries.push(with(longer));
        // A packet number far ahead.
        let mut ahead = whole.clone();
        if let Some(number) = ahead.get_mut(4..8) {
            number.fill(0x7f);
        }
        forgeries.push(with(ahead));
        if datagram.to == (PUBLIC, PORT) {
            forgeries.push(Datagram {
                from: (Ipv4Addr::new(198, 51, 100, 99), 4725),
                ..datagram.clone()
            });
        }
    }
    forgeries
}

/// Everything goes on: both paths, every byte, pings.
fn still_well(case: &Case) -> Outcome {
    let lab = &case.lab;
    case.wait_for_paths(2)?;
    for sender in [Sender::Connector, Sender::Listener] {
        let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
        transfer(&connection, 500_000, 5000 * MS)?;
    }
    assert_eq!(case.pings(&lab.client, SERVER)?, 20);
    Ok(())
}

/// Numbers without a pattern, the same in every run (xorshift64, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) * 7 % limit.max(1)
    }
}
