//! By which of the host's addresses peers speak to a listening socket: answers must leave from there, or
//! the peer's NAT drops them.

use std::net::{IpAddr, SocketAddr};

/// How many authentic peers are remembered: a tunnel has 16 paths, and each may move.
const AUTHENTIC: usize = 32;

/// The addresses that a datagram went between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who sent it, or seems to have.
    pub peer: SocketAddr,
    /// To which of the host's addresses, if the kernel told.
    pub local: Option<IpAddr>,
}

/// What a socket remembers. Both lists have a most, so they stop allocating.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses {
    /// Of peers that something authentic came from; nothing else changes it.
    authentic: Vec<(SocketAddr, IpAddr)>,
    next: usize,
    /// Of all who spoke in the last reception. A handshake is answered before the next one.
    spoken: Vec<(SocketAddr, IpAddr)>,
}

impl LocalAddresses {
    /// From where a datagram for a peer leaves; `None`: the kernel chooses. A handshake's answer goes
    /// by the address that was spoken to, whoever it was.
    pub(super) fn find(&self, peer: SocketAddr, answers: bool) -> Option<IpAddr> {
        let spoken = if answers { &self.spoken[..] } else { &[] };
        let mut known = spoken.iter().rev().chain(&self.authentic);
        known
            .find(|(known, _)| *known == peer)
            .map(|&(_, local)| local)
    }

    /// Of what came before, no stranger is answered any more.
    pub(super) fn begin_reception(&mut self) {
        self.spoken.clear();
    }

    /// Something came, perhaps forged.
    pub(super) fn hear(&mut self, ends: Ends) {
        if let Some(local) = ends.local {
            self.spoken.push((ends.peer, local));
        }
    }

    /// What came was authentic.
    pub(super) fn confirm(&mut self, ends: Ends) {
        let Some(local) = ends.local else { return };
        let entry = (ends.peer, local);
        if let Some(known) = self.authentic.iter_mut().find(|it| it.0 == ends.peer) {
            *known = entry;
        } else if self.authentic.len() < AUTHENTIC {
            self.authentic.push(entry);
        } else {
            self.authentic[self.next] = entry;
            self.next = (self.next + 1) % AUTHENTIC;
        }
    }

    /// The host has this address no more.
    pub(super) fn forget(&mut self, peer: SocketAddr, local: IpAddr) {
        self.authentic.retain(|entry| *entry != (peer, local));
        self.spoken.retain(|entry| *entry != (peer, local));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 4] = [198, 51, 100, 1];

    fn ends(peer: ([u8; 4], u16), local: u8) -> Ends {
        Ends {
            peer: peer.into(),
            local: Some([203, 0, 113, local].into()),
        }
    }

    #[test]
    fn neither_a_flood_nor_a_forged_sender_changes_where_data_leaves() {
        let mut locals = LocalAddresses::default();
        let genuine = ends((CLIENT, 7), 1);
        locals.confirm(genuine);
        for port in 1..1000 {
            if port % 16 == 1 {
                locals.begin_reception();
            }
            let stranger = ends(([192, 0, 2, 1], port), 2);
            locals.hear(stranger);
            assert_eq!(locals.find(stranger.peer, true), stranger.local);
            assert_eq!(locals.find(stranger.peer, false), None);
        }
        locals.begin_reception();
        assert_eq!(locals.find(([192, 0, 2, 1], 999).into(), true), None);
        let forged = ends((CLIENT, 7), 2);
        locals.hear(forged);
        assert_eq!(locals.find(genuine.peer, false), genuine.local);
        // A handshake may begin at another address.
        assert_eq!(locals.find(genuine.peer, true), forged.local);
        locals.confirm(forged);
        assert_eq!(locals.find(genuine.peer, false), forged.local);
    }

    #[test]
    fn of_many_authentic_places_the_newest_are_known() {
        let mut locals = LocalAddresses::default();
        for port in 1..1000 {
            let ends = ends((CLIENT, port), 1);
            locals.confirm(ends);
            assert_eq!(locals.find(ends.peer, false), ends.local);
        }
        assert_eq!(locals.authentic.len(), AUTHENTIC);
        assert_eq!(locals.find((CLIENT, 1).into(), false), None);
    }
}
