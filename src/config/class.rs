//! Kinds of packets, by what stands in their headers.

use std::fmt;
use std::str::FromStr;

use super::places::ports;
use super::units::UnitError;
use super::words::quoted;
use super::{Class, PortProtocol};

/// Code points with a name: class selectors (RFC 2474), assured forwarding (RFC 2597), expedited
/// forwarding (RFC 3246), voice admit (RFC 5865), lower effort (RFC 8622).
const CODE_POINTS: [(&str, u8); 23] = [
    ("cs0", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

impl FromStr for Class {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{} is not a kind of packets (like \"udp:5060\", \"udp:5004-5100\", \"tcp:22\", \
                 \"dscp:ef\", \"dscp:46\", \"icmp\" or \"all\")",
                quoted(text)
            ))
        };
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "icmp" => Ok(Self::Icmp),
            None => Err(refuse()),
            Some(("dscp", value)) => code_point(value).map(Self::Dscp),
            Some((protocol, range)) => {
                let protocol: PortProtocol = protocol.parse().map_err(|_| refuse())?;
                let (first, last) = ports(range)?;
                Ok(Self::Ports {
                    protocol,
                    first,
                    last,
                })
            }
        }
    }
}

fn code_point(text: &str) -> Result<u8, UnitError> {
    let named = CODE_POINTS.iter().find(|(name, _)| *name == text);
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = || text.parse().ok().filter(|code| digits && *code < 64);
    named.map(|(_, code)| *code).or_else(number).ok_or_else(|| {
        UnitError(format!(
            "{} is not a DSCP (0-63, or a name like \"ef\", \"cs6\" or \"af41\")",
            quoted(text)
        ))
    })
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Icmp => f.write_str("icmp"),
            Self::Dscp(code) => match CODE_POINTS.iter().find(|(_, other)| other == code) {
                Some((name, _)) => write!(f, "dscp:{name}"),
                None => write!(f, "dscp:{code}"),
            },
            Self::Ports {
                protocol,
                first,
                last,
            } if first == last => write!(f, "{protocol}:{first}"),
            Self::Ports {
                protocol,
                first,
                last,
            } => write!(f, "{protocol}:{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_print_as_they_are_written() {
        for text in [
            "all",
            "icmp",
            "udp:5060",
            "tcp:20-22",
            "dscp:ef",
            "dscp:af41",
            "dscp:63",
        ] {
            assert_eq!(text.parse::<Class>().unwrap().to_string(), text);
        }
        assert_eq!("dscp:46".parse(), Ok(Class::Dscp(46)));
        assert_eq!("dscp:0".parse::<Class>(), "dscp:cs0".parse());
    }

    #[test]
    fn refused() {
        for text in [
            "", "udp", "udp:", "udp:0", "udp:9-8", "sctp:1", "dscp:", "dscp:64", "dscp:EF",
            "dscp:+1", "icmp:8", "ALL", "any",
        ] {
            assert!(text.parse::<Class>().is_err(), "{text}");
        }
    }
}
