//! The client owns the public address, both ways.

use std::net::{SocketAddr, UdpSocket};

use netcombiner_lab::prelude::*;

use super::support::{Answers, Outcome, Setup, Talk, case};

const MS: Duration = Duration::from_millis(1);

#[test]
fn client_and_server_ping_each_other() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        // So that nobody but the client can answer for the public address.
        case.lab
            .remote
            .set_sysctl("ipv4/icmp_echo_ignore_all", "1")?;
        let out = Probe::ping(&case.lab.client, SERVER, 20 * MS, 60)?;
        let inward = Probe::ping(&case.lab.server, PUBLIC, 20 * MS, 60)?;
        let (out, inward) = (out.finish(), inward.finish());
        assert_eq!((out.sent, out.answered), (60, 60), "{out:?}");
        assert_eq!((inward.sent, inward.answered), (60, 60), "{inward:?}");
        Ok(())
    });
}

#[test]
fn the_server_sees_the_public_address_and_the_clients_own_port() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let service = Answers::start(&case.lab.server, SERVER, 0)?;
        let mut talk = Talk::open(&case.lab.client, service.address())?;
        assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));

        let bind = |address| {
            move || -> std::io::Result<UdpSocket> {
                let socket = UdpSocket::bind(SocketAddr::from(address))?;
                socket.set_read_timeout(Some(5000 * MS))?;
                Ok(socket)
            }
        };
        let server = case.lab.server.run(bind((SERVER, 9000)))??;
        let client = case.lab.client.run(bind((PUBLIC, 9001)))??;
        client.send_to(b"who am I", (SERVER, 9000))?;
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"who am I");
        assert_eq!(from, SocketAddr::from((PUBLIC, 9001)));
        server.send_to(b"yourself", from)?;
        let (length, from) = client.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"yourself");
        assert_eq!(from, SocketAddr::from((SERVER, 9000)));
        Ok(())
    });
}

#[test]
fn every_byte_arrives_both_ways_over_both_links() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        const BYTES: u64 = 4_000_000;
        let connections = [
            Connection::new(&lab.client, &lab.server, SERVER, Sender::Connector),
            Connection::new(&lab.client, &lab.server, SERVER, Sender::Listener),
            // Inbound, to a port that nobody told netcombiner of.
            Connection::new(&lab.server, &lab.client, PUBLIC, Sender::Connector).port(31_337),
            Connection::new(&lab.server, &lab.client, PUBLIC, Sender::Listener).port(31_338),
        ];
        for connection in &connections {
            let direction = match (connection.connector.name(), connection.sender) {
                ("client", Sender::Connector) | ("server", Sender::Listener) => Direction::Up,
                _ => Direction::Down,
            };
            let before = [0, 1].map(|link| case.carried(link, direction));
            transfer(connection, BYTES, 5000 * MS)?;
            for link in [0, 1] {
                let carried = case.carried(link, direction) - before[link];
                // At least a tenth: a third would be its share.
                assert!(
                    carried > BYTES / 10,
                    "link {link} carried {carried} of {BYTES} ({connection:?})"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn packets_of_every_size_pass_and_too_long_ones_are_answered() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        let server = lab.server.run(|| UdpSocket::bind((SERVER, 9000)))??;
        server.set_read_timeout(Some(5000 * MS))?;
        let client = lab.client.run(|| UdpSocket::bind((PUBLIC, 9001)))??;
        client.set_read_timeout(Some(5000 * MS))?;
        client.connect((SERVER, 9000))?;
        let mut buffer = vec![0; 70_000];
        for size in [0, 1, 1200, 1372, 1373, 1472, 1473, 3000, 9000, 60_000] {
            // Fragments, where the tunnel's MTU asks for them. Each end may spend two tries on
            // learning it: one lost, one refused by its own kernel.
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut answered = false;
            for _ in 0..6 {
                let _ = client.send(&data);
                server.set_read_timeout(Some(1000 * MS))?;
                let Ok((length, from)) = server.recv_from(&mut buffer) else {
                    continue;
                };
                assert_eq!(buffer[..length], data, "{size} bytes up");
                server.send_to(&data, from)?;
                client.set_read_timeout(Some(1000 * MS))?;
                let Ok(length) = client.recv(&mut buffer) else {
                    continue;
                };
                assert_eq!(buffer[..length], data, "{size} bytes down");
                answered = true;
                break;
            }
            assert!(answered, "a datagram of {size} bytes is not carried");
        }
        Ok(())
    });
}
