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

    /// The next connection. An error is the process's lack of descriptors or memory, or a broken
    /// listener: it lasts, and the caller should rest.
    pub fn accept(&self) -> io::Result<Accepted> {
        let (socket, peer) = match self.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Accepted::None),
            Err(error) if concerns_one(&error) => return Ok(Accepted::Broken),
            Err(error) => return Err(error),
        };
        // A connection that was reset meanwhile refuses its options (FreeBSD: EINVAL, ECONNRESET).
        let connection = peer
            .as_socket()
            .and_then(|peer| TcpConnection::accepted(socket, peer).ok());
        Ok(connection.map_or(Accepted::Broken, Accepted::Connection))
    }
}

/// What waited at a listener.
#[derive(Debug)]
pub enum Accepted {
    /// A connection.
    Connection(TcpConnection),
    /// One that broke before it was accepted: the next may be good.
    Broken,
    /// Nothing.
    None,
}

/// True for errors of one connection. Linux reports what the network said of it, and a firewall's veto
/// (accept(2), "Error handling").
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field row C9: one broken connection does not stop the listener, a lack of descriptors does.
    #[test]
    fn only_lasting_errors_are_errors() {
        let is_one = |code| concerns_one(&io::Error::from_raw_os_error(code));
        for code in [libc::ECONNABORTED, libc::ECONNRESET, libc::EHOSTUNREACH] {
            assert!(is_one(code), "{code}");
        }
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EBADF] {
            assert!(!is_one(code), "{code}");
        }
    }

    #[test]
    fn a_connection_that_was_reset_is_passed_over() {
        let listener = TcpListener::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let reset = std::net::TcpStream::connect(address).unwrap();
        socket2::SockRef::from(&reset)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(reset);
        let _good = std::net::TcpStream::connect(address).unwrap();
        let mut accepted = 0;
        for _ in 0..400 {
            match listener.accept().unwrap() {
                Accepted::Connection(_) => accepted += 1,
                Accepted::Broken => {}
                Accepted::None if accepted > 0 => break,
                Accepted::None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        assert!(accepted > 0);
    }
}
