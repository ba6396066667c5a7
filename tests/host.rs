//! The host layer on a real kernel: each test in a network namespace of its own, compared with
//! what `ip` and `nft` say. Needs root, iproute2 and nftables; without root nothing is tried.
#![cfg(target_os = "linux")]

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use netcombiner::config::units::{Family, IfName, Prefix, RulePref, TableId};
use netcombiner::config::{Forward, PortProtocol};
use netcombiner::host::{self, Event, Host, Reconciler, Scope, System};
use netcombiner::route::resource::{
    Address, Filter, FilterClause, LocalTable, OUR_PROTOCOL, Route, Rule, Setting,
};
use netcombiner::route::{HostState, Lookup, Operation, Resource};
use tokio::sync::mpsc;

const PUBLIC: &str = "203.0.113.2";
const PUBLIC_V6: &str = "2001:db8:113::2";

/// Runs a test in a new network namespace that has a device `wan0`, a device `lan` and a TUN `nc0`.
fn in_namespace<F, T>(test: F)
where
    F: FnOnce(PathBuf) -> T + Send + 'static,
    T: Future<Output = ()>,
{
    // Namespaces belong to threads; the device for TUNs tells whether this place has any.
    let run = tempfile();
    let directory = run.clone();
    let body = move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("not tried: no new network namespace ({error}), this test needs root");
            return;
        }
        for command in [
            "link set lo up",
            "link add wan0 type veth peer name wan0-other",
            "link add lan type veth peer name lan-other",
            "link set wan0-other up",
            "link set lan-other up",
            "tuntap add nc0 mode tun",
            "address add 203.0.113.2/24 dev wan0",
            "-6 address add 2001:db8:113::2/64 dev wan0 nodad",
            "link set wan0 up",
            "link set lan up",
            "link set nc0 up",
            "route add default via 203.0.113.1 dev wan0",
            "-6 route add default via 2001:db8:113::1 dev wan0",
        ] {
            ip(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(directory));
    };
    std::thread::spawn(body).join().unwrap();
    let _ = std::fs::remove_dir_all(run);
}

fn tempfile() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("netcombiner-host-{}-{number}", std::process::id()))
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

fn sysctl(key: &str) -> String {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Everything of the host that could be left behind, as text.
fn snapshot() -> String {
    let mut text = String::new();
    for command in [
        "-d -4 rule show",
        "-d -6 rule show",
        "-d -4 route show table all",
        "-d -6 route show table all",
        "-o address show",
    ] {
        text += &ip(command);
    }
    // The kernel makes a device's multicast route with its first address and keeps it.
    let lines = text
        .lines()
        .filter(|l| !l.starts_with("multicast ff00::/8 dev nc0"));
    let mut text: String = lines.map(|l| format!("{l}\n")).collect();
    text += &run("nft", "list ruleset");
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        text += &format!("{key} = {}\n", sysctl(key));
    }
    text
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn public(family: Family) -> IpAddr {
    address(match family {
        Family::V4 => PUBLIC,
        Family::V6 => PUBLIC_V6,
    })
}

fn rule(family: Family, pref: u32, table: TableId) -> Rule {
    Rule::new(family, RulePref(pref), table)
}

fn setting(key: &str, value: &str) -> Resource {
    Resource::Setting(Setting::new(key, value))
}

/// What a remote portal wants, in both families.
fn remote() -> HostState {
    let mut state: HostState = [
        setting("net.ipv4.ip_forward", "1"),
        setting("net.ipv6.conf.all.forwarding", "1"),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("172.19.152.2/32"),
            peer: Some(address("172.19.152.3")),
        }),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("fd6e:6362::2/64"),
            peer: None,
        }),
    ]
    .into_iter()
    .collect();
    let mut clauses = std::collections::BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let public = public(family);
        let to = Some(Prefix::host(public));
        state.insert(Resource::Route(Route {
            table: TableId(19),
            destination: Prefix::host(public),
            via: Some(address(match family {
                Family::V4 => "172.19.152.3",
                Family::V6 => "fd6e:6362::3",
            })),
            device: name("nc0"),
            source: None,
            onlink: family == Family::V4,
        }));
        state.insert(Resource::LocalTable(LocalTable {
            family,
            pref: RulePref(20),
        }));
        for (protocol, ports) in [
            (PortProtocol::Tcp, (22, 22)),
            (PortProtocol::Udp, (60000, 61000)),
        ] {
            state.insert(Resource::Rule(Rule {
                to,
                protocol: Some(protocol),
                ports: Some(ports),
                ..rule(family, 1, TableId::LOCAL)
            }));
        }
        state.insert(Resource::Rule(Rule {
            to,
            mark: Some((0x0100_0000, 0x0f00_0000)),
            ..rule(family, 1, TableId::LOCAL)
        }));
        state.insert(Resource::Rule(Rule {
            to,
            ..rule(family, 19, TableId(19))
        }));
        clauses.insert(FilterClause::MarkOwn {
            address: public,
            mark: 0x0100_0000,
            mask: 0x0f00_0000,
        });
    }
    state.insert(Resource::Filter(Filter {
        tunnel: name("nc0"),
        clauses,
    }));
    state
}

/// What a local portal wants that delivers by NAT, with the rules of a client as well, so that
/// every selector is used.
fn local() -> HostState {
    let mut clauses = std::collections::BTreeSet::new();
    let mut state: HostState = [
        setting("net.ipv4.ip_forward", "1"),
        setting("net.ipv4.conf.all.arp_announce", "1"),
        Resource::Address(Address {
            device: name("lan"),
            prefix: prefix("192.168.1.1/32"),
            peer: None,
        }),
        Resource::Address(Address {
            device: name("nc0"),
            prefix: prefix("198.51.100.9/32"),
            peer: None,
        }),
    ]
    .into_iter()
    .collect();
    for (family, gateway, own, inner) in [
        (Family::V4, "203.0.113.1", "203.0.113.2", "192.168.1.20"),
        (Family::V6, "2001:db8:113::1", "2001:db8:113::2", "fd00::20"),
    ] {
        state.insert(Resource::Route(Route {
            table: TableId(28260),
            destination: Prefix::default_of(family),
            via: Some(address(gateway)),
            device: name("wan0"),
            source: Some(address(own)),
            onlink: false,
        }));
        state.insert(Resource::Route(Route {
            table: TableId(20),
            destination: Prefix::default_of(family),
            via: None,
            device: name("nc0"),
            source: None,
            onlink: false,
        }));
        state.insert(Resource::Rule(Rule {
            oif: Some(name("wan0")),
            ..rule(family, 10, TableId(28260))
        }));
        state.insert(Resource::Rule(Rule {
            from: Some(Prefix::host(address(own))),
            iif: Some(name("lan")),
            ..rule(family, 20, TableId(20))
        }));
        state.insert(Resource::Rule(Rule {
            suppress_prefix_length: Some(0),
            ..rule(family, 18, TableId::MAIN)
        }));
        clauses.insert(FilterClause::SourceNat {
            device: name("nc0"),
            address: address(own),
        });
        clauses.insert(FilterClause::Forward {
            device: name("nc0"),
            address: address(own),
            forward: Forward {
                protocol: PortProtocol::Tcp,
                port: 443,
                to: address(inner),
                to_port: 8443,
            },
        });
    }
    state.insert(Resource::Filter(Filter {
        tunnel: name("nc0"),
        clauses,
    }));
    state
}

fn reconciler(directory: &Path) -> Reconciler<System> {
    Reconciler::open(System::open().unwrap(), &name("nc0"), directory).unwrap()
}

/// Everything of ours, read anew.
async fn observed(state: &HostState) -> HostState {
    let scope = Scope::of(&name("nc0"), [state]);
    System::open().unwrap().observe(&scope).await.unwrap()
}

fn json(arguments: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&ip(arguments)).unwrap()
}

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
        assert!(directory.join("nc0.baseline.json").exists());
        reconciler.stop().await.unwrap();
        assert_eq!(snapshot(), before);
        assert!(!directory.join("nc0.baseline.json").exists());
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

#[test]
fn the_filter_is_what_nft_reads() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let text = run("nft", "list ruleset");
        for line in [
            "table inet netcombiner-nc0 {",
            "type filter hook output priority mangle; policy accept;",
            "type filter hook prerouting priority mangle; policy accept;",
            "ip saddr 203.0.113.2 ct state new ct mark set ct mark & 0xf1ffffff | 0x01000000 \
             comment \"own 203.0.113.2 16777216 251658240\"",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        println!("{text}");
        reconciler.apply(&local()).await.unwrap();
        println!("{}", run("nft", "list ruleset"));
    });
}
