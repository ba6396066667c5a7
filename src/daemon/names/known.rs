//! What is known of the remote portal's names: what resolvers say now, and where a handshake was finished.
//!
//! A resolver may lie, and so may one that answers first. So no answer takes the place of an address that
//! has proven to be the peer's, and only those are written to disk.

use std::net::IpAddr;
use std::path::Path;

use super::memory;
use super::message::MOST_ADDRESSES;
use crate::daemon::links::Resolved;

/// Proven addresses of a name: two of each family, should it move between them.
const MOST_PROVEN: usize = 4;

/// The most addresses of a name that are only said, where one is proven: each that is wrong costs ten seconds.
const MOST_NEW: usize = 4;

/// The names of a configuration.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Known {
    answers: Resolved,
    /// Oldest first.
    proven: Resolved,
}

impl Known {
    /// What the last run has written.
    pub(in crate::daemon) fn load(file: &Path, hosts: &[String]) -> Self {
        Self {
            answers: Resolved::new(),
            proven: memory::load(file, hosts),
        }
    }

    /// Resolvers say that the name has these addresses.
    pub(in crate::daemon) fn answer(&mut self, host: String, found: Vec<IpAddr>) {
        self.answers.insert(host, found);
    }

    /// The peer was met at this address. True when that is new for a name.
    pub(in crate::daemon) fn prove(&mut self, address: IpAddr) -> bool {
        let mut is_new = false;
        let names = self
            .answers
            .iter()
            .filter(|(_, all)| all.contains(&address));
        for (host, _) in names {
            let mut proven = self.proven.get(host).cloned().unwrap_or_default();
            if proven.contains(&address) {
                continue;
            }
            if proven.len() == MOST_PROVEN {
                proven.remove(0);
            }
            proven.push(address);
            self.proven.insert(host.clone(), proven);
            is_new = true;
        }
        is_new
    }

    /// The addresses where the peer was met.
    pub(in crate::daemon) fn proven(&self) -> &Resolved {
        &self.proven
    }

    /// Forgets all other names.
    pub(in crate::daemon) fn retain(&mut self, hosts: &[String]) {
        for names in [&mut self.answers, &mut self.proven] {
            names.retain(|host, _| hosts.contains(host));
        }
    }

    /// The addresses of each name in the order in which they are tried: what is said and proven, one that is
    /// only said (the peer may have moved), what is proven, and the rest.
    pub(in crate::daemon) fn all(&self) -> Resolved {
        let mut all = self.proven.clone();
        for (host, said) in self.answers.iter() {
            let proven = self.proven.get(host).cloned().unwrap_or_default();
            let (mut first, mut new): (Vec<_>, Vec<_>) =
                said.iter().copied().partition(|it| proven.contains(it));
            if !proven.is_empty() {
                new.truncate(MOST_NEW);
            }
            let rest = new.split_off(new.len().min(1));
            first.append(&mut new);
            let newest = proven.into_iter().rev();
            first.extend(newest.filter(|it| !said.contains(it)));
            first.extend(rest);
            first.truncate(MOST_ADDRESSES);
            all.insert(host.clone(), first);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "vps.example";

    fn addresses(last: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        last.into_iter().map(address).collect()
    }

    #[test]
    fn lies_do_not_displace_what_was_proven() {
        let mut known = Known::default();
        known.answer(NAME.to_owned(), addresses(100..120));
        assert_eq!(known.all().get(NAME).unwrap().len(), MOST_ADDRESSES);
        known.answer(NAME.to_owned(), addresses([7]));
        assert!(known.proven().is_empty(), "nobody was met there yet");
        assert!(known.prove(addresses([7])[0]) && !known.prove(addresses([7])[0]));
        known.answer(NAME.to_owned(), addresses(100..116));
        let tried = known.all().get(NAME).cloned().unwrap();
        assert_eq!(tried, addresses([100, 7, 101, 102, 103]));
        // Nothing new was proven, so nothing else is written.
        assert_eq!(known.proven().get(NAME), Some(&addresses([7])));
        // It has moved indeed, and again and again.
        for last in 8..20 {
            known.answer(NAME.to_owned(), addresses([last]));
            assert_eq!(known.all().get(NAME).unwrap()[0], addresses([last])[0]);
            assert!(known.prove(addresses([last])[0]));
        }
        assert_eq!(known.proven().get(NAME), Some(&addresses(16..20)));
        // What is said and proven comes before what is only said.
        known.answer(NAME.to_owned(), addresses([90, 17]));
        let tried = known.all().get(NAME).cloned().unwrap();
        assert_eq!(tried, addresses([17, 90, 19, 18, 16]));
        known.retain(&[]);
        assert_eq!(known.all(), Resolved::new());
    }

    /// An address of the configuration is its own answer, and nothing that was met elsewhere is a name's.
    #[test]
    fn what_no_name_stands_for_proves_nothing() {
        let mut known = Known::default();
        known.answer(NAME.to_owned(), addresses([7]));
        assert!(!known.prove(addresses([8])[0]));
        assert!(known.proven().is_empty());
    }
}
