//! Places to listen at, to open flows to and to keep: an address, a port, or both.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::units::UnitError;
use super::words::quoted;
use super::{DEFAULT_PORT, Endpoint, Keep, Listen};

impl FromStr for Listen {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not a place to listen at (like \"udp:4725\", \"tcp:203.0.113.2:443\" or \
                 \"udp:[2001:db8::1]:4725\")",
                quoted(text)
            ))
        };
        let (transport, rest) = text.split_once(':').ok_or_else(refuse)?;
        let transport = transport.parse().map_err(|_| refuse())?;
        let (address, number) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, number)) => (Some(bracketed(address).ok_or_else(refuse)?), number),
        };
        Ok(Self {
            transport,
            address,
            port: port(number)?,
        })
    }
}

/// An address before a port: IPv6 in brackets, so that its own colons are no port's.
pub(super) fn bracketed(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.transport)?;
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            None => write!(f, "{}", self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = UnitError;

    /// The port may be left out: then it is [`DEFAULT_PORT`].
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not a host and port (like \"203.0.113.2:4725\", \"[2001:db8::1]:4725\" or \
                 \"vps.example.org:4725\")",
                quoted(text)
            ))
        };
        let (host, number) = match text.rsplit_once(':') {
            // A bare IPv6 address: every colon is its own.
            _ if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
            Some((host, number)) if !text.ends_with(']') => (host, Some(number)),
            Some(_) | None => (text, None),
        };
        let host = match bracketed(host) {
            Some(address) => address.to_string(),
            None if host.parse::<std::net::Ipv6Addr>().is_ok() && number.is_none() => {
                host.to_owned()
            }
            None if is_host_name(host) => host.to_owned(),
            None => return Err(refuse()),
        };
        let port = number.map_or(Ok(DEFAULT_PORT), port)?;
        Ok(Self { host, port })
    }
}

/// RFC 1123 section 2.1; a last label of digits would be a broken IPv4 address.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && !name
            .split('.')
            .next_back()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Endpoint {
    /// The host as an address, when it is no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Keep {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not a port to keep (like \"tcp:22\" or \"udp:60000-61000\")",
                quoted(text)
            ))
        };
        let (protocol, ports) = text.split_once(':').ok_or_else(refuse)?;
        let protocol = protocol.parse().map_err(|_| refuse())?;
        let (first, last) = self::ports(ports)?;
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.protocol, self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// A port or a range of them, first and last.
pub(super) fn ports(text: &str) -> Result<(u16, u16), UnitError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(UnitError(format!(
            "{first}-{last} is not a range of ports (the lower one comes first)"
        )));
    }
    Ok((first, last))
}

fn port(text: &str) -> Result<u16, UnitError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        Ok(_) | Err(_) => {
            let text = if digits {
                text.to_owned()
            } else {
                quoted(text)
            };
            Err(UnitError(format!("{text} is not a port (1-65535)")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: FromStr<Err = UnitError> + fmt::Display>(texts: &[&str]) {
        for text in texts {
            let word: T = text.parse().unwrap();
            assert_eq!(word.to_string(), *text);
        }
    }

    #[test]
    fn places_print_as_they_are_written() {
        same::<Listen>(&["udp:4725", "tcp:203.0.113.2:443", "udp:[2001:db8::1]:1"]);
        same::<Endpoint>(&["203.0.113.2:4725", "[2001:db8::1]:65535", "a-b.example:1"]);
        same::<Keep>(&["tcp:22", "udp:60000-61000"]);
    }

    #[test]
    fn an_endpoint_without_a_port_has_the_default_one() {
        for (text, host) in [
            ("vps.example.org", "vps.example.org"),
            ("203.0.113.2", "203.0.113.2"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, 4725));
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "udp",
            "udp:",
            "udp:0",
            "sctp:1",
            "udp:::1:5",
            "udp:[::1",
            "udp:+5",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        for text in [
            "",
            ":1",
            "a b:1",
            "203.0.113.300:1",
            "h:0",
            "h:65536",
            "[::1:1",
            "-a:1",
            "a..b:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        for text in ["22", "tcp:", "tcp:0", "tcp:5-4", "tcp:1-2-3", "icmp:1"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }
}
