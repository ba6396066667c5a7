//! UDP sockets: batches out by GSO, batches in by recvmmsg and GRO.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::Socket;

use super::cut;
#[cfg(target_os = "linux")]
use super::socket::set_number;
use super::socket::{OpenError, Origin, bind_link, bind_listen, enlarge_buffers};
use crate::config::Transport;
use crate::packet::ecn::Codepoint;
use crate::proto::event::{self, Cutting};

/// What the kernel may keep for us in each direction: 4 MiB is 30 ms at 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;
/// The bytes of one GSO send: a UDP datagram's most (65,507), less some for IPv6 extension headers.
const GSO_BYTES: usize = 65_000;
/// More datagrams in one send than that no kernel takes (Linux: UDP_MAX_SEGMENTS is 128).
const GSO_MOST: usize = 129;
/// What waits in a blocked socket at most; beyond it datagrams are dropped, for the queue is in the
/// tunnel and nowhere else. Four full GSO batches.
const BACKLOG_BYTES: usize = 4 * GSO_BYTES;
/// Buffers kept for the backlog: as many as full batches fit into it.
const SPARE_BUFFERS: usize = BACKLOG_BYTES / GSO_BYTES;
/// Slots of one reception: 16 times one GRO super-datagram.
const RECEIVE_SLOTS: usize = 16;
/// The longest GRO super-datagram (a UDP datagram's length is 16 bits).
const RECEIVE_SLOT: usize = 65_536;
/// How many peers a listening socket remembers its own address for.
const LOCAL_ADDRESSES: usize = 32;

/// A UDP socket, non-blocking.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    state: UdpSocketState,
    /// The kernel may cut batches into datagrams, and join them again.
    offload: bool,
    backlog: VecDeque<Batch>,
    backlog_bytes: usize,
    /// Buffers of batches that are gone, for the next ones.
    spare: Vec<Vec<u8>>,
    locals: LocalAddresses,
    /// The socket is set so that datagrams may be cut.
    cuts: bool,
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendReport {
    /// So many are lost: the kernel refused them, or there was no room.
    pub lost: u64,
    /// To whom the device takes no datagram of this length whole (or of any longer).
    pub too_long: Option<(SocketAddr, usize)>,
}

/// What the kernel does for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOffload {
    /// Datagrams of one size that leave in one piece, at most.
    pub gso_segments: usize,
    /// Datagrams of one size that come in one piece, at most.
    pub gro_segments: usize,
}

/// Datagrams that the kernel did not take yet.
#[derive(Debug)]
struct Batch {
    transmit: event::Transmit,
    bytes: Vec<u8>,
    /// How many of the bytes the kernel took.
    sent: usize,
}

impl UdpSocket {
    /// A socket that waits for peers.
    pub fn listen(address: SocketAddr) -> Result<Self, OpenError> {
        Self::new(bind_listen(Transport::Udp, address)?)
            .map_err(|source| OpenError::late(Transport::Udp, address.to_string(), source))
    }

    /// A link's own socket.
    pub fn link(origin: &Origin) -> Result<Self, OpenError> {
        Self::new(bind_link(Transport::Udp, origin)?)
            .map_err(|source| OpenError::late(Transport::Udp, origin.to_string(), source))
    }

    fn new(socket: Socket) -> io::Result<Self> {
        enlarge_buffers(&socket, SOCKET_BUFFER);
        let state = new_state(&socket)?;
        Ok(Self {
            socket,
            state,
            offload: true,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            spare: Vec::new(),
            locals: LocalAddresses::default(),
            // quinn-udp forbids it.
            cuts: false,
        })
    }

    /// Does without the kernel's help with batches: drivers were seen that do it wrong.
    pub fn forbid_offload(&mut self) {
        self.offload = false;
        // Only a kernel without GRO refuses.
        #[cfg(target_os = "linux")]
        let _ = set_number(&self.socket, libc::SOL_UDP, libc::UDP_GRO, 0);
    }

    /// How many datagrams the kernel takes in one piece, and gives; 1: it does not.
    pub fn offload(&self) -> UdpOffload {
        UdpOffload {
            gso_segments: self.most_segments(),
            gro_segments: if self.offload {
                self.state.gro_segments()
            } else {
                1
            },
        }
    }

    fn most_segments(&self) -> usize {
        if self.offload {
            self.state.max_gso_segments()
        } else {
            1
        }
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// True when the kernel takes no more and something waits: watch for writability, then
    /// [`UdpSocket::flush`].
    pub fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends the datagrams of a batch. A full kernel loses nothing until the backlog is full as well.
    pub fn send(&mut self, transmit: &event::Transmit, bytes: &[u8]) -> SendReport {
        let mut report = SendReport::default();
        if bytes.is_empty() {
            return report;
        }
        let transmit = event::Transmit {
            segment_size: transmit.segment_size.clamp(1, bytes.len()),
            ..*transmit
        };
        let mut sent = 0;
        if !self.is_blocked() {
            sent = self.try_send(&transmit, bytes, &mut report);
        }
        report.lost += self.keep(transmit, &bytes[sent..]);
        report
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> SendReport {
        let mut report = SendReport::default();
        while let Some(mut batch) = self.backlog.pop_front() {
            let sent = self.try_send(&batch.transmit, &batch.bytes[batch.sent..], &mut report);
            self.backlog_bytes -= sent;
            batch.sent += sent;
            if batch.sent < batch.bytes.len() {
                self.backlog.push_front(batch);
                break;
            }
            if self.spare.len() < SPARE_BUFFERS {
                batch.bytes.clear();
                self.spare.push(batch.bytes);
            }
        }
        report
    }

    fn keep(&mut self, transmit: event::Transmit, bytes: &[u8]) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        if self.backlog_bytes + bytes.len() > BACKLOG_BYTES {
            return bytes.len().div_ceil(transmit.segment_size) as u64;
        }
        self.backlog_bytes += bytes.len();
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.backlog.push_back(Batch {
            transmit,
            bytes: kept,
            sent: 0,
        });
        0
    }

    /// Sends until the kernel is full. Gives the bytes done with.
    fn try_send(
        &mut self,
        transmit: &event::Transmit,
        bytes: &[u8],
        report: &mut SendReport,
    ) -> usize {
        let event::Transmit {
            destination,
            segment_size,
            cutting,
            ect,
            ..
        } = *transmit;
        let ecn = ect.then_some(EcnCodepoint::Ect0);
        let source = self.locals.find(destination);
        let batches = self.state.max_gso_segments();
        let mut sent = 0;
        let mut most_segments = GSO_BYTES / segment_size;
        self.let_cut(cutting == Cutting::Free);
        while sent < bytes.len() {
            // What is cut goes singly: the kernel does not cut segments.
            let most = if self.cuts { 1 } else { most_segments };
            let segments = self.most_segments().min(most).max(1);
            let end = bytes.len().min(sent + segments * segment_size);
            let contents = &bytes[sent..end];
            let transmit = Transmit {
                destination,
                ecn,
                contents,
                segment_size: (contents.len() > segment_size).then_some(segment_size),
                src_ip: source,
            };
            match self
                .state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
            {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A device without segmentation: quinn-udp has switched to single datagrams.
                Err(_) if segments > self.most_segments() => continue,
                // Segments longer than the device's MTU: Linux says EMSGSIZE, before 6.14 EINVAL,
                // seen above as a device without segmentation.
                Err(error) if segments > 1 && error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    most_segments = 1;
                    continue;
                }
                // Longer than the device's MTU. Data is cut rather than lost, while the tunnel
                // looks for what passes.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !self.cuts => {
                    report.too_long = Some((destination, contents.len()));
                    self.renew(batches);
                    if cutting == Cutting::IfRefused {
                        self.let_cut(true);
                        if self.cuts {
                            continue;
                        }
                    }
                    report.lost += 1;
                }
                // ENETUNREACH, EPERM, ENOBUFS and the like come from the network's state of this
                // moment: a datagram lost like any other.
                Err(error) => {
                    // quinn-udp takes EINVAL for a want of segmentation; a single datagram has none.
                    if segments == 1 && error.raw_os_error() == Some(libc::EINVAL) {
                        self.renew(GSO_MOST);
                    }
                    report.lost += contents.len().div_ceil(segment_size) as u64;
                }
            }
            sent = end;
        }
        sent
    }

    /// Lets datagrams be cut, here and on the way, or not. Where that cannot be set, all stays.
    fn let_cut(&mut self, cuts: bool) {
        if cuts != self.cuts && cut::set(&self.socket, cuts).is_ok() {
            self.cuts = cuts;
        }
    }

    /// A kernel that says EINVAL for segments that are too long makes quinn-udp give up
    /// segmentation for good: it did well before, and will with shorter ones.
    fn renew(&mut self, segments_before: usize) {
        if self.offload
            && self.state.max_gso_segments() < segments_before
            && let Ok(state) = new_state(&self.socket)
        {
            self.state = state;
        }
    }

    /// Receives a batch. Gives false when nothing was there.
    pub fn receive(&mut self, into: &mut ReceiveBuffer) -> io::Result<bool> {
        let mut slots = into.storage.chunks_exact_mut(RECEIVE_SLOT);
        let mut slots: [IoSliceMut<'_>; RECEIVE_SLOTS] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        into.filled = 0;
        match self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slots, &mut into.meta)
        {
            Ok(filled) => into.filled = filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        for meta in &into.meta[..into.filled] {
            if let Some(local) = meta.dst_ip {
                self.locals.note(meta.addr, local);
            }
        }
        Ok(into.filled > 0)
    }
}

/// The socket's options, without the times of arrival that quinn-udp asks for: nobody reads them, and
/// beside them its buffer of 96 bytes has no room for the codepoint of a joined datagram, which the
/// kernel then leaves out (n0-computer/noq issue 774).
fn new_state(socket: &Socket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    #[cfg(target_os = "linux")]
    set_number(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
    Ok(state)
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The memory of receptions, one for all sockets of a loop: 1 MiB.
#[derive(Debug)]
pub struct ReceiveBuffer {
    storage: Vec<u8>,
    meta: [RecvMeta; RECEIVE_SLOTS],
    filled: usize,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self {
            storage: vec![0; RECEIVE_SLOTS * RECEIVE_SLOT],
            meta: [RecvMeta::default(); RECEIVE_SLOTS],
            filled: 0,
        }
    }
}

impl ReceiveBuffer {
    /// Hands over the datagrams of the last reception: those of one sender that have one length
    /// (the last may be shorter) together, with that length, and what their IP headers say of
    /// congestion: the kernel joins only what says the same.
    pub fn for_each(&mut self, mut take: impl FnMut(SocketAddr, &mut [u8], usize, Codepoint)) {
        let slots = self.storage.chunks_exact_mut(RECEIVE_SLOT);
        for (slot, meta) in slots.zip(&self.meta[..self.filled]) {
            let length = meta.len.min(slot.len());
            let codepoint = meta
                .ecn
                .map_or(Codepoint::NotCapable, |ecn| Codepoint::from_bits(ecn as u8));
            take(
                meta.addr,
                &mut slot[..length],
                meta.stride.max(1),
                codepoint,
            );
        }
    }
}

/// By which of the host's addresses each peer of a listening socket last spoke to us: the answer
/// must come from there, or the peer's NAT drops it.
#[derive(Debug, Default)]
struct LocalAddresses {
    known: Vec<(SocketAddr, IpAddr)>,
    next: usize,
}

impl LocalAddresses {
    fn find(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.known
            .iter()
            .find(|(known, _)| *known == peer)
            .map(|&(_, local)| local)
    }

    fn note(&mut self, peer: SocketAddr, local: IpAddr) {
        if let Some(entry) = self.known.iter_mut().find(|(known, _)| *known == peer) {
            entry.1 = local;
        } else if self.known.len() < LOCAL_ADDRESSES {
            self.known.push((peer, local));
        } else {
            // A flood of made-up senders costs a peer its entry until its next datagram, no more.
            self.known[self.next] = (peer, local);
            self.next = (self.next + 1) % LOCAL_ADDRESSES;
        }
    }
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
