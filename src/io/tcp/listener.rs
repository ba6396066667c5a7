//! A TCP port where peers are waited for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::connection::TcpConnection;
use crate::config::Transport;
use crate::io::socket::{OpenError, bind_listen};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 32;

/// A listening TCP socket, non-blocking.
#[derive(Debug)]
pub struct TcpListener {
    socket: Socket,
}

impl TcpListener {
    /// Waits for connections at an address.
    pub fn listen(address: SocketAddr) -> Result<Self, OpenError> {
        let socket = bind_listen(Transport::Tcp, address)?;
        socket
            .listen(BACKLOG)
            .map_err(|source| OpenError::late(Transport::Tcp, address.to_string(), source))?;
        Ok(Self { socket })
    }

    /// The address it waits at.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// The next connection, if one is there. An error concerns that one connection, or the
    /// process's lack of descriptors; the listener lives on.
    pub fn accept(&self) -> io::Result<Option<TcpConnection>> {
        let (socket, peer) = match self.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let peer = peer
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        TcpConnection::accepted(socket, peer).map(Some)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
