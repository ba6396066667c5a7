//! The host layer on a real kernel: each test in a network namespace of its own, compared with
//! what `ip` and `nft` say. Needs root, iproute2 and nftables; without root nothing is tried.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot go on has to panic"
)]

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
    // Link-local addresses lose their "tentative" after a second.
    let kernel_made = |l: &str| l.contains("fe80::") || l.starts_with("multicast ff00::/8");
    let lines = text.lines().filter(|l| !kernel_made(l));
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
            "type filter hook input priority mangle; policy accept;",
            "ip6 daddr 2001:db8:113::2 ip6 hoplimit 255 icmpv6 type 133-137 \
             meta mark set meta mark & 0xf1ffffff | 0x01000000 ",
            "ip saddr 203.0.113.2 ct state established,new ct mark set ct mark & 0xf1ffffff | 0x01000000 \
             comment \"own 203.0.113.2 16777216 251658240\"",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        reconciler.apply(&local()).await.unwrap();
        let text = run("nft", "list ruleset");
        for line in [
            "iifname \"nc0\" ip daddr 203.0.113.2 tcp dport 443 dnat ip to 192.168.1.20:8443 ",
            "iifname \"nc0\" ip6 daddr 2001:db8:113::2 tcp dport 443 dnat ip6 to [fd00::20]:8443 ",
            "oifname \"nc0\" ip saddr != 203.0.113.2 snat ip to 203.0.113.2 ",
            "oifname \"nc0\" ip6 saddr != 2001:db8:113::2 snat ip6 to 2001:db8:113::2 ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    });
}

/// Whatever somebody changes within our table, it is seen and put right.
#[test]
fn a_changed_filter_is_put_right() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let right = run("nft", "list ruleset");
        let table = "inet netcombiner-nc0";
        for change in [
            format!("delete table {table}"),
            format!("flush table {table}"),
            format!("flush chain {table} output"),
            format!("add rule {table} output drop"),
            format!("insert rule {table} output counter"),
            format!("add chain {table} other"),
            format!("add table {table} {{ flags dormant; }}"),
            format!(
                "replace rule {table} output handle 5 drop comment \"own 203.0.113.2 16777216 251658240\""
            ),
        ] {
            let change = if change.contains("handle") {
                let listed = run("nft", "-a list ruleset");
                let line = listed.lines().find(|l| l.contains("ip saddr")).unwrap();
                let handle = line.rsplit(' ').next().unwrap().to_owned();
                change.replace("handle 5", &format!("handle {handle}"))
            } else {
                change
            };
            let output = Command::new("nft").arg(&change).output().unwrap();
            assert!(output.status.success(), "{change}: {output:?}");
            let repair = reconciler.apply(&remote()).await.unwrap().executed;
            assert_eq!(repair.len(), 1, "{change}: {repair:?}");
            assert_eq!(run("nft", "list ruleset"), right, "{change}");
        }
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
                    Event::Links(_) => {}
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
        assert!(!directory.join("nc0.baseline.json").exists());

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
        assert_eq!(seen.foreign_routes.len(), 1, "{:?}", seen.foreign_routes);
        assert_eq!(seen.foreign_routes[0].table, 2);
        // As before us, although we have set it.
        assert_eq!(seen.settings["net.ipv4.ip_forward"], "0");
        assert!(seen.settings.contains_key("net.ipv4.conf.wan0.rp_filter"));
        reconciler.stop().await.unwrap();
    });
}

/// Runs `body` in another network namespace, into which this one's `device` is moved first.
fn beyond<T: Send + 'static>(
    device: &str,
    commands: &'static [&'static str],
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    let (ready, begun) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let place = std::fs::read_link("/proc/thread-self").unwrap();
        tell.send(place.file_name().unwrap().to_owned()).unwrap();
        wait.recv().unwrap();
        for command in commands {
            ip(command);
        }
        ready.send(()).unwrap();
        body()
    });
    let thread_id = told.recv().unwrap();
    ip(&format!("link set {device} netns {}", thread_id.display()));
    go.send(()).unwrap();
    begun.recv().unwrap();
    thread
}

/// Connects and reads what the other side says; 500 ms are enough for all that work here.
fn connect(from: &str, to: &str) -> std::io::Result<String> {
    let to: std::net::SocketAddr = to.parse().map_err(std::io::Error::other)?;
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        None,
    )?;
    let from: std::net::SocketAddr = (address(from), 0).into();
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_millis(500))?;
    let mut said = String::new();
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    std::io::Read::read_to_string(&mut std::net::TcpStream::from(socket), &mut said)?;
    Ok(said)
}

/// Connects, and tries again for five seconds: a device that was moved carries packets a second
/// later, and the other side may not listen yet.
fn reach(from: &str, to: &str) -> String {
    for _ in 0..50 {
        if let Ok(said) = connect(from, to) {
            return said;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    connect(from, to).unwrap()
}

/// Says to one that connects who it is seen as.
fn serve(listener: &std::net::TcpListener) {
    let (mut stream, peer) = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes()).unwrap();
}

/// With the remote portal's routing the host's own connections work, those to its kept port work,
/// and others go to the client.
#[test]
fn own_connections_come_back() {
    in_namespace(async |directory| {
        let mut reconciler = reconciler(&directory);
        reconciler.apply(&remote()).await.unwrap();
        let other = beyond(
            "wan0-other",
            &[
                "link set wan0-other up",
                "address add 203.0.113.1/24 dev wan0-other",
                "-6 address add 2001:db8:113::1/64 dev wan0-other nodad",
            ],
            || {
                for place in ["203.0.113.1:7000", "[2001:db8:113::1]:7000"] {
                    serve(&std::net::TcpListener::bind(place).unwrap());
                }
                let kept = reach("203.0.113.1", "203.0.113.2:22");
                let lost = connect("203.0.113.1", "203.0.113.2:23");
                (kept, lost)
            },
        );
        let [ssh, other_port] =
            [22, 23].map(|port| std::net::TcpListener::bind((address(PUBLIC), port)).unwrap());
        std::thread::spawn(move || serve(&ssh));
        // Without our marks the answers go to the client.
        run("nft", "flush table inet netcombiner-nc0");
        connect(PUBLIC, "203.0.113.1:7000").unwrap_err();
        reconciler.apply(&remote()).await.unwrap();
        assert_eq!(reach(PUBLIC, "203.0.113.1:7000"), PUBLIC);
        assert_eq!(reach(PUBLIC_V6, "[2001:db8:113::1]:7000"), PUBLIC_V6);
        let (kept, lost) = other.join().unwrap();
        assert_eq!(kept, "203.0.113.1");
        assert_eq!(lost.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        drop(other_port);
    });
}

/// Delivery by NAT: what leaves by the tunnel has the public address, and a handed-on port reaches
/// its machine.
#[test]
fn addresses_are_translated() {
    in_namespace(async |directory| {
        ip("link delete nc0");
        ip("link add nc0 type veth peer name nc0-other");
        ip("link set nc0 up");
        ip("address delete 203.0.113.2/24 dev wan0");
        ip("-6 address delete 2001:db8:113::2/64 dev wan0");
        ip("address add 192.168.1.20/32 dev lan");
        ip("-6 address add fd00::20/128 dev lan nodad");
        ip("-6 address add 2001:db8:9::9/64 dev nc0 nodad");
        ip("address add 198.51.100.9/24 dev nc0");
        let device = name("nc0");
        let mut clauses = std::collections::BTreeSet::new();
        for (public, inner) in [(PUBLIC, "192.168.1.20"), (PUBLIC_V6, "fd00::20")] {
            clauses.insert(FilterClause::SourceNat {
                device: device.clone(),
                address: address(public),
            });
            clauses.insert(FilterClause::Forward {
                device: device.clone(),
                address: address(public),
                forward: Forward {
                    protocol: PortProtocol::Tcp,
                    port: 443,
                    to: address(inner),
                    to_port: 8443,
                },
            });
        }
        let filter = Filter {
            tunnel: device,
            clauses,
        };
        let mut system = System::open().unwrap();
        let put = Operation::ReplaceFilter(filter.clone());
        system.execute(&put).await.unwrap();
        let inner = ["192.168.1.20:8443", "[fd00::20]:8443"]
            .map(|place| std::net::TcpListener::bind(place).unwrap());
        let other = beyond(
            "nc0-other",
            &[
                "link set nc0-other up",
                "address add 198.51.100.1/24 dev nc0-other",
                "-6 address add 2001:db8:9::1/64 dev nc0-other nodad",
                "route add 203.0.113.2 via 198.51.100.9",
                "-6 route add 2001:db8:113::2 via 2001:db8:9::9",
            ],
            || {
                let listeners = ["198.51.100.1:7000", "[2001:db8:9::1]:7000"]
                    .map(|place| std::net::TcpListener::bind(place).unwrap());
                listeners.iter().for_each(serve);
                let v4 = reach("198.51.100.1", "203.0.113.2:443");
                let v6 = reach("2001:db8:9::1", "[2001:db8:113::2]:443");
                [v4, v6]
            },
        );
        let served = std::thread::spawn(move || inner.iter().for_each(serve));
        assert_eq!(reach("192.168.1.20", "198.51.100.1:7000"), PUBLIC);
        assert_eq!(reach("fd00::20", "[2001:db8:9::1]:7000"), PUBLIC_V6);
        let [v4, v6] = other.join().unwrap();
        assert_eq!(v4, "198.51.100.1");
        assert_eq!(v6, "2001:db8:9::1");
        served.join().unwrap();
        system
            .execute(&Operation::RemoveFilter(filter))
            .await
            .unwrap();
        assert_eq!(run("nft", "list ruleset"), "");
        drop(directory);
    });
}
