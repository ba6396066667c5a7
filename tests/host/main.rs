//! The host layer on a real kernel: each test in a network namespace of its own, compared with
//! what `ip` and `nft` say. Needs root, iproute2 and nftables; without root they fail.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot go on has to panic"
)]

mod down;
mod filter;
mod foreign_filter;
mod guard;
mod hidden;
mod hops;
mod kept;
mod kernel_habits;
mod namespace;
mod portals;
mod session;
#[path = "../config/support.rs"]
mod support;
mod traffic;

use std::time::Duration;

use netcombiner::config::PortProtocol;
use netcombiner::config::units::{Family, IfName, TableId};
use netcombiner::host::{self, Event, Host, System};
use netcombiner::route::links::Flaw;
use netcombiner::route::resource::OUR_PROTOCOL;
use netcombiner::route::{HostState, Lookup, Operation, Resource};
use tokio::sync::mpsc;

use namespace::{
    address, in_namespace, ip, json, name, observed, public, reconciler, snapshot, sysctl,
};
use portals::{local, remote};

#[test]
fn a_remote_portal_comes_and_goes() {
    in_namespace(async |directory| {
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        let outcome = reconciler.apply(&remote()).await.unwrap();
        assert!(!outcome.executed.is_empty());
        assert_eq!(observed(&remote()).await, remote());

        for family in ["-4", "-6"] {
            let rules = json(&format!("-j -d {family} rule show"));
            let local: Vec<_> = rules.iter().filter(|r| r["table"] == "local").collect();
            let moved: Vec<_> = local.iter().filter(|r| r["priority"] != 1).collect();
            assert_eq!(moved.len(), 1, "{rules:?}");
            assert_eq!(moved[0]["priority"], 20);
            assert_eq!(moved[0]["protocol"], "kernel");
            let kept = local.iter().find(|r| r["ipproto"] == "tcp").unwrap();
            assert_eq!(kept["protocol"], OUR_PROTOCOL.to_string());
            assert_eq!((&kept["priority"], &kept["dport"]), (&1.into(), &22.into()));
            let routes = json(&format!("-j -d {family} route show table 19"));
            assert_eq!(routes.len(), 1);
            assert_eq!(routes[0]["dev"], "nc0");
            assert_eq!(routes[0]["protocol"], OUR_PROTOCOL.to_string());
        }
        assert_eq!(sysctl("net.ipv4.ip_forward"), "1");

        // The same again is nothing to do.
        assert!(
            reconciler
                .apply(&remote())
                .await
                .unwrap()
                .executed
                .is_empty()
        );
        assert!(directory.join("nc0.baseline").exists());
        reconciler.stop().await.unwrap();
        assert_eq!(snapshot(), before);
        assert!(!directory.join("nc0.baseline").exists());
    });
}

#[test]
fn a_local_portal_comes_and_goes() {
    in_namespace(async |directory| {
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&local()).await.unwrap();
        assert_eq!(observed(&local()).await, local());
        let default = json("-j route show table 28260");
        assert_eq!(default[0]["gateway"], "203.0.113.1");
        assert_eq!(default[0]["prefsrc"], "203.0.113.2");
        assert_eq!(sysctl("net.ipv4.conf.all.arp_announce"), "1");
        // From one desired state to another, without a stop between.
        reconciler.apply(&remote()).await.unwrap();
        assert_eq!(observed(&remote()).await, remote());
        assert_eq!(sysctl("net.ipv4.conf.all.arp_announce"), "0");
        reconciler.apply(&local()).await.unwrap();
        reconciler.stop().await.unwrap();
        assert_eq!(snapshot(), before);
    });
}

/// `mwan3 stop` deletes rules and flushes tables; the loop brings ours back.
#[test]
fn what_is_flushed_returns() {
    in_namespace(async |directory| {
        let before = snapshot();
        let reconciler = reconciler(&directory);
        let (commands, commanded) = mpsc::channel(1);
        let (tell, mut told) = mpsc::unbounded_channel();
        let kept = reconciler.run(|_| remote(), commanded, tell);
        let script = async {
            let mut changed = async || loop {
                match told.recv().await.unwrap() {
                    Event::Changed(outcome) => return outcome.executed,
                    Event::Links(_) | Event::Looked | Event::Sound => {}
                    Event::Failed(reason) => panic!("{reason}"),
                }
            };
            changed().await;
            for flush in [
                "-4 route flush table 19",
                "-6 route flush table 19",
                "-4 rule delete pref 19",
                "-6 rule delete pref 1",
                "address delete 172.19.152.2 peer 172.19.152.3 dev nc0",
            ] {
                ip(flush);
                let repair = tokio::time::timeout(Duration::from_secs(1), changed());
                let repair = repair.await.expect("it returns within a second");
                assert!(!repair.is_empty());
                assert_eq!(observed(&remote()).await, remote(), "{flush}");
            }
            // Nothing of others brings us to work: a change that is not ours is no event.
            ip("rule add pref 500 to 192.0.2.9 lookup main");
            tokio::time::sleep(Duration::from_millis(600)).await;
            ip("rule delete pref 500");
            commands.send(host::Command::Stop).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(kept, script);
        outcome.unwrap();
        assert_eq!(snapshot(), before);
    });
}

/// A killed instance's leftovers are taken over or cleared away, and its baseline is believed.
#[test]
fn a_killed_instance_is_cleaned_up_after() {
    in_namespace(async |directory| {
        let before = snapshot();
        reconciler(&directory).apply(&remote()).await.unwrap();
        // Killed in the middle of the move: both local rules stand.
        ip("-4 rule add pref 0 lookup local protocol kernel");
        let mut next = reconciler(&directory);
        assert_eq!(
            next.links().await.unwrap().settings["net.ipv4.ip_forward"],
            "0"
        );
        next.apply(&remote()).await.unwrap();
        assert_eq!(observed(&remote()).await, remote());
        drop(next);
        // The tunnel went with the process, and its routes with it.
        ip("link delete nc0");
        reconciler(&directory).stop().await.unwrap();
        let gone = |text: &str| {
            let lines = text.lines().filter(|line| !line.contains("nc0"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(gone(&snapshot()), gone(&before));
    });
}

#[test]
fn what_is_not_ours_stays() {
    in_namespace(async |directory| {
        ip("rule add pref 1 to 203.0.113.2 ipproto tcp dport 22 lookup 77");
        ip("route add 192.0.2.0/24 dev lan table 19");
        ip("address add 192.168.1.1/32 dev lan");
        ip("neighbour add proxy 203.0.113.2 dev lan");
        ip("neighbour add proxy 203.0.113.2 dev wan0");
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        reconciler.apply(&local()).await.unwrap();
        reconciler.apply(&remote()).await.unwrap();
        reconciler.stop().await.unwrap();
        assert_eq!(snapshot(), before);
    });
}

/// The kernel refuses in the middle: the host is as before, and the error names the step.
#[test]
fn a_refusal_leaves_the_host_as_before() {
    in_namespace(async |directory| {
        // Somebody's route stands where ours has to: the kernel takes no second one.
        ip("route add 203.0.113.2 dev lan table 19");
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        let error = reconciler.apply(&remote()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(
                "ip -4 route add 203.0.113.2 via 172.19.152.3 dev nc0 onlink table 19 proto 98: \
                 File exists (os error 17)"
            ),
            "{error}"
        );
        assert!(error.ends_with("the host is as it was before"), "{error}");
        assert_eq!(snapshot(), before);
        assert!(!directory.join("nc0.baseline").exists());

        ip("route delete 203.0.113.2 dev lan table 19");
        ip("link delete nc0");
        let before = snapshot();
        let error = reconciler.apply(&remote()).await.unwrap_err().to_string();
        assert!(error.contains("No such device (os error 19)"), "{error}");
        assert_eq!(snapshot(), before);
    });
}

/// Without its keep rule ssh would be lost: the look-up says so, and the local rule comes back.
#[test]
fn look_ups_are_answered() {
    in_namespace(async |_| {
        let mut system = System::open().unwrap();
        for (family, other, iif) in [
            (Family::V4, "198.51.100.1", None),
            (Family::V6, "2001:db8:ffff::1", Some(name("wan0"))),
        ] {
            let mut ask = async |to, table, iif: Option<IfName>| {
                let lookup = Lookup {
                    to,
                    iif,
                    port: Some((PortProtocol::Tcp, 22)),
                    table,
                };
                system.execute(&Operation::Verify(lookup)).await
            };
            ask(public(family), TableId::LOCAL, None).await.unwrap();
            ask(public(family), TableId::LOCAL, Some(name("wan0")))
                .await
                .unwrap();
            ask(address(other), TableId::MAIN, None).await.unwrap();
            let error = ask(address(other), TableId::LOCAL, None).await.unwrap_err();
            assert!(error.to_string().contains("answers table main"), "{error}");
            let flag = if family == Family::V4 { "-4" } else { "-6" };
            ip(&format!(
                "{flag} rule add pref 5 to {other} ipproto tcp dport 22 lookup 77"
            ));
            ip(&format!("{flag} route add {other} dev lan table 77"));
            ask(address(other), TableId(77), None).await.unwrap();
            ask(address(other), TableId::MAIN, iif).await.unwrap_err();
        }
    });
}

/// A route of ours changes its next hop in one step, and every kind of operation is carried out.
#[test]
fn a_route_is_replaced() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&local()).await.unwrap();
        let mut moved = HostState::new();
        for mut resource in local().iter().cloned() {
            if let Resource::Route(route) = &mut resource
                && route.table == TableId(28260)
            {
                route.via = Some(match route.destination.family() {
                    Family::V4 => address("203.0.113.254"),
                    Family::V6 => address("2001:db8:113::254"),
                });
            }
            moved.insert(resource);
        }
        let steps = reconciler.apply(&moved).await.unwrap().executed;
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert!(
            steps.iter().all(|step| step.contains("route replace")),
            "{steps:?}"
        );
        assert_eq!(observed(&moved).await, moved);
        reconciler.stop().await.unwrap();
    });
}

#[test]
fn links_are_seen() {
    in_namespace(async |directory| {
        ip("link set lan mtu 1492");
        ip("address add 192.168.7.1/24 dev lan");
        // As mwan3 does: the second link's gateway stands in another table alone.
        ip("route add default via 192.168.7.254 dev lan table 2");
        ip("rule add pref 2002 fwmark 0x200/0x3f00 lookup 2");
        // Somebody's own, beside those that the kernel made of the addresses.
        ip("route add 198.18.0.0/15 dev lan");
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let seen = reconciler.links().await.unwrap();
        assert!(seen.link(&name("nc0")).is_none());
        assert!(seen.link(&name("lo")).is_none());
        let wan = seen.link(&name("wan0")).unwrap();
        assert!(wan.up && wan.holds(public(Family::V4)).is_some());
        assert_eq!(
            wan.gateways,
            [address("203.0.113.1"), address("2001:db8:113::1")]
        );
        let lan = seen.link(&name("lan")).unwrap();
        assert_eq!(
            (lan.mtu, &lan.gateways[..]),
            (1492, &[address("192.168.7.254")][..])
        );
        assert_eq!(seen.foreign_rules.len(), 1, "{:?}", seen.foreign_rules);
        assert_eq!(seen.foreign_rules[0].pref, 2002);
        assert_eq!(seen.foreign_rules[0].table, Some(2));
        assert_eq!(seen.foreign_rules[0].mark, Some((0x200, 0x3f00)));
        assert_eq!(seen.foreign_routes.len(), 2, "{:?}", seen.foreign_routes);
        let tables = [0, 1].map(|place| seen.foreign_routes[place].table);
        assert_eq!(tables, [2, 254]);
        // As before us, although we have set it.
        assert_eq!(seen.settings["net.ipv4.ip_forward"], "0");
        assert!(seen.settings.contains_key("net.ipv4.conf.wan0.rp_filter"));
        reconciler.stop().await.unwrap();
    });
}

/// Field rows C2 and C7: what is wrong with an address, and what a device is, as the kernel says it.
#[test]
fn flaws_of_addresses_and_kinds_of_devices_are_seen() {
    in_namespace(async |directory| {
        let life = "valid_lft 3600 preferred_lft";
        ip(&format!(
            "address add 2001:db8:7::1/64 dev lan {life} 3600 nodad"
        ));
        ip(&format!(
            "address add 2001:db8:7::2/64 dev lan {life} 0 nodad"
        ));
        ip(&format!("address add 192.168.7.1/24 dev lan {life} 3600"));
        ip(&format!("address add 192.168.7.2/24 dev lan {life} 0"));
        let mut reconciler = reconciler(&directory);
        let seen = reconciler.links().await.unwrap();
        let lan = seen.link(&name("lan")).unwrap();
        let flaws: Vec<_> = lan.flaws.iter().map(|(own, flaw)| (*own, *flaw)).collect();
        // The second of a network is "secondary" by the bit that says "temporary" for IPv6.
        let wanted = ["192.168.7.2", "2001:db8:7::2"].map(|it| (address(it), Flaw::Deprecated));
        assert_eq!(flaws, wanted);
        assert_eq!(lan.kind, "veth");
    });
}

/// `manage_routing = false`: the tunnel has its addresses; what the administrator puts beside them
/// stays, even what he copies from `plan` with our mark in it.
#[test]
fn hands_off_means_hands_off() {
    in_namespace(async |directory| {
        let addresses = remote();
        let addresses = addresses
            .iter()
            .filter(|resource| matches!(resource, Resource::Address(_)))
            .cloned();
        let wanted: HostState = addresses.collect();
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&wanted).await.unwrap();
        assert_eq!(observed(&wanted).await, wanted);
        let own = [
            "address add 192.0.2.77/24 dev nc0",
            "route add 203.0.113.2 dev nc0 table 19 proto 98",
            "rule add pref 19 to 203.0.113.2 lookup 19 protocol 98",
        ];
        own.iter().for_each(|command| drop(ip(command)));
        let mine = snapshot();
        assert!(reconciler.apply(&wanted).await.unwrap().executed.is_empty());
        assert_eq!(snapshot(), mine);
        reconciler.stop().await.unwrap();
        assert!(!ip("address show dev nc0").contains("172.19"));
        for command in own.iter().rev() {
            ip(&command.replace(" add ", " del "));
        }
        assert_eq!(snapshot(), before);
    });
}

/// wg-quick and OpenVPN: their default route must not make their device a link of ours.
#[test]
fn a_default_route_into_another_tunnel_is_no_way_out() {
    in_namespace(async |directory| {
        ip("tuntap add vpn0 mode tun");
        ip("link set vpn0 up");
        ip("address add 10.8.0.2/24 dev vpn0");
        ip("route add default dev vpn0 table 51820");
        ip("address add 192.0.2.7/32 dev lo");
        let seen = reconciler(&directory).links().await.unwrap();
        assert!(!seen.link(&name("vpn0")).unwrap().has_default());
        assert!(seen.link(&name("wan0")).unwrap().has_default());
        assert_eq!(seen.loopback, [namespace::prefix("192.0.2.7/32")]);
    });
}

/// A machine of a LAN sends router's advertisements: its network is no way out because of that.
#[test]
fn what_a_machine_of_a_lan_advertises_is_no_way_out() {
    in_namespace(async |directory| {
        let advertise = |device: &str, metric: u32| {
            let way = format!("via fe80::1 dev {device} metric {metric} proto ra");
            ip(&format!("-6 route add default {way}"));
        };
        let has_default = async |device: &str| {
            let seen = reconciler(&directory).links().await.unwrap();
            let link = seen.link(&name(device)).unwrap();
            assert!(link.gateways.contains(&address("fe80::1")), "{link:?}");
            link.has_default()
        };
        advertise("lan", 9);
        // By itself it may be a provider's network, with IPv6 alone.
        assert!(has_default("lan").await);
        ip("address add 192.168.9.1/24 dev lan");
        assert!(!has_default("lan").await);
        // With an IPv4 default route it is one, as a network behind a provider's router.
        ip("route add default via 192.168.9.2 dev lan metric 9");
        assert!(has_default("lan").await);
        ip("route del default via 192.168.9.2 dev lan metric 9");
        // So is one whose default route somebody typed.
        ip("-6 route add default via fe80::2 dev lan metric 10");
        assert!(has_default("lan").await);
        // A public network is one.
        advertise("wan0", 11);
        ip("route del default via 203.0.113.1 dev wan0");
        ip("-6 route del default via 2001:db8:113::1 dev wan0");
        assert!(has_default("wan0").await);
    });
}
