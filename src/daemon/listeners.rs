//! The places where peers are waited for. One whose address is not there yet is opened as soon as it
//! is.

use std::net::SocketAddr;

use super::packet_loop::{Command, PacketThread};
use crate::config::units::Family;
use crate::config::{Config, Listen, PortProtocol, Transport};
use crate::host::listeners::holders;
use crate::io::socket::{OpenError, any_address};
use crate::io::tcp::TcpListener;
use crate::io::udp::UdpSocket;

/// The places that wait for their address.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Listen>);

impl Listeners {
    /// Opens all that can be opened. Without an address there is one of each family; a host without
    /// IPv6 has only the first.
    pub(super) fn open(config: &Config) -> Result<(Vec<Command>, Self), OpenError> {
        let mut commands = Vec::new();
        let mut waiting = Self::default();
        for listen in &config.listen {
            let open = |place| {
                let named = |error| with_holder(error, listen.transport, place);
                open(listen, place).map_err(named)
            };
            let opened = match listen.address {
                Some(address) => open(SocketAddr::new(address, listen.port)),
                None => {
                    let any = |family| SocketAddr::new(any_address(family), listen.port);
                    commands.push(open(any(Family::V4))?);
                    open(any(Family::V6))
                }
            };
            match opened {
                Ok(command) => commands.push(command),
                Err(error) if error.is_family_missing() => {
                    if listen.address.is_some() {
                        waiting.0.push(*listen);
                    } else {
                        log::debug!("no IPv6 on this host: {error}");
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((commands, waiting))
    }

    /// True when one waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tries those that wait again.
    pub(super) fn retry(&mut self, packets: &PacketThread) {
        self.0.retain(|listen| {
            let Some(address) = listen.address else {
                return false;
            };
            match open(listen, SocketAddr::new(address, listen.port)) {
                Ok(command) => {
                    log::info!("listening at {listen}");
                    packets.tell(command);
                    false
                }
                Err(error) => {
                    if !error.is_family_missing() {
                        log::debug!("{error}");
                    }
                    true
                }
            }
        });
    }

    /// What is waited for, each in a sentence.
    pub(super) fn awaited(&self) -> impl Iterator<Item = String> {
        let waits = |listen: &Listen| format!("no address yet to listen at {listen}");
        self.0.iter().map(waits)
    }
}

fn open(listen: &Listen, place: SocketAddr) -> Result<Command, OpenError> {
    Ok(match listen.transport {
        Transport::Udp => Command::ListenUdp(UdpSocket::listen(place)?),
        Transport::Tcp => Command::ListenTcp(TcpListener::listen(place)?),
    })
}

/// The same error, with the program that has the place. Finding it means looking through all processes: not
/// for an error that is only tried again.
fn with_holder(error: OpenError, transport: Transport, place: SocketAddr) -> OpenError {
    if error.is_taken()
        && let Some(who) = holder(transport, place)
    {
        return error.held_by(&who);
    }
    error
}

/// Ports from here on may be taken by any user (ip(7), ip_unprivileged_port_start).
const FIRST_OF_USERS: u16 = 1024;

/// The program that has this place: any user may take the port while no tunnel runs.
fn holder(transport: Transport, place: SocketAddr) -> Option<String> {
    let protocol = match transport {
        Transport::Udp => PortProtocol::Udp,
        Transport::Tcp => PortProtocol::Tcp,
    };
    let hinders = |own: SocketAddr| {
        let (own, wanted) = (own.ip().to_canonical(), place.ip());
        own == wanted
            || own.is_unspecified() && (own.is_ipv6() || wanted.is_ipv4())
            || wanted.is_unspecified() && wanted.is_ipv4() == own.is_ipv4()
    };
    let sockets = holders(protocol, place.port());
    let socket = sockets.iter().find(|it| hinders(it.local))?;
    let mut who = match socket.programs.first() {
        Some(program) => format!("{}, process {} of", program.name, program.process),
        None => "an unknown program of".to_owned(),
    };
    who += &format!(" user {}", socket.user);
    if socket.user != 0 && place.port() >= FIRST_OF_USERS {
        who += ", as any user may above port 1023,";
    }
    Some(who)
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
                let listen = Listen {
                    transport,
                    address: None,
                    port: place.port(),
                };
                for wanted in ["127.0.0.1", "0.0.0.0"] {
                    let wanted = SocketAddr::new(wanted.parse().unwrap(), place.port());
                    let Err(error) = open(&listen, wanted) else {
                        panic!("{wanted} was free");
                    };
                    let error = with_holder(error, transport, wanted);
                    assert!(error.to_string().contains(&words), "{error}");
                }
            }
        }
    }
}
