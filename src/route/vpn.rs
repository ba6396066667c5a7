//! An administrator who logs in by a VPN of the remote portal's host loses the host with the VPN's port.

use std::net::SocketAddr;

use super::handed::HandedOver;
use super::kinds::is_tunnel;
use super::links::ObservedLink;
use super::reach::{HostSocket, LockOut};
use crate::config::PortProtocol;

/// Programs that carry a VPN by a TUN.
const PROGRAMS: [&str; 5] = ["openvpn", "charon", "charon-systemd", "tincd", "nebula"];

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
        links.iter().filter(|link| is_tunnel(link)).find(holds)
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

/// The program that carries such a tunnel, when it hears at no place any more.
fn lost_carrier(
    handed: &HandedOver,
    link: &ObservedLink,
    sockets: &[HostSocket],
) -> Option<(String, PortProtocol, SocketAddr)> {
    let mut lost = None;
    for socket in sockets.iter().filter(|it| it.peer.is_none()) {
        let program = socket.programs.first().map(|it| it.name.as_str());
        let carries = match program {
            Some(name) => link.kind == "tun" && PROGRAMS.contains(&name),
            None => link.kind != "tun" && socket.user == 0 && socket.protocol == PortProtocol::Udp,
        };
        for at in socket.places(handed).filter(|_| carries) {
            if !handed.takes(socket.protocol, at) {
                return None;
            }
            let name = program.unwrap_or("the kernel").to_owned();
            lost.get_or_insert((name, socket.protocol, at));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Remote, Role};
    use crate::route::cases;
    use crate::route::links::Observed;
    use crate::route::reach::Program;

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
        }
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
            let text = format!(
                r#"{{"links": [{{"device": "vpn0", "index": 3, "kind": "{kind}",
                "point_to_point": true, "addresses": ["10.8.0.1/24"]}}], "settings": {{}}}}"#
            );
            let links = Observed::parse(&text).unwrap().links;
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
}
