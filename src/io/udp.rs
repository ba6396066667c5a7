//! UDP sockets: batches out by GSO, batches in by recvmmsg and GRO.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::Socket;

use super::cut;
use super::locals::LocalAddresses;
#[cfg(target_os = "linux")]
use super::socket::set_number;
use super::socket::{OpenError, Origin, bind_link, bind_listen, enlarge_buffers};
use crate::config::Transport;
use crate::config::units::Family;
use crate::packet::ecn::Codepoint;
use crate::proto::event::{self, Cutting};

pub use super::locals::Ends;

/// What the kernel may keep for us in each direction: 4 MiB is 30 ms at 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;
/// The bytes of one GSO send: a UDP datagram's most (65,507), less some for IPv6 extension headers.
const GSO_BYTES: usize = 65_000;
/// What waits in a blocked socket at most; beyond it datagrams are dropped, for the queue is in the
/// tunnel and nowhere else. Four full GSO batches.
const BACKLOG_BYTES: usize = 4 * GSO_BYTES;
/// What a waiting batch costs beside its bytes: many short ones must not hold many times the backlog.
const BATCH_COST: usize = 256;
/// Buffers kept for the backlog: as many as full batches fit into it.
const SPARE_BUFFERS: usize = BACKLOG_BYTES / GSO_BYTES;
/// Slots of one reception: 16 times one GRO super-datagram.
const RECEIVE_SLOTS: usize = 16;
/// The longest GRO super-datagram (a UDP datagram's length is 16 bits).
const RECEIVE_SLOT: usize = 65_536;
/// So long a datagram is never cut, bytes: with its headers it is below the least MTU that Linux
/// believes an ICMP error of IPv4 (552, `ip_rt_min_pmtu`), and below IPv6's least (1,280).
const NEVER_CUT: usize = 512;

/// A UDP socket, non-blocking.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    family: Family,
    state: UdpSocketState,
    /// A send failed with EINVAL or EIO: quinn-udp leaves the codepoint out from then on (IPv4).
    stale: bool,
    /// The kernel may cut batches into datagrams, and join them again.
    offload: bool,
    /// Datagrams in one send at most; quinn-udp's own count falls to 1 also where only this datagram
    /// or its source was wrong.
    segments: usize,
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
    /// From which of the host's addresses.
    source: Option<IpAddr>,
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
        let family = if socket.local_addr()?.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        Ok(Self {
            socket,
            family,
            segments: state.max_gso_segments(),
            state,
            stale: false,
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
        self.never_join();
    }

    fn never_join(&self) {
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
        if self.offload { self.segments } else { 1 }
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
        let source = self.locals.find(transmit.destination, transmit.answers);
        let mut sent = 0;
        if !self.is_blocked() {
            sent = self.try_send(&transmit, source, bytes, &mut report);
        }
        report.lost += self.keep(transmit, source, &bytes[sent..]);
        report
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> SendReport {
        let mut report = SendReport::default();
        while let Some(mut batch) = self.backlog.pop_front() {
            let rest = &batch.bytes[batch.sent..];
            let sent = self.try_send(&batch.transmit, batch.source, rest, &mut report);
            self.backlog_bytes -= sent;
            batch.sent += sent;
            if batch.sent < batch.bytes.len() {
                self.backlog.push_front(batch);
                break;
            }
            self.backlog_bytes -= BATCH_COST;
            if self.spare.len() < SPARE_BUFFERS {
                batch.bytes.clear();
                self.spare.push(batch.bytes);
            }
        }
        report
    }

    fn keep(&mut self, transmit: event::Transmit, source: Option<IpAddr>, bytes: &[u8]) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        let cost = bytes.len() + BATCH_COST;
        if self.backlog_bytes + cost > BACKLOG_BYTES {
            return bytes.len().div_ceil(transmit.segment_size) as u64;
        }
        self.backlog_bytes += cost;
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.backlog.push_back(Batch {
            transmit,
            source,
            bytes: kept,
            sent: 0,
        });
        0
    }

    /// Sends until the kernel is full. Gives the bytes done with.
    fn try_send(
        &mut self,
        transmit: &event::Transmit,
        source: Option<IpAddr>,
        bytes: &[u8],
        report: &mut SendReport,
    ) -> usize {
        let segment_size = transmit.segment_size;
        let mut attempt = Attempt {
            source,
            refused: None,
            pieces: Pieces::Many,
        };
        // Short ones leave as the socket is: setting it for each acknowledgement would cost two to
        // four system calls a batch, where one path's data is cut and another's is not.
        let can_be_cut = segment_size > NEVER_CUT;
        if can_be_cut {
            self.let_cut(transmit.cutting == Cutting::Free);
        }
        let mut sent = 0;
        while sent < bytes.len() {
            // What is cut goes singly: the kernel does not cut segments.
            let singly = attempt.pieces != Pieces::Many || (self.cuts && can_be_cut);
            let most = if singly { 1 } else { GSO_BYTES / segment_size };
            let segments = self.most_segments().min(most).max(1);
            let end = bytes.len().min(sent + segments * segment_size);
            let contents = &bytes[sent..end];
            match self.send_pieces(transmit, attempt.source, contents) {
                Ok(()) => {
                    if let Some(gone) = attempt.refused.take() {
                        self.locals.forget(transmit.destination, gone);
                    }
                    // What was refused together passes singly: no segmentation here, for good.
                    if attempt.pieces == Pieces::Doubted {
                        self.segments = 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    let code = error.raw_os_error();
                    match self.on_refused(code, contents.len(), transmit, &mut attempt, report) {
                        Refused::Again => continue,
                        Refused::Lost => {
                            report.lost += contents.len().div_ceil(segment_size) as u64
                        }
                        Refused::AllLost => {
                            report.lost += (bytes.len() - sent).div_ceil(segment_size) as u64;
                            return bytes.len();
                        }
                    }
                }
            }
            sent = end;
        }
        sent
    }

    /// One call of the kernel: a datagram, or segments.
    fn send_pieces(
        &mut self,
        transmit: &event::Transmit,
        source: Option<IpAddr>,
        contents: &[u8],
    ) -> io::Result<()> {
        if transmit.ect && self.stale {
            self.renew();
        }
        let segment_size = transmit.segment_size;
        let transmit = Transmit {
            destination: transmit.destination,
            ecn: transmit.ect.then_some(EcnCodepoint::Ect0),
            contents,
            segment_size: (contents.len() > segment_size).then_some(segment_size),
            src_ip: source,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn on_refused(
        &mut self,
        code: Option<i32>,
        length: usize,
        transmit: &event::Transmit,
        attempt: &mut Attempt,
        report: &mut SendReport,
    ) -> Refused {
        let is_invalid = matches!(code, Some(libc::EINVAL | libc::EIO));
        self.stale |= is_invalid;
        if length > transmit.segment_size {
            // A device without checksums, or a transformation (xfrm), says EIO to segments; Linux
            // before 6.14 says EINVAL to those longer than the device's MTU, later ones EMSGSIZE. A
            // single one shows what it is.
            if is_invalid {
                attempt.pieces = Pieces::Doubted;
                return Refused::Again;
            }
            if code == Some(libc::EMSGSIZE) {
                attempt.pieces = Pieces::Single;
                return Refused::Again;
            }
        } else if attempt.pieces == Pieces::Doubted {
            attempt.pieces = Pieces::Single;
        }
        // The source may have left the host, which is said in many ways (EINVAL; ENETUNREACH in newer
        // kernels; FreeBSD: EADDRNOTAVAIL): it did, if the datagram passes without it.
        if (is_invalid || matches!(code, Some(libc::ENETUNREACH | libc::EADDRNOTAVAIL)))
            && attempt.source.is_some()
        {
            attempt.refused = attempt.source.take();
            attempt.pieces = Pieces::Many;
            return Refused::Again;
        }
        // Nor does it take the rest of them, and each would cost a new state.
        if is_invalid {
            return Refused::AllLost;
        }
        // Longer than the device's MTU. Data is cut rather than lost, while the tunnel looks for
        // what passes.
        if code == Some(libc::EMSGSIZE) && !self.cuts {
            report.too_long = Some((transmit.destination, length));
            if transmit.cutting == Cutting::IfRefused {
                self.let_cut(true);
                if self.cuts {
                    return Refused::Again;
                }
            }
        }
        // ENETUNREACH, EPERM, ENOBUFS and the like come from the network's state of this moment: a
        // datagram lost like any other.
        Refused::Lost
    }

    /// Lets datagrams be cut, here and on the way, or not. Where that cannot be set, all stays.
    fn let_cut(&mut self, cuts: bool) {
        if cuts != self.cuts && cut::set(&self.socket, self.family, cuts).is_ok() {
            self.cuts = cuts;
        }
    }

    /// Makes quinn-udp forget that a send failed, and sets again what it sets otherwise. It costs
    /// some eight system calls, so it waits until a codepoint has to leave.
    fn renew(&mut self) {
        if let Ok(state) = new_state(&self.socket) {
            self.state = state;
            self.stale = false;
        }
        if !self.offload {
            self.never_join();
        }
        let cuts = std::mem::replace(&mut self.cuts, false);
        self.let_cut(cuts);
    }

    /// Receives a batch. Gives false when nothing was there.
    pub fn receive(&mut self, into: &mut ReceiveBuffer) -> io::Result<bool> {
        let mut slots = into.storage.chunks_exact_mut(RECEIVE_SLOT);
        let mut slots: [IoSliceMut<'_>; RECEIVE_SLOTS] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        into.filled = 0;
        self.locals.begin_reception();
        match self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slots, &mut into.meta)
        {
            Ok(filled) => into.filled = filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        for meta in &into.meta[..into.filled] {
            self.locals.hear(ends(meta));
        }
        Ok(into.filled > 0)
    }

    /// What came between these was authentic: what is sent to that peer leaves from that address.
    pub fn confirm(&mut self, ends: Ends) {
        self.locals.confirm(ends);
    }
}

/// How the rest of a batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// As many datagrams in one send as the kernel takes.
    Many,
    /// One by one.
    Single,
    /// One by one, to see whether segmentation is what was refused.
    Doubted,
}

/// How a batch is being sent.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// From which of the host's addresses.
    source: Option<IpAddr>,
    /// Which of them the kernel refused, perhaps for something else.
    refused: Option<IpAddr>,
    pieces: Pieces,
}

/// What to do with datagrams that the kernel refused.
#[derive(Debug, Clone, Copy)]
enum Refused {
    /// They are tried again, in another way.
    Again,
    /// They are lost.
    Lost,
    /// They are, and so are those after them.
    AllLost,
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
    pub fn for_each(&mut self, mut take: impl FnMut(Ends, &mut [u8], usize, Codepoint)) {
        let slots = self.storage.chunks_exact_mut(RECEIVE_SLOT);
        for (slot, meta) in slots.zip(&self.meta[..self.filled]) {
            let length = meta.len.min(slot.len());
            let codepoint = meta
                .ecn
                .map_or(Codepoint::NotCapable, |ecn| Codepoint::from_bits(ecn as u8));
            take(
                ends(meta),
                &mut slot[..length],
                meta.stride.max(1),
                codepoint,
            );
        }
    }
}

fn ends(meta: &RecvMeta) -> Ends {
    Ends {
        peer: meta.addr,
        local: meta.dst_ip,
    }
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
