//! Who holds the public address.

use super::warn;
use crate::config::units::Family;
use crate::config::{Config, Role, Warning};
use crate::route::links::Observed;

/// Who holds the public address.
pub(super) fn public_address(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    for address in config.public.iter() {
        let holder = observed.holders(address).next();
        match (&config.role, holder) {
            (Role::Remote(_), None) if observed.has_on_loopback(address) => {}
            (Role::Remote(_), None) => {
                let have: Vec<_> = observed
                    .links
                    .iter()
                    .flat_map(|link| link.addresses_of(Family::of(address)))
                    .map(|prefix| prefix.address().to_string())
                    .collect();
                let have = if have.is_empty() {
                    "none of this family".to_owned()
                } else {
                    have.join(", ")
                };
                warn(
                    warnings,
                    "public_address",
                    format!(
                        "no interface of this host holds {address} (they hold {have}); behind a cloud's 1:1 NAT name the private address here, and the public one as `remote` on the local portal"
                    ),
                );
            }
            (Role::Local(_), Some(link)) => warn(
                warnings,
                "public_address",
                format!(
                    "{} of this router holds {address}, which belongs to the client: remove it there",
                    link.device
                ),
            ),
            (Role::Remote(_), Some(_)) | (Role::Local(_), None) => {}
        }
    }
}
