//! What of the public address is handed on to machines of the LAN.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::places::{bracketed, ports};
use super::report::{At, Report};
use super::units::UnitError;
use super::words::quoted;
use super::{Forward, PortProtocol, PublicAddresses, Taken};
use crate::sorted::Map;

/// Ports that change their number, in all: each is an element of its own in the packet filter.
const MOST_MOVED: usize = 8192;

impl Forward {
    /// What it takes of one protocol: first and last port, and the first at the target.
    pub fn ports(&self, protocol: PortProtocol) -> Option<(u16, u16, u16)> {
        match self.taken {
            Taken::Ports {
                tcp,
                udp,
                first,
                last,
                to_first,
            } => {
                let taken = match protocol {
                    PortProtocol::Tcp => tcp,
                    PortProtocol::Udp => udp,
                };
                taken.then_some((first, last, to_first))
            }
            Taken::Rest => None,
        }
    }
}

impl FromStr for Forward {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not a forward (like \"tcp:443 -> 192.168.1.20\", \"tcp,udp:8000-8100 -> \
                 192.168.1.20:9000-9100\" or \"default -> 192.168.1.20\")",
                quoted(text)
            ))
        };
        let (from, target) = text.split_once("->").ok_or_else(refuse)?;
        let (from, target) = (from.trim(), target.trim());
        if from == "default" {
            let to = address(target).ok_or_else(refuse)?;
            let taken = Taken::Rest;
            return Ok(Self { taken, to });
        }
        let (protocols, taken) = from.split_once(':').ok_or_else(refuse)?;
        let (mut tcp, mut udp) = (false, false);
        for protocol in protocols.split([',', '+']) {
            match protocol.trim().parse().map_err(|_| refuse())? {
                PortProtocol::Tcp => tcp = true,
                PortProtocol::Udp => udp = true,
            }
        }
        let (first, last) = ports(taken)?;
        let (to, (to_first, to_last)) = match address(target) {
            Some(to) => (to, (first, last)),
            None => {
                let (to, there) = target.rsplit_once(':').ok_or_else(refuse)?;
                (bracketed(to).ok_or_else(refuse)?, ports(there)?)
            }
        };
        if last - first != to_last - to_first {
            return Err(UnitError(format!(
                "{} has {} ports on the left and {} on the right (as many on both sides, or none on \
                 the right)",
                quoted(text),
                u32::from(last - first) + 1,
                u32::from(to_last - to_first) + 1,
            )));
        }
        let taken = Taken::Ports {
            tcp,
            udp,
            first,
            last,
            to_first,
        };
        Ok(Self { taken, to })
    }
}

/// An address alone, in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| bracketed(text))
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken::Ports {
            tcp,
            udp,
            first,
            last,
            to_first,
        } = self.taken
        else {
            return write!(f, "default -> {}", self.to);
        };
        f.write_str(match (tcp, udp) {
            (true, true) => "tcp,udp:",
            (true, false) => "tcp:",
            (false, _) => "udp:",
        })?;
        range(f, first, last)?;
        match self.to {
            IpAddr::V4(to) => write!(f, " -> {to}:"),
            IpAddr::V6(to) => write!(f, " -> [{to}]:"),
        }?;
        range(f, to_first, to_first.saturating_add(last - first))
    }
}

fn range(f: &mut fmt::Formatter<'_>, first: u16, last: u16) -> fmt::Result {
    write!(f, "{first}")?;
    if last != first {
        write!(f, "-{last}")?;
    }
    Ok(())
}

/// Judges the forwards of a file together.
pub(super) fn check(
    forwards: &[(At, Forward)],
    public: Option<&PublicAddresses>,
    report: &mut Report<'_>,
) {
    overlaps(forwards, report);
    let mut moved = 0;
    for (at, forward) in forwards {
        let family = public.map(|public| match forward.to {
            IpAddr::V4(_) => public.v4.is_some(),
            IpAddr::V6(_) => public.v6.is_some(),
        });
        if family == Some(false) {
            report.error(
                at,
                format!(
                    "{} has no public address of its family (give one in public_address)",
                    forward.to
                ),
            );
        }
        if let Taken::Ports {
            first,
            last,
            to_first,
            ..
        } = forward.taken
            && first != to_first
        {
            let before = moved;
            moved += usize::from(last - first) + 1;
            if before <= MOST_MOVED && moved > MOST_MOVED {
                report.error(
                    at,
                    format!(
                        "{forward} is too much: at most {MOST_MOVED} ports in all can get another \
                         number (those that keep theirs do not count)"
                    ),
                );
            }
        }
    }
}

/// Each port goes to one machine, and so does the rest.
fn overlaps(forwards: &[(At, Forward)], report: &mut Report<'_>) {
    // By protocol (0: the rest) and family: first and last port, and the forward's place in the list.
    let mut taken: Map<_, Vec<(u16, u16, usize)>> = Map::new();
    for (index, (_, forward)) in forwards.iter().enumerate() {
        let mut take = |what, first, last| {
            let all = taken.get_or_insert_with((what, forward.to.is_ipv4()), Vec::new);
            all.push((first, last, index));
        };
        for (what, protocol) in [(1, PortProtocol::Tcp), (2, PortProtocol::Udp)] {
            if let Some((first, last, _)) = forward.ports(protocol) {
                take(what, first, last);
            }
        }
        if forward.taken == Taken::Rest {
            take(0, 0, 0);
        }
    }
    // A forward of both protocols may overlap in both: it is said once.
    let mut pairs = Map::new();
    for ranges in taken.values_mut() {
        ranges.sort_unstable();
        let mut widest: Option<(u16, usize)> = None;
        for &(first, last, index) in ranges.iter() {
            if let Some((reaches, other)) = widest
                && first <= reaches
            {
                pairs.insert(index.max(other), index.min(other));
            }
            if widest.is_none_or(|(reaches, _)| last > reaches) {
                widest = Some((last, index));
            }
        }
    }
    for (later, earlier) in pairs {
        if let (Some((at, forward)), Some((other, before))) =
            (forwards.get(later), forwards.get(earlier))
        {
            report.error(
                at,
                format!(
                    "{forward} overlaps {}, {before} (each port goes to one machine)",
                    other.place
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_print_as_they_are_written() {
        for text in [
            "tcp:443 -> 192.168.1.20:8443",
            "udp:53 -> [fd00::1]:53",
            "tcp,udp:8000-8100 -> 192.168.1.20:9000-9100",
            "default -> 192.168.1.20",
            "default -> fd00::1",
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), text);
        }
        for (text, long) in [
            ("tcp:443->192.168.1.20", "tcp:443 -> 192.168.1.20:443"),
            ("udp+tcp:53 -> fd00::1", "tcp,udp:53 -> [fd00::1]:53"),
            (
                "tcp:1-65535 -> [fd00::1]",
                "tcp:1-65535 -> [fd00::1]:1-65535",
            ),
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), long);
        }
    }

    #[test]
    fn refused() {
        for text in [
            "tcp:443",
            "tcp -> 1.2.3.4:5",
            "tcp:1 -> host:1",
            "tcp:1 -> host",
            "tcp:0 -> 1.2.3.4",
            "icmp:1 -> 1.2.3.4",
            "tcp,:1 -> 1.2.3.4",
            "tcp:2-1 -> 1.2.3.4",
            "tcp:1-2 -> 1.2.3.4:1",
            "tcp:1-2 -> 1.2.3.4:1-3",
            "default -> 1.2.3.4:5",
            "default:1 -> 1.2.3.4",
            "default",
        ] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }
}
