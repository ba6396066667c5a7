//! Which devices a user would call a WAN.

use super::links::ObservedLink;

/// Kinds of devices (IFLA_INFO_KIND; FreeBSD: the driver) whose packets leave by another device.
const TUNNELS: [&str; 30] = [
    "amneziawg",
    "amt",
    "bareudp",
    "enc",
    "erspan",
    "fou",
    "geneve",
    "gif",
    "gre",
    "gretap",
    "gtp",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "ipsec",
    "ipvti",
    "l2tp",
    "ovpn",
    "ovpn-dco",
    "sit",
    "stf",
    "vti",
    "vti6",
    "vxlan",
    "wg",
    "wireguard",
    "xfrm",
    "zerotier",
];

/// Kinds that lead nowhere, or only choose between others.
const INSIDE: [&str; 7] = ["dummy", "hsr", "ifb", "netdevsim", "nlmon", "vcan", "vrf"];

/// How the bridges of virtual machines and containers are named: Docker, libvirt, LXC, LXD, Incus,
/// Kubernetes and Podman.
const BRIDGES: [&str; 8] = [
    "docker", "virbr", "lxcbr", "lxdbr", "incusbr", "cni", "podman", "cbr",
];

/// Nothing, or why a device is no WAN, or may be none.
pub(super) fn is_wan(link: &ObservedLink) -> Result<(), &'static str> {
    leads_out(link)?;
    if link.has_default() {
        Ok(())
    } else {
        Err(
            "its default route was only advertised, by a machine of a private network; if that is a \
             provider's, name it in a [[link]]",
        )
    }
}

/// Nothing, or why packets for the Internet do not leave by a device itself.
pub(super) fn leads_out(link: &ObservedLink) -> Result<(), &'static str> {
    let kind = link.kind.as_str();
    if is_tunnel(link) {
        Err("it is a tunnel of another program")
    } else if INSIDE.contains(&kind) {
        Err("it leads nowhere outside of this host")
    } else if kind == "bridge" && is_of_machines(link.device.as_str()) {
        Err("it is a bridge of virtual machines or containers")
    } else if !link.has_any_default() {
        Err("it has no default route")
    } else {
        Ok(())
    }
}

/// A tunnel of another program. A TAP stands for a network, a TUN for somebody's tunnel.
pub(super) fn is_tunnel(link: &ObservedLink) -> bool {
    TUNNELS.contains(&link.kind.as_str()) || link.kind == "tun" && link.point_to_point
}

/// Docker names a network of its own `br-` and twelve hexadecimal digits.
pub(super) fn is_of_machines(name: &str) -> bool {
    let by_docker = name
        .strip_prefix("br-")
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    by_docker || BRIDGES.iter().any(|known| name.starts_with(known))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::sorted::Map;

    fn link(name: &str, kind: &str, point_to_point: bool) -> ObservedLink {
        ObservedLink {
            device: name.parse().unwrap(),
            index: 7,
            kind: kind.to_owned(),
            up: true,
            point_to_point,
            addresses: Vec::new(),
            flaws: Map::new(),
            gateways: vec!["192.0.2.1".parse().unwrap()],
            v4_by_v6: Vec::new(),
            advertised: false,
            mtu: 1500,
        }
    }

    /// Field row C7.
    #[test]
    fn what_a_user_would_call_a_wan() {
        for (name, kind, point_to_point) in [
            ("eth0", "", false),
            ("wwan0", "", true),
            ("wwan0", "wwan", true),
            ("ppp0", "ppp", true),
            ("eth0.7", "vlan", false),
            ("bond0", "bond", false),
            ("macvlan0", "macvlan", false),
            ("vmbr0", "bridge", false),
            ("br-wan", "bridge", false),
            ("wan0", "veth", false),
            ("tap0", "tun", false),
        ] {
            let judged = is_wan(&link(name, kind, point_to_point));
            assert_eq!(judged, Ok(()), "{name} {kind}");
        }
        for (name, kind, point_to_point) in [
            ("wg0", "wireguard", true),
            ("tun0", "tun", true),
            ("tailscale0", "tun", true),
            ("gre1", "gre", true),
            ("tunl1", "ipip", true),
            ("he-ipv6", "sit", true),
            ("vti1", "vti", true),
            ("ipsec0", "xfrm", false),
            ("vxlan1", "vxlan", false),
            ("docker0", "bridge", false),
            ("br-0123456789ab", "bridge", false),
            ("virbr0", "bridge", false),
            ("dummy0", "dummy", false),
        ] {
            assert!(is_wan(&link(name, kind, point_to_point)).is_err(), "{name}");
        }
        let mut lan = link("eth1", "", false);
        lan.gateways.clear();
        assert!(is_wan(&lan).is_err());
        // A machine of a LAN may have advertised itself.
        let mut lan = link("eth1", "", false);
        lan.advertised = true;
        lan.addresses = vec!["192.168.100.2/24".parse().unwrap()];
        assert!(is_wan(&lan).is_err_and(|why| why.contains("only advertised")));
        assert_eq!(leads_out(&lan), Ok(()));
    }
}
