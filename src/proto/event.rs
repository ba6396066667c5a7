//! What the tunnel tells its owner, and what it takes from it besides bytes.

use std::net::SocketAddr;

use super::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use super::wire::PathId;
use crate::config::units::{Bitrate, Mtu};
use crate::config::{Class, Congestion, Security, Transport};
use crate::packet::Crossing;

/// A socket of the owner: a UDP socket or one TCP connection. Never reused while the tunnel lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// Which of the configuration's links, by its place in the owner's list. Its path's id follows from
/// it, so a link that goes and comes back is the same path. Never reused for another link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

/// Which portal this is. It decides only who numbers paths from below and who from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The local portal.
    Local,
    /// The remote portal.
    Remote,
}

/// What a tunnel needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Which portal this is.
    pub side: Side,
    /// This portal's private key.
    pub private: PrivateKey,
    /// The peer's public key.
    pub peer: PublicKey,
    /// The pre-shared key, if any.
    pub preshared: Option<PresharedKey>,
    /// How data is protected; both portals must say the same.
    pub security: Security,
    /// True when the processor has instructions for AES: then AES-256-GCM is offered.
    pub aes: bool,
    /// The TUN's MTU at most: no inner packet is longer.
    pub mtu: Mtu,
    /// What is sent on two paths at once.
    pub redundant: Vec<Class>,
    /// What may cross the tunnel.
    pub crossing: Crossing,
    /// Data may leave as ECN-capable, on paths that were seen to handle it.
    pub ecn: bool,
}

/// What may change about a link whose socket stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathTerms {
    /// The link's tier.
    pub metric: u8,
    /// A cap on what is sent.
    pub rate_up: Option<Bitrate>,
    /// A cap on what is received; the peer is told.
    pub rate_down: Option<Bitrate>,
    /// The congestion controller of the sending direction.
    pub congestion: Congestion,
}

/// What a new socket is for.
#[derive(Debug, Clone, PartialEq)]
pub enum Attachment {
    /// Peers are waited for on it: a bound UDP socket, or a TCP connection that was accepted.
    Listen {
        /// UDP or TCP.
        transport: Transport,
    },
    /// A link's own socket: flows are opened by it.
    Link {
        /// Which link.
        link: LinkId,
        /// UDP or TCP.
        transport: Transport,
        /// The peer's address.
        remote: SocketAddr,
        /// The link's tier.
        metric: u8,
        /// A cap on what is sent.
        rate_up: Option<Bitrate>,
        /// A cap on what is received; the peer is told.
        rate_down: Option<Bitrate>,
        /// The congestion controller of the sending direction.
        congestion: Congestion,
    },
}

/// One batch of datagrams for one socket; its bytes are in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// By which socket.
    pub socket: SocketId,
    /// To whom (a TCP connection ignores it).
    pub destination: SocketAddr,
    /// The length of every datagram but the last, which may be shorter; bytes.
    pub segment_size: usize,
    /// Whether the datagrams may be cut into fragments.
    pub cutting: Cutting,
    /// They leave as ECT(0): a full queue may mark them instead of dropping them (RFC 3168). TCP
    /// ignores it.
    pub ect: bool,
    /// It answers a datagram that came in this round and may be anybody's: it leaves from the address
    /// that one was sent to. Without it, from where authentic datagrams of the peer were sent to.
    pub answers: bool,
}

/// Whether a datagram may be cut into fragments where it is too long for a device or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutting {
    /// Never: it asks whether its length passes.
    Never,
    /// Only when this host's own device does not take it whole, of which the tunnel is told
    /// (`handle_refused`); on the way it is not cut.
    IfRefused,
    /// Here and on the way.
    Free,
}

/// News for the owner: changes of state only, never one a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A path carries data, where none did before.
    Connected,
    /// New keys are in use.
    Rekeyed,
    /// No path is usable any more.
    Disconnected,
    /// A path changed its state.
    Path {
        /// Which.
        path: PathId,
        /// Its link, on the portal that opened it.
        link: Option<LinkId>,
        /// Its new state.
        state: PathState,
        /// The peer's address.
        remote: Option<SocketAddr>,
    },
    /// The peer's address on a path changed: NAT rebinding or roaming.
    Roamed {
        /// Which path.
        path: PathId,
        /// The address now.
        to: SocketAddr,
    },
    /// The longest packets that the tunnel's paths carry are others now: the TUN's MTU is to follow.
    Mtu(Mtu),
    /// The peer is set to another security mode; the tunnel stays down until both agree.
    SecurityMismatch {
        /// What the peer is set to.
        peer: Security,
    },
}

/// Whether a path's data says that it can be marked (ECN).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcnState {
    /// Never: by TCP it is the kernel's, a fixed rate heeds no mark, or the configuration says no.
    Off,
    /// Some of it, to see what becomes of it.
    Testing,
    /// All of it.
    Capable,
    /// None, for this is what became of it.
    Failed(EcnFault),
}

/// What is wrong with a path for ECN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcnFault {
    /// What can be marked is lost, and what cannot passes.
    Dropped,
    /// It comes without what it was sent with, so a mark would be erased too; or the peer's system
    /// does not show it.
    Erased,
    /// Everything comes marked, whatever is sent.
    Everything,
    /// More comes marked than was sent.
    Impossible,
}

/// What a path is good for. The order is best first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PathState {
    /// It carries data.
    Up,
    /// Acknowledgements stay out: no new data, probes go on.
    Suspect,
    /// Its address is being proven.
    Validating,
    /// Nothing comes back; probed slowly.
    Dead,
    /// No socket.
    Down,
}
