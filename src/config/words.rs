//! The words of which a key has a few to choose from: read and printed again.

use std::fmt;
use std::str::FromStr;

use super::units::UnitError;
use super::{Congestion, NativeV6, PortProtocol, Security, Transport, WithoutTunnel};

/// Text of a foreign file in quotes, not longer than a line of a terminal.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        format!("{text:?}")
    } else {
        let short: String = text.chars().take(LONGEST).collect();
        format!("{:?}", format!("{short}..."))
    }
}

/// One of a few words.
fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, UnitError> {
    match words.iter().find(|(word, _)| *word == text) {
        Some(&(_, value)) => Ok(value),
        None => {
            let allowed: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            Err(UnitError(format!(
                "{} is not allowed (allowed: {})",
                quoted(text),
                allowed.join(", ")
            )))
        }
    }
}

impl FromStr for Transport {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(text, &[("udp", Self::Udp), ("tcp", Self::Tcp)])
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for PortProtocol {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(text, &[("udp", Self::Udp), ("tcp", Self::Tcp)])
    }
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for WithoutTunnel {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(text, &[("block", Self::Block), ("direct", Self::Direct)])
    }
}

impl FromStr for NativeV6 {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(text, &[("allow", Self::Allow), ("block", Self::Block)])
    }
}

impl FromStr for Security {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(
            text,
            &[
                ("encrypt", Self::Encrypt),
                ("authenticate", Self::Authenticate),
                ("none", Self::None),
            ],
        )
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "encrypt",
            Self::Authenticate => "authenticate",
            Self::None => "none",
        })
    }
}

impl FromStr for Congestion {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        choice(
            text,
            &[
                ("dtrc", Self::Dtrc),
                ("new_reno", Self::NewReno),
                ("fixed", Self::Fixed),
            ],
        )
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dtrc => "dtrc",
            Self::NewReno => "new_reno",
            Self::Fixed => "fixed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_print_as_they_are_written() {
        for text in ["encrypt", "authenticate", "none"] {
            assert_eq!(text.parse::<Security>().unwrap().to_string(), text);
        }
        for text in ["new_reno", "fixed"] {
            assert_eq!(text.parse::<Congestion>().unwrap().to_string(), text);
        }
        for text in ["udp", "tcp"] {
            assert_eq!(text.parse::<Transport>().unwrap().to_string(), text);
            assert_eq!(text.parse::<PortProtocol>().unwrap().to_string(), text);
        }
        assert!("UDP".parse::<Transport>().is_err());
    }
}
