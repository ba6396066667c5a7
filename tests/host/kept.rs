//! The loop keeps the host: what others change is put back at once, and what fails in one part
//! holds up no other.

use std::path::PathBuf;
use std::time::Duration;

use netcombiner::host::{self, Event};
use netcombiner::route::HostState;
use tokio::sync::mpsc;

use crate::namespace::{in_namespace, ip, observed, reconciler, run, snapshot, sysctl};
use crate::portals::{local, remote};

/// Far more than a change takes to be put back, and far less than the loop waits without notices.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is promised is a second; the rest is for a busy machine.
const PROMPT: Duration = Duration::from_secs(3);

type Told = mpsc::UnboundedReceiver<Event>;

/// Runs the loop beside a script, and stops it.
async fn keeping(
    directory: PathBuf,
    wanted: fn() -> HostState,
    script: impl AsyncFnOnce(&mut Told),
) {
    let reconciler = reconciler(&directory);
    let (commands, commanded) = mpsc::channel(1);
    let (tell, mut told) = mpsc::unbounded_channel();
    let kept = reconciler.run(move |_| wanted(), commanded, tell);
    let script = async {
        script(&mut told).await;
        commands.send(host::Command::Stop).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(kept, script);
    outcome.unwrap();
}

/// The next event of a kind.
async fn next<T>(told: &mut Told, what: &str, is_it: impl Fn(Event) -> Option<T>) -> T {
    let event = async {
        loop {
            if let Some(found) = is_it(told.recv().await.unwrap()) {
                return found;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, event).await;
    event.unwrap_or_else(|_| panic!("{what}: nothing was told"))
}

async fn changed(told: &mut Told, what: &str) -> Vec<String> {
    let is_it = |event| match event {
        Event::Changed(outcome) => Some(outcome.executed),
        Event::Links(_) | Event::Looked | Event::Sound | Event::Failed(_) => None,
    };
    next(told, what, is_it).await
}

/// Changes something, waits until that is put back, and gives the steps and how long it took.
async fn put_back(told: &mut Told, program: &str, arguments: &str) -> (Vec<String>, Duration) {
    run(program, arguments);
    let start = tokio::time::Instant::now();
    let steps = changed(told, arguments).await;
    (steps, start.elapsed())
}

async fn failed(told: &mut Told) -> String {
    let is_it = |event| match event {
        Event::Failed(reason) => Some(reason),
        Event::Links(_) | Event::Looked | Event::Sound | Event::Changed(_) => None,
    };
    next(told, "a failure", is_it).await
}

/// Field rows B6 and B8: the packet filter, settings, neighbours, the device itself.
#[test]
fn what_others_change_is_put_back() {
    in_namespace(async |directory| {
        let before = snapshot();
        keeping(directory, remote, async |told| {
            changed(told, "the start").await;
            for (program, arguments) in [
                ("nft", "flush ruleset"),
                ("nft", "delete table inet netcombiner-nc0"),
                ("nft", "add rule inet netcombiner-nc0 prerouting drop"),
                ("sysctl", "-qw net.ipv4.ip_forward=0"),
                ("sysctl", "-qw net.ipv6.conf.all.forwarding=0"),
                ("sysctl", "-qw net.ipv4.neigh.wan0.proxy_delay=80"),
                ("ip", "neighbour del proxy 203.0.113.2 dev wan0"),
                ("ip", "route flush table 19"),
                ("ip", "address flush dev nc0"),
                ("ip", "link set nc0 down"),
            ] {
                let what = format!("{program} {arguments}");
                let mut fastest = PATIENCE;
                for _ in 0..2 {
                    let (steps, took) = put_back(told, program, arguments).await;
                    assert!(!steps.is_empty(), "{what}");
                    assert_eq!(observed(&remote()).await, remote(), "{what}");
                    fastest = fastest.min(took);
                }
                assert!(fastest < PROMPT, "{what}: {fastest:?}");
            }
            assert!(ip("link show nc0").contains(",UP"));
        })
        .await;
        assert_eq!(snapshot(), before);
    });
}

/// Field rows B6 and B8: also when somebody does it again and again.
#[test]
fn what_others_change_again_and_again_is_put_back() {
    for (program, arguments) in [
        ("ip", "rule delete pref 20"),
        ("ip", "link set nc0 down"),
        ("nft", "flush ruleset"),
    ] {
        in_namespace(async move |directory| {
            keeping(directory, local, async |told| {
                changed(told, "the start").await;
                let mut took = Vec::new();
                for _ in 0..16 {
                    took.push(put_back(told, program, arguments).await.1);
                }
                took.sort_unstable();
                // All but a few, for a busy machine.
                assert!(took[12] < PROMPT, "{arguments}: {took:?}");
            })
            .await;
        });
    }
}

/// A setting that only a link borrows, and that no notice tells of.
#[test]
fn a_quiet_setting_is_put_back() {
    in_namespace(async |directory| {
        keeping(directory, local, async |told| {
            changed(told, "the start").await;
            run("sysctl", "-qw net.ipv4.conf.all.arp_announce=0");
            changed(told, "arp_announce").await;
            assert_eq!(sysctl("net.ipv4.conf.all.arp_announce"), "1");
        })
        .await;
    });
}

/// Field row B3: the kernel refuses a link's table; all else is set up and kept, and the link follows
/// when nothing is in its way any more.
#[test]
fn a_broken_link_holds_up_nothing_else() {
    in_namespace(async |directory| {
        let before = snapshot();
        ip("route add default dev lan table 28260");
        keeping(directory, local, async |told| {
            let steps = changed(told, "the start").await;
            assert!(
                !steps.iter().any(|step| step.contains("28260")),
                "{steps:?}"
            );
            assert!(ip("rule show").contains("20:\tfrom 203.0.113.2 iif lan lookup 20"));
            let reason = failed(told).await;
            assert!(reason.contains("table 28260"), "{reason}");
            assert!(reason.ends_with("the host is as it was before"), "{reason}");
            // While the link rests, what is sound is kept at once.
            for _ in 0..3 {
                ip("rule delete pref 20");
                let steps = changed(told, "a rule").await;
                assert!(steps[0].contains("rule add pref 20"), "{steps:?}");
            }
            ip("route delete default dev lan table 28260");
            let steps = changed(told, "the link").await;
            assert!(steps.iter().all(|step| step.contains("28260")), "{steps:?}");
            assert_eq!(observed(&local()).await, local());
        })
        .await;
        assert_eq!(snapshot(), before);
    });
}

/// Field row B8: without its device there is no tunnel: the daemon gives the host back and ends.
#[test]
fn a_deleted_device_ends_it() {
    in_namespace(async |directory| {
        let reconciler = reconciler(&directory);
        let (_commands, commanded) = mpsc::channel(1);
        let (tell, mut told) = mpsc::unbounded_channel();
        let kept = reconciler.run(|_| remote(), commanded, tell);
        let script = async {
            changed(&mut told, "the start").await;
            ip("link delete nc0");
        };
        let both = async { tokio::join!(kept, script).0 };
        let ended = tokio::time::timeout(2 * PATIENCE, both).await.unwrap();
        let error = ended.unwrap_err().to_string();
        assert_eq!(
            error,
            "nc0 is gone: somebody deleted the tunnel's device; the host is as it was before"
        );
        assert!(!ip("rule show").contains("lookup 19"));
        assert_eq!(sysctl("net.ipv4.ip_forward"), "0");
    });
}

/// Field row B9: Docker came while forwarding was on because of us.
#[test]
fn forwarding_stays_on_for_who_came_to_need_it() {
    for (line, value) in [
        ("chain post { type nat hook prerouting priority 0 ; }", "0"),
        (
            "chain post { type nat hook postrouting priority 100 ; masquerade ; }",
            "1",
        ),
    ] {
        in_namespace(async move |directory| {
            let mut reconciler = reconciler(&directory);
            reconciler.apply(&local()).await.unwrap();
            run("nft", &format!("add table ip docker {{ {line} ; }}"));
            // It may be another instance that cleans up.
            let mut reconciler = self::reconciler(&directory);
            reconciler.stop().await.unwrap();
            assert_eq!(sysctl("net.ipv4.ip_forward"), value);
        });
    }
}
