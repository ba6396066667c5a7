//! Configurations and hosts for the tests of this module.

use super::links::Observed;
use crate::config::units::{IfName, RulePref, TableId};
use crate::config::{
    Config, DEFAULT_PORT, Deliver, Endpoint, Keep, Keys, Link, Listen, Local, NativeV6, Numbers,
    PortProtocol, PublicAddresses, Remote, Role, Security, Transport, TunnelAddresses,
    WithoutTunnel,
};
use crate::proto::crypto::keys::{PrivateKey, PublicKey};

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn config(role: Role) -> Config {
    Config {
        name: name("nc0"),
        role,
        keys: Keys {
            private: PrivateKey::from_bytes([1; 32]),
            peer: PublicKey::from_bytes([2; 32]),
            preshared: None,
        },
        security: Security::Encrypt,
        public: PublicAddresses {
            v4: Some("203.0.113.2".parse().unwrap()),
            v6: None,
        },
        tunnel: TunnelAddresses::default(),
        mtu: None,
        offload: true,
        ecn: true,
        threads: None,
        listen: Vec::new(),
        remote: None,
        links: Vec::new(),
        redundant: Vec::new(),
        allow: Vec::new(),
        numbers: Numbers::default(),
        manage_routing: true,
    }
}

/// The remote portal of the dissertation, with ssh and a range for mosh.
pub(crate) fn remote() -> Config {
    let port = |protocol, first, last| Keep {
        protocol,
        first,
        last,
    };
    let keep = vec![
        port(PortProtocol::Tcp, 22, 22),
        port(PortProtocol::Udp, 27000, 27100),
    ];
    Config {
        listen: [Transport::Udp, Transport::Tcp]
            .map(|transport| Listen {
                transport,
                address: None,
                port: DEFAULT_PORT,
            })
            .to_vec(),
        ..config(Role::Remote(Remote { keep }))
    }
}

/// A local portal that delivers so.
pub(crate) fn local(deliver: Deliver) -> Config {
    Config {
        remote: Some(Endpoint {
            host: "203.0.113.2".into(),
            port: DEFAULT_PORT,
        }),
        ..config(Role::Local(Local {
            deliver,
            keep: Vec::new(),
            without_tunnel: WithoutTunnel::default(),
            native_ipv6: NativeV6::default(),
        }))
    }
}

/// The local portal of the dissertation.
pub(crate) fn local_client() -> Config {
    local(Deliver::Client {
        device: name("lan"),
        gateway: "192.168.1.1".parse().unwrap(),
    })
}

/// The local portal that shares the address.
pub(crate) fn local_nat() -> Config {
    local(Deliver::Nat {
        devices: vec![name("lan")],
        forwards: Vec::new(),
    })
}

/// A link by this device, all else default.
pub(crate) fn link(device: &str) -> Link {
    Link::by(name(device))
}

/// A VPS that holds the public addresses of both families.
pub(crate) fn vps() -> Observed {
    Observed::parse(
        r#"{"links": [{"device": "eth0", "index": 2,
        "addresses": ["203.0.113.2/24", "2001:db8:2::2/64"],
        "gateways": ["203.0.113.1", "fe80::1"]}],
        "settings": {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0",
        "net.ipv6.conf.eth0.accept_ra": "1", "net.ipv4.neigh.eth0.proxy_delay": "80"}}"#,
    )
    .unwrap()
}

/// A router with two links and a LAN, strict everywhere.
pub(crate) fn router() -> Observed {
    Observed::parse(
        r#"{"links": [
        {"device": "lan", "index": 2, "addresses": ["192.168.7.1/24"]},
        {"device": "wan0", "index": 3, "addresses": ["198.51.100.7/24"],
         "gateways": ["198.51.100.1"]},
        {"device": "wan1", "index": 4, "addresses": ["192.0.2.9/30", "2001:db8:9::9/64"],
         "gateways": ["192.0.2.10", "fe80::9"]}],
        "settings": {"net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "1",
        "net.ipv4.conf.wan0.rp_filter": "1", "net.ipv4.conf.wan1.rp_filter": "0",
        "net.ipv4.conf.wan0.accept_local": "0", "net.ipv4.conf.wan1.accept_local": "0",
        "net.ipv4.conf.all.arp_announce": "2", "net.ipv4.conf.all.arp_ignore": "0"}}"#,
    )
    .unwrap()
}

/// Numbers that are clear of mwan3 and of the defaults.
pub(crate) fn moved() -> Numbers {
    Numbers {
        table_base: TableId(5500),
        keep_pref: RulePref(5401),
        link_pref: RulePref(5402),
        ..Numbers::default()
    }
}
