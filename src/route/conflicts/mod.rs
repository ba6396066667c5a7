//! What stands in the way of a configuration on a host: questions of `netcombiner check`.

mod addresses;
mod border;
mod devices;
mod hidden;
mod notes;
mod numbers;
mod ports;

pub use notes::notes;

use super::forwarding::{freebsd_switch, switch};
use super::links::Observed;
use super::reach;
use crate::config::units::Family;
use crate::config::{Config, Role, Warning};

/// Everything about this host that will not work, or not as one thinks.
pub fn conflicts(config: &Config, observed: &Observed) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let state = super::desired(config, observed);
    // FreeBSD has neither rules nor tables, and pf comes before its routes.
    if !is_freebsd(observed) {
        numbers::occupied(&mut warnings, &state, observed);
        numbers::before_local(&mut warnings, &state, observed);
        hidden::hidden(&mut warnings, config, &state, observed);
        hidden::beside_links(&mut warnings, config, &state, observed);
        numbers::marks(&mut warnings, config, observed);
    }
    addresses::public_address(&mut warnings, config, observed);
    devices::devices(&mut warnings, config, observed);
    devices::reverse_path(&mut warnings, config, observed);
    ports::shared(&mut warnings, config);
    border::border(&mut warnings, config, observed);
    warnings.extend(reach::lost_listeners(config, &observed.sockets));
    warnings
}

/// What is wrong with where the public address is now: a link may lease it at any time.
pub fn misplaced(config: &Config, observed: &Observed) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if matches!(config.role, Role::Local(_)) {
        addresses::public_address(&mut warnings, config, observed);
    }
    warnings
}

fn warn(warnings: &mut Vec<Warning>, place: impl Into<String>, text: impl Into<String>) {
    warnings.push(Warning {
        place: place.into(),
        text: text.into(),
    });
}

/// True for a FreeBSD host.
fn is_freebsd(observed: &Observed) -> bool {
    let has = |switch: &str| observed.number(switch).is_some();
    has(freebsd_switch(Family::V4)) && !has(switch(Family::V4))
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip -4",
        Family::V6 => "ip -6",
    }
}

#[cfg(test)]
mod tests;
