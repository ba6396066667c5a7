//! The client owns an IPv6 address of the remote portal, beside its IPv4 one.

use std::net::{IpAddr, Ipv6Addr};

use netcombiner_lab::net::{Netlink, VethEnd};
use netcombiner_lab::prelude::*;

use super::support::kernel::{rules_of, sh};
use super::support::{Answers, Case, Outcome, Setup, Talk, Watch, case};

/// What the remote portal and the client own.
pub(super) const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2);

/// IPv6 at the edges of the lab; the links stay IPv4.
pub(super) fn furnish(case: &Case) -> Result<(), Error> {
    let lab = &case.lab;
    lab.internet.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    for (host, line) in [
        // Routers ask for neighbours from their link-local addresses, which the lab leaves out.
        (&lab.internet, "address add fe80::1/64 dev remote"),
        (&lab.internet, "address add fe80::1/64 dev server"),
        (&lab.remote, "address add fe80::2/64 dev eth0"),
        (&lab.server, "address add fe80::2/64 dev eth0"),
        (&lab.internet, "address add 2001:db8:113::1/64 dev remote"),
        (&lab.internet, "address add 2001:db8:51::1/64 dev server"),
        (&lab.remote, "address add 2001:db8:113::2/64 dev eth0"),
        (&lab.remote, "route add default via 2001:db8:113::1"),
        (&lab.server, "address add 2001:db8:51::2/64 dev eth0"),
        (&lab.server, "route add default via 2001:db8:51::1"),
        (&lab.local, "address add fe80::1/64 dev lan"),
        (&lab.client, "address add fe80::2/64 dev eth0"),
        (
            &lab.client,
            "address add 2001:db8:113::2/128 dev eth0 nodad",
        ),
        (
            &lab.client,
            "route add default via fe80::1 dev eth0 src 2001:db8:113::2",
        ),
    ] {
        sh(host, &format!("ip -6 {line}"))?;
    }
    Ok(())
}

/// Both portals' configurations name both addresses.
pub(super) fn both_addresses(case: &Case) -> Outcome {
    for side in Side::BOTH {
        let one = format!("public_address = \"{PUBLIC}\"");
        let both = format!("public_address = [\"{PUBLIC}\", \"{PUBLIC_V6}\"]");
        case.rewrite(side, |text| text.replace(&one, &both))?;
    }
    Ok(())
}

#[test]
fn the_client_owns_both_addresses() {
    case(Setup::default(), |case| -> Outcome {
        furnish(case)?;
        both_addresses(case)?;
        let lab = &case.lab;
        let before = Side::BOTH.map(|side| host_state(lab.host(side)));
        let ssh = Answers::start(&lab.remote, PUBLIC_V6, 22)?;
        let mut lasting = Talk::open(&lab.server, ssh.address())?;
        let (remote, local) = case.up()?;

        let on_remote = rules_of(&lab.remote, 6)?;
        for rule in [
            "rule lookup local pref 20",
            "rule lookup 19 pref 19 protocol 98 to 2001:db8:113::2",
        ] {
            assert!(on_remote.contains(rule), "no {rule:?} in {on_remote:#?}");
        }

        let service = Answers::start(&lab.server, SERVER_V6, 80)?;
        let mut out = Talk::open(&lab.client, service.address())?;
        let client = Answers::start(&lab.client, PUBLIC_V6, 8080)?;
        let mut inward = Talk::open(&lab.server, client.address())?;
        let mut own = Talk::open(&lab.remote, service.address())?;
        let mut kept = Talk::open(&lab.server, ssh.address())?;
        let v4 = Answers::start(&lab.server, SERVER, 80)?;
        let mut beside = Talk::open(&lab.client, v4.address())?;
        let public = IpAddr::from(PUBLIC_V6);
        for _ in 0..20 {
            assert_eq!(out.ask()?, format!("server to {public}"));
            assert_eq!(inward.ask()?, format!("client to {SERVER_V6}"));
            assert_eq!(own.ask()?, format!("server to {public}"));
            assert_eq!(kept.ask()?, format!("remote to {SERVER_V6}"));
            assert_eq!(lasting.ask()?, format!("remote to {SERVER_V6}"));
            assert_eq!(beside.ask()?, format!("server to {PUBLIC}"));
        }

        local.stop()?;
        remote.stop()?;
        for (side, before) in Side::BOTH.into_iter().zip(before) {
            let differences = before?.differences(&host_state(lab.host(side))?);
            assert_eq!(differences, [""; 0], "{side:?}");
        }
        lasting.ask()?;
        Ok(())
    });
}

/// A LAN with IPv6 of the provider's own: the machine is the lab's client.
pub(super) fn native(case: &Case) -> Result<(), Error> {
    let lab = &case.lab;
    for router in [&lab.internet, &lab.local] {
        router.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    for (host, line) in [
        (&lab.internet, "address add fe80::1/64 dev server"),
        (&lab.internet, "address add 2001:db8:51::1/64 dev server"),
        (&lab.server, "address add fe80::2/64 dev eth0"),
        (&lab.server, "address add 2001:db8:51::2/64 dev eth0"),
        (&lab.server, "route add default via 2001:db8:51::1"),
        (&lab.internet, "address add fe80::1/64 dev link0"),
        (&lab.internet, "address add 2001:db8:a0::1/64 dev link0"),
        (&lab.local, "address add fe80::2/64 dev wan0"),
        (&lab.local, "address add 2001:db8:a0::2/64 dev wan0"),
        (&lab.local, "route add default via 2001:db8:a0::1"),
        (
            &lab.internet,
            "route add 2001:db8:77::/64 via 2001:db8:a0::2",
        ),
        (&lab.local, "address add fe80::1/64 dev lan"),
        (&lab.local, "address add 2001:db8:77::1/64 dev lan"),
        (&lab.client, "address add fe80::2/64 dev eth0"),
        (&lab.client, "address add 2001:db8:77::2/64 dev eth0 nodad"),
        (&lab.client, "route add default via 2001:db8:77::1"),
    ] {
        sh(host, &format!("ip -6 {line}"))?;
    }
    Ok(())
}

/// Field row D7: the LAN's IPv6 goes around the tunnel, unless that is closed.
#[test]
fn the_native_ipv6_of_the_lan_can_be_closed() {
    let nat = "deliver = \"nat\"\nlan = { device = \"lan\" }";
    for (deliver, key, open) in [
        (Some(nat), "native_ipv6 = \"block\"", false),
        (None, "native_ipv6 = \"block\"", false),
        (Some(nat), "", true),
    ] {
        let mut setup = Setup::default();
        setup.options.deliver = deliver.map(str::to_owned);
        setup.options.local = key.into();
        case(setup, |case| -> Outcome {
            let lab = &case.lab;
            native(case)?;
            let service = Answers::start(&lab.server, SERVER_V6, 80)?;
            let limit = Duration::from_secs(2);
            let reaches =
                |host: &Namespace| Talk::open_within(host, service.address(), limit).is_ok();
            assert!(reaches(&lab.client));
            let (_remote, local) = case.up()?;
            let packets = "iifname link0 ip6 saddr 2001:db8:77::2";
            let seen = Watch::start(&lab.internet, "prerouting", packets)?;
            assert_eq!(reaches(&lab.client), open, "{deliver:?}");
            assert_eq!(seen.packets()? > 0, open, "{deliver:?}");
            // The router's own is not the LAN's.
            assert!(reaches(&lab.local));
            local.stop()?;
            assert!(reaches(&lab.client));
            Ok(())
        });
    }
}

/// Field row D7: also by a device that is no link, whose IPv6 is only advertised and whose IPv4 network is private
/// (the modem's page, or a DHCP server's lie).
#[test]
fn the_native_ipv6_is_closed_where_it_is_only_advertised() {
    case(Setup::nat("native_ipv6 = \"block\""), |case| -> Outcome {
        let lab = &case.lab;
        native(case)?;
        let end = |namespace, device| VethEnd { namespace, device };
        Netlink::add_veth(end(&lab.local, "wan2"), end(&lab.internet, "third"))?;
        for (host, line) in [
            (&lab.internet, "link set third up"),
            (&lab.internet, "address add fe80::1/64 dev third nodad"),
            (&lab.local, "link set wan2 up"),
            (&lab.local, "address add 192.168.100.2/24 dev wan2"),
            (&lab.local, "address add fe80::2/64 dev wan2 nodad"),
            (&lab.local, "-6 route del default via 2001:db8:a0::1"),
            (
                &lab.local,
                "-6 route add default via fe80::1 dev wan2 proto ra",
            ),
        ] {
            sh(host, &format!("ip {line}"))?;
        }
        let service = Answers::start(&lab.server, SERVER_V6, 80)?;
        let limit = Duration::from_secs(2);
        let reaches = || Talk::open_within(&lab.client, service.address(), limit).is_ok();
        assert!(reaches());
        let packets = "iifname third ip6 saddr 2001:db8:77::2";
        let (_remote, local) = case.up()?;
        let seen = Watch::start(&lab.internet, "prerouting", packets)?;
        assert!(!reaches());
        assert_eq!(seen.packets()?, 0);
        local.stop()?;
        assert!(reaches());
        Ok(())
    });
}
