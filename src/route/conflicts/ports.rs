//! Kept ports that the client's system may choose as well.

use super::warn;
use crate::config::{Config, Role, Warning};
use crate::route::remote::FIRST_SHARED;

/// The last port that Linux gives to a socket that asks for none (net.ipv4.ip_local_port_range).
const LAST: u16 = 60_999;

/// Ranges among the ports that systems give to sockets. A single port is hit rarely.
pub(super) fn shared(warnings: &mut Vec<Warning>, config: &Config) {
    let Role::Remote(role) = &config.role else {
        return;
    };
    for keep in &role.keep {
        if keep.first < keep.last && keep.last >= FIRST_SHARED && keep.first <= LAST {
            warn(
                warnings,
                "keep",
                format!(
                    "{keep} shares ports with {FIRST_SHARED}-{LAST}, from which the client's system \
                     takes those of its own connections: what the client begins there is answered to \
                     it, all else is this host's; a range below {FIRST_SHARED} is nobody's but this \
                     host's"
                ),
            );
        }
    }
}
