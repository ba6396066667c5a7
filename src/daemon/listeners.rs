//! The places where peers are waited for. One whose address is not there yet is opened as soon as it
//! is.

use std::net::SocketAddr;

use super::packet_loop::{Command, PacketThread};
use crate::config::units::Family;
use crate::config::{Config, Listen, Transport};
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
            let opened = match listen.address {
                Some(address) => open(listen, SocketAddr::new(address, listen.port)),
                None => {
                    let any = |family| SocketAddr::new(any_address(family), listen.port);
                    commands.push(open(listen, any(Family::V4))?);
                    open(listen, any(Family::V6))
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
