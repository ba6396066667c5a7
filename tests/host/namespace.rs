//! A network namespace for a test, and what it looks like.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use netcombiner::config::units::{Family, IfName, Prefix};
use netcombiner::host::{Host, Reconciler, Scope, System};
use netcombiner::route::HostState;

pub(crate) const PUBLIC: &str = "203.0.113.2";
pub(crate) const PUBLIC_V6: &str = "2001:db8:113::2";

/// Runs a test in a new network namespace that has a device `wan0`, a device `lan` and a TUN `nc0`.
pub(crate) fn in_namespace<F, T>(test: F)
where
    F: FnOnce(PathBuf) -> T + Send + 'static,
    T: Future<Output = ()>,
{
    // A namespace belongs to a thread.
    let run = tempfile();
    let directory = run.clone();
    let body = move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            panic!("no new network namespace ({error}): run as root, or by tests/all");
        }
        // A new namespace has the machine's settings, which Docker for one has changed.
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            set_sysctl(key, "0");
        }
        for key in ["all", "default"].map(|it| format!("net.ipv4.conf.{it}.rp_filter")) {
            set_sysctl(&key, "0");
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
        // The kernel enters an address into its tables when it has seen the device's carrier.
        while !ip("-6 route show table local").contains(PUBLIC_V6) {
            std::thread::sleep(std::time::Duration::from_millis(10));
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

pub(crate) fn tempfile() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("netcombiner-host-{}-{number}", std::process::id()))
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
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

pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub(crate) fn sysctl(key: &str) -> String {
    std::fs::read_to_string(sysctl_file(key))
        .unwrap()
        .trim()
        .to_owned()
}

fn set_sysctl(key: &str, value: &str) {
    std::fs::write(sysctl_file(key), value).unwrap();
}

fn sysctl_file(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

/// Everything of the host that could be left behind, as text.
pub(crate) fn snapshot() -> String {
    let mut text = String::new();
    for command in [
        "-d -4 rule show",
        "-d -6 rule show",
        "-d -4 route show table all",
        "-d -6 route show table all",
        "-o address show",
        "neighbour show proxy",
    ] {
        text += &ip(command);
    }
    // The kernel makes a device's multicast route with its first address and keeps it.
    // Link-local addresses lose their "tentative" after a second.
    let kernel_made = |l: &str| l.contains("fe80::") || l.starts_with("multicast ff00::/8");
    let lines = text.lines().filter(|l| !kernel_made(l));
    let mut text: String = lines.map(|l| format!("{l}\n")).collect();
    text += &run("nft", "list ruleset");
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.accept_redirects",
        "net.ipv4.conf.default.forwarding",
        "net.ipv4.conf.lan.forwarding",
        "net.ipv4.conf.wan0.forwarding",
        "net.ipv4.neigh.wan0.proxy_delay",
        "net.ipv6.conf.all.forwarding",
        "net.ipv6.conf.default.forwarding",
        "net.ipv6.conf.lan.forwarding",
    ] {
        text += &format!("{key} = {}\n", sysctl(key));
    }
    text
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn public(family: Family) -> IpAddr {
    address(match family {
        Family::V4 => PUBLIC,
        Family::V6 => PUBLIC_V6,
    })
}

pub(crate) fn reconciler(directory: &Path) -> Reconciler<System> {
    Reconciler::open(System::open().unwrap(), &name("nc0"), directory).unwrap()
}

/// Everything of ours, read again.
pub(crate) async fn observed(state: &HostState) -> HostState {
    let scope = Scope::of(&name("nc0"), [state]);
    System::open().unwrap().observe(&scope).await.unwrap()
}

pub(crate) fn json(arguments: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&ip(arguments)).unwrap()
}
