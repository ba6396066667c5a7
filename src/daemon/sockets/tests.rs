use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;
use crate::config::units::Mtu;
use crate::config::{Congestion, PublicAddresses, Security, TunnelAddresses};
use crate::io::entropy::SystemEntropy;
use crate::packet::Crossing;
use crate::proto::Batch;
use crate::proto::crypto::keys::PrivateKey;
use crate::proto::event::{Side, TunnelConfig};

struct Fixture {
    sockets: Sockets,
    tunnel: Tunnel,
    now: Instant,
    address: SocketAddr,
}

/// A socket by which the tunnels of a test talk, without a network.
const WIRE: SocketId = SocketId(4_000_000);

fn key_of(side: Side) -> PrivateKey {
    struct Same(u8);
    impl crate::proto::Entropy for Same {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }
    PrivateKey::generate(&mut Same(if side == Side::Local { 1 } else { 2 }))
}

fn tunnel(side: Side, now: Instant) -> Tunnel {
    let other = match side {
        Side::Local => Side::Remote,
        Side::Remote => Side::Local,
    };
    let config = TunnelConfig {
        side,
        private: key_of(side),
        peer: key_of(other).public(),
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
    Tunnel::new(config, Box::new(SystemEntropy::new().unwrap()), now)
}

/// Hands over what one tunnel sends to the other; true when there was something.
fn carry(now: Instant, from: &mut Tunnel, to: &mut Tunnel, source: SocketAddr) -> bool {
    let mut batch = Batch::default();
    let mut any = false;
    while from.poll_transmit(now, &mut batch)
        && let Some((transmit, bytes)) = batch.seal()
    {
        for datagram in bytes.chunks(transmit.segment_size) {
            to.handle_datagram(now, WIRE, source, &mut datagram.to_vec());
        }
        any = true;
    }
    any
}

impl Fixture {
    fn new() -> Self {
        let now = Instant::from_micros(3_600_000_000);
        let listener = TcpListener::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets::new(PollSet::new().unwrap(), true);
        sockets.add_listener(listener);
        Self {
            sockets,
            tunnel: tunnel(Side::Remote, now),
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

    /// The peer proves a path from this address.
    fn meet(&mut self, source: SocketAddr) {
        let mut peer = tunnel(Side::Local, self.now);
        let terms = LinkTerms {
            metric: 0,
            rate_up: None,
            rate_down: None,
            congestion: Congestion::default(),
        };
        let (link, listen) = (
            LinkId(0),
            Attachment::Listen {
                transport: Transport::Udp,
            },
        );
        let attachment = terms.attachment(link, Transport::Udp, self.address);
        peer.handle_socket_up(self.now, WIRE, attachment);
        self.tunnel.handle_socket_up(self.now, WIRE, listen);
        while carry(self.now, &mut peer, &mut self.tunnel, source)
            | carry(self.now, &mut self.tunnel, &mut peer, self.address)
        {
            self.now += Duration::from_millis(1);
        }
        assert!(self.tunnel.knows_source(source));
    }

    /// A connection from this address.
    fn come(&self, from: [u8; 4]) -> TcpStream {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.into()
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

/// Connections from everywhere, again and again, while the peer's link is about to prove itself.
#[test]
fn strangers_do_not_push_out_who_comes_from_a_known_network() {
    let mut fixture = Fixture::new();
    fixture.meet(([127, 0, 0, 9], 5000).into());
    let mut home = fixture.come([127, 0, 0, 7]);
    fixture.settle();
    let mut floods = Vec::new();
    for number in 0..100 {
        floods.push(fixture.come([127, 1 + number % 50, 0, 1]));
        fixture.settle();
    }
    assert_eq!(fixture.connections(), 33);
    home.set_nonblocking(true).unwrap();
    let still = home.read(&mut [0]).unwrap_err();
    assert_eq!(still.kind(), io::ErrorKind::WouldBlock);
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
