//! The words of the configuration as types: a value that exists is valid.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a word of the configuration was refused; says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct UnitError(pub String);

/// A name of a network device, as the kernels take it: 1 to 15 bytes, no `/`, no space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Linux's loopback device.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        // Linux dev_valid_name(): IFNAMSIZ is 16 with its NUL, "." and ".." are taken, and
        // '/', ':' and white space are refused.
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
        if text.is_empty()
            || text.len() > 15
            || text == "."
            || text == ".."
            || !text.chars().all(allowed)
        {
            return Err(UnitError(format!(
                "{text:?} is not a device name (1-15 characters, no spaces, '/' or ':')"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IP address with a prefix length; the host bits may be set (an interface address keeps them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// A prefix of `length` bits, or nothing when the family has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some(Self { address, length })
    }

    /// The prefix that holds this address alone (/32 or /128).
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Everything of a family: `0.0.0.0/0` or `::/0`.
    pub fn default_of(family: Family) -> Self {
        let address = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { address, length: 0 }
    }

    /// The same prefix with its host bits zero, as a route wants it.
    pub fn network(&self) -> Self {
        let host_bits = |bits: u8| u32::from(bits - self.length);
        let address = match self.address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
                Ipv4Addr::from_bits(a.to_bits() & mask).into()
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
                Ipv6Addr::from_bits(a.to_bits() & mask).into()
            }
        };
        Self {
            address,
            length: self.length,
        }
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length, bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// True for `0.0.0.0/0` and `::/0`.
    pub fn is_default(&self) -> bool {
        self.length == 0
    }

    /// True for a /32 or /128.
    pub fn is_host(&self) -> bool {
        self.length == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The two networks that a network consists of; `None` for a single address.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let length = self.length + 1;
        let lower = Self::new(self.network().address, length)?;
        let upper = match lower.address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() | 1 << (32 - length)).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() | 1 << (128 - length)).into(),
        };
        Some([lower, Self::new(upper, length)?])
    }

    /// True when `address` lies in this prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length))
                    .unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.length))
                    .unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            UnitError(format!(
                "{text:?} is not a prefix (like 192.168.1.1/24 or 2001:db8::/64)"
            ))
        };
        let (address, length) = text.split_once('/').ok_or_else(refuse)?;
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let length = length.parse().map_err(|_| refuse())?;
        Self::new(address, length).ok_or_else(refuse)
    }
}

/// An address family; `v4` and `v6` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// The number of a routing table (Linux; RTA_TABLE is 32 bits). 253-255 are the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

impl TableId {
    /// The kernel's table of the host's own addresses.
    pub const LOCAL: Self = Self(255);
    /// The kernel's main table.
    pub const MAIN: Self = Self(254);
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LOCAL => f.write_str("local"),
            Self::MAIN => f.write_str("main"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// The preference of a policy rule (Linux): the lower, the earlier it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulePref(pub u32);

impl fmt::Display for RulePref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A rate in bits per second. Written `20M`, `1.5G`, `800k` (decimal factors, as links are sold).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(u64);

impl Bitrate {
    /// A rate of so many bits per second.
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for Bitrate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        // 10 kbit/s is slower than any link one would bond, 1 Tbit/s faster.
        const LEAST: u64 = 10_000;
        const MOST: u64 = 1_000_000_000_000;
        let refuse = || {
            UnitError(format!(
                "{text:?} is not a rate (like \"20M\", \"1.5G\" or \"800k\" bits per second)"
            ))
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let places = match &text[digits.len()..] {
            "" => 0,
            "k" | "K" => 3,
            "M" => 6,
            "G" => 9,
            _ => return Err(refuse()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
            return Err(refuse());
        }
        // Moved by text: the tables that read a floating-point number are 14 kB of a program that needs
        // none. What is below a bit per second does not count.
        let bits = format!("{whole}{fraction:0<places$.places$}").parse();
        let bits = bits.ok().filter(|bits| (LEAST..=MOST).contains(bits));
        bits.map(Self).ok_or_else(|| {
            UnitError(format!(
                "{text:?} is out of range (10k to 1000G bits per second)"
            ))
        })
    }
}

/// A number that is not negative, with so many digits behind the point. What core has for this is exact for
/// every number there is, and 13 kB of a router's program.
pub(crate) fn fixed(value: f64, digits: u32) -> String {
    let scale = 10_u64.pow(digits);
    let scaled = (value * scale as f64 + 0.5) as u64;
    let (whole, rest) = (scaled / scale, scaled % scale);
    if digits == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:0places$}", places = digits as usize)
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} bit/s", self.0),
            1_000..1_000_000 => write!(f, "{} kbit/s", fixed(bits / 1e3, 1)),
            1_000_000..1_000_000_000 => write!(f, "{} Mbit/s", fixed(bits / 1e6, 1)),
            1_000_000_000.. => write!(f, "{} Gbit/s", fixed(bits / 1e9, 2)),
        }
    }
}

/// The largest IP packet a device takes, bytes: 1280 (what IPv6 asks, RFC 8200 section 5) to 9000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u16);

impl Mtu {
    /// The TUN's MTU without a word of the user: leaves room for our 33 bytes, UDP and IPv6 on any
    /// link of 1500 and on PPPoE's 1492 (PROTOCOL.md 2.1).
    pub const TUNNEL_DEFAULT: Self = Self(1400);

    /// An MTU, or nothing when it is out of range.
    pub fn new(bytes: u16) -> Option<Self> {
        (1280..=9000).contains(&bytes).then_some(Self(bytes))
    }

    /// Bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bits) in [
            ("20M", 20_000_000),
            ("1.5G", 1_500_000_000),
            ("1.0625M", 1_062_500),
            ("12.3456k", 12_345),
            (".5M", 500_000),
            ("20.M", 20_000_000),
            ("800k", 800_000),
            ("56000", 56_000),
        ] {
            assert_eq!(text.parse(), Ok(Bitrate(bits)), "{text}");
        }
        for text in [
            "",
            "M",
            "20 M",
            "-1M",
            "20m",
            "1e9",
            "inf",
            "9k",
            "2000G",
            "1.2.3M",
            "é",
            ".",
            ".M",
            "99999999999999999999G",
        ] {
            assert!(text.parse::<Bitrate>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_rounded() {
        for (bits, text) in [
            (999, "999 bit/s"),
            (56_049, "56.0 kbit/s"),
            (1_062_500, "1.1 Mbit/s"),
            (20_000_000, "20.0 Mbit/s"),
            (1_006_000_000, "1.01 Gbit/s"),
        ] {
            assert_eq!(Bitrate(bits).to_string(), text);
        }
        assert_eq!(fixed(2.5, 0), "3");
        assert_eq!(fixed(0.0512, 3), "0.051");
    }

    #[test]
    fn prefixes() {
        let lan: Prefix = "192.168.1.1/24".parse().unwrap();
        assert!(lan.contains("192.168.1.77".parse().unwrap()));
        assert!(!lan.contains("192.168.2.1".parse().unwrap()));
        assert!(!lan.contains("::1".parse().unwrap()));
        assert!(Prefix::default_of(Family::V6).contains("2001:db8::1".parse().unwrap()));
        for (text, network) in [
            ("192.168.1.77/24", "192.168.1.0/24"),
            ("192.168.1.77/0", "0.0.0.0/0"),
            ("192.168.1.77/32", "192.168.1.77/32"),
            ("2001:db8::7/64", "2001:db8::/64"),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.network().to_string(), network);
        }
        for (whole, halves) in [
            ("0.0.0.0/0", ["0.0.0.0/1", "128.0.0.0/1"]),
            ("192.168.1.77/31", ["192.168.1.76/32", "192.168.1.77/32"]),
            ("fc00::/7", ["fc00::/8", "fd00::/8"]),
            ("2001:db8::/127", ["2001:db8::/128", "2001:db8::1/128"]),
        ] {
            let whole: Prefix = whole.parse().unwrap();
            let halves = halves.map(|half| half.parse().unwrap());
            assert_eq!(whole.halves(), Some(halves));
        }
        for host in ["192.168.1.77/32", "2001:db8::7/128"] {
            assert_eq!(host.parse::<Prefix>().unwrap().halves(), None);
        }
        assert!("1.2.3.4/33".parse::<Prefix>().is_err());
        assert!("1.2.3.4".parse::<Prefix>().is_err());
    }

    #[test]
    fn names() {
        assert!("wan0".parse::<IfName>().is_ok());
        assert!("eth0.7@x".parse::<IfName>().is_ok());
        for text in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-", "ü"] {
            assert!(text.parse::<IfName>().is_err(), "{text}");
        }
    }
}
