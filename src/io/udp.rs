//! UDP sockets: batches out by GSO, batches in by recvmmsg and GRO.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::Socket;

use super::cut;
#[cfg(target_os = "linux")]
use super::socket::set_number;
use super::socket::{OpenError, Origin, bind_link, bind_listen, enlarge_buffers};
use crate::config::Transport;
use crate::proto::event::Cutting;

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
    destination: SocketAddr,
    segment_size: usize,
    cutting: Cutting,
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
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
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

    /// Sends datagrams of `segment_size` bytes each (the last may be shorter). A full kernel loses
    /// nothing until the backlog is full as well.
    pub fn send(
        &mut self,
        destination: SocketAddr,
        segment_size: usize,
        cutting: Cutting,
        bytes: &[u8],
    ) -> SendReport {
        let mut report = SendReport::default();
        if bytes.is_empty() {
            return report;
        }
        let segment_size = segment_size.clamp(1, bytes.len());
        let mut sent = 0;
        if !self.is_blocked() {
            sent = self.try_send(destination, segment_size, cutting, bytes, &mut report);
        }
        report.lost += self.keep(destination, segment_size, cutting, &bytes[sent..]);
        report
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> SendReport {
        let mut report = SendReport::default();
        while let Some(mut batch) = self.backlog.pop_front() {
            let sent = self.try_send(
                batch.destination,
                batch.segment_size,
                batch.cutting,
                &batch.bytes[batch.sent..],
                &mut report,
            );
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

    fn keep(
        &mut self,
        destination: SocketAddr,
        segment_size: usize,
        cutting: Cutting,
        bytes: &[u8],
    ) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        if self.backlog_bytes + bytes.len() > BACKLOG_BYTES {
            return bytes.len().div_ceil(segment_size) as u64;
        }
        self.backlog_bytes += bytes.len();
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.backlog.push_back(Batch {
            destination,
            segment_size,
            cutting,
            bytes: kept,
            sent: 0,
        });
        0
    }

    /// Sends until the kernel is full. Gives the bytes done with.
    fn try_send(
        &mut self,
        destination: SocketAddr,
        segment_size: usize,
        cutting: Cutting,
        bytes: &[u8],
        report: &mut SendReport,
    ) -> usize {
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
                ecn: None,
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
            && let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.socket))
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
    /// (the last may be shorter) together, with that length.
    pub fn for_each(&mut self, mut take: impl FnMut(SocketAddr, &mut [u8], usize)) {
        let slots = self.storage.chunks_exact_mut(RECEIVE_SLOT);
        for (slot, meta) in slots.zip(&self.meta[..self.filled]) {
            let length = meta.len.min(slot.len());
            take(meta.addr, &mut slot[..length], meta.stride.max(1));
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
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn localhost() -> UdpSocket {
        UdpSocket::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }

    fn send(socket: &mut UdpSocket, to: SocketAddr, segment: usize, bytes: &[u8]) -> SendReport {
        socket.send(to, segment, Cutting::IfRefused, bytes)
    }

    #[test]
    fn without_offload_a_batch_arrives_all_the_same() {
        let (mut a, mut b) = (localhost(), localhost());
        a.forbid_offload();
        b.forbid_offload();
        let none = UdpOffload {
            gso_segments: 1,
            gro_segments: 1,
        };
        assert_eq!(a.offload(), none);
        let to = b.local_addr().unwrap();
        let bytes: Vec<u8> = (0..30u8).flat_map(|n| vec![n; 100]).collect();
        assert_eq!(send(&mut a, to, 100, &bytes).lost, 0);
        let got = receive_all(&mut b, 30);
        assert!(got.iter().all(|(_, datagram)| datagram.len() == 100));
        assert_eq!(got.len(), 30);
    }

    fn receive_all(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buffer = ReceiveBuffer::default();
        let mut got = Vec::new();
        for _ in 0..200 {
            while socket.receive(&mut buffer).unwrap() {
                buffer.for_each(|from, bytes, length| {
                    got.extend(bytes.chunks(length).map(|bytes| (from, bytes.to_vec())));
                });
            }
            if got.len() >= count {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        got
    }

    #[test]
    fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
        let (mut a, mut b) = (localhost(), localhost());
        let to = b.local_addr().unwrap();
        // More than one GSO send: 100 datagrams of 1,000 bytes, and a short last one.
        let mut bytes = Vec::new();
        for number in 0..100u8 {
            bytes.extend(std::iter::repeat_n(number, 1000));
        }
        bytes.extend([200; 7]);
        assert_eq!(send(&mut a, to, 1000, &bytes).lost, 0);
        let got = receive_all(&mut b, 101);
        assert_eq!(got.len(), 101);
        for (number, (from, datagram)) in got.iter().enumerate().take(100) {
            assert_eq!(*from, a.local_addr().unwrap());
            assert_eq!(datagram, &vec![number as u8; 1000]);
        }
        assert_eq!(got[100].1, [200; 7]);
        #[cfg(target_os = "linux")]
        assert!(a.state.max_gso_segments() > 1);
    }

    /// More than the loopback's 64 KiB in one datagram is refused by UDP itself; so a device with a
    /// small MTU is made. Needs root; without it nothing is tried.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_datagram_too_long_for_the_device_is_cut_and_told_and_a_probe_is_not() {
        let thread = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let ip = |words: &str| {
                let done = std::process::Command::new("ip")
                    .args(words.split(' '))
                    .status();
                done.is_ok_and(|status| status.success())
            };
            if !ip("link set lo up mtu 1300") {
                return;
            }
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let host: SocketAddr = host.parse().unwrap();
                let Ok(mut a) = UdpSocket::listen(host) else {
                    continue;
                };
                let mut b = UdpSocket::listen(host).unwrap();
                let to = b.local_addr().unwrap();
                let bytes: Vec<u8> = (0..20u8).flat_map(|n| vec![n; 1480]).collect();
                let told = SendReport {
                    lost: 0,
                    too_long: Some((to, 1480)),
                };
                assert_eq!(send(&mut a, to, 1480, &bytes), told);
                let got = receive_all(&mut b, 20);
                assert_eq!(got.len(), 20);
                assert!(got.iter().all(|(_, datagram)| datagram.len() == 1480));
                // A probe says the same and goes nowhere.
                let probed = a.send(to, 1480, Cutting::Never, &bytes[..1480]);
                assert_eq!((probed.lost, probed.too_long), (1, Some((to, 1480))));
                // What may be cut is no news.
                let freely = a.send(to, 1480, Cutting::Free, &bytes);
                assert_eq!(freely, SendReport::default());
                assert_eq!(receive_all(&mut b, 20).len(), 20);
                // Shorter ones go the quick way all the same.
                let bytes: Vec<u8> = (0..20u8).flat_map(|n| vec![n; 1000]).collect();
                assert_eq!(send(&mut a, to, 1000, &bytes), SendReport::default());
                assert_eq!(receive_all(&mut b, 20).len(), 20);
                assert!(a.state.max_gso_segments() > 1);
            }
        });
        thread.join().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_that_is_not_there_yet_can_be_waited_at() {
        for place in ["203.0.113.77:0", "[2001:db8::77]:0"] {
            let place: SocketAddr = place.parse().unwrap();
            match UdpSocket::listen(place) {
                Ok(socket) => assert_eq!(socket.local_addr().unwrap().ip(), place.ip()),
                Err(error) => assert!(error.is_family_missing(), "{error}"),
            }
        }
    }

    #[test]
    fn a_datagram_that_cannot_leave_is_counted_and_harms_nothing() {
        let (mut a, mut b) = (localhost(), localhost());
        let to = b.local_addr().unwrap();
        // Longer than any UDP datagram: EMSGSIZE.
        assert_eq!(send(&mut a, to, 70_000, &[0; 70_000]).lost, 1);
        // A loopback source cannot reach the outside: EINVAL or ENETUNREACH.
        let nowhere = "192.0.2.1:9".parse().unwrap();
        assert_eq!(send(&mut a, nowhere, 10, &[0; 30]).lost, 3);
        assert_eq!(send(&mut a, to, 3, b"abcde").lost, 0);
        let got: Vec<Vec<u8>> = receive_all(&mut b, 2).into_iter().map(|it| it.1).collect();
        assert_eq!(got, [b"abc".to_vec(), b"de".to_vec()]);
    }

    #[test]
    fn answers_leave_by_the_address_that_was_spoken_to() {
        let mut server = UdpSocket::listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = server.local_addr().unwrap().port();
        let mut client = localhost();
        let other = SocketAddr::from(([127, 0, 0, 77], port));
        assert_eq!(send(&mut client, other, 2, b"hi").lost, 0);
        let (from, _) = receive_all(&mut server, 1).remove(0);
        assert_eq!(send(&mut server, from, 2, b"ho").lost, 0);
        let (from, _) = receive_all(&mut client, 1).remove(0);
        assert_eq!(from, other);
    }

    #[test]
    fn a_flood_of_senders_is_forgotten_but_the_newest_is_known() {
        let mut locals = LocalAddresses::default();
        let local = IpAddr::from([127, 0, 0, 1]);
        for port in 1..1000 {
            locals.note(([192, 0, 2, 1], port).into(), local);
            assert_eq!(locals.find(([192, 0, 2, 1], port).into()), Some(local));
        }
        assert_eq!(locals.known.len(), LOCAL_ADDRESSES);
        assert_eq!(locals.find(([192, 0, 2, 1], 1).into()), None);
    }
}
