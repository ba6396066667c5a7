//! What of the host a configuration waits for: it is not there yet, or not any more.

use std::net::IpAddr;

use super::link::delivery_devices;
use super::links::Observed;
use crate::config::{Config, Role};

/// True when the host has this address, so that it can be handed over.
pub(super) fn is_held(observed: &Observed, address: IpAddr) -> bool {
    observed.holders(address).next().is_some() || observed.has_on_loopback(address)
}

/// What is waited for, each in a sentence.
pub fn awaited(config: &Config, observed: &Observed) -> Vec<String> {
    let is_remote = matches!(config.role, Role::Remote(_));
    let handed_over = config
        .public
        .iter()
        .filter(|_| is_remote && config.manage_routing);
    let listening = config.listen.iter().filter_map(|listen| listen.address);
    let mut missing: Vec<IpAddr> = handed_over
        .chain(listening)
        .filter(|address| !address.is_loopback() && !is_held(observed, *address))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    let addresses = missing
        .iter()
        .map(|address| format!("no device has the address {address} yet"));
    let devices = delivery_devices(config).iter();
    let devices = devices.filter(|_| config.manage_routing);
    let devices = devices.filter_map(|device| match observed.link(device) {
        None => Some(format!("there is no device {device} yet")),
        Some(link) if !link.up => Some(format!("the device {device} is down")),
        Some(_) => None,
    });
    addresses.chain(devices).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;

    /// Field row C6.
    #[test]
    fn what_is_waited_for_is_said() {
        let mut observed = cases::vps();
        assert_eq!(awaited(&cases::remote(), &observed), [""; 0]);
        observed.links[0].addresses.clear();
        let waits = awaited(&cases::remote(), &observed);
        assert_eq!(waits, ["no device has the address 203.0.113.2 yet"]);
        let mut config = cases::remote();
        config.listen[0].address = Some("198.51.100.2".parse().unwrap());
        let waits = awaited(&config, &observed);
        assert_eq!(
            waits,
            [
                "no device has the address 198.51.100.2 yet",
                "no device has the address 203.0.113.2 yet"
            ]
        );
        observed.loopback.push("203.0.113.2/32".parse().unwrap());
        assert_eq!(awaited(&cases::remote(), &observed), [""; 0]);

        let mut observed = cases::router();
        for config in [cases::local_client(), cases::local_nat()] {
            observed.links[0].up = true;
            assert_eq!(awaited(&config, &observed), [""; 0]);
            observed.links[0].up = false;
            assert_eq!(awaited(&config, &observed), ["the device lan is down"]);
        }
        observed.links.remove(0);
        let waits = awaited(&cases::local_client(), &observed);
        assert_eq!(waits, ["there is no device lan yet"]);
    }
}
