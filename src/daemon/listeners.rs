//! The places where peers are waited for. One whose address is not there yet, or that another program has, is
//! opened as soon as it can be.

use std::net::SocketAddr;

use super::packet_loop::{Command, PacketThread};
use crate::config::units::Family;
use crate::config::{Config, Listen, PortProtocol, Transport, Warning};
use crate::host::listeners::holders;
use crate::io::socket::{OpenError, any_address};
use crate::io::tcp::TcpListener;
use crate::io::udp::UdpSocket;
use crate::route::reach::{HostSocket, Program};

/// The places that wait.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    place: Place,
    /// Who has the place; `None`: its address is not there yet.
    taken: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Place(Transport, SocketAddr);

impl Listeners {
    /// Opens all that can be opened. Without an address there is one of each family; a host without
    /// IPv6 has only the first.
    pub(super) fn open(config: &Config) -> Result<(Vec<Command>, Self), OpenError> {
        let mut commands = Vec::new();
        let mut waiting = Self::default();
        for (listen, place) in places(config) {
            let taken = match open(place) {
                Ok(command) => {
                    commands.push(command);
                    continue;
                }
                Err(error) if error.is_taken() => Some(with_holder(error, place)),
                Err(error) if error.is_family_missing() && listen.address.is_some() => None,
                Err(error) if error.is_family_missing() && place.1.is_ipv6() => {
                    log::debug!("no IPv6 on this host: {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            waiting.0.push(Waiting { place, taken });
        }
        Ok((commands, waiting))
    }

    /// True when one waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tries those that wait again.
    pub(super) fn retry(&mut self, packets: &PacketThread) {
        self.0.retain_mut(|it| match open(it.place) {
            Ok(command) => {
                log::info!("listening at {}", it.place.listen());
                packets.tell(command);
                false
            }
            Err(error) if error.is_taken() => {
                let named = || with_holder(error, it.place);
                it.taken = Some(it.taken.take().unwrap_or_else(named));
                true
            }
            Err(error) => {
                it.taken = None;
                if !error.is_family_missing() {
                    log::debug!("{error}");
                }
                true
            }
        });
    }

    /// What is waited for, each in a sentence.
    pub(super) fn awaited(&self) -> impl Iterator<Item = String> {
        let missing = |it: &Waiting| format!("no address yet to listen at {}", it.place.listen());
        let waits = move |it: &Waiting| it.taken.clone().unwrap_or_else(|| missing(it));
        self.0.iter().map(waits)
    }
}

impl Place {
    fn listen(self) -> Listen {
        Listen {
            transport: self.0,
            address: Some(self.1.ip()),
            port: self.1.port(),
        }
    }

    fn protocol(self) -> PortProtocol {
        match self.0 {
            Transport::Udp => PortProtocol::Udp,
            Transport::Tcp => PortProtocol::Tcp,
        }
    }
}

fn places(config: &Config) -> impl Iterator<Item = (&Listen, Place)> {
    config.listen.iter().flat_map(|listen| {
        let addresses = match listen.address {
            Some(address) => [Some(address), None],
            None => [Family::V4, Family::V6].map(|it| Some(any_address(it))),
        };
        let place = |address| Place(listen.transport, SocketAddr::new(address, listen.port));
        let all = addresses.into_iter().flatten();
        all.map(move |address| (listen, place(address)))
    })
}

/// The places that other programs have. Those that this tunnel itself has, when it runs, do not count.
pub(crate) fn taken(config: &Config, sockets: &[HostSocket]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    for (listen, place) in places(config) {
        let Some(socket) = holder(sockets, place) else {
            continue;
        };
        let is_own = |it: &Program| it.is_root && it.name == "netcombiner";
        let warning = Warning {
            place: "listen".to_owned(),
            text: format!(
                "{listen}: {} has it: it is waited for",
                who(socket).trim_end_matches(',')
            ),
        };
        if !socket.programs.iter().any(is_own) && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

fn open(Place(transport, place): Place) -> Result<Command, OpenError> {
    Ok(match transport {
        Transport::Udp => Command::ListenUdp(UdpSocket::listen(place)?),
        Transport::Tcp => Command::ListenTcp(TcpListener::listen(place)?),
    })
}

/// The error, with the program that has the place. Finding it means looking through all processes: not for an
/// error that is only tried again.
fn with_holder(error: OpenError, place: Place) -> String {
    let sockets = holders(place.protocol(), place.1.port());
    match holder(&sockets, place) {
        Some(socket) => error.held_by(&who(socket)).to_string(),
        None => error.to_string(),
    }
}

/// Ports from here on may be taken by any user (ip(7), ip_unprivileged_port_start).
const FIRST_OF_USERS: u16 = 1024;

/// The socket that has this place.
fn holder(sockets: &[HostSocket], place: Place) -> Option<&HostSocket> {
    let hinders = |it: &&HostSocket| {
        let (own, wanted) = (it.local.ip().to_canonical(), place.1.ip());
        let is_open = it.peer.is_none() || it.protocol == PortProtocol::Udp;
        let overlaps = own == wanted
            || own.is_unspecified() && (own.is_ipv6() || wanted.is_ipv4())
            || wanted.is_unspecified() && wanted.is_ipv4() == own.is_ipv4();
        is_open && overlaps
    };
    let wanted = (place.protocol(), place.1.port());
    let of_port = |it: &&HostSocket| (it.protocol, it.local.port()) == wanted;
    sockets.iter().filter(of_port).find(hinders)
}

/// The program that has it: any user may take the port while no tunnel runs.
fn who(socket: &HostSocket) -> String {
    let mut who = match socket.programs.first() {
        Some(program) => format!("{}, process {} of", program.name, program.process),
        None => "an unknown program of".to_owned(),
    };
    who += &format!(" user {}", socket.user);
    if socket.user != 0 && socket.local.port() >= FIRST_OF_USERS {
        who += ", as any user may above port 1023,";
    }
    who
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Field row A5: any user may take the port while the daemon is dead.
    #[test]
    fn who_has_the_port_is_named() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        let words = format!(
            "({}, process {} of user {user}",
            own.trim(),
            std::process::id()
        );
        for transport in [Transport::Udp, Transport::Tcp] {
            for own in ["127.0.0.1:0", "0.0.0.0:0"] {
                let udp = std::net::UdpSocket::bind(own).unwrap();
                let tcp = std::net::TcpListener::bind(own).unwrap();
                let place = match transport {
                    Transport::Udp => udp.local_addr().unwrap(),
                    Transport::Tcp => tcp.local_addr().unwrap(),
                };
                // A connected socket holds its port too.
                udp.connect("127.0.0.1:9").unwrap();
                for wanted in ["127.0.0.1", "0.0.0.0"] {
                    let wanted = SocketAddr::new(wanted.parse().unwrap(), place.port());
                    let wanted = Place(transport, wanted);
                    let Err(error) = open(wanted) else {
                        panic!("{wanted:?} was free");
                    };
                    let error = with_holder(error, wanted);
                    assert!(error.contains(&words), "{error}");
                }
            }
        }
    }
}
