//! Real connections through what was set up.

use std::time::Duration;

use netcombiner::config::{Forward, Taken};
use netcombiner::host::{Host, System};
use netcombiner::route::Operation;
use netcombiner::route::resource::{Filter, FilterClause};

use crate::namespace::{PUBLIC, PUBLIC_V6, address, in_namespace, ip, name, reconciler, run};
use crate::portals::remote;
use netcombiner::sorted::Set;

/// Runs `body` in another network namespace, into which this one's `device` is moved first.
pub(crate) fn beyond<T: Send + 'static>(
    device: &str,
    commands: &'static [&'static str],
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    let (ready, begun) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let place = std::fs::read_link("/proc/thread-self").unwrap();
        tell.send(place.file_name().unwrap().to_owned()).unwrap();
        wait.recv().unwrap();
        for command in commands {
            ip(command);
        }
        ready.send(()).unwrap();
        body()
    });
    let thread_id = told.recv().unwrap();
    ip(&format!("link set {device} netns {}", thread_id.display()));
    go.send(()).unwrap();
    begun.recv().unwrap();
    thread
}

/// Connects and reads what the other side says; 500 ms are enough for all that work here.
fn connect(from: &str, to: &str) -> std::io::Result<String> {
    let to: std::net::SocketAddr = to.parse().map_err(std::io::Error::other)?;
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        None,
    )?;
    let from: std::net::SocketAddr = (address(from), 0).into();
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_millis(500))?;
    let mut said = String::new();
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    std::io::Read::read_to_string(&mut std::net::TcpStream::from(socket), &mut said)?;
    Ok(said)
}

/// Connects, and tries again for five seconds: a device that was moved carries packets a second
/// later, and the other side may not listen yet.
fn reach(from: &str, to: &str) -> String {
    for _ in 0..50 {
        if let Ok(said) = connect(from, to) {
            return said;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    connect(from, to).unwrap()
}

/// Says to one that connects who it is seen as.
fn serve(listener: &std::net::TcpListener) {
    let (mut stream, peer) = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes()).unwrap();
}

/// With the remote portal's routing the host's own connections work, those to its kept port work,
/// and others go to the client.
#[test]
fn own_connections_come_back() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let other = beyond(
            "wan0-other",
            &[
                "link set wan0-other up",
                "address add 203.0.113.1/24 dev wan0-other",
                "-6 address add 2001:db8:113::1/64 dev wan0-other nodad",
            ],
            || {
                for place in ["203.0.113.1:7000", "[2001:db8:113::1]:7000"] {
                    serve(&std::net::TcpListener::bind(place).unwrap());
                }
                let kept = reach("203.0.113.1", "203.0.113.2:22");
                let lost = connect("203.0.113.1", "203.0.113.2:23");
                (kept, lost)
            },
        );
        let [ssh, other_port] =
            [22, 23].map(|port| std::net::TcpListener::bind((address(PUBLIC), port)).unwrap());
        std::thread::spawn(move || serve(&ssh));
        // Without our marks the answers go to the client.
        run("nft", "flush table inet netcombiner-nc0");
        connect(PUBLIC, "203.0.113.1:7000").unwrap_err();
        reconciler.apply(&remote()).await.unwrap();
        assert_eq!(reach(PUBLIC, "203.0.113.1:7000"), PUBLIC);
        assert_eq!(reach(PUBLIC_V6, "[2001:db8:113::1]:7000"), PUBLIC_V6);
        let (kept, lost) = other.join().unwrap();
        assert_eq!(kept, "203.0.113.1");
        assert_eq!(lost.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        drop(other_port);
    });
}

/// Delivery by NAT: what leaves by the tunnel has the public address, and a handed-on port reaches
/// its machine.
#[test]
fn addresses_are_translated() {
    in_namespace(async |directory| {
        ip("link delete nc0");
        ip("link add nc0 type veth peer name nc0-other");
        ip("link set nc0 up");
        ip("address delete 203.0.113.2/24 dev wan0");
        ip("-6 address delete 2001:db8:113::2/64 dev wan0");
        ip("address add 192.168.1.20/32 dev lan");
        ip("-6 address add fd00::20/128 dev lan nodad");
        ip("-6 address add 2001:db8:9::9/64 dev nc0 nodad");
        ip("address add 198.51.100.9/24 dev nc0");
        let device = name("nc0");
        let mut clauses = Set::new();
        for (public, inner) in [(PUBLIC, "192.168.1.20"), (PUBLIC_V6, "fd00::20")] {
            clauses.insert(FilterClause::SourceNat {
                device: device.clone(),
                address: address(public),
            });
            clauses.insert(FilterClause::Forwards {
                device: device.clone(),
                lans: vec![name("lan")],
                mark: 0x0100_0000,
                mask: 0x0f00_0000,
                address: address(public),
                forwards: vec![Forward {
                    taken: Taken::Ports {
                        tcp: true,
                        udp: false,
                        first: 443,
                        last: 443,
                        to_first: 8443,
                    },
                    to: address(inner),
                }],
            });
        }
        let filter = Filter {
            tunnel: device,
            clauses,
        };
        let mut system = System::open().unwrap();
        let put = Operation::ReplaceFilter(filter.clone());
        system.execute(&put).await.unwrap();
        let inner = ["192.168.1.20:8443", "[fd00::20]:8443"]
            .map(|place| std::net::TcpListener::bind(place).unwrap());
        let other = beyond(
            "nc0-other",
            &[
                "link set nc0-other up",
                "address add 198.51.100.1/24 dev nc0-other",
                "-6 address add 2001:db8:9::1/64 dev nc0-other nodad",
                "route add 203.0.113.2 via 198.51.100.9",
                "-6 route add 2001:db8:113::2 via 2001:db8:9::9",
            ],
            || {
                let listeners = ["198.51.100.1:7000", "[2001:db8:9::1]:7000"]
                    .map(|place| std::net::TcpListener::bind(place).unwrap());
                listeners.iter().for_each(serve);
                let v4 = reach("198.51.100.1", "203.0.113.2:443");
                let v6 = reach("2001:db8:9::1", "[2001:db8:113::2]:443");
                [v4, v6]
            },
        );
        let served = std::thread::spawn(move || inner.iter().for_each(serve));
        assert_eq!(reach("192.168.1.20", "198.51.100.1:7000"), PUBLIC);
        assert_eq!(reach("fd00::20", "[2001:db8:9::1]:7000"), PUBLIC_V6);
        let [v4, v6] = other.join().unwrap();
        assert_eq!(v4, "198.51.100.1");
        assert_eq!(v6, "2001:db8:9::1");
        served.join().unwrap();
        system
            .execute(&Operation::RemoveFilter(filter))
            .await
            .unwrap();
        assert_eq!(run("nft", "list ruleset"), "");
        drop(directory);
    });
}
