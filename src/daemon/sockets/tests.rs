use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;
use crate::config::units::Mtu;
use crate::config::{PublicAddresses, Security, TunnelAddresses};
use crate::io::entropy::SystemEntropy;
use crate::packet::Crossing;
use crate::proto::crypto::keys::PrivateKey;
use crate::proto::event::{Side, TunnelConfig};

struct Fixture {
    sockets: Sockets,
    tunnel: Tunnel,
    now: Instant,
    address: SocketAddr,
}

impl Fixture {
    fn new() -> Self {
        let mut entropy = SystemEntropy::new().unwrap();
        let now = Instant::from_micros(3_600_000_000);
        let config = TunnelConfig {
            side: Side::Remote,
            private: PrivateKey::generate(&mut entropy),
            peer: PrivateKey::generate(&mut entropy).public(),
            preshared: None,
            security: Security::Encrypt,
            aes: false,
            mtu: Mtu::TUNNEL_DEFAULT,
            redundant: Vec::new(),
            crossing: Crossing::new(
                &PublicAddresses { v4: None, v6: None },
                &TunnelAddresses::default(),
                &[],
            ),
            ecn: true,
        };
        let listener = TcpListener::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets::new(PollSet::new().unwrap(), true);
        sockets.add_listener(listener);
        Self {
            sockets,
            tunnel: Tunnel::new(config, Box::new(entropy), now),
            now,
            address,
        }
    }

    /// Rounds until nothing is ready any more.
    fn settle(&mut self) -> usize {
        let mut ready = Vec::new();
        for round in 0..1000 {
            let timeout = Some(Duration::from_millis(20));
            self.sockets.wait(timeout, &mut ready).unwrap();
            if ready.is_empty() {
                return round;
            }
            for &ready in &ready {
                self.sockets.serve(self.now, ready, &mut self.tunnel);
            }
        }
        panic!("something is ready for ever");
    }

    fn connections(&self) -> usize {
        let is_connection = |entry: &&Entry| matches!(entry, Entry::Connection { .. });
        self.sockets.entries.values().filter(is_connection).count()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.sockets.handle_timeout(self.now, &mut self.tunnel);
    }
}

#[test]
fn strangers_that_keep_talking_are_few_and_go_all_the_same() {
    let mut fixture = Fixture::new();
    let mut clients: Vec<TcpStream> = (0..12)
        .map(|_| TcpStream::connect(fixture.address).unwrap())
        .collect();
    fixture.settle();
    assert_eq!(fixture.connections(), 4);
    // Records of garbage, again and again.
    let mut record = vec![0, 0, 0, 40];
    record.extend([0x55; 40]);
    for _ in 0..5 {
        for client in &mut clients {
            // Those that were refused hear of it.
            let _ = client.write_all(&record);
        }
        fixture.settle();
        fixture.pass(SWEEP);
    }
    assert_eq!(fixture.connections(), 0);
    let mut byte = [0];
    for client in &mut clients {
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let end = client.read(&mut byte);
        assert!(
            matches!(&end, Ok(0))
                || end.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
        );
    }
    // Nobody is left, so nothing is due.
    assert_eq!(fixture.sockets.poll_timeout(), None);
}

#[test]
fn a_listener_without_descriptors_rests_and_comes_back() {
    let mut fixture = Fixture::new();
    let listener = *fixture.sockets.entries.keys().next().unwrap();
    let error = io::Error::from_raw_os_error(libc::EMFILE);
    fixture.sockets.pause(fixture.now, listener, &error);
    let _client = TcpStream::connect(fixture.address).unwrap();
    assert_eq!(fixture.settle(), 0, "a resting listener is looked at");
    assert_eq!(fixture.connections(), 0);
    assert_eq!(fixture.sockets.take_notes().count(), 1);
    fixture.pass(SWEEP);
    fixture.settle();
    assert_eq!(fixture.connections(), 1);
}

/// Field row C9: after 2^32 connections the ids begin again, and none that is in use is given away.
#[test]
fn ids_that_wrap_never_meet_a_socket_that_is_open() {
    let mut fixture = Fixture::new();
    let listener = *fixture.sockets.entries.keys().next().unwrap();
    fixture.sockets.next = LAST_ID;
    let ids: Vec<u32> = (0..3).map(|_| fixture.sockets.new_id().0).collect();
    assert_eq!(ids, [LAST_ID, listener.0 + 1, listener.0 + 2]);
    fixture.sockets.next = LAST_ID;
    let _clients: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(fixture.address).unwrap())
        .collect();
    fixture.settle();
    assert_eq!(fixture.connections(), 3);
    let entry = fixture.sockets.entries.get(&listener);
    assert!(matches!(entry, Some(Entry::Listener { .. })));
}
