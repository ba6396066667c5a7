//! Nobody is locked out of the remote portal's host, however the daemon was started and whenever its
//! configuration changes.

use super::Options;
use crate::config::{Config, Role};
use crate::host::baseline::Baseline;
use crate::host::listeners::{sockets, ssh_session};
use crate::route::handed::HandedOver;
use crate::route::links::{Observed, ObservedLink};
use crate::route::reach::{
    HostSocket, LockOut, lock_out, locked_out_after, lost_listeners, newly_locked_out,
};
use crate::route::vpn::lost_vpn;

/// The sockets of this host, where the tunnel could take something from them.
pub(super) fn sockets_at_risk(config: &Config) -> Vec<HostSocket> {
    match config.role {
        Role::Remote(_) if config.manage_routing => sockets(),
        Role::Remote(_) | Role::Local(_) => Vec::new(),
    }
}

/// Refuses a start that would lock the administrator out, unless it is forced. What a killed
/// instance cut off is cut off already: its successor only says so.
pub(super) fn may_start(
    options: &Options,
    config: &Config,
    seen: &Observed,
) -> Result<(), LockOut> {
    let (shell, sockets) = (ssh_session(), &seen.sockets);
    let vpn = |old: &HandedOver| new_vpn(old, config, &seen.links, sockets);
    let nothing = HandedOver::default();
    let Some(reason) = lock_out(config, sockets, shell).or_else(|| vpn(&nothing)) else {
        return Ok(());
    };
    let killed = Baseline::open(&options.run_dir, &config.name).ok();
    let newly = match killed.filter(|it| !it.is_empty()) {
        Some(old) => locked_out_after(old.handed_over(), config, sockets, shell)
            .or_else(|| vpn(old.handed_over())),
        None => Some(reason.clone()),
    };
    match newly {
        Some(newly) if !options.force => Err(newly),
        Some(_) | None => {
            log::warn!("{reason}");
            Ok(())
        }
    }
}

/// Refuses a change that would lock the administrator out, unless the daemon was started by force.
/// Otherwise says which listeners it takes away.
pub(super) fn may_change(
    options: &Options,
    old: &Config,
    new: &Config,
    seen: &Observed,
) -> Result<(), LockOut> {
    let sockets = sockets_at_risk(new);
    let vpn = || new_vpn(&HandedOver::by(old), new, &seen.links, &sockets);
    if let Some(reason) = newly_locked_out(old, new, &sockets).or_else(vpn) {
        if !options.force {
            return Err(reason);
        }
        log::warn!("{reason}");
    }
    let before = lost_listeners(old, &sockets);
    for warning in lost_listeners(new, &sockets) {
        if !before.contains(&warning) {
            log::warn!("{warning}");
        }
    }
    Ok(())
}

/// The VPN by which people log in, when this configuration takes it and the old one did not.
fn new_vpn(
    old: &HandedOver,
    new: &Config,
    links: &[ObservedLink],
    sockets: &[HostSocket],
) -> Option<LockOut> {
    lost_vpn(&HandedOver::by(new), links, sockets)
        .filter(|_| lost_vpn(old, links, sockets).is_none())
}
