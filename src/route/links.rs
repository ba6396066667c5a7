//! What was seen of a host: its devices, the settings we borrow, and who else uses policy routing.
//! Plain data, filled by `host` or read from a file (`plan --links FILE`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::beside::is_private;
use super::foreign::Ruleset;
use super::kinds::leads_out;
use super::reach::HostSocket;
use super::resource::{HostState, LocalTable, Resource, Setting};
use crate::config::units::{Family, IfName, Prefix, RulePref};
use crate::sorted::Map;

/// Where the kernel itself puts the rule `from all lookup local`.
pub const KERNEL_LOCAL_PREF: RulePref = RulePref(0);

/// The kind of a port of a bridge (FreeBSD): its packets are the bridge's.
pub const BRIDGED: &str = "member";

/// At most so many devices are remembered, the first ones. A host has fewer; the limit is for one that gives
/// each connection another name (ppp0, ppp1, ...).
const MOST_REMEMBERED: usize = 64;

/// What was seen of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observed {
    /// Every device of the host but the loopback and the tunnel.
    pub links: Vec<ObservedLink>,
    /// Kernel settings as they were before we touched them: where the baseline file holds a value,
    /// that one; the present one otherwise. So the desired state does not depend on our own work.
    /// The keys are written as in [`Setting::key`].
    pub settings: Map<String, String>,
    /// The policy rules that are neither ours nor the kernel's own three.
    pub foreign_rules: Vec<ForeignRule>,
    /// The routes that are not ours, of all tables except local; of main without default routes.
    pub foreign_routes: Vec<ForeignRoute>,
    /// Where routes of table main lead that are not ours and go into the tunnel.
    #[serde(with = "texts")]
    pub into_tunnel: Vec<Prefix>,
    /// The addresses of the loopback but its own two: a provider's floating address stands there.
    #[serde(with = "texts")]
    pub loopback: Vec<Prefix>,
    /// The chains of others who forward packets on this host, where they came after forwarding was
    /// switched on: who was there while it was off did not forward.
    pub forwarders: Vec<String>,
    /// The devices that those may forward by: the ones their rules name, and the ones that came after
    /// forwarding was switched on.
    pub opened: Vec<String>,
    /// Devices that have or had a default route while the daemon ran.
    #[serde(skip)]
    pub were_links: Vec<IfName>,
    /// The tunnel carries nothing at the moment.
    #[serde(skip)]
    pub tunnel_down: bool,
    /// The addresses the other portal's names were resolved to.
    pub remotes: Vec<IpAddr>,
    /// The sockets of this host; only looked for by `check`, `plan`, and the daemon's guard.
    #[serde(skip)]
    pub sockets: Vec<HostSocket>,
    /// The packet filters of others.
    #[serde(skip)]
    pub filters: Ruleset,
}

/// One device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedLink {
    /// Its name.
    #[serde(with = "text")]
    pub device: IfName,
    /// Its index in the kernel.
    #[serde(default)]
    pub index: u32,
    /// What a device that is no hardware says it is: `veth`, `wireguard`; empty for hardware.
    #[serde(default)]
    pub kind: String,
    /// Up and running.
    #[serde(default = "yes")]
    pub up: bool,
    /// It has one other end and needs no next hop (IFF_POINTOPOINT: ppp0, wwan0).
    #[serde(default)]
    pub point_to_point: bool,
    /// Its addresses with their prefix lengths, host bits kept; no link-local ones.
    #[serde(default, with = "texts")]
    pub addresses: Vec<Prefix>,
    /// What is wrong with some of these as a source.
    #[serde(default)]
    pub flaws: Map<IpAddr, Flaw>,
    /// The next hops of its default routes, best first; `0.0.0.0` or `::` for a default route that
    /// has no next hop.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// The IPv6 next hops of its IPv4 default routes (RFC 8950), best first.
    #[serde(default)]
    pub v4_by_v6: Vec<IpAddr>,
    /// A router's advertisement made each of these (RFC 4861): anybody on its network can be that router.
    #[serde(default)]
    pub advertised: bool,
    /// The largest packet, bytes.
    #[serde(default = "ethernet")]
    pub mtu: u32,
}

/// Why an address is not a source like any other. An address has the worst of its flaws.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Flaw {
    /// It changes every day (RFC 8981).
    Temporary,
    /// Its network is going away (RFC 4862 5.5.4), or it is not proven to be unique yet (RFC 4429).
    Deprecated,
    /// It is being tested for duplicates: nothing can be sent from it (RFC 4862 5.4).
    Tentative,
}

/// A policy rule of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its preference.
    pub pref: u32,
    /// The table that is asked; nothing for other actions.
    #[serde(default)]
    pub table: Option<u32>,
    /// The mark it looks for (value, mask).
    #[serde(default)]
    pub mark: Option<(u32, u32)>,
}

/// A route of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRoute {
    /// The table it stands in.
    pub table: u32,
    /// Where it leads.
    #[serde(with = "text")]
    pub destination: Prefix,
    /// The device, where it has one.
    #[serde(default)]
    pub device: Option<String>,
}

fn write_table(json: &mut String, table: &DeTable<'_>) {
    json.push('{');
    for (index, (key, value)) in table.iter().enumerate() {
        json.push_str(if index == 0 { "" } else { "," });
        write_text(json, key.get_ref());
        json.push(':');
        write_value(json, value.get_ref());
    }
    json.push('}');
}

fn write_value(json: &mut String, value: &DeValue<'_>) {
    match value {
        DeValue::String(text) => write_text(json, text),
        DeValue::Integer(number) => {
            match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => json.push_str(&number.to_string()),
                // Larger than any number here may be.
                Err(_) => write_text(json, number.as_str()),
            }
        }
        // Of neither is anything here: as a text it is refused by what it is.
        DeValue::Float(number) => write_text(json, number.as_str()),
        DeValue::Datetime(time) => write_text(json, &time.to_string()),
        DeValue::Boolean(truth) => json.push_str(if *truth { "true" } else { "false" }),
        DeValue::Array(values) => {
            json.push('[');
            for (index, value) in values.iter().enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                write_value(json, value.get_ref());
            }
            json.push(']');
        }
        DeValue::Table(table) => write_table(json, table),
    }
}

fn write_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// Why a file of links was refused.
#[derive(Debug, Error)]
pub enum LinksError {
    /// It begins like JSON, and is none of ours.
    #[error("not a description of links in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is no TOML of ours either.
    #[error("not a description of links in TOML: {0}")]
    Toml(#[from] toml::de::Error),
    /// It is TOML that says something else.
    #[error("not a description of links in TOML: {0}")]
    Content(String),
}

impl Observed {
    /// Reads JSON (when the text begins with `{`) or TOML.
    pub fn parse(text: &str) -> Result<Self, LinksError> {
        if text.trim_start().starts_with('{') {
            return Ok(serde_json::from_str(text)?);
        }
        // TOML becomes JSON first: a second reader of all these types is 45 kB of a router's program.
        let mut json = String::new();
        write_table(&mut json, DeTable::parse(text)?.get_ref());
        serde_json::from_str(&json).map_err(|error| {
            // The place would be one in that JSON.
            let (mut words, place) = (error.to_string(), error.column());
            let place = format!(" at line {} column {place}", error.line());
            words.truncate(words.strip_suffix(&place).map_or(words.len(), str::len));
            LinksError::Content(words)
        })
    }

    /// The device of this name.
    pub fn link(&self, device: &IfName) -> Option<&ObservedLink> {
        self.links.iter().find(|link| link.device == *device)
    }

    /// The devices that hold this address.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &ObservedLink> {
        self.links
            .iter()
            .filter(move |link| link.holds(address).is_some())
    }

    /// Adds the devices that have a default route to those that were seen to have one before. A DHCP
    /// server that leaves it out of the next lease makes no LAN of its link.
    pub fn remember_links(&mut self, before: &mut Vec<IfName>) {
        for link in &self.links {
            let is_new = leads_out(link).is_ok() && !before.contains(&link.device);
            if is_new && before.len() < MOST_REMEMBERED {
                before.push(link.device.clone());
            }
        }
        self.were_links.clone_from(before);
    }

    /// True when a device's own network, or a route that is no default one, leads to an address by it.
    pub fn leads_to(&self, address: IpAddr, device: &IfName) -> bool {
        // A default route may be in two halves, or in more.
        const DEFAULT: u8 = 7;
        let link = self.link(device);
        let own = link.into_iter().flat_map(|link| &link.addresses);
        let routes = self.foreign_routes.iter();
        let routes = routes.filter(|it| it.device.as_deref() == Some(device.as_str()));
        let mut networks = own.copied().chain(routes.map(|it| it.destination));
        networks.any(|it| it.length() > DEFAULT && it.contains(address))
    }

    /// True when the loopback holds this address, that is, the host by any device.
    pub fn has_on_loopback(&self, address: IpAddr) -> bool {
        self.loopback.iter().any(|own| own.address() == address)
    }

    /// The value of a setting before us, where it is a number.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.settings.get(key)?.trim().parse().ok()
    }

    /// The host before us, as far as `desired` borrows from it: to come from it and to go back to
    /// it is one and the same state.
    pub fn baseline(&self, desired: &HostState) -> HostState {
        desired
            .iter()
            .filter_map(|resource| match resource {
                Resource::Setting(setting) => {
                    let value = self.settings.get(&setting.key)?.clone();
                    let key = setting.key.clone();
                    Some(Resource::Setting(Setting { key, value }))
                }
                Resource::LocalTable(table) => Some(Resource::LocalTable(LocalTable {
                    family: table.family,
                    pref: KERNEL_LOCAL_PREF,
                })),
                Resource::Address(_)
                | Resource::Neighbour(_)
                | Resource::Route(_)
                | Resource::Filter(_)
                | Resource::Rule(_) => None,
            })
            .collect()
    }
}

impl ObservedLink {
    /// The prefix by which it holds this address.
    pub fn holds(&self, address: IpAddr) -> Option<&Prefix> {
        self.addresses
            .iter()
            .find(|prefix| prefix.address() == address)
    }

    /// Its addresses of one family.
    pub fn addresses_of(&self, family: Family) -> impl Iterator<Item = &Prefix> {
        self.addresses
            .iter()
            .filter(move |prefix| prefix.family() == family)
    }

    /// True when it carries a default route of any family. One that was only advertised does not count on
    /// a private IPv4 network: a machine of a LAN can do that to its router, and the LAN is no way out.
    pub fn has_default(&self) -> bool {
        self.has_any_default() && !(self.advertised && self.is_private_network())
    }

    /// True when it carries a default route of any family, whoever made it: by it a packet may leave.
    pub fn has_any_default(&self) -> bool {
        !self.gateways.is_empty() || !self.v4_by_v6.is_empty()
    }

    fn is_private_network(&self) -> bool {
        self.addresses_of(Family::V4)
            .any(|own| !own.is_host() && is_private(&Prefix::host(own.address())))
    }

    /// The next hop of its best default route of a family; the unspecified address for one that
    /// has none.
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let crossed = self.v4_by_v6.first().filter(|_| family == Family::V4);
        self.gateways.iter().find(of_family).or(crossed).copied()
    }
}

/// The name of a per-device setting, `net.ipv4.conf.wan0.rp_filter`; dots of the device's name
/// become slashes (sysctl(8)).
pub fn device_setting(family: Family, device: &str, name: &str) -> String {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("net.{family}.conf.{}.{name}", device.replace('.', "/"))
}

/// The name of a device's setting of ARP, `net.ipv4.neigh.eth0.proxy_delay`.
pub fn neighbour_setting(device: &str, name: &str) -> String {
    format!("net.ipv4.neigh.{}.{name}", device.replace('.', "/"))
}

fn yes() -> bool {
    true
}

/// The payload of Ethernet, bytes (RFC 894).
fn ethernet() -> u32 {
    1500
}

/// A word as its text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Words as a list of their texts.
mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|word| word.parse().map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_toml_say_the_same() {
        let json = r#"{"links": [{"device": "wan0", "addresses": ["198.51.100.7/24"],
            "gateways": ["198.51.100.1"]}], "settings": {"net.ipv4.ip_forward": "0"}}"#;
        let toml = "[[links]]\ndevice = \"wan0\"\naddresses = [\"198.51.100.7/24\"]\n\
            gateways = [\"198.51.100.1\"]\n[settings]\n\"net.ipv4.ip_forward\" = \"0\"\n";
        let observed = Observed::parse(json).unwrap();
        assert_eq!(observed, Observed::parse(toml).unwrap());
        assert!(observed.links[0].up);
        assert_eq!(observed.links[0].mtu, 1500);
        let again = serde_json::to_string(&observed).unwrap();
        assert_eq!(observed, Observed::parse(&again).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            (r#"{"links": [{"device": "a/b"}]}"#, "device name"),
            (
                r#"{"links": [{"device": "a", "addresses": ["1.2.3.4"]}]}"#,
                "prefix",
            ),
            (r#"{"lnks": []}"#, "lnks"),
            (
                "links = 3",
                "TOML: invalid type: integer `3`, expected a sequence",
            ),
            ("links = ", "line 1"),
        ] {
            let error = Observed::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn dots_of_devices_are_kept_apart() {
        assert_eq!(
            device_setting(Family::V4, "eth0.7", "rp_filter"),
            "net.ipv4.conf.eth0/7.rp_filter"
        );
    }
}
