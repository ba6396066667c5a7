//! From packets to super-packets, as the kernel's own coalescing (GRO) makes them, except for one
//! thing: only what splitting gives back bit by bit is joined.

use super::headers::{Layout, Transport, addresses, flag, long, set_word, word};
use super::virtio::{PartialChecksum, SegmentKind, Segmentation, VirtioHeader};
use super::{LONGEST, Segments};
use crate::packet::Packet;

/// Flows of a round that are kept open at once: as many as Linux keeps in one hash bucket of GRO
/// (net/core/gro.c, MAX_GRO_SKBS is 8), twice. With more, the one that began first is closed.
const OPEN_GROUPS: usize = 16;

/// Segments in a group at most: before Linux 6.9 a UDP super-packet has no more
/// (UDP_MAX_SEGMENTS), and with one slice each it is far below IOV_MAX (1,024).
pub const MOST_SEGMENTS: usize = 64;

/// Packets taken in before they must be given on: a round brings no more as a rule (16 receptions of
/// 64 datagrams), and the tables stay small.
pub const MOST_PACKETS: usize = 1024;

/// Ends a group's list.
const NONE: u16 = u16::MAX;

/// What may be joined: what the device can split again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

/// Takes packets in the order of their delivery and gives super-packets.
///
/// The order within a flow is kept: a packet that does not fit behind its flow's last one closes the
/// flow's group, and one whose ports cannot be told closes all groups between its addresses.
#[derive(Debug)]
pub struct Joiner {
    kinds: Kinds,
    packets: Vec<Packet>,
    /// For each packet the next one of its group.
    next: Vec<u16>,
    /// In the order of their heads.
    groups: Vec<Run>,
    /// Groups that can still grow, the oldest first.
    open: Vec<Open>,
}

/// Consecutive packets of a flow.
#[derive(Debug, Clone, Copy)]
struct Run {
    head: u16,
    segments: u16,
    /// Present in groups of more than one.
    joined: Option<Joined>,
}

/// How a group's head is to be written.
#[derive(Debug, Clone, Copy)]
struct Joined {
    layout: Layout,
    size: u16,
    /// The super-packet's, bytes.
    length: u16,
    /// The last segment asks the receiver to hand over (PSH).
    push: bool,
}

#[derive(Debug)]
struct Open {
    flow: Flow,
    group: u16,
    last: u16,
    layout: Layout,
    size: usize,
    length: usize,
    is_verified: bool,
}

/// The addresses and, behind them, the ports; version and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    addresses: [u8; 32],
    ports: [u8; 4],
    is_v6: bool,
    transport: Transport,
}

/// What a packet may do to the groups.
enum Role {
    /// May be joined.
    Segment(Flow, Layout),
    /// Goes alone, in its flow's order.
    Alone(Flow),
    /// Goes alone, and may belong to any flow between its addresses.
    Vague([u8; 32]),
    /// Belongs to no flow.
    Foreign,
}

impl Joiner {
    /// An empty one.
    pub fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            packets: Vec::new(),
            next: Vec::new(),
            groups: Vec::new(),
            open: Vec::with_capacity(OPEN_GROUPS),
        }
    }

    /// From the next packet on joins nothing more.
    pub fn stop_joining(&mut self) {
        self.kinds = Kinds::default();
    }

    /// True when what is in it must be given on before more can be taken.
    pub fn is_full(&self) -> bool {
        self.packets.len() >= MOST_PACKETS
    }

    /// Takes a packet; a full one gives it back.
    ///
    /// # Errors
    /// The packet, when [`Joiner::is_full`].
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.is_full() {
            return Err(packet);
        }
        // No more than MOST_PACKETS, see above.
        let number = self.packets.len() as u16;
        let role = role(packet.bytes(), self.kinds);
        self.packets.push(packet);
        self.next.push(NONE);
        match role {
            Role::Foreign => self.begin(number),
            Role::Vague(addresses) => {
                self.open.retain(|open| open.flow.addresses != addresses);
                self.begin(number);
            }
            Role::Alone(flow) => {
                self.open.retain(|open| open.flow != flow);
                self.begin(number);
            }
            Role::Segment(flow, layout) => self.segment(number, flow, layout),
        }
        Ok(())
    }

    /// A group of one.
    fn begin(&mut self, head: u16) {
        self.groups.push(Run {
            head,
            segments: 1,
            joined: None,
        });
    }

    fn segment(&mut self, number: u16, flow: Flow, layout: Layout) {
        let place = self.open.iter().position(|open| open.flow == flow);
        if let Some(place) = place {
            match self.append(place, number, &layout) {
                Fit::Joined { closes: false } => return,
                Fit::Joined { closes: true } => {
                    self.open.remove(place);
                    return;
                }
                Fit::Not => {
                    self.open.remove(place);
                }
            }
        } else if self.open.len() == OPEN_GROUPS {
            self.open.remove(0);
        }
        let packet = self.packets[usize::from(number)].bytes();
        let is_pushed =
            layout.transport == Transport::Tcp && packet[layout.header + 13] & flag::PSH != 0;
        if !is_pushed {
            self.open.push(Open {
                flow,
                group: self.groups.len() as u16,
                last: number,
                layout,
                size: packet.len() - layout.payload,
                length: packet.len(),
                is_verified: false,
            });
        }
        self.begin(number);
    }

    fn append(&mut self, place: usize, number: u16, layout: &Layout) -> Fit {
        let open = &mut self.open[place];
        let group = &mut self.groups[usize::from(open.group)];
        let head = self.packets[usize::from(group.head)].bytes();
        let packet = self.packets[usize::from(number)].bytes();
        let size = packet.len() - layout.payload;
        let length = open.length + size;
        let fits = *layout == open.layout
            && size <= open.size
            && length <= LONGEST
            && follows(head, packet, layout, group.segments, open.length);
        if !fits {
            return Fit::Not;
        }
        if !open.is_verified {
            if !layout.has_right_checksums(head) {
                return Fit::Not;
            }
            open.is_verified = true;
        }
        if !layout.has_right_checksums(packet) {
            return Fit::Not;
        }
        let push =
            layout.transport == Transport::Tcp && packet[layout.header + 13] & flag::PSH != 0;
        self.next[usize::from(open.last)] = number;
        open.last = number;
        open.length = length;
        group.segments += 1;
        group.joined = Some(Joined {
            layout: *layout,
            size: open.size as u16,
            length: length as u16,
            push,
        });
        let closes = push || size < open.size || usize::from(group.segments) == MOST_SEGMENTS;
        Fit::Joined { closes }
    }

    /// Gives every group, in the order of their first packets, and then all packets back.
    pub fn flush(&mut self, mut give: impl FnMut(Group<'_>), mut back: impl FnMut(Packet)) {
        for group in &self.groups {
            let header = group
                .joined
                .map(|joined| write_head(&joined, &mut self.packets[usize::from(group.head)]));
            give(Group {
                header: header.unwrap_or_default(),
                run: *group,
                packets: &self.packets,
                next: &self.next,
            });
        }
        self.groups.clear();
        self.open.clear();
        self.next.clear();
        self.packets.drain(..).for_each(&mut back);
    }
}

enum Fit {
    Not,
    Joined { closes: bool },
}

/// One packet, or several behind one header: to be given to the device in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    header: VirtioHeader,
    run: Run,
    packets: &'a [Packet],
    next: &'a [u16],
}

impl<'a> Group<'a> {
    /// What stands in front of it.
    pub fn header(&self) -> VirtioHeader {
        self.header
    }

    /// How many packets are in it.
    pub fn segments(&self) -> usize {
        self.run.segments.into()
    }

    /// Its packets again, one by one, for a device that refused them in one piece: copied, for that is
    /// rare.
    pub fn split(&self, mut give: impl FnMut(&[u8])) {
        let joined: Vec<u8> = self.parts().flatten().copied().collect();
        // What was joined can be split.
        let Ok(mut segments) = Segments::new(&self.header, &joined) else {
            return;
        };
        let mut packet = Vec::new();
        while segments.write_next(&mut packet) {
            give(&packet);
            packet.clear();
        }
    }

    /// Its bytes: the first packet whole, of the others the payload. At most [`MOST_SEGMENTS`].
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self { packets, next, .. } = *self;
        let payload = self.run.joined.map_or(0, |it| it.layout.payload);
        let head = usize::from(self.run.head);
        std::iter::successors(Some(head), move |&at| {
            next.get(at)
                .filter(|&&next| next != NONE)
                .map(|&next| usize::from(next))
        })
        .map(move |at| {
            let skipped = if at == head { 0 } else { payload };
            &packets[at].bytes()[skipped..]
        })
    }
}

/// Makes the first packet's headers those of the whole group.
fn write_head(joined: &Joined, head: &mut Packet) -> VirtioHeader {
    let Joined {
        layout,
        size,
        length,
        push,
    } = *joined;
    let head = head.buffer().as_mut_slice();
    layout.set_length(head, length);
    let sum = layout
        .pseudo(head)
        .word(length - layout.header as u16)
        .folded();
    set_word(head, layout.checksum_at(), sum);
    let kind = match (layout.transport, layout.is_v6) {
        (Transport::Udp, _) => SegmentKind::Udp,
        (Transport::Tcp, false) => SegmentKind::TcpV4,
        (Transport::Tcp, true) => SegmentKind::TcpV6,
    };
    if push {
        head[layout.header + 13] |= flag::PSH;
    }
    VirtioHeader {
        checksum: Some(PartialChecksum {
            start: layout.header as u16,
            offset: layout.transport.checksum_at() as u16,
        }),
        segmentation: Some(Segmentation { kind, size }),
        headers: layout.payload as u16,
    }
}

/// True when a packet's headers are those that splitting would give it as the group's next.
/// `length` is the group's so far, the head's headers included.
fn follows(head: &[u8], packet: &[u8], layout: &Layout, segments: u16, length: usize) -> bool {
    let same = |range: std::ops::Range<usize>| head[range.clone()] == packet[range];
    let ip = if layout.is_v6 {
        // All but the length; the addresses are the flow's.
        same(0..4) && same(6..8)
    } else {
        // Type of service, flags, time to live, protocol; the identification counts.
        same(0..2) && same(6..10) && word(packet, 4) == word(head, 4).wrapping_add(segments)
    };
    let at = layout.header;
    let transport = match layout.transport {
        Transport::Udp => true,
        Transport::Tcp => {
            let sent = (length - layout.payload) as u32;
            long(packet, at + 4) == long(head, at + 4).wrapping_add(sent)
                // Acknowledgement, length and reserved bits; flags but PSH; window; the urgent
                // pointer and the options.
                && same(at + 8..at + 13)
                && (head[at + 13] ^ packet[at + 13]) & !flag::PSH == 0
                && same(at + 14..at + 16)
                && same(at + 18..layout.payload)
        }
    };
    ip && transport
}

fn role(packet: &[u8], kinds: Kinds) -> Role {
    if kinds == Kinds::default() {
        return Role::Foreign;
    }
    let is_v6 = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => false,
        Some(6) if packet.len() >= 40 => true,
        Some(_) | None => return Role::Foreign,
    };
    let mut both = [0; 32];
    let addresses = addresses(packet, is_v6);
    both[..addresses.len()].copy_from_slice(addresses);
    let Some(layout) = Layout::of(packet).filter(Layout::is_plain) else {
        return Role::Vague(both);
    };
    let at = layout.header;
    let flow = Flow {
        addresses: both,
        ports: [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]],
        is_v6,
        transport: layout.transport,
    };
    let can_be_joined = match layout.transport {
        Transport::Udp => kinds.udp,
        Transport::Tcp => kinds.tcp && packet[at + 13] & !flag::PSH == flag::ACK,
    };
    if can_be_joined && layout.payload < packet.len() {
        Role::Segment(flow, layout)
    } else {
        Role::Alone(flow)
    }
}
