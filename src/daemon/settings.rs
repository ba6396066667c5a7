//! From the configuration to what the tunnel needs to know.

use crate::config::units::Mtu;
use crate::config::{Config, Role};
use crate::proto::event::{Side, TunnelConfig};

/// How many threads may carry packets.
pub(super) fn threads(config: &Config) -> usize {
    config
        .threads
        .map_or_else(|| processors().min(2), usize::from)
}

/// How many processors this process may run on. What std offers reads the quotas of cgroups too, which is 3 kB of a
/// router's program.
#[cfg(target_os = "linux")]
fn processors() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

#[cfg(not(target_os = "linux"))]
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The tunnel's part of the configuration.
pub(super) fn tunnel_config(config: &Config, mtu: Mtu) -> TunnelConfig {
    TunnelConfig {
        side: match config.role {
            Role::Local(_) => Side::Local,
            Role::Remote(_) => Side::Remote,
        },
        private: config.keys.private.clone(),
        peer: config.keys.peer,
        preshared: config.keys.preshared.clone(),
        security: config.security,
        aes: has_aes(),
        mtu,
        redundant: config.redundant.clone(),
        crossing: config.crossing(),
        ecn: config.ecn,
    }
}

/// The TUN's MTU at most. What less the links carry is found out by the tunnel.
pub(super) fn mtu(config: &Config) -> Mtu {
    config.mtu.unwrap_or(Mtu::TUNNEL_DEFAULT)
}

/// True when this processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
