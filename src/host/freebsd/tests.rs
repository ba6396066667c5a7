//! The reconciler on programs that behave as those of a real FreeBSD 15.1 did, and print what it
//! printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::route::cases;

const DEVICES: &str = include_str!("testdata/ifconfig-none.txt");
const ROUTES: &str = include_str!("testdata/netstat-none.txt");
const INFO: &str = include_str!("testdata/pfctl-info.txt");
const RULES: &str = include_str!("testdata/pfctl-rules.txt");
const NAT: &str = include_str!("testdata/pfctl-nat.txt");

/// A host of its own.
struct Host(PathBuf);

impl Host {
    /// A router with two WANs of which one has the default route, and a device nc0 that was just
    /// made.
    fn new(name: &str) -> Self {
        let name = format!("netcombiner-freebsd-{name}-{}", std::process::id());
        let host = Self(std::env::temp_dir().join(name));
        let _ = fs::remove_dir_all(&host.0);
        fs::create_dir_all(host.0.join("run")).unwrap();
        let programs =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/freebsd/testdata/programs");
        for program in ["ifconfig", "netstat", "route", "sysctl", "sysrc", "pfctl"] {
            symlink(&programs, host.0.join(program)).unwrap();
        }
        let no_address = |line: &&str| !line.contains("172.19.152.3");
        let devices: Vec<_> = DEVICES.lines().filter(no_address).collect();
        host.write("devices", &devices.join("\n"));
        let no_tunnel = |line: &&str| !line.contains("172.19.152");
        let routes: Vec<_> = ROUTES.lines().filter(no_tunnel).collect();
        host.write("routes.inet", &format!("{}\n", routes.join("\n")));
        host.write("routes.inet6", "Internet6:\n");
        host.write("net.inet.ip.forwarding", "0\n");
        host.write("net.inet6.ip6.forwarding", "0\n");
        host.write("info", &format!("{INFO}Reassemble          yes\n"));
        host.write("rules", RULES);
        host.write("nat", NAT);
        host
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }

    /// All that can be seen of it.
    fn look(&self) -> Vec<String> {
        let files = [
            "devices",
            "routes.inet",
            "routes.inet6",
            "net.inet.ip.forwarding",
            "net.inet6.ip6.forwarding",
            "anchor",
        ];
        files
            .map(|file| self.read(file).trim_end().to_owned())
            .to_vec()
    }

    /// The commands since this was asked last.
    fn calls(&self) -> Vec<String> {
        let calls = self.read("calls");
        self.write("calls", "");
        let changes = |line: &&str| {
            let questions = ["ifconfig -a", "netstat", "sysctl -n", "sysrc"];
            !questions.iter().any(|it| line.starts_with(it)) && !line.contains(" -s ")
        };
        calls.lines().filter(changes).map(str::to_owned).collect()
    }

    fn start(&self) -> Reconciler {
        let path = format!("{}:/usr/bin:/bin", self.0.display());
        let system = System {
            programs: Programs {
                path: Some(path.into()),
            },
            notices: None,
        };
        Reconciler::open(system, &"nc0".parse().unwrap(), &self.0.join("run")).unwrap()
    }

    /// What the daemon does each time it looks at the host.
    async fn keep(&self, reconciler: &mut Reconciler, config: &Config) -> Outcome {
        let observed = reconciler.links().await.unwrap();
        reconciler.apply(&desired(config, &observed)).await.unwrap()
    }

    /// A killed process takes the addresses of its TUN with it, and the descriptor.
    fn killed(&self) {
        let devices = self.read("devices");
        let ours = |line: &&str| !line.contains(" 172.19.152.");
        let devices: Vec<_> = devices.lines().filter(ours).collect();
        self.write("devices", &devices.join("\n"));
    }

    fn has(&self, file: &str, word: &str) -> bool {
        self.read(file).contains(word)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn up_and_down_leave_nothing() {
    for (name, config) in [
        ("client", cases::local_client()),
        ("nat", cases::local_nat()),
    ] {
        let host = Host::new(name);
        let before = host.look();
        let mut reconciler = host.start();
        let outcome = host.keep(&mut reconciler, &config).await;
        assert!(outcome.executed.iter().any(|it| it.starts_with("pfctl -a")));
        assert!(host.has("devices", "inet 172.19.152.3 "));
        assert_eq!(host.read("net.inet.ip.forwarding"), "1\n");
        // All is as wanted: nothing is done again.
        host.calls();
        let outcome = host.keep(&mut reconciler, &config).await;
        assert!(outcome.executed.is_empty() && outcome.failed.is_empty());
        assert_eq!(host.calls(), Vec::<String>::new());
        reconciler.stop().await.unwrap();
        assert_eq!(host.look(), before);
        assert!(!host.0.join("run/nc0.baseline").exists());
    }
}

/// Field rows F2 and F9: what a killed instance left is taken away by one that knows nothing of its
/// configuration: the anchor, the client's routes, the alias, the setting.
#[tokio::test(flavor = "current_thread")]
async fn a_killed_instance_is_cleaned_up_after() {
    let host = Host::new("killed");
    let before = host.look();
    let mut config = cases::local_client();
    config.public.v6 = Some("2001:db8:203::2".parse().unwrap());
    // The gateway's alias is there only when the LAN has another address.
    let text = host
        .read("devices")
        .replace("192.168.1.1 netmask", "192.168.1.7 netmask");
    host.write("devices", &text);
    host.keep(&mut host.start(), &config).await;
    assert!(host.has("routes.inet", "203.0.113.2"));
    assert!(host.has("routes.inet6", "2001:db8:203::2"));
    assert!(host.has("devices", "inet 192.168.1.1 "));
    host.killed();

    host.start().stop().await.unwrap();
    let text = host
        .read("devices")
        .replace("192.168.1.7 netmask", "192.168.1.1 netmask");
    let own = |line: &&str| !line.contains("fd6e:");
    host.write(
        "devices",
        &text.lines().filter(own).collect::<Vec<_>>().join("\n"),
    );
    assert_eq!(host.look(), before);
    assert!(!host.0.join("run/nc0.baseline").exists());
}

/// The next start takes over what a killed one left, and moves what has changed meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn a_killed_instance_is_taken_over() {
    let host = Host::new("taken-over");
    let before = host.look();
    let config = cases::local_nat();
    host.keep(&mut host.start(), &config).await;
    assert!(host.has("routes.inet", "203.0.113.2 192.0.2.1 "));
    host.killed();
    let routes = host.read("routes.inet");
    host.write(
        "routes.inet",
        &routes
            .replace("192.0.2.1 ", "192.0.2.7 ")
            .replace("203.0.113.2 192.0.2.7", "203.0.113.2 192.0.2.1"),
    );
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &config).await;
    assert!(
        host.has("routes.inet", "203.0.113.2 192.0.2.7 "),
        "{}",
        host.read("routes.inet")
    );
    reconciler.stop().await.unwrap();
    host.write(
        "routes.inet",
        &host.read("routes.inet").replace("192.0.2.7 ", "192.0.2.1 "),
    );
    assert_eq!(host.look(), before);
}

/// Field row F2: what could not be undone is named, keeps nothing else from being undone, and is
/// tried again.
#[tokio::test(flavor = "current_thread")]
async fn what_stays_is_said() {
    let host = Host::new("stays");
    let before = host.look();
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &cases::local_client()).await;
    host.write("fail", "pfctl -a netcombiner/nc0 -f");
    let error = reconciler.stop().await.unwrap_err().to_string();
    assert!(
        error.contains("not undone: pfctl -a netcombiner/nc0 -f /dev/null"),
        "{error}"
    );
    assert!(error.contains("all else is as it was"), "{error}");
    assert!(!error.contains("the host is as it was"), "{error}");
    assert!(!host.has("routes.inet", "203.0.113.2"));
    assert_eq!(host.read("net.inet.ip.forwarding"), "0\n");
    host.write("fail", "");
    host.start().stop().await.unwrap();
    assert_eq!(host.look(), before);
}

/// Field row F3: the route for the flows leaves a link that has lost its lease.
#[tokio::test(flavor = "current_thread")]
async fn the_flows_route_moves_with_the_links() {
    let host = Host::new("lease");
    let mut config = cases::local_nat();
    config.links = vec![cases::link("wan0"), cases::link("wan1")];
    config.links[1].gateway = Some("192.0.2.129".parse().unwrap());
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &config).await;
    assert!(host.has("routes.inet", "203.0.113.2 192.0.2.1 "));
    let lost = |line: &&str| !line.contains("192.0.2.10 ");
    let text = host.read("devices");
    host.write(
        "devices",
        &text.lines().filter(lost).collect::<Vec<_>>().join("\n"),
    );
    host.keep(&mut reconciler, &config).await;
    assert!(host.has("routes.inet", "203.0.113.2 192.0.2.129 "));
}

/// A route that the administrator has given the flows is his: it serves, and stays.
#[tokio::test(flavor = "current_thread")]
async fn the_administrators_route_serves() {
    let host = Host::new("admins-route");
    let routes = host.read("routes.inet") + "203.0.113.2 192.0.2.77 UGHS wan0\n";
    host.write("routes.inet", &routes);
    let before = host.look();
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &cases::local_nat()).await;
    assert_eq!(host.read("routes.inet"), routes);
    reconciler.stop().await.unwrap();
    assert_eq!(host.look(), before);
}

/// Field row F4: without pf nothing is left half done, and the error says what to do.
#[tokio::test(flavor = "current_thread")]
async fn without_pf_it_says_what_to_load() {
    let host = Host::new("no-pf");
    let before = host.look();
    host.write("no-pf", "");
    let mut reconciler = host.start();
    let observed = reconciler.links().await.unwrap();
    let wanted = desired(&cases::local_nat(), &observed);
    let error = reconciler.apply(&wanted).await.unwrap_err().to_string();
    assert!(error.contains("kldload pf"), "{error}");
    assert!(error.contains("the host is as it was before"), "{error}");
    assert_eq!(host.look(), before);
    reconciler.stop().await.unwrap();
}

/// Field rows F4 and F8: what pf lacks is said by `check`, `up`, `init` and the log.
#[tokio::test(flavor = "current_thread")]
async fn what_pf_lacks_is_told() {
    let host = Host::new("lacks");
    let config = cases::local_nat();
    let mut reconciler = host.start();
    let lines = pf_conf_lines(Some(&config));
    let asked = |reconciler: &Reconciler| reconciler.system.programs.pf(&lines).notices();
    assert!(asked(&reconciler).is_empty());
    host.keep(&mut reconciler, &config).await;
    assert!(reconciler.told.is_empty());
    host.write("rules", "pass all flags S/SA keep state\n");
    host.write("info", &INFO.replace("Enabled", "Disabled"));
    host.keep(&mut reconciler, &config).await;
    let told = reconciler.told.join("\n");
    for word in [
        "service pf start",
        "`anchor \"netcombiner/*\"`",
        "`set reassemble yes`",
    ] {
        assert!(told.contains(word), "{told}");
    }
    assert_eq!(asked(&reconciler), reconciler.told);
    host.write("no-pf", "");
    assert_eq!(asked(&reconciler), [PF_HINT]);
    // Who routes himself needs no pf.
    let config = Config {
        manage_routing: false,
        ..config
    };
    assert!(pf_conf_lines(Some(&config)).is_empty());
    assert_eq!(reconciler.system.programs.pf(&[]), Pf::Present(Vec::new()));
}

/// Field row F6: what somebody takes away is there again after the next look.
#[tokio::test(flavor = "current_thread")]
async fn what_others_change_is_put_right() {
    let host = Host::new("flushed");
    let config = cases::local_client();
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &config).await;
    let wanted = host.look();
    let without = |file: &str, word: &str| {
        let text = host.read(file);
        let others = text.lines().filter(|line| !line.contains(word));
        host.write(
            file,
            &others.map(|line| format!("{line}\n")).collect::<String>(),
        );
    };
    for change in [
        &(|| fs::remove_file(host.0.join("anchor")).unwrap()) as &dyn Fn(),
        &|| without("anchor", "route-to"),
        &|| host.write("net.inet.ip.forwarding", "0\n"),
        &|| without("routes.inet", "203.0.113.2"),
        &|| without("devices", "inet 172.19.152.3 "),
    ] {
        change();
        let outcome = host.keep(&mut reconciler, &config).await;
        assert_eq!(outcome.executed.len(), 1, "{outcome:?}");
        let sorted = |look: Vec<String>| {
            let lines = |text: String| {
                let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            look.into_iter().map(lines).collect::<Vec<_>>()
        };
        assert_eq!(sorted(host.look()), sorted(wanted.clone()));
    }
}

/// Field row B6 on FreeBSD: what changes without a notice is seen within a second.
#[tokio::test(flavor = "current_thread")]
async fn a_glance_sees_what_no_notice_tells() {
    for (name, config) in [
        ("glance-client", cases::local_client()),
        ("glance-nat", cases::local_nat()),
    ] {
        let host = Host::new(name);
        let mut reconciler = host.start();
        assert!(!reconciler.glance().await, "nothing is wanted yet");
        host.keep(&mut reconciler, &config).await;
        assert!(reconciler.glances() <= Some(Duration::from_secs(1)));
        let translates = host.read("anchor").starts_with("nat ");
        assert_eq!(translates, name == "glance-nat");
        for word in ["route-to", "nat on"] {
            if word == "nat on" && !translates {
                continue;
            }
            assert!(!reconciler.glance().await);
            let text = host.read("anchor");
            let others = text.lines().filter(|line| !line.contains(word));
            host.write("anchor", &others.collect::<Vec<_>>().join("\n"));
            assert!(reconciler.glance().await, "{word}");
            host.keep(&mut reconciler, &config).await;
        }
        assert!(!reconciler.glance().await);
        host.write("net.inet.ip.forwarding", "0\n");
        assert!(reconciler.glance().await);
        host.keep(&mut reconciler, &config).await;
        assert!(!reconciler.glance().await);
        // What cannot be asked is no change: it would be asked again each second.
        host.write("fail", "pfctl");
        assert!(!reconciler.glance().await);
    }
}

/// Field row B9 on FreeBSD: who came to need forwarding while it was on because of us keeps it.
#[tokio::test(flavor = "current_thread")]
async fn forwarding_stays_on_for_others() {
    const RULE: &str = "nat on wan0 inet from 10.0.0.0/24 to any -> (wan0) round-robin\n";
    for (name, before, after, stays) in [
        ("nobody", "", "", false),
        ("before", RULE, RULE, false),
        (
            "readdressed",
            RULE,
            &RULE.replace("10.0.0", "10.0.7"),
            false,
        ),
        ("after", "", RULE, true),
    ] {
        let host = Host::new(&format!("forwards-{name}"));
        let rules = |more: &str| host.write("nat", &format!("{NAT}{more}"));
        host.write("gateway_enable", "NO\n");
        rules(before);
        let mut reconciler = host.start();
        host.keep(&mut reconciler, &cases::local_client()).await;
        rules(after);
        // A killed daemon forgets nothing of it.
        let mut reconciler = host.start();
        let observed = reconciler.links().await.unwrap();
        assert_eq!(!observed.forwarders.is_empty(), stays, "{name}");
        reconciler.stop().await.unwrap();
        let now = host.read("net.inet.ip.forwarding");
        assert_eq!(now, if stays { "1\n" } else { "0\n" }, "{name}");
    }
    let host = Host::new("forwards-rc");
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &cases::local_client()).await;
    host.write("gateway_enable", "YES\n");
    reconciler.stop().await.unwrap();
    assert_eq!(host.read("net.inet.ip.forwarding"), "1\n");
}

/// Field row D2 on FreeBSD: when the link with the default route has lost it, this router's own packets go
/// by the tunnel; the flows do not.
#[tokio::test(flavor = "current_thread")]
async fn without_a_default_route_there_is_the_tunnel() {
    let host = Host::new("no-default");
    let mut config = cases::local_nat();
    config.links = vec![cases::link("wan0"), cases::link("wan1")];
    config.links[1].gateway = Some("192.0.2.129".parse().unwrap());
    let mut reconciler = host.start();
    host.keep(&mut reconciler, &config).await;
    let halves = ["0.0.0.0/1 172.19.152.2 ", "128.0.0.0/1 172.19.152.2 "];
    assert!(!halves.iter().any(|half| host.has("routes.inet", half)));
    let with = host.read("routes.inet");
    let lost = with.lines().filter(|line| !line.starts_with("default"));
    let lost: String = lost.map(|line| format!("{line}\n")).collect();
    host.write("routes.inet", &lost);
    host.keep(&mut reconciler, &config).await;
    assert!(halves.iter().all(|half| host.has("routes.inet", half)));
    assert!(host.has("routes.inet", "203.0.113.2 192.0.2.129 "));
    let outcome = host.keep(&mut reconciler, &config).await;
    assert!(outcome.executed.is_empty(), "{outcome:?}");
    let back = host.read("routes.inet") + "default 192.0.2.1 UGS wan0\n";
    host.write("routes.inet", &back);
    host.keep(&mut reconciler, &config).await;
    assert!(!halves.iter().any(|half| host.has("routes.inet", half)));
    // No link leads to the other portal: neither does the tunnel.
    config.links.truncate(1);
    host.write("routes.inet", &lost);
    host.keep(&mut reconciler, &config).await;
    assert!(!halves.iter().any(|half| host.has("routes.inet", half)));
}

/// Field row B8 on FreeBSD: the tunnel's device is set up again, and nobody goes on without one.
#[tokio::test(flavor = "current_thread")]
async fn the_tunnel_is_set_up_again() {
    let host = Host::new("raise");
    let mut reconciler = host.start();
    reconciler.raise().await.unwrap();
    assert_eq!(host.calls(), Vec::<String>::new());
    let text = host.read("devices");
    host.write(
        "devices",
        &text.replace("nc0: flags=1008051<UP,", "nc0: flags=1008050<"),
    );
    reconciler.raise().await.unwrap();
    assert_eq!(host.calls(), ["ifconfig nc0 up"]);
    assert!(host.has("devices", "nc0: flags=1008050<UP,"));
    host.write("devices", &text.replace("nc0: ", "nc7: "));
    let error = reconciler.raise().await.unwrap_err().to_string();
    assert!(error.contains("nc0 is gone"), "{error}");
}

/// A step that fails leads back to the state before.
#[tokio::test(flavor = "current_thread")]
async fn a_refused_start_leaves_nothing() {
    let host = Host::new("refused");
    let before = host.look();
    host.write("fail", "sysctl net.inet.ip.forwarding=1");
    let mut reconciler = host.start();
    let observed = reconciler.links().await.unwrap();
    let wanted = desired(&cases::local_client(), &observed);
    let error = reconciler.apply(&wanted).await.unwrap_err().to_string();
    assert!(error.contains("told to fail"), "{error}");
    assert_eq!(host.look(), before);
}

#[tokio::test(flavor = "current_thread")]
async fn only_a_tun_is_ours() {
    let host = Host::new("foreign");
    let mut system = host.start().system;
    for (name, foreign) in [
        ("nc0", false),
        ("lan", true),
        ("tun1", false),
        ("nc7", false),
    ] {
        let found = system.foreign_device(&name.parse().unwrap()).await.unwrap();
        assert_eq!(found.is_some(), foreign, "{name}");
    }
}

/// What a real routing socket said while a link went down and up and routes came and went; and what
/// it says for each packet that has no route.
#[test]
fn the_kernels_notices_are_read() {
    let recorded = include_str!("testdata/pf_route.txt");
    let mut seen = 0;
    for line in recorded.lines() {
        let Some((_, hex)) = line
            .split_once(" len=")
            .and_then(|(_, rest)| rest.split_once(' '))
        else {
            continue;
        };
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let message: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        assert!(matters(&message), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 12);
    for idle in [4, 5, 7, 18] {
        assert!(!matters(&[8, 0, 5, idle]));
    }
}
