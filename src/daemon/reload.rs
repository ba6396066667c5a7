//! Which keys of the configuration can change while the tunnel runs.

use super::{Options, guard};
use crate::config::{Config, Keys, Local, Numbers, Remote, Role, TunnelAddresses};
use crate::route::Observed;

/// True when the new configuration may take the old one's place; otherwise says why not.
pub(super) fn may_reload(options: &Options, old: &Config, new: &Config, seen: &Observed) -> bool {
    let refused = need_restart(old, new);
    if !refused.is_empty() {
        log::warn!(
            "{} cannot change while the tunnel runs, a restart is needed: the configuration stays as \
             it was",
            refused.join(", ")
        );
        return false;
    }
    if let Err(reason) = guard::may_change(options, old, new, seen) {
        log::error!("{reason}: the configuration stays as it was");
        return false;
    }
    true
}

/// The keys that differ and need a restart. The patterns name every field, so that a new one has to
/// be given its place here.
fn need_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        // The file's name, which stays.
        name: _,
        role,
        keys: Keys {
            private,
            peer,
            preshared,
        },
        security,
        public,
        tunnel,
        mtu,
        offload,
        ecn,
        threads,
        listen,
        numbers,
        // Read again by the reconciler, by the links and by the packet thread.
        remote: _,
        links: _,
        redundant: _,
        allow: _,
        manage_routing: _,
    } = new;
    let TunnelAddresses {
        local,
        remote,
        local_v6,
        remote_v6,
    } = tunnel;
    let Numbers {
        table_base,
        keep_pref,
        link_pref,
        link_table_base,
        mark,
        mark_mask,
    } = numbers;
    let same_role = match (role, &old.role) {
        (
            Role::Local(Local {
                deliver: _,
                keep: _,
                without_tunnel: _,
                native_ipv6: _,
            }),
            Role::Local(_),
        )
        | (Role::Remote(Remote { keep: _ }), Role::Remote(_)) => true,
        (Role::Local(_), Role::Remote(_)) | (Role::Remote(_), Role::Local(_)) => false,
    };
    let same = [
        ("role", same_role),
        ("private_key", *private == old.keys.private),
        ("peer_public_key", *peer == old.keys.peer),
        ("preshared_key", *preshared == old.keys.preshared),
        ("security", *security == old.security),
        ("public_address", *public == old.public),
        // The tunnel's device has IPv6 or not from its beginning.
        ("allow", new.carries_v6() == old.carries_v6()),
        ("tunnel.local", *local == old.tunnel.local),
        ("tunnel.remote", *remote == old.tunnel.remote),
        ("tunnel.local_v6", *local_v6 == old.tunnel.local_v6),
        ("tunnel.remote_v6", *remote_v6 == old.tunnel.remote_v6),
        ("mtu", *mtu == old.mtu),
        ("offload", *offload == old.offload),
        ("ecn", *ecn == old.ecn),
        ("threads", *threads == old.threads),
        ("listen", *listen == old.listen),
        ("table_base", *table_base == old.numbers.table_base),
        ("keep_pref", *keep_pref == old.numbers.keep_pref),
        ("link_pref", *link_pref == old.numbers.link_pref),
        (
            "link_table_base",
            *link_table_base == old.numbers.link_table_base,
        ),
        ("mark", *mark == old.numbers.mark),
        ("mark_mask", *mark_mask == old.numbers.mark_mask),
    ];
    let changed = same.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loader;

    struct NoFiles;

    impl Loader for NoFiles {
        fn load(&self, _: &std::path::Path) -> Result<crate::config::KeyFile, String> {
            Err("no files here".to_owned())
        }
    }

    fn config(more: &str) -> Config {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let peer = crate::proto::crypto::keys::PrivateKey::from_bytes([1; 32]).public();
        let text = format!(
            "role = \"remote\"\nprivate_key = \"{key}\"\npeer_public_key = \"{peer}\"\n\
             public_address = \"203.0.113.2\"\n{more}"
        );
        let (config, _) = Config::parse(&text, "nc0", &NoFiles).unwrap();
        config
    }

    /// Field row D10.
    #[test]
    fn exactly_the_keys_that_need_a_restart_are_named() {
        let old = config("listen = [\"udp:4725\"]\n");
        let changed = |more: &str| need_restart(&old, &config(more));
        let live = "listen = [\"udp:4725\"]\nredundant = [\"icmp\"]\nallow = [\"10.0.0.0/8\"]\nkeep = []\n\
            remote = \"198.51.100.1\"\nmanage_routing = false\n[[link]]\ndevice = \"wan0\"\n";
        assert_eq!(changed(live), [""; 0]);
        assert_eq!(
            changed("listen = [\"udp:4726\"]\nmtu = 1300\nmark = 0x02000000\n"),
            ["mtu", "listen", "mark"]
        );
        assert_eq!(
            changed(
                "listen = [\"udp:4725\"]\nredundant = [\"icmp\"]\necn = false\ntable_base = 100\n\
                 [tunnel]\nlocal = \"172.20.0.3\"\n"
            ),
            ["tunnel.local", "ecn", "table_base"]
        );
    }
}
