//! What the kernel writes over when forwarding is switched.
//!
//! A change of `net.ipv4.ip_forward` sets `forwarding` of `default` and of every device to the
//! same, and `accept_redirects` of `all` to the opposite (devinet.c, inet_forward_change); a change
//! of `net.ipv6.conf.all.forwarding` does the first for IPv6 (addrconf.c,
//! addrconf_fixup_forwarding). Nothing else changes (all of /proc/sys/net compared, Linux 6.18).
//! So one that went on and off again would leave others than there were before: a device that
//! forwarded on its own, or a host that refused redirects and takes them now.

use super::link::set;
use super::links::Observed;
use super::resource::HostState;
use crate::config::units::Family;

/// The settings that switch forwarding, one for each family: Linux's, then FreeBSD's.
pub const SWITCHES: [&str; 4] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.inet.ip.forwarding",
    "net.inet6.ip6.forwarding",
];

/// Linux's switch of a family.
pub(super) fn switch(family: Family) -> &'static str {
    match family {
        Family::V4 => SWITCHES[0],
        Family::V6 => SWITCHES[1],
    }
}

/// FreeBSD's switch of a family.
pub(super) fn freebsd_switch(family: Family) -> &'static str {
    match family {
        Family::V4 => SWITCHES[2],
        Family::V6 => SWITCHES[3],
    }
}

/// What a switch that changes to `on` gives to the setting `key`: the switch, and the value;
/// nothing for a setting that neither of them touches.
pub fn written_over(key: &str, on: bool) -> Option<(&'static str, &'static str)> {
    let (switch, rest) = key
        .strip_prefix("net.ipv4.conf.")
        .map(|rest| (SWITCHES[0], rest))
        .or_else(|| Some((SWITCHES[1], key.strip_prefix("net.ipv6.conf.")?)))?;
    let (device, name) = rest.rsplit_once('.')?;
    match (device, name, on) {
        // The switch itself, which IPv4 knows by two names.
        ("all", "forwarding", _) => None,
        (_, "forwarding", false) => Some((switch, "0")),
        (_, "forwarding", true) => Some((switch, "1")),
        ("all", "accept_redirects", false) if switch == SWITCHES[0] => Some((switch, "1")),
        ("all", "accept_redirects", true) if switch == SWITCHES[0] => Some((switch, "0")),
        _ => None,
    }
}

/// Turns a switch on. What it could not give back by itself is held as it was, and so is borrowed.
pub(super) fn turn_on(state: &mut HostState, observed: &Observed, switch: &str) {
    set(state, switch, 1);
    if observed.number(switch) != Some(0) {
        return;
    }
    for (key, before) in &observed.settings {
        if let Some((by, off)) = written_over(key, false)
            && by == switch
            && before.trim() != off
        {
            set(state, key.as_str(), before.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_switch_touches() {
        let v4 = "net.ipv4.ip_forward";
        let v6 = "net.ipv6.conf.all.forwarding";
        for (key, off) in [
            ("net.ipv4.conf.eth0/7.forwarding", Some((v4, "0"))),
            ("net.ipv4.conf.default.forwarding", Some((v4, "0"))),
            ("net.ipv4.conf.all.accept_redirects", Some((v4, "1"))),
            ("net.ipv6.conf.eth0.forwarding", Some((v6, "0"))),
            ("net.ipv4.conf.eth0.accept_redirects", None),
            ("net.ipv6.conf.all.accept_redirects", None),
            ("net.ipv4.conf.all.forwarding", None),
            (v4, None),
            (v6, None),
            ("kernel.ostype", None),
        ] {
            assert_eq!(written_over(key, false), off, "{key}");
            let on = written_over(key, true);
            assert_eq!(on.map(|(switch, _)| switch), off.map(|(switch, _)| switch));
            assert!(on.is_none() || on != off, "{key}");
        }
    }

    #[test]
    fn only_what_would_be_lost_is_held() {
        let mut observed = Observed::default();
        let mut see = |key: &str, value: &str| {
            observed.settings.insert(key.into(), value.into());
        };
        see("net.ipv4.ip_forward", "0");
        see("net.ipv4.conf.all.accept_redirects", "0");
        see("net.ipv4.conf.lan.forwarding", "1");
        see("net.ipv4.conf.wan.forwarding", "0");
        see("net.ipv6.conf.lan.forwarding", "1");
        let held = |observed: &Observed| {
            let mut state = HostState::new();
            turn_on(&mut state, observed, SWITCHES[0]);
            state.len() - 1
        };
        assert_eq!(held(&observed), 2);
        // Forwarding was on before: it is not switched back.
        observed.settings.insert(SWITCHES[0].into(), "1".into());
        assert_eq!(held(&observed), 0);
    }
}
