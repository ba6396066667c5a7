//! Nobody on a link speaks as a machine at home or as the router, whatever the kernel's own check of sources
//! lets in since netcombiner loosened it.

use std::net::{Ipv4Addr, UdpSocket};

use netcombiner::packet::ecn::Codepoint;
use netcombiner_lab::prelude::*;

use super::crossing::{home_router, pings};
use super::ipv6;
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::wire::{Datagram, Forger};
use super::support::{Case, LOCAL, Outcome, REMOTE, Setup, Watch, case, eventually};

const MS: Duration = Duration::from_millis(1);
/// The router's address at the LAN.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
/// A host of the Internet.
const STRANGER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// A neighbour of the first link sends to the router as each of these.
struct Neighbour<'a> {
    forger: Forger,
    heard: Watch<'a>,
}

impl<'a> Neighbour<'a> {
    fn of(case: &'a Case) -> Result<Self, Error> {
        Ok(Self {
            forger: Forger::start(&case.lab.internet)?,
            // Where the router itself would hear it.
            heard: Watch::start(&case.lab.local, "input", "iifname wan0 udp dport 9")?,
        })
    }

    /// How many of five datagrams from there the router hears.
    fn is_heard_as(&self, source: Ipv4Addr) -> Result<u64, Error> {
        let before = self.heard.packets()?;
        let say = |from: Ipv4Addr| {
            self.forger.send(&Datagram {
                from: (from, 5555),
                to: (Lab::wan_address(0), 9),
                codepoint: Codepoint::NotCapable,
                payload: b"not from here".to_vec(),
            });
        };
        (0..5).for_each(|_| say(source));
        // Anybody's come behind them.
        (0..5).for_each(|_| say(STRANGER));
        eventually("the router hears a stranger", || {
            Ok(self.heard.packets()? >= before + 5)
        })?;
        std::thread::sleep(300 * MS);
        Ok(self.heard.packets()? - before - 5)
    }
}

/// Without our rules it is heard. The daemon soon puts them back.
fn let_in(lab: &Lab, mut heard: impl FnMut() -> Result<u64, Error>) -> Result<(), Error> {
    eventually("it is heard without the filter", || {
        let line = "nft flush chain inet netcombiner-nc0 prerouting";
        sh(&lab.local, line)?;
        Ok(heard()? > 0)
    })
}

/// The router was strict, as most distributions have it.
fn strict(deliver: &str) -> Setup {
    Setup {
        reverse_path: 1,
        ..Setup::delivering(deliver)
    }
}

const NAT: &str = "deliver = \"nat\"\nlan = { device = \"lan\" }";
const CLIENT: &str =
    "deliver = \"client\"\nclient = { device = \"lan\", gateway = \"192.168.1.1\" }";

/// Field row A2: a source that is at home, forged by a link's neighbour or anywhere in the Internet, was believed
/// by whatever of the router believes the LAN. The flows come from an address of the router's own with `nat`.
#[test]
fn nobody_on_a_link_speaks_as_a_machine_at_home() {
    for deliver in [NAT, CLIENT, "deliver = \"none\""] {
        case(strict(deliver), |case| -> Outcome {
            let lab = &case.lab;
            if deliver == NAT {
                into_a_lan(lab)?;
                // The tunnel's own packets are known by their port, not only as answers.
                for line in [
                    "nft add table ip fast",
                    "nft add chain ip fast in { type filter hook prerouting priority -300 ; }",
                    "nft add chain ip fast out { type filter hook output priority -300 ; }",
                    "nft add rule ip fast in udp sport 4725 notrack",
                    "nft add rule ip fast out udp dport 4725 notrack",
                ] {
                    sh(&lab.local, line)?;
                }
            } else {
                sh(&lab.local, "ip address add 192.168.7.1/24 dev lan")?;
            }
            let neighbour = Neighbour::of(case)?;
            assert_eq!(neighbour.is_heard_as(LAN_MACHINE)?, 0, "the kernel's check");
            let _portals = case.up()?;
            let second = Lab::wan_address(1);
            for source in [LAN_MACHINE, ROUTER, second, LOCAL, REMOTE] {
                assert_eq!(neighbour.is_heard_as(source)?, 0, "{deliver}: {source}");
            }
            let public = neighbour.is_heard_as(PUBLIC)?;
            match deliver {
                NAT => {
                    assert_eq!(public, 0);
                    assert_eq!(case.pings(&lab.client, SERVER)?, 20);
                }
                // The VPS may log in.
                _ => assert_eq!(public, 5, "{deliver}"),
            }
            // The filter does it.
            let own: &[_] = if deliver == NAT {
                &[ROUTER, PUBLIC]
            } else {
                &[]
            };
            for source in [LAN_MACHINE].iter().chain(own) {
                let_in(lab, || neighbour.is_heard_as(*source))?;
            }
            Ok(())
        });
    }
}

/// A modem whose network is the LAN's, too, answers as before, and nobody there begins anything.
#[test]
fn a_modem_in_the_lans_network_answers() {
    for deliver in [NAT, CLIENT] {
        case(strict(deliver), |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if deliver == NAT {
                into_a_lan(lab)?;
            } else {
                sh(&lab.local, "ip address add 192.168.7.1/24 dev lan")?;
            }
            sh(&lab.local, "ip address add 192.168.7.2/24 dev wan0")?;
            sh(&lab.internet, "ip address add 192.168.7.254/24 dev link0")?;
            let neighbour = Neighbour::of(case)?;
            let _portals = case.up()?;
            let line = "ping -c 5 -i 0.2 -W 5 -I wan0 192.168.7.254";
            assert!(sh(&lab.local, line)?.contains(" 0% packet loss"));
            assert_eq!(neighbour.is_heard_as(LAN_MACHINE)?, 0);
            assert_eq!(pings(&lab.local, REMOTE)?, 5);
            Ok(())
        });
    }
}

/// The router's own multicast comes back by the link that it left by.
#[test]
fn the_router_hears_its_own_multicast() {
    case(strict(NAT), |case| -> Outcome {
        let lab = &case.lab;
        into_a_lan(lab)?;
        let _portals = case.up()?;
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let own = Lab::wan_address(0);
        let socket = lab.local.run(|| UdpSocket::bind(("0.0.0.0", 5353)))??;
        socket.set_read_timeout(Some(10_000 * MS))?;
        socket.join_multicast_v4(&group, &own)?;
        let speaker = lab.local.run(|| UdpSocket::bind((own, 0)))??;
        // Binding to an address of the link chooses it.
        sh(&lab.local, "ip route add 224.0.0.251/32 dev wan0")?;
        speaker.send_to(b"hello", (group, 5353))?;
        assert_eq!(socket.recv(&mut [0; 16])?, 5);
        Ok(())
    });
}

/// The same in IPv6, where the kernel has no such check.
#[test]
fn nobody_on_a_link_speaks_as_a_machine_at_home_by_ipv6() {
    case(Setup::nat(""), |case| -> Outcome {
        let lab = &case.lab;
        ipv6::native(case)?;
        let sources = ["2001:db8:77::20", "2001:db8:77::1", "2001:db8:99::1"];
        for source in sources {
            let line = format!("ip -6 address add {source}/128 dev lo nodad");
            sh(&lab.internet, &line)?;
        }
        let heard = Watch::start(&lab.local, "input", "iifname wan0 udp dport 9")?;
        let _portals = case.up()?;
        let say = |source: &str| -> Result<u64, Error> {
            let before = heard.packets()?;
            for from in [source, sources[2]] {
                let socket = lab.internet.run(|| UdpSocket::bind((from, 0)))?;
                let socket = socket.map_err(|error| Error::failed(error.to_string()))?;
                for _ in 0..5 {
                    let _ = socket.send_to(b"not from here", ("2001:db8:a0::2", 9));
                }
            }
            eventually("the router hears a stranger", || {
                Ok(heard.packets()? >= before + 5)
            })?;
            std::thread::sleep(300 * MS);
            Ok(heard.packets()? - before - 5)
        };
        assert_eq!(say(sources[0])?, 0);
        assert_eq!(say(sources[1])?, 0);
        // The machine of the LAN has its way out.
        let line = "ping -6 -c 3 -i 0.2 -W 5 2001:db8:51::2";
        assert!(sh(&lab.client, line)?.contains(" 0% packet loss"));
        // The filter does it.
        Ok(let_in(lab, || say(sources[0]))?)
    });
}
