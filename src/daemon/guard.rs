//! Nobody is locked out of the remote portal's host, however the daemon was started and whenever its
//! configuration changes.

use super::Options;
use crate::config::{Config, Role};
use crate::host::baseline::Baseline;
use crate::host::listeners::{sockets, ssh_session};
use crate::route::reach::{
    HostSocket, LockOut, lock_out, locked_out_after, lost_listeners, newly_locked_out,
};

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
    sockets: &[HostSocket],
) -> Result<(), LockOut> {
    let shell = ssh_session();
    let Some(reason) = lock_out(config, sockets, shell) else {
        return Ok(());
    };
    let killed = Baseline::open(&options.run_dir, &config.name).ok();
    let newly = match killed.filter(|it| !it.is_empty()) {
        Some(old) => locked_out_after(old.handed_over(), config, sockets, shell),
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
pub(super) fn may_change(options: &Options, old: &Config, new: &Config) -> Result<(), LockOut> {
    let sockets = sockets_at_risk(new);
    if let Some(reason) = newly_locked_out(old, new, &sockets) {
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
