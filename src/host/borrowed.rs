//! The file of what was borrowed of the host: a line for each thing, so that people can read it too.

use std::fmt::Write as _;

use crate::config::Keep;
use crate::config::units::{Family, RulePref};
use crate::route::handed::HandedOver;
use crate::route::resource::Address;
use crate::sorted::Map;

/// The first line of the file.
const HEAD: &str =
    "# This host before netcombiner ran. netcombiner restores it and removes this file.";
/// The last line: without it the file is cut short.
const END: &str = "end";

/// The file's content.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Borrowed {
    /// `setting KEY VALUE`.
    pub(super) settings: Map<String, String>,
    /// `local-table FAMILY PREF`; the family is 4 or 6.
    pub(super) local_tables: Map<Family, RulePref>,
    /// `address there ADDRESS` and `address absent ADDRESS`.
    pub(super) addresses: Map<Address, Before>,
    /// `marked`: routes, rules or a packet filter of ours may be there.
    pub(super) marked: bool,
    /// `handed ADDRESS` and `kept ADDRESS KEEP`: what goes to the client since. A start after a crash is
    /// judged by it.
    pub(super) handed: HandedOver,
    /// `forwarder NAME`: whose filters were made for forwarding when we switched it on.
    pub(super) forwarders: Vec<String>,
    /// `device NAME`: which devices were there then.
    pub(super) devices: Vec<String>,
    /// `undo COMMAND`: what undoes what was done, in the order in which it was done; where what is ours
    /// carries no mark (FreeBSD).
    pub(super) undoing: Vec<String>,
}

/// Whether an address stood on the device before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// The administrator's: it stays.
    There,
    /// Ours: it goes.
    Absent,
}

impl Borrowed {
    /// The file's text.
    pub(super) fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let mut line = |words: std::fmt::Arguments<'_>| {
            // Names of others may hold anything: no line begins within one. Writing to a string
            // does not fail.
            let words = words.to_string().replace(['\n', '\r'], " ");
            let _ = write!(text, "\n{words}");
        };
        for (key, value) in self.settings.iter() {
            line(format_args!("setting {key} {value}"));
        }
        for (family, pref) in self.local_tables.iter() {
            line(format_args!("local-table {} {}", number(*family), pref.0));
        }
        for (address, before) in self.addresses.iter() {
            let word = match before {
                Before::There => "there",
                Before::Absent => "absent",
            };
            line(format_args!("address {word} {}", words(address)));
        }
        if self.marked {
            line(format_args!("marked"));
        }
        for address in &self.handed.addresses {
            line(format_args!("handed {address}"));
        }
        for (address, keep) in &self.handed.kept {
            line(format_args!("kept {address} {keep}"));
        }
        for name in &self.forwarders {
            line(format_args!("forwarder {name}"));
        }
        for name in &self.devices {
            line(format_args!("device {name}"));
        }
        for command in &self.undoing {
            line(format_args!("undo {command}"));
        }
        line(format_args!("{END}"));
        text.push('\n');
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Which line is not understood, or that the end is missing.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut borrowed = Self::default();
        let mut ended = false;
        for (line, number) in text.lines().zip(1..) {
            if line.starts_with('#') {
                continue;
            }
            ended = line == END;
            if !ended {
                borrowed
                    .take(line)
                    .ok_or_else(|| format!("line {number} is not understood"))?;
            }
        }
        if ended {
            Ok(borrowed)
        } else {
            Err(format!("its last line is not `{END}`"))
        }
    }

    /// Takes one line.
    fn take(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || rest.split_once(' ');
        match kind {
            "setting" => {
                let (key, value) = pair()?;
                self.settings.insert(key.to_owned(), value.to_owned());
            }
            "local-table" => {
                let (family, pref) = pair()?;
                let families = [Family::V4, Family::V6];
                let family = families.into_iter().find(|it| number(*it) == family)?;
                let pref = RulePref(pref.parse().ok()?);
                self.local_tables.insert(family, pref);
            }
            "address" => {
                let (word, address) = pair()?;
                let before = match word {
                    "there" => Before::There,
                    "absent" => Before::Absent,
                    _ => return None,
                };
                self.addresses.insert(read_address(address)?, before);
            }
            "marked" => self.marked = true,
            "handed" => {
                self.handed.addresses.insert(rest.parse().ok()?);
            }
            "kept" => {
                let (address, keep) = pair()?;
                let keep: Keep = keep.parse().ok()?;
                self.handed.kept.insert((address.parse().ok()?, keep));
            }
            "forwarder" => self.forwarders.push(rest.to_owned()),
            "device" => self.devices.push(rest.to_owned()),
            "undo" => self.undoing.push(rest.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

/// A family in the file.
fn number(family: Family) -> &'static str {
    match family {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}

/// An address in the file: `lan 192.168.1.1/32`, or with the peer's address at its end.
fn words(address: &Address) -> String {
    let Address {
        device,
        prefix,
        peer,
    } = address;
    match peer {
        None => format!("{device} {prefix}"),
        Some(peer) => format!("{device} {prefix} {peer}"),
    }
}

/// The address that the words are.
fn read_address(words: &str) -> Option<Address> {
    let mut words = words.split(' ');
    Some(Address {
        device: words.next()?.parse().ok()?,
        prefix: words.next()?.parse().ok()?,
        peer: match words.next() {
            Some(peer) => Some(peer.parse().ok()?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Borrowed {
        let text = |it: &str| it.to_owned();
        Borrowed {
            settings: [
                (text("net.ipv4.ip_forward"), text("0")),
                (text("net.ipv4.tcp_rmem"), text("4096\t131072 6291456")),
                (text("net.ipv4.conf.eth0/7.forwarding"), text("")),
            ]
            .into(),
            local_tables: [(Family::V4, RulePref(0)), (Family::V6, RulePref(7))].into(),
            addresses: [
                ("lan 192.168.1.1/24", Before::There),
                ("nc0 172.19.152.3/32 172.19.152.2", Before::Absent),
            ]
            .map(|(words, before)| (read_address(words).unwrap(), before))
            .into(),
            marked: true,
            handed: HandedOver {
                addresses: ["203.0.113.2".parse().unwrap()].into(),
                kept: ["tcp:22", "udp:60000-61000"]
                    .map(|keep| ("203.0.113.2".parse().unwrap(), keep.parse().unwrap()))
                    .into(),
            },
            forwarders: vec![text("table ip docker, chain post"), text("ufw")],
            devices: vec![text("eth0"), text("eth1")],
            undoing: vec![text("route delete -host 203.0.113.2"), text("second")],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for borrowed in [example(), Borrowed::default()] {
            assert_eq!(Borrowed::read(&borrowed.text()), Ok(borrowed));
        }
    }

    #[test]
    fn names_of_others_begin_no_line() {
        let mut borrowed = Borrowed::default();
        borrowed
            .forwarders
            .push("evil\nsetting kernel.panic 1\r\nend".to_owned());
        let again = Borrowed::read(&borrowed.text()).unwrap();
        assert!(again.settings.is_empty());
        assert_eq!(again.forwarders.len(), 1);
    }

    #[test]
    fn a_file_cut_anywhere_or_of_others_is_refused() {
        let text = example().text();
        for end in 0..text.len() - 1 {
            if let Some(part) = text.get(..end) {
                assert!(Borrowed::read(part).is_err(), "{part}");
            }
        }
        for line in [
            "{",
            "setting",
            "setting key",
            "local-table 5 0",
            "local-table 4 first",
            "address there lan",
            "handed lan",
            "kept 203.0.113.2",
            "kept 203.0.113.2 tcp:0",
            "address here lan 192.168.1.1/24",
            "other",
        ] {
            assert!(Borrowed::read(&format!("{line}\nend\n")).is_err(), "{line}");
        }
    }
}
