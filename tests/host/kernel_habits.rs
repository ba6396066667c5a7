//! What the kernel does by itself, and what we do about it.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use netcombiner::route::desired;

use crate::namespace::{PUBLIC, PUBLIC_V6, in_namespace, ip, reconciler, snapshot, sysctl};
use crate::portals::remote;
use crate::support;
use crate::traffic::beyond;

/// How often it is looked whether an answer came, and the pause before it is looked again: 1.5 s,
/// longer than the kernel needs, and shorter than its three questions.
const LOOKS: u32 = 75;
const PAUSE: Duration = Duration::from_millis(20);

/// Whether the neighbour beyond `wan0-other` that has forgotten all others learns who has `address`.
fn finds(address: &str) -> bool {
    for family in ["-4", "-6"] {
        ip(&format!("{family} neighbour flush dev wan0-other nud all"));
    }
    let (any, show) = if address.contains(':') {
        ("[::]:0", format!("-6 neighbour show {address}"))
    } else {
        ("0.0.0.0:0", format!("-4 neighbour show {address}"))
    };
    for _ in 0..LOOKS {
        let socket = UdpSocket::bind(any).unwrap();
        // What is sent does not matter, and that it cannot be is the question.
        let _ = socket.send_to(b"?", (address, 9));
        if ip(&show).contains("lladdr") {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// With table local behind the tunnel, the gateway can still ask who has the public address, and is
/// told of no other.
#[test]
fn the_gateway_finds_the_host_again() {
    in_namespace(async |directory| {
        ip("route add 203.0.113.77 dev lan");
        let mut ours = reconciler(&directory);
        ours.apply(&remote()).await.unwrap();
        let (ask, asked) = mpsc::channel::<&'static str>();
        let (answer, answers) = mpsc::channel();
        let gateway = beyond(
            "wan0-other",
            &[
                "link set wan0-other up",
                "address add 203.0.113.1/24 dev wan0-other",
                "-6 address add 2001:db8:113::1/64 dev wan0-other nodad",
            ],
            move || {
                for address in asked {
                    answer.send(finds(address)).unwrap();
                }
            },
        );
        let found = |address| {
            ask.send(address).unwrap();
            answers.recv().unwrap()
        };
        // A device that was moved carries packets a second later.
        assert!((0..5).any(|_| found(PUBLIC)));
        for _ in 0..3 {
            assert!(found(PUBLIC));
            assert!(found(PUBLIC_V6));
        }
        assert!(!found("203.0.113.77"), "that one is not ours to answer for");

        // Without our entry nobody would answer; it is missed and put back.
        ip("neighbour delete proxy 203.0.113.2 dev wan0");
        assert!(!found(PUBLIC));
        let repair = ours.apply(&remote()).await.unwrap().executed;
        assert_eq!(
            repair,
            ["ip -4 neighbour add proxy 203.0.113.2 dev wan0 protocol 98"]
        );
        assert!(found(PUBLIC));

        // A device that goes down forgets it.
        ip("link set wan0 down");
        ip("link set wan0 up");
        ours.apply(&remote()).await.unwrap();
        assert_eq!(
            ip("neighbour show proxy").trim(),
            "203.0.113.2 dev wan0 proxy proto 98"
        );

        // IPv6 addresses go with the device.
        ip("-6 address add 2001:db8:113::2/64 dev wan0 nodad");

        // Killed: the tunnel goes with the process, and the host answers.
        drop(ours);
        ip("link delete nc0");
        assert!(found(PUBLIC));
        assert!(found(PUBLIC_V6));
        reconciler(&directory).stop().await.unwrap();
        assert!(found(PUBLIC));
        assert!(!found("203.0.113.77"));
        assert_eq!(ip("neighbour show proxy"), "");
        assert_eq!(sysctl("net.ipv4.neigh.wan0.proxy_delay"), "80");
        drop(ask);
        gateway.join().unwrap();
    });
}

/// Settings that an administrator may have otherwise than the kernel.
static CHANGED: [(&str, &str); 4] = [
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/forwarding", "1"),
    ("net/ipv4/conf/lan/forwarding", "1"),
    ("net/ipv6/conf/lan/forwarding", "1"),
];

/// Forwarding that goes on and off again takes other settings with it: they are given back, also
/// after a second look at the host, after a kill, and with a device that came meanwhile.
#[test]
fn what_forwarding_writes_over_is_given_back() {
    let config = "role = \"remote\"\nprivate_key = \"PRIVATE\"\npeer_public_key = \"PEER\"\n\
        public_address = [\"203.0.113.2\", \"2001:db8:113::2\"]\nlisten = [\"udp:4725\"]\n";
    for changed in [&[][..], &CHANGED[..]] {
        in_namespace(async move |directory| {
            for (key, value) in changed {
                std::fs::write(format!("/proc/sys/{key}"), value).unwrap();
            }
            let before = snapshot();
            let (config, _) = support::parse(config).unwrap();
            let mut ours = reconciler(&directory);
            let wanted = desired(&config, &ours.links().await.unwrap());
            ours.apply(&wanted).await.unwrap();
            assert_eq!(sysctl("net.ipv4.conf.wan0.forwarding"), "1");
            // Another look finds the same state before us, and has nothing to do.
            let mut next = reconciler(&directory);
            let again = desired(&config, &next.links().await.unwrap());
            assert_eq!(again, wanted);
            assert!(next.apply(&again).await.unwrap().executed.is_empty());
            // Only the filter names the device that comes now.
            ip("tuntap add late mode tap");
            let again = desired(&config, &next.links().await.unwrap());
            let executed = next.apply(&again).await.unwrap().executed;
            assert!(
                executed.iter().all(|it| it.starts_with("nft ")),
                "{executed:#?}"
            );
            let steps = next.stop().await.unwrap().executed;
            assert_eq!(snapshot(), before, "{steps:#?}");
            assert_eq!(sysctl("net.ipv4.conf.late.forwarding"), "0");
        });
    }
}
