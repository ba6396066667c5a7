//! An administrator who logs in by a VPN of the remote portal's host loses the host with the VPN's port.

use std::net::SocketAddr;

use super::handed::HandedOver;
use super::kinds::is_tunnel;
use super::links::ObservedLink;
use super::reach::{HostSocket, LockOut, Program, is_system};
use super::remote::FIRST_SHARED;
use crate::config::PortProtocol;

/// Programs that carry a VPN by a TUN or a TAP. zerotier-one stands for ZeroTier, edge for n2n, vpnserver for
/// SoftEther.
const PROGRAMS: [&str; 16] = [
    "openvpn",
    "charon",
    "charon-systemd",
    "tincd",
    "nebula",
    "ocserv",
    "ocserv-main",
    "vpnserver",
    "zerotier-one",
    "edge",
    "wireguard-go",
    "boringtun",
    "boringtun-cli",
    "fastd",
    "vtund",
    "iodined",
];

/// How the administrator would lose a VPN that logins depend on: somebody is logged in by it now, or all
/// login services listen there alone.
pub fn lost_vpn(
    handed: &HandedOver,
    links: &[ObservedLink],
    sockets: &[HostSocket],
) -> Option<LockOut> {
    let tunnel = |socket: &HostSocket| {
        let own = socket.local.ip().to_canonical();
        let holds = |link: &&ObservedLink| link.addresses.iter().any(|it| it.address() == own);
        // OpenVPN's TAP is one too.
        let is_vpn = |link: &&ObservedLink| is_tunnel(link) || link.kind == "tun";
        links.iter().filter(is_vpn).find(holds)
    };
    let services = || {
        let is_service = |it: &&HostSocket| it.peer.is_none() && it.login_program().is_some();
        let outside = |it: &&HostSocket| !it.local.ip().to_canonical().is_loopback();
        sockets.iter().filter(is_service).filter(outside)
    };
    let has_others = services().any(|it| tunnel(it).is_none());
    let ways = sockets
        .iter()
        .filter(|it| it.peer.is_some() && it.is_session())
        .chain(services().filter(|_| !has_others));
    ways.filter_map(|way| Some((way, tunnel(way)?)))
        .find_map(|(way, link)| {
            let (program, protocol, at) = lost_carrier(handed, link, sockets)?;
            Some(LockOut::Vpn {
                device: link.device.clone(),
                login: way.local.ip().to_canonical(),
                program,
                protocol,
                at,
            })
        })
}

/// What may carry a tunnel: one process, the kernel, or whoever holds a socket that nobody was found to hold.
struct Carrier<'a> {
    /// The process and, where that is not known, the socket's place in the list.
    who: (u32, usize),
    name: &'a str,
    lost: Option<(PortProtocol, SocketAddr)>,
    stays: bool,
}

/// The program that may carry such a tunnel and hears at no place any more. Another one of the same kind says
/// nothing about it.
fn lost_carrier(
    handed: &HandedOver,
    link: &ObservedLink,
    sockets: &[HostSocket],
) -> Option<(String, PortProtocol, SocketAddr)> {
    let mut carriers: Vec<Carrier<'_>> = Vec::new();
    for (number, socket) in sockets.iter().enumerate() {
        let Some((process, name)) = carrier(link, socket) else {
            continue;
        };
        let who = (process, if socket.is_unknown { number } else { 0 });
        for at in socket.places(handed) {
            let lost = handed
                .takes(socket.protocol, at)
                .then_some((socket.protocol, at));
            let stays = lost.is_none() && !socket.is_unknown;
            match carriers.iter_mut().find(|it| it.who == who) {
                Some(it) => {
                    it.lost = it.lost.or(lost);
                    it.stays |= stays;
                }
                None => carriers.push(Carrier {
                    who,
                    name,
                    lost,
                    stays,
                }),
            }
        }
    }
    let has_others = carriers.iter().any(|it| it.stays);
    carriers.iter().filter(|it| !it.stays).find_map(|it| {
        let (protocol, at) = it.lost?;
        // A client of somebody else's VPN has a port that the system chose.
        let is_firm = at.port() < FIRST_SHARED || !has_others;
        is_firm.then(|| (it.name.to_owned(), protocol, at))
    })
}

/// The process that holds this socket and may carry such a tunnel; 0 for the kernel and for one that is not
/// known. Any user can start a program of any name.
fn carrier<'a>(link: &ObservedLink, socket: &'a HostSocket) -> Option<(u32, &'a str)> {
    let is_tun = link.kind == "tun";
    if socket.peer.is_some() {
        return None;
    }
    if socket.programs.is_empty() {
        let is_kernels = !is_tun && socket.user == 0 && socket.protocol == PortProtocol::Udp;
        let may_be = is_tun && socket.is_unknown && is_system(socket.user);
        let name = if socket.is_unknown {
            "unknown program"
        } else {
            "the kernel"
        };
        return (is_kernels || may_be).then_some((0, name));
    }
    let carries = |it: &&Program| {
        let is_systems = it.is_root || is_system(socket.user);
        is_systems && PROGRAMS.contains(&it.name.as_str())
    };
    let program = socket.programs.iter().find(carries).filter(|_| is_tun)?;
    Some((program.process, &program.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Remote, Role};
    use crate::route::cases;
    use crate::route::links::Observed;

    fn socket(protocol: PortProtocol, local: &str, name: &str, peer: bool) -> HostSocket {
        let program = Program {
            name: name.to_owned(),
            process: 7,
            is_root: true,
            is_before_login: false,
        };
        HostSocket {
            protocol,
            local: local.parse().unwrap(),
            peer: peer.then(|| "10.8.0.2:50000".parse().unwrap()),
            user: 0,
            programs: Vec::from_iter((!name.is_empty()).then_some(program)),
            is_unknown: false,
        }
    }

    fn vpn(kind: &str, is_tun: bool) -> Vec<ObservedLink> {
        let text = format!(
            r#"{{"links": [{{"device": "vpn0", "index": 3, "kind": "{kind}",
            "point_to_point": {is_tun}, "addresses": ["10.8.0.1/24"]}}], "settings": {{}}}}"#
        );
        Observed::parse(&text).unwrap().links
    }

    fn keeping(keep: &[&str]) -> HandedOver {
        HandedOver::by(&Config {
            role: Role::Remote(Remote {
                keep: keep.iter().map(|it| it.parse().unwrap()).collect(),
            }),
            ..cases::remote()
        })
    }

    /// Field row B1: the administrator comes in by OpenVPN or WireGuard.
    #[test]
    fn the_way_in_by_a_vpn_is_not_cut_off() {
        let (tcp, udp) = (PortProtocol::Tcp, PortProtocol::Udp);
        for (kind, carrier) in [("tun", "openvpn"), ("wireguard", "")] {
            let links = vpn(kind, true);
            let carrier = socket(udp, "0.0.0.0:1194", carrier, false);
            let service = socket(tcp, "10.8.0.1:22", "sshd", false);
            let session = socket(tcp, "10.8.0.1:22", "sshd", true);
            let everywhere = socket(tcp, "0.0.0.0:22", "sshd", false);
            let lost = |keep: &[&str], sockets: &[&HostSocket]| {
                let sockets: Vec<_> = sockets.iter().copied().cloned().collect();
                lost_vpn(&keeping(keep), &links, &sockets)
            };
            let said = lost(&["tcp:22"], &[&carrier, &service]).unwrap();
            let said = said.to_string();
            assert!(
                said.contains("10.8.0.1") && said.contains("add \"udp:1194\""),
                "{said}"
            );
            assert!(lost(&["tcp:22"], &[&carrier, &everywhere, &session]).is_some());
            // It is kept, people log in elsewhere, or nothing is known to carry it.
            assert_eq!(lost(&["udp:1194"], &[&carrier, &service, &session]), None);
            assert_eq!(lost(&["tcp:22"], &[&carrier, &service, &everywhere]), None);
            assert_eq!(lost(&["tcp:22"], &[&service, &session]), None);
        }
    }

    /// Field row B1: any account can start a program of any name.
    #[test]
    fn only_the_systems_own_programs_carry_a_vpn() {
        let udp = PortProtocol::Udp;
        let service = socket(PortProtocol::Tcp, "10.8.0.1:22", "sshd", false);
        let of = |place: &str, process: u32, user: u32| {
            let mut socket = socket(udp, place, "openvpn", false);
            socket.user = user;
            socket.programs[0].is_root = user == 0;
            socket.programs[0].process = process;
            socket
        };
        let lost = |keep: &[&str], sockets: &[HostSocket]| {
            let mut sockets = sockets.to_vec();
            sockets.push(service.clone());
            lost_vpn(&keeping(keep), &vpn("tun", true), &sockets).is_some()
        };
        let (carrier, other) = (of("0.0.0.0:1194", 7, 0), of("0.0.0.0:60001", 8, 65_534));
        let kept = ["udp:60000-61000"];
        assert!(lost(&kept, &[other.clone(), carrier.clone()]));
        assert!(!lost(&["tcp:22"], &[other]));
        // A system account's counts; one that root made and its program has left root's account as well.
        assert!(lost(&kept, &[of("0.0.0.0:1194", 7, 101)]));
        let mut left = carrier.clone();
        left.programs[0].is_root = false;
        assert!(lost(&kept, &[left]));
        // Each process by itself, with all that it has.
        let second = of("0.0.0.0:60001", 8, 0);
        assert!(lost(&kept, &[second.clone(), carrier.clone()]));
        assert!(!lost(&kept, &[of("0.0.0.0:60001", 7, 0), carrier]));
        // A client of another VPN does not, nor does its port count beside a server that stays.
        let client = of("0.0.0.0:45678", 9, 0);
        assert!(!lost(&kept, &[client.clone(), second]));
        assert!(lost(&kept, &[client]));
    }

    /// Field row B1: there was no time to find who holds a socket, by the doing of some account.
    #[test]
    fn what_nobody_was_found_to_hold_does_not_open_the_guard() {
        let udp = PortProtocol::Udp;
        let service = socket(PortProtocol::Tcp, "10.8.0.1:22", "sshd", false);
        let lost = |kind: &str, sockets: &[(&str, u32, bool)]| {
            let mut sockets: Vec<_> = sockets
                .iter()
                .map(|(place, user, is_unknown)| HostSocket {
                    user: *user,
                    is_unknown: *is_unknown,
                    ..socket(udp, place, "", false)
                })
                .collect();
            sockets.push(service.clone());
            lost_vpn(&keeping(&["udp:500"]), &vpn(kind, true), &sockets).is_some()
        };
        let (carrier, kept) = ("0.0.0.0:1194", "0.0.0.0:500");
        for user in [0, 101] {
            assert!(lost("tun", &[(carrier, user, true)]));
            assert!(lost("tun", &[(kept, 0, true), (carrier, user, true)]));
        }
        assert!(!lost("tun", &[(kept, 0, true)]));
        assert!(!lost("tun", &[(carrier, 0, false)]));
        assert!(!lost("tun", &[(carrier, 1000, true)]));
        assert!(lost("wireguard", &[(kept, 0, true), (carrier, 0, true)]));
        assert!(!lost("wireguard", &[(kept, 0, false), (carrier, 0, false)]));
        assert!(!lost("wireguard", &[(carrier, 1000, true)]));
    }

    /// Field row B1: a VPN of Ethernet frames, and other programs.
    #[test]
    fn a_tap_and_other_programs_are_known() {
        let service = socket(PortProtocol::Tcp, "10.8.0.1:22", "sshd", false);
        for program in ["openvpn", "vpnserver", "zerotier-one", "edge", "ocserv"] {
            let carrier = socket(PortProtocol::Udp, "0.0.0.0:1194", program, false);
            let lost = |links: &[ObservedLink]| {
                lost_vpn(
                    &keeping(&["tcp:22"]),
                    links,
                    &[carrier.clone(), service.clone()],
                )
            };
            assert!(lost(&vpn("tun", false)).is_some(), "{program}");
            assert_eq!(lost(&vpn("", false)), None);
        }
    }
}
