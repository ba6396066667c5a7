//! The TUN's thread, with a real TUN in a network namespace of the test's own. Needs root; the
//! namespaces' suite (`tests/netns`) says so when it is missing.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::config::units::{IfName, Mtu};
use crate::io::Tun;

const TUN: &str = "nctest0";
const CAPACITY: usize = 1401;

/// A TUN with an address, in a namespace that this thread has for itself.
fn tun() -> Option<Box<TunSide>> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
    let name: IfName = TUN.parse().ok()?;
    let tun = Tun::open(&name, Mtu::TUNNEL_DEFAULT, true, true).ok()?;
    let status = std::process::Command::new("ip")
        .args(["address", "add", "10.9.0.1/24", "dev", TUN])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    Some(Box::new(TunSide::new(tun)))
}

/// What the thread brings until there are `count` of our packets or it brings nothing for long.
fn collect(thread: &TunThread, count: usize) -> Vec<Packet> {
    let mut packets = Vec::new();
    for _ in 0..200 {
        while let Ok(Some(came)) = thread.receive() {
            assert!(came.error.is_none());
            packets.extend(came.packets.into_iter().filter(|it| number(it).is_some()));
        }
        if packets.len() >= count {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    packets
}

/// The number in a datagram of ours; the kernel sends others too.
fn number(packet: &Packet) -> Option<u32> {
    let bytes = packet.bytes();
    let is_ours = bytes.len() == 32 && bytes[0] == 0x45 && bytes[9] == 17;
    is_ours.then(|| u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]))
}

fn send(socket: &UdpSocket, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let sent = socket.send_to(&number.to_be_bytes(), "10.9.0.2:8000");
        assert!(sent.is_ok(), "{sent:?}");
    }
}

#[test]
fn both_ways_in_order_and_the_tun_comes_back() {
    std::thread::spawn(|| {
        let Some(side) = tun() else { return };
        let poll = PollSet::new().unwrap();
        let thread = TunThread::spawn(CAPACITY, Clock::start(), poll.waker()).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let mut side = Some(side);
        // Twice: it may go and come as often as the load asks for.
        for _ in 0..2 {
            thread.serve(side.take().unwrap()).unwrap();
            send(&socket, 0..150);
            let mut packets = collect(&thread, 150);
            let numbers: Vec<u32> = packets.iter().filter_map(number).collect();
            assert_eq!(numbers, (0..150).collect::<Vec<_>>());
            // Back where they came from: with the ends changed over the checksums stay right.
            for packet in &mut packets {
                let bytes = packet.buffer();
                let (source, destination) = bytes[12..20].split_at_mut(4);
                source.swap_with_slice(destination);
                let (source, destination) = bytes[20..24].split_at_mut(2);
                source.swap_with_slice(destination);
            }
            thread.send(packets, Vec::new());
            // What is written before the TUN is asked back is written.
            let mut empty = 0;
            side = thread.take_back(|last| empty += last.empty.len());
            assert!(side.is_some());
            assert!(empty + KEPT >= 150, "{empty}");
            for expected in 0..150_u32 {
                let mut bytes = [0; 8];
                let (length, from) = socket.recv_from(&mut bytes).unwrap();
                assert_eq!(from, "10.9.0.2:8000".parse().unwrap());
                assert_eq!(bytes[..length], expected.to_be_bytes());
            }
        }
    })
    .join()
    .unwrap();
}

#[test]
fn a_packet_thread_that_is_slow_stops_the_reading_and_not_for_ever() {
    std::thread::spawn(|| {
        let Some(side) = tun() else { return };
        let poll = PollSet::new().unwrap();
        let thread = TunThread::spawn(CAPACITY, Clock::start(), poll.waker()).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
        thread.serve(side).unwrap();
        // More than all batches hold: each of these is one.
        for n in 0..3 * BATCHES as u32 {
            send(&socket, n..n + 1);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(thread.stalled.load(Ordering::Acquire));
        let came = collect(&thread, 3 * BATCHES);
        let numbers: Vec<u32> = came.iter().filter_map(number).collect();
        assert_eq!(numbers, (0..3 * BATCHES as u32).collect::<Vec<_>>());
        send(&socket, 1000..1001);
        assert_eq!(collect(&thread, 1).first().and_then(number), Some(1000));
        assert!(thread.take_back(|_| {}).is_some());
    })
    .join()
    .unwrap();
}

#[test]
fn a_packet_thread_that_sleeps_is_woken_before_the_reading_stops_for_ever() {
    std::thread::spawn(|| {
        let Some(side) = tun() else { return };
        let mut poll = PollSet::new().unwrap();
        let thread = TunThread::spawn(CAPACITY, Clock::start(), poll.waker()).unwrap();
        thread.serve(side).unwrap();
        let mut ready = Vec::new();
        // Empty buffers that it does not keep: none is worth waking anybody.
        while !thread.stalled.load(Ordering::Acquire) {
            poll.wait(Some(Duration::ZERO), &mut ready).unwrap();
            let empty = (0..KEPT).map(|_| Pool::new(CAPACITY).take()).collect();
            thread.send(Vec::new(), empty);
            std::thread::sleep(Duration::from_millis(2));
        }
        let clock = Clock::start();
        let start = clock.now();
        let patience = Duration::from_secs(2);
        poll.wait(Some(patience), &mut ready).unwrap();
        assert!(clock.now().since(start) < patience);
        assert!(thread.take_back(|_| {}).is_some());
    })
    .join()
    .unwrap();
}

#[test]
fn a_thread_that_ended_is_noticed() {
    let poll = PollSet::new().unwrap();
    let mut thread = TunThread::spawn(CAPACITY, Clock::start(), poll.waker()).unwrap();
    assert!(matches!(thread.receive(), Ok(None)));
    // As when it is dropped.
    thread.to = None;
    thread.waker.wake();
    for _ in 0..200 {
        if thread.receive().is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not noticed within a second");
}
