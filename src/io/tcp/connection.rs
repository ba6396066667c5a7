//! One TCP connection: records in, records out, and how much it takes before it queues.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::record::{LENGTH_LEN, MAX_RECORD, Reader, append};
use crate::config::Transport;
use crate::io::socket::{OpenError, Origin, bind_link};

/// Bytes that may wait unsent in the kernel and in our own buffer: the queue belongs in the tunnel.
/// 32 KB fill 1 Gbit/s for 0.25 ms (PROTOCOL.md 2.2: 16-32 KB).
const NOT_SENT: usize = 32 * 1024;
/// What waits in our own buffer at most, with the records' lengths; beyond it datagrams are dropped, for
/// the queue is in the tunnel and nowhere else. Twice the tunnel's budget: control is sent beyond it.
const MOST_UNSENT: usize = 2 * NOT_SENT;
/// What waits for a peer that carries no path: a few answers to handshakes.
const STRANGER_UNSENT: usize = 4096;
/// Datagrams read in one go before others get their turn: bytes.
const READ_BUDGET: usize = 256 * 1024;
/// The same of a peer that carries no path: thirty handshakes.
const STRANGER_BUDGET: usize = 4096;
/// What one read asks for: a few dozen datagrams.
const READ_SIZE: usize = 64 * 1024;
/// The longest record of a peer that carries no path: handshakes and proofs are shorter than 200 bytes.
const STRANGER_RECORD: usize = 1024;
/// What such a peer may say in all, bytes. The genuine one needs twenty handshakes and as many proofs.
const STRANGER_TOTAL: usize = 32 * 1024;
/// After so long without an acknowledgement the kernel gives the connection up (RFC 5482); the
/// tunnel has long moved its packets to other paths.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// An idle connection is asked after so long whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A TCP connection, non-blocking.
#[derive(Debug)]
pub struct TcpConnection {
    socket: Socket,
    peer: SocketAddr,
    connected: bool,
    reader: Reader,
    unsent: Vec<u8>,
    sent: usize,
    /// What was read while it carried no path; `None`: it does, or it is our own.
    stranger: Option<usize>,
}

impl TcpConnection {
    /// Begins to connect from a link; it is up when [`TcpConnection::finish_connect`] says so.
    pub fn connect(origin: &Origin, peer: SocketAddr) -> Result<Self, OpenError> {
        let socket = bind_link(Transport::Tcp, origin)?;
        match socket.connect(&SockAddr::from(peer)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(source) => {
                return Err(OpenError::late(
                    Transport::Tcp,
                    format!("{origin} to {peer}"),
                    source,
                ));
            }
        }
        Self::new(socket, peer, false)
            .map_err(|source| OpenError::late(Transport::Tcp, origin.to_string(), source))
    }

    pub(super) fn accepted(socket: Socket, peer: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut connection = Self::new(socket, peer, true)?;
        connection.stranger = Some(0);
        Ok(connection)
    }

    fn new(socket: Socket, peer: SocketAddr, connected: bool) -> io::Result<Self> {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_notsent_lowat(NOT_SENT as u32)?;
            socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        }
        Ok(Self {
            socket,
            peer,
            connected,
            reader: Reader::default(),
            unsent: Vec::new(),
            sent: 0,
            stranger: None,
        })
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Our own end.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// False while the connection is being made.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Call when it became writable while connecting: true when it is up now.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => self.connected = true,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
        }
        Ok(self.connected)
    }

    /// It carries a path: its other end is the peer.
    pub fn admit(&mut self) {
        self.stranger = None;
    }

    /// True when nothing proved yet that the other end is the peer.
    pub fn is_stranger(&self) -> bool {
        self.stranger.is_some()
    }

    /// Queues datagrams of `segment_size` bytes each (the last may be shorter) and writes what the
    /// kernel takes. Gives how many were dropped because too much waits already.
    pub fn send(&mut self, segment_size: usize, bytes: &[u8]) -> io::Result<u64> {
        let most = if self.is_stranger() {
            STRANGER_UNSENT
        } else {
            MOST_UNSENT
        };
        let mut dropped = 0;
        for datagram in bytes.chunks(segment_size.max(1)) {
            let length = LENGTH_LEN + datagram.len();
            if self.waiting() + length > most {
                self.flush()?;
            }
            if self.waiting() + length > most {
                dropped += 1;
                continue;
            }
            if self.unsent.len() + length > self.unsent.capacity() {
                // The buffer grows for what waits, not for what is gone.
                self.unsent.drain(..self.sent);
                self.sent = 0;
            }
            append(&mut self.unsent, datagram);
        }
        self.flush()?;
        Ok(dropped)
    }

    /// Bytes that the kernel did not take yet.
    fn waiting(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Writes what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            match (&self.socket).write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
        } else if self.sent > NOT_SENT {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// True when nothing waits in our own buffer.
    pub fn is_flushed(&self) -> bool {
        self.sent == self.unsent.len()
    }

    /// How many more bytes may be queued. Ask when it became writable: then less than half of
    /// `NOT_SENT` waits in the kernel.
    pub fn budget(&self) -> usize {
        NOT_SENT.saturating_sub(self.waiting())
    }

    /// Reads and hands over whole datagrams. An error, the end of the stream among them, means that
    /// the connection is done.
    pub fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> io::Result<()> {
        let (budget, size, most) = if self.is_stranger() {
            (STRANGER_BUDGET, STRANGER_BUDGET, STRANGER_RECORD)
        } else {
            (READ_BUDGET, READ_SIZE, MAX_RECORD)
        };
        let mut total = 0;
        while total < budget {
            let room = self.reader.room(size);
            let asked = room.len();
            let length = match (&self.socket).read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.reader.filled(length);
            while let Some(record) = self
                .reader
                .next(most)
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?
            {
                take(record);
            }
            total += length;
            if let Some(said) = &mut self.stranger {
                *said += length;
                if *said > STRANGER_TOTAL {
                    return Err(io::ErrorKind::QuotaExceeded.into());
                }
            }
            if length < asked {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for TcpConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;

    use super::super::{Accepted, TcpListener};
    use super::*;

    fn pair() -> (TcpConnection, TcpStream) {
        let listener = TcpListener::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for _ in 0..100 {
            if let Accepted::Connection(connection) = listener.accept().unwrap() {
                return (connection, stream);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no connection came");
    }

    /// Receives until `count` datagrams are there or the connection is done.
    fn receive(connection: &mut TcpConnection, count: usize) -> (Vec<Vec<u8>>, io::Result<()>) {
        let mut got = Vec::new();
        for _ in 0..400 {
            let result = connection.receive(|datagram| got.push(datagram.to_vec()));
            if result.is_err() || got.len() >= count {
                return (got, result);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (got, Ok(()))
    }

    #[test]
    fn a_datagram_in_three_pieces_is_one_datagram() {
        let (mut connection, mut stream) = pair();
        for piece in [
            &[0, 0][..],
            &[0, 12, b'h', b'e'],
            b"llo, world",
            &[0, 0, 0, 11],
            &[7; 11],
        ] {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        let (got, result) = receive(&mut connection, 2);
        assert!(result.is_ok());
        assert_eq!(got, [b"hello, world".to_vec(), vec![7; 11]]);
    }

    #[test]
    fn garbage_and_the_end_close_it() {
        let (mut connection, mut stream) = pair();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let (got, result) = receive(&mut connection, 1);
        assert!(got.is_empty());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);

        let (mut connection, stream) = pair();
        drop(stream);
        let (_, result) = receive(&mut connection, 1);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_queued_counts_against_the_budget_and_arrives_whole() {
        let (mut connection, mut stream) = pair();
        assert_eq!(connection.budget(), NOT_SENT);
        connection.admit();
        // The other end does not read: the kernel stops taking, and the rest waits with us.
        let datagram = vec![9; 1400];
        let mut sent = 0;
        while connection.budget() > 0 {
            assert!(connection.is_flushed() || connection.budget() < NOT_SENT);
            connection.send(1400, &datagram).unwrap();
            sent += 1;
            assert!(sent < 100_000, "the kernel takes without end");
        }
        assert!(!connection.is_flushed());
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; sent * 1404];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        });
        for _ in 0..2000 {
            connection.flush().unwrap();
            if connection.budget() == NOT_SENT {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(connection.budget(), NOT_SENT);
        let bytes = reader.join().unwrap();
        for record in bytes.chunks(1404) {
            assert_eq!(record[..4], 1400u32.to_be_bytes());
            assert_eq!(record[4..], datagram);
        }
    }

    /// Field row A4, and the memory table's row of TCP: a peer that does not read costs a bounded buffer.
    #[test]
    fn what_nobody_reads_is_dropped_and_not_kept() {
        for (is_stranger, most) in [(true, STRANGER_UNSENT), (false, MOST_UNSENT)] {
            let (mut connection, _stream) = pair();
            if !is_stranger {
                connection.admit();
            }
            let answer = [9; 92];
            let mut dropped = 0;
            for _ in 0..400_000 {
                dropped += connection.send(92, &answer).unwrap();
                assert!(connection.waiting() <= most);
            }
            assert!(dropped > 1000, "{dropped}");
            assert!(connection.unsent.capacity() <= 2 * most);
        }
    }

    /// Field row A4: a stranger may say little, in short records, and holds little.
    #[test]
    fn a_stranger_has_a_small_share() {
        let (mut connection, mut stream) = pair();
        let mut record = 148_u32.to_be_bytes().to_vec();
        record.extend([7; 148]);
        stream.write_all(&record.repeat(400)).unwrap();
        let (mut got, mut result) = (0, Ok(()));
        for _ in 0..400 {
            let before = got;
            result = connection.receive(|_| got += 1);
            assert!(got - before <= STRANGER_BUDGET / record.len() + 1);
            assert!(connection.reader.held() <= 2 * STRANGER_BUDGET);
            if result.is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        assert!(got <= STRANGER_TOTAL / record.len() + 1);

        let (mut connection, mut stream) = pair();
        stream.write_all(&2000_u32.to_be_bytes()).unwrap();
        let (_, result) = receive(&mut connection, 1);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // The peer's may be as long as any datagram.
        let (mut connection, mut stream) = pair();
        connection.admit();
        stream.write_all(&2000_u32.to_be_bytes()).unwrap();
        stream.write_all(&[7; 2000]).unwrap();
        let (got, result) = receive(&mut connection, 1);
        assert_eq!((got.len(), result.is_ok()), (1, true));
    }

    #[test]
    fn a_refused_connection_says_so() {
        let listener = TcpListener::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Origin {
            device: "lo".parse().unwrap(),
            source: [127, 0, 0, 1].into(),
            port: None,
        };
        if cfg!(target_os = "linux") {
            // Older kernels let only root bind to a device.
            let Ok(mut connection) = TcpConnection::connect(&origin, address) else {
                return;
            };
            assert!(connection.finish_connect().unwrap());
            drop(listener);
            let refused = TcpConnection::connect(&origin, address)
                .map(|mut connection| connection.finish_connect());
            assert!(!matches!(refused, Ok(Ok(true))));
        }
    }
}
