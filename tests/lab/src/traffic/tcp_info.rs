//! What the kernel knows of a TCP connection.
#![expect(unsafe_code, reason = "TCP_INFO has no safe wrapper")]

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// `struct tcp_info` of `linux/tcp.h` up to `tcpi_rcv_ooopack`, which Linux 5.4 brought.
const BYTES: usize = 228;

/// Figures of one end of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes of a full packet sent.
    pub segment: u32,
    /// Segments sent again.
    pub retransmitted: u32,
    /// Of those, unnecessary ones: the peer told of a duplicate.
    pub duplicates: u32,
    /// Segments that came out of order.
    pub out_of_order: u32,
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// Time with something to send.
    pub busy: Duration,
    /// Of that, time in which the receiver's window was the limit.
    pub window_limited: Duration,
    /// Of that, time in which our own buffer was the limit.
    pub buffer_limited: Duration,
}

impl TcpInfo {
    /// Of this end; zeros when the kernel does not tell.
    pub fn of(stream: &TcpStream) -> Self {
        let mut raw = [0_u8; BYTES];
        let mut length = BYTES as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `raw`,
        // which has as many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                raw.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            Self::parse(&raw)
        } else {
            Self::default()
        }
    }

    /// The fields' places are the kernel's promise to its programs.
    fn parse(raw: &[u8; BYTES]) -> Self {
        let micros = |at| Duration::from_micros(u64::from_ne_bytes(bytes(raw, at)));
        let word = |at| u32::from_ne_bytes(bytes(raw, at));
        Self {
            segment: word(16),
            round_trip: Duration::from_micros(u64::from(word(68))),
            retransmitted: word(100),
            busy: micros(168),
            window_limited: micros(176),
            buffer_limited: micros(184),
            duplicates: word(216),
            out_of_order: word(224),
        }
    }
}

fn bytes<const N: usize>(raw: &[u8; BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| raw[at + i])
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_tells_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        sender.write_all(&[0; 1000]).unwrap();
        receiver.read_exact(&mut [0; 1000]).unwrap();
        let info = TcpInfo::of(&sender);
        // The loopback's packets are large, and nothing is lost on it.
        assert!(info.segment > 1000, "{info:?}");
        assert_eq!((info.retransmitted, info.out_of_order), (0, 0), "{info:?}");
        assert!(info.round_trip < Duration::from_secs(1), "{info:?}");
        assert!(info.busy < Duration::from_secs(1), "{info:?}");
    }
}
