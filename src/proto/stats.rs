//! Counters and estimates, for `show`. Plain integers: one thread writes them.

use std::net::SocketAddr;
use std::time::Duration;

use super::congestion::Estimate;
use super::event::{EcnState, LinkId, PathState};
use super::wire::PathId;

/// A tunnel at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TunnelStats {
    /// Time since the newest handshake was done; nothing: no session.
    pub session_age: Option<Duration>,
    /// The AEAD or MAC in use, as text.
    pub cipher: &'static str,
    /// The paths that were ever used.
    pub paths: Vec<PathStats>,
    /// The longest packet that the TUN is to take, bytes.
    pub mtu: u16,
    /// Packets that came from the TUN.
    pub packets_in: u64,
    /// Bytes that came from the TUN.
    pub bytes_in: u64,
    /// Packets given to the TUN.
    pub packets_out: u64,
    /// Bytes given to the TUN.
    pub bytes_out: u64,
    /// Packets waiting to be sent.
    pub queue_packets: usize,
    /// Bytes waiting to be sent.
    pub queue_bytes: usize,
    /// Packets marked as having met congestion instead of dropped.
    pub marked: u64,
    /// Packets waiting for an earlier one.
    pub reorder_packets: usize,
    /// Waits for a repair that ended at the deadline.
    pub overdue: u64,
    /// Packets sent again.
    pub repairs: u64,
    /// Packets sent on two paths at once.
    pub twice: u64,
    /// Packets that were lost and not sent again in time.
    pub given_up: u64,
    /// Packets received more than once: what was repaired and had arrived, and what is sent twice.
    pub copies: u64,
    /// Parities sent.
    pub parities: u64,
    /// Packets that were lost and came back by the peer's parities.
    pub recovered: u64,
    /// Why packets and datagrams died, and how many; only causes that occurred.
    pub discards: Vec<(Discard, u64)>,
}

/// A path at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct PathStats {
    /// Which.
    pub path: PathId,
    /// Its link, on the portal that opened it.
    pub link: Option<LinkId>,
    /// Its state.
    pub state: PathState,
    /// The peer's address.
    pub remote: Option<SocketAddr>,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Least round trip.
    pub min_rtt: Option<Duration>,
    /// The round trip's variation.
    pub rtt_var: Duration,
    /// The longest IP packet that passes uncut, as far as is proven; bytes.
    pub mtu: Option<u16>,
    /// Whether its data can be marked instead of dropped.
    pub ecn: EcnState,
    /// Datagrams that came to the peer so marked.
    pub marked: u64,
    /// The controller's window, bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// What the sending direction was found to be like, where the controller measures it.
    pub estimate: Option<Estimate>,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Datagrams received and authentic.
    pub datagrams_received: u64,
    /// Bytes received and authentic.
    pub bytes_received: u64,
    /// Datagrams sent and held for lost.
    pub lost: u64,
    /// Of these, those that were not: they had only been overtaken.
    pub spurious: u64,
    /// Rate sent over the last second, bits per second.
    pub rate_sent: u64,
    /// Rate received over the last second, bits per second.
    pub rate_received: u64,
}

/// Why a packet or a datagram died. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discard {
    /// Too short, an unknown type, or frames that do not parse.
    Malformed,
    /// The receiver index is nobody's.
    UnknownIndex,
    /// The tag is wrong.
    Forged,
    /// The packet number was seen, or is older than the window.
    Replayed,
    /// A handshake message that does not fit: wrong key, stale, out of turn.
    BadHandshake,
    /// An initiation over the rate limit; a cookie was asked for or nothing said.
    HandshakeFlood,
    /// From the TUN: not an IP packet.
    NotIp,
    /// From the TUN: a super-packet that is not what the kernel says of it.
    NotSplit,
    /// From the TUN: its addresses may not cross the tunnel.
    NotAllowedOut,
    /// From the peer: its addresses may not cross the tunnel.
    NotAllowedIn,
    /// From the TUN: longer than the tunnel's MTU.
    TooBig,
    /// The queue was full.
    QueueFull,
    /// The queue was slow (CoDel, RFC 8289).
    QueueDelay,
    /// No session and no path.
    NoPath,
    /// The socket refused it.
    SendFailed,
    /// The kernel refused a packet that was given to the TUN.
    TunRefused,
}

impl Discard {
    /// Its name in `show --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownIndex => "unknown_index",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::BadHandshake => "bad_handshake",
            Self::HandshakeFlood => "handshake_flood",
            Self::NotIp => "not_ip",
            Self::NotSplit => "not_split",
            Self::NotAllowedOut => "not_allowed_out",
            Self::NotAllowedIn => "not_allowed_in",
            Self::TooBig => "too_big",
            Self::QueueFull => "queue_full",
            Self::QueueDelay => "queue_delay",
            Self::NoPath => "no_path",
            Self::SendFailed => "send_failed",
            Self::TunRefused => "tun_refused",
        }
    }
}
