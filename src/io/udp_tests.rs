use std::net::Ipv4Addr;

use super::*;

fn localhost() -> UdpSocket {
    UdpSocket::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

fn send(socket: &mut UdpSocket, to: SocketAddr, segment: usize, bytes: &[u8]) -> SendReport {
    socket.send(&how(to, segment, Cutting::IfRefused), bytes)
}

fn how(destination: SocketAddr, segment_size: usize, cutting: Cutting) -> event::Transmit {
    event::Transmit {
        socket: event::SocketId(0),
        destination,
        segment_size,
        cutting,
        ect: false,
        answers: false,
    }
}

#[test]
fn without_offload_a_batch_arrives_all_the_same() {
    let (mut a, mut b) = (localhost(), localhost());
    a.forbid_offload();
    b.forbid_offload();
    let none = UdpOffload {
        gso_segments: 1,
        gro_segments: 1,
    };
    assert_eq!(a.offload(), none);
    let to = b.local_addr().unwrap();
    let bytes: Vec<u8> = (0..30u8).flat_map(|n| vec![n; 100]).collect();
    assert_eq!(send(&mut a, to, 100, &bytes).lost, 0);
    let got = receive_all(&mut b, 30);
    assert!(got.iter().all(|(_, datagram)| datagram.len() == 100));
    assert_eq!(got.len(), 30);
}

fn receive_all(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut buffer = ReceiveBuffer::default();
    let mut got = Vec::new();
    for _ in 0..200 {
        while socket.receive(&mut buffer).unwrap() {
            buffer.for_each(|ends, bytes, length, _| {
                got.extend(
                    bytes
                        .chunks(length)
                        .map(|bytes| (ends.peer, bytes.to_vec())),
                );
            });
        }
        if got.len() >= count {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    got
}

#[test]
fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
    let (mut a, mut b) = (localhost(), localhost());
    let to = b.local_addr().unwrap();
    // More than one GSO send: 100 datagrams of 1,000 bytes, and a short last one.
    let mut bytes = Vec::new();
    for number in 0..100u8 {
        bytes.extend(std::iter::repeat_n(number, 1000));
    }
    bytes.extend([200; 7]);
    assert_eq!(send(&mut a, to, 1000, &bytes).lost, 0);
    let got = receive_all(&mut b, 101);
    assert_eq!(got.len(), 101);
    for (number, (from, datagram)) in got.iter().enumerate().take(100) {
        assert_eq!(*from, a.local_addr().unwrap());
        assert_eq!(datagram, &vec![number as u8; 1000]);
    }
    assert_eq!(got[100].1, [200; 7]);
    #[cfg(target_os = "linux")]
    assert!(a.most_segments() > 1);
}

/// More than the loopback's 64 KiB in one datagram is refused by UDP itself; so a device with a
/// small MTU is made. Needs root; without it nothing is tried.
#[cfg(target_os = "linux")]
#[test]
fn a_datagram_too_long_for_the_device_is_cut_and_told_and_a_probe_is_not() {
    let thread = std::thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        let ip = |words: &str| {
            let done = std::process::Command::new("ip")
                .args(words.split(' '))
                .status();
            done.is_ok_and(|status| status.success())
        };
        if !ip("link set lo up mtu 1300") {
            return;
        }
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let host: SocketAddr = host.parse().unwrap();
            let Ok(mut a) = UdpSocket::listen(host) else {
                continue;
            };
            let mut b = UdpSocket::listen(host).unwrap();
            let to = b.local_addr().unwrap();
            let bytes: Vec<u8> = (0..20u8).flat_map(|n| vec![n; 1480]).collect();
            let told = SendReport {
                lost: 0,
                too_long: Some((to, 1480)),
            };
            assert_eq!(send(&mut a, to, 1480, &bytes), told);
            let got = receive_all(&mut b, 20);
            assert_eq!(got.len(), 20);
            assert!(got.iter().all(|(_, datagram)| datagram.len() == 1480));
            // A probe says the same and goes nowhere.
            let probed = a.send(&how(to, 1480, Cutting::Never), &bytes[..1480]);
            assert_eq!((probed.lost, probed.too_long), (1, Some((to, 1480))));
            // What may be cut is no news.
            let freely = a.send(&how(to, 1480, Cutting::Free), &bytes);
            assert_eq!(freely, SendReport::default());
            assert_eq!(receive_all(&mut b, 20).len(), 20);
            // Nor is it, when an invalid one before it made quinn-udp's state again.
            a.stale = true;
            let marked = event::Transmit {
                ect: true,
                ..how(to, 1480, Cutting::Free)
            };
            assert_eq!(a.send(&marked, &bytes), SendReport::default());
            assert!(!a.stale);
            assert_eq!(receive_all(&mut b, 20).len(), 20);
            // An acknowledgement between them does not switch the socket.
            assert_eq!(send(&mut a, to, 60, &[0; 60]), SendReport::default());
            assert!(a.cuts);
            assert_eq!(receive_all(&mut b, 1).len(), 1);
            // Shorter ones go the quick way all the same.
            let bytes: Vec<u8> = (0..20u8).flat_map(|n| vec![n; 1000]).collect();
            assert_eq!(send(&mut a, to, 1000, &bytes), SendReport::default());
            assert_eq!(receive_all(&mut b, 20).len(), 20);
            assert!(a.most_segments() > 1);
        }
    });
    thread.join().unwrap();
}

#[cfg(target_os = "linux")]
fn capable(to: SocketAddr, segment_size: usize) -> event::Transmit {
    event::Transmit {
        ect: true,
        ..how(to, segment_size, Cutting::IfRefused)
    }
}

/// An address that this host does not have.
#[cfg(target_os = "linux")]
fn gone(peer: SocketAddr, local: [u8; 4]) -> Ends {
    Ends {
        peer,
        local: Some(local.into()),
    }
}

/// The codepoints of the datagrams that came.
fn codepoints(socket: &mut UdpSocket, count: usize) -> Vec<Codepoint> {
    let mut buffer = ReceiveBuffer::default();
    let mut got = Vec::new();
    for _ in 0..200 {
        while socket.receive(&mut buffer).unwrap() {
            buffer.for_each(|_, bytes, length, codepoint| {
                got.extend(bytes.chunks(length).map(|_| codepoint));
            });
        }
        if got.len() >= count {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    got
}

/// A socket without checksums is refused segments (EINVAL), as a device without them is (EIO).
#[cfg(target_os = "linux")]
#[test]
fn without_segmentation_datagrams_leave_singly_and_as_capable() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let host: SocketAddr = host.parse().unwrap();
        let Ok(mut a) = UdpSocket::listen(host) else {
            continue;
        };
        let mut b = UdpSocket::listen(host).unwrap();
        let to = b.local_addr().unwrap();
        if host.is_ipv6() {
            // linux/udp.h: UDP_NO_CHECK6_TX and UDP_NO_CHECK6_RX, which libc lacks.
            let (no_check6_tx, no_check6_rx) = (101, 102);
            set_number(&a.socket, libc::SOL_UDP, no_check6_tx, 1).unwrap();
            set_number(&b.socket, libc::SOL_UDP, no_check6_rx, 1).unwrap();
        } else {
            set_number(&a.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(a.send(&capable(to, 100), &[7; 1000]), SendReport::default());
            assert_eq!(codepoints(&mut b, 10), [Codepoint::Capable; 10], "{host}");
            assert_eq!(a.offload().gso_segments, 1);
        }
        assert!(!a.stale, "{host}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_that_left_the_host_is_forgotten_and_costs_no_datagram() {
    // One that the host does not have, and one that no host has: EINVAL in every kernel.
    for (offload, source) in [
        (true, [203, 0, 113, 9]),
        (true, [224, 0, 0, 1]),
        (false, [224, 0, 0, 1]),
    ] {
        let (mut a, mut b) = (localhost(), localhost());
        if !offload {
            a.forbid_offload();
        }
        let before = a.offload();
        let to = b.local_addr().unwrap();
        a.confirm(gone(to, source));
        assert_eq!(a.send(&capable(to, 100), &[7; 1000]), SendReport::default());
        assert_eq!(codepoints(&mut b, 10), [Codepoint::Capable; 10]);
        assert_eq!(a.locals.find(to, false), None);
        assert_eq!(a.offload(), before);
        // What has no codepoint needs no new state.
        a.confirm(gone(to, source));
        assert_eq!(send(&mut a, to, 100, &[7; 1000]), SendReport::default());
        assert_eq!(a.offload(), before);
        assert!(a.stale || source[0] == 203);
        assert_eq!(codepoints(&mut b, 10), [Codepoint::NotCapable; 10]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_that_is_not_there_yet_can_be_waited_at() {
    for place in ["203.0.113.77:0", "[2001:db8::77]:0"] {
        let place: SocketAddr = place.parse().unwrap();
        match UdpSocket::listen(place) {
            Ok(socket) => assert_eq!(socket.local_addr().unwrap().ip(), place.ip()),
            Err(error) => assert!(error.is_family_missing(), "{error}"),
        }
    }
}

#[test]
fn a_datagram_that_cannot_leave_is_counted_and_harms_nothing() {
    let (mut a, mut b) = (localhost(), localhost());
    let to = b.local_addr().unwrap();
    // Longer than any UDP datagram: EMSGSIZE.
    assert_eq!(send(&mut a, to, 70_000, &[0; 70_000]).lost, 1);
    // A loopback source cannot reach the outside: EINVAL or ENETUNREACH.
    let nowhere = "192.0.2.1:9".parse().unwrap();
    assert_eq!(send(&mut a, nowhere, 10, &[0; 30]).lost, 3);
    assert_eq!(send(&mut a, to, 3, b"abcde").lost, 0);
    let got: Vec<Vec<u8>> = receive_all(&mut b, 2).into_iter().map(|it| it.1).collect();
    assert_eq!(got, [b"abc".to_vec(), b"de".to_vec()]);
}

/// One reception, as the daemon makes it before it answers; gives how many came.
fn receive_once(socket: &mut UdpSocket) -> usize {
    let mut buffer = ReceiveBuffer::default();
    for _ in 0..200 {
        if socket.receive(&mut buffer).unwrap() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    buffer.filled
}

#[test]
fn data_leaves_by_the_authentic_address_and_an_answer_by_the_one_spoken_to() {
    let mut server = UdpSocket::listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut client = localhost();
    let peer = client.local_addr().unwrap();
    let spoken_to = |last| SocketAddr::from(([127, 0, 0, last], port));
    let hear = |server: &mut UdpSocket, client: &mut UdpSocket, last| {
        assert_eq!(send(client, spoken_to(last), 2, b"hi").lost, 0);
        assert_eq!(receive_once(server), 1);
    };
    let from = |server: &mut UdpSocket, client: &mut UdpSocket, answers| {
        let transmit = event::Transmit {
            answers,
            ..how(peer, 2, Cutting::IfRefused)
        };
        assert_eq!(server.send(&transmit, b"ho"), SendReport::default());
        receive_all(client, 1).remove(0).0
    };
    // Before anything is authentic.
    hear(&mut server, &mut client, 77);
    assert_eq!(from(&mut server, &mut client, true), spoken_to(77));
    server.confirm(Ends {
        peer,
        local: Some(spoken_to(77).ip()),
    });
    // As somebody who makes up the client's address would speak.
    hear(&mut server, &mut client, 78);
    assert_eq!(from(&mut server, &mut client, true), spoken_to(78));
    assert_eq!(from(&mut server, &mut client, false), spoken_to(77));
}

#[test]
fn a_batch_leaves_as_capable_and_its_codepoint_is_told() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let host: SocketAddr = host.parse().unwrap();
        let Ok(mut a) = UdpSocket::listen(host) else {
            continue;
        };
        let mut b = UdpSocket::listen(host).unwrap();
        let to = b.local_addr().unwrap();
        for ect in [true, false, true] {
            let transmit = event::Transmit {
                ect,
                ..how(to, 100, Cutting::IfRefused)
            };
            assert_eq!(a.send(&transmit, &[7; 1000]), SendReport::default());
            let got = codepoints(&mut b, 10);
            let expected = match ect {
                true => Codepoint::Capable,
                false => Codepoint::NotCapable,
            };
            assert_eq!(got, [expected; 10], "{host}");
        }
    }
}

/// Field row A4, and the memory table's row of full sockets: many short batches cost no more than few
/// long ones.
#[test]
fn what_waits_for_a_full_socket_is_bounded_with_what_it_costs() {
    for length in [1, 92, 1400, 60_000] {
        let mut socket = localhost();
        let to = socket.local_addr().unwrap();
        let bytes = vec![7; length];
        let how = how(to, length.min(1400), Cutting::Free);
        // As if the kernel took nothing.
        let dropped: u64 = (0..5000).map(|_| socket.keep(how, None, &bytes)).sum();
        assert!(dropped > 0);
        let held: usize = socket.backlog.iter().map(|it| it.bytes.capacity()).sum();
        let entries = socket.backlog.capacity() * size_of::<Batch>();
        assert!(
            held + entries <= 2 * BACKLOG_BYTES,
            "{length}: {held} + {entries}"
        );
        while socket.is_blocked() {
            socket.flush();
        }
        assert_eq!(socket.backlog_bytes, 0);
    }
}
