//! Who holds the public address.

use super::{ip, warn};
use crate::config::units::Family;
use crate::config::{Config, Deliver, Role, Warning};
use crate::route::links::Observed;

/// Who holds the public address.
pub(super) fn public_address(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    for address in config.public.iter() {
        let holder = observed.holders(address).next();
        match (&config.role, holder) {
            (Role::Remote(_), None) if observed.has_on_loopback(address) => {}
            (Role::Remote(_), None) => {
                let family = Family::of(address);
                let have = observed.links.iter();
                let have = have.flat_map(|link| link.addresses_of(family));
                let have: Vec<_> = have.map(|it| it.address().to_string()).collect();
                let text = match have.as_slice() {
                    [] => format!("no device of this host holds {address}, or any of its family"),
                    [one] => format!(
                        "no device of this host holds {address}; behind a cloud's 1:1 NAT write public_address = \"{one}\" on both portals, and remote = \"{address}\" on the local one"
                    ),
                    [..] => format!(
                        "no device of this host holds {address}, they hold {}; behind a cloud's 1:1 NAT write that one of them as public_address on both portals, and remote = \"{address}\" on the local one",
                        have.join(", ")
                    ),
                };
                warn(warnings, "public_address", text);
            }
            // With "none" the administrator may hold it here.
            (Role::Local(role), Some(link)) if role.deliver != Deliver::Nothing => {
                let device = &link.device;
                let owner = match role.deliver {
                    Deliver::Client { .. } => "the client",
                    Deliver::Nat { .. } | Deliver::Nothing => "the tunnel's device",
                };
                let line = if cfg!(target_os = "freebsd") {
                    let family = match address.is_ipv4() {
                        true => "inet",
                        false => "inet6",
                    };
                    format!("ifconfig {device} {family} {address} -alias")
                } else {
                    let prefix = link.addresses.iter().find(|it| it.address() == address);
                    let prefix = prefix.map_or_else(|| address.to_string(), ToString::to_string);
                    let ip = ip(Family::of(address));
                    format!("{ip} address del {prefix} dev {device}")
                };
                warn(
                    warnings,
                    "public_address",
                    format!(
                        "{device} of this router holds {address}, which belongs to {owner}: `{line}`"
                    ),
                );
            }
            (Role::Remote(_), Some(_)) | (Role::Local(_), _) => {}
        }
    }
}
