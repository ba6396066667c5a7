//! The reconciler over a kernel in memory.

use std::path::PathBuf;

use super::*;
use crate::config::units::{Family, RulePref, TableId};
use crate::host::fake::{Fake, setting};
use crate::host::troubles::PAUSE_AFTER_FAILURE;
use crate::route::resource::{Address, FilterClause, LocalTable, Route, Rule};
use crate::sorted::Set;

const FORWARD: &str = "net.ipv4.ip_forward";

fn directory(name: &str) -> PathBuf {
    let name = format!("netcombiner-reconciler-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

fn tunnel() -> IfName {
    "nc0".parse().unwrap()
}

fn host() -> Fake {
    Fake::new(&["wan0", "nc0"], &[FORWARD])
}

fn desired() -> HostState {
    HostState::from_iter([
        setting(FORWARD, "1"),
        Resource::LocalTable(LocalTable {
            family: Family::V4,
            pref: RulePref(20),
        }),
        Resource::Route(Route {
            table: TableId(19),
            destination: "203.0.113.2/32".parse().unwrap(),
            via: None,
            device: Some(tunnel()),
            source: None,
            onlink: false,
            metric: 0,
        }),
        Resource::Rule(Rule::new(Family::V4, RulePref(19), TableId(19))),
    ])
}

#[tokio::test(flavor = "current_thread")]
async fn a_killed_instance_is_cleaned_up_after() {
    let directory = directory("killed");
    let before = host().state;
    let mut killed = Reconciler::open(host(), &tunnel(), &directory).unwrap();
    killed.apply(&desired()).await.unwrap();
    let Reconciler { host: left, .. } = killed;

    let mut next = Reconciler::open(left, &tunnel(), &directory).unwrap();
    // The settings are told as they were before the killed one.
    assert_eq!(next.links().await.unwrap().settings[FORWARD], "0");
    assert!(next.apply(&desired()).await.unwrap().executed.is_empty());
    next.stop().await.unwrap();
    assert_eq!(next.host().state, before);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_given_back_is_the_administrators() {
    let directory = directory("settled");
    let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
    reconciler.apply(&desired()).await.unwrap();
    let less: HostState = desired()
        .iter()
        .filter(|resource| !matches!(resource, Resource::Setting(_)))
        .cloned()
        .collect();
    reconciler.apply(&less).await.unwrap();
    // The administrator turns on what we have turned off again.
    let theirs = &mut reconciler.host().state;
    assert!(theirs.remove(&setting(FORWARD, "0")));
    theirs.insert(setting(FORWARD, "1"));
    assert!(reconciler.apply(&less).await.unwrap().executed.is_empty());
    reconciler.stop().await.unwrap();
    assert!(reconciler.host().state.contains(&setting(FORWARD, "1")));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// One that somebody put beside the kernel's own.
#[tokio::test(flavor = "current_thread")]
async fn a_second_local_rule_stays() {
    let directory = directory("second-local");
    let mut kernel = host();
    kernel.state.insert(Resource::LocalTable(LocalTable {
        family: Family::V4,
        pref: RulePref(100),
    }));
    let before = kernel.state.clone();
    let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
    reconciler.apply(&desired()).await.unwrap();
    let prefs = |state: &Set<Resource>| -> Vec<u32> {
        let v4 = state.iter().filter_map(|resource| match resource {
            Resource::LocalTable(local) => (local.family == Family::V4).then_some(local.pref.0),
            Resource::Setting(_)
            | Resource::Address(_)
            | Resource::Neighbour(_)
            | Resource::Route(_)
            | Resource::Filter(_)
            | Resource::Rule(_) => None,
        });
        v4.collect()
    };
    assert_eq!(prefs(&reconciler.host().state), [20, 100]);
    reconciler.stop().await.unwrap();
    assert_eq!(reconciler.host().state, before);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_refused_start_leaves_nothing() {
    let directory = directory("refused");
    let before = host().state;
    let mut kernel = host();
    kernel.devices.remove(&tunnel());
    let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
    reconciler.apply(&desired()).await.unwrap_err();
    assert_eq!(reconciler.host().state, before);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A packet filter of this clause.
fn filter_of(clause: FilterClause) -> Filter {
    Filter {
        tunnel: tunnel(),
        clauses: [clause].into(),
    }
}

/// A host with the client's device and a packet filter.
fn filtered() -> HostState {
    let mut state = desired();
    state.insert(Resource::Address(Address {
        device: "wan0".parse().unwrap(),
        prefix: "192.168.1.1/32".parse().unwrap(),
        peer: None,
    }));
    state.insert(Resource::Filter(filter_of(FilterClause::MarkOwn {
        address: "203.0.113.2".parse().unwrap(),
        mark: 1,
        mask: 15,
    })));
    state
}

/// Field row A1: nothing attracts or forwards a packet while there is no filter.
#[tokio::test(flavor = "current_thread")]
async fn the_filter_comes_first_and_goes_last() {
    let directory = directory("first");
    let before = host().state;
    let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
    let up = reconciler.apply(&filtered()).await.unwrap().executed;
    let filters = |steps: &[String]| -> Vec<usize> {
        let all = steps.iter().enumerate();
        let found = all.filter(|(_, step)| step.contains("netcombiner-nc0"));
        found.map(|(place, _)| place).collect()
    };
    assert_eq!(filters(&up), [0], "{up:#?}");
    let down = reconciler.stop().await.unwrap().executed;
    assert_eq!(filters(&down), [down.len() - 1], "{down:#?}");
    assert_eq!(reconciler.host().state, before);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Whichever step of a start fails, and whichever of the end, the host is as before in the end.
#[tokio::test(flavor = "current_thread")]
async fn a_failed_start_takes_the_filter_back() {
    let directory = directory("filter-back");
    let before = host().state;
    let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
    let up = reconciler.apply(&filtered()).await.unwrap().executed.len();
    reconciler.stop().await.unwrap();
    let all = reconciler.host().count;
    for fails in 0..all {
        let mut kernel = host();
        kernel.failing.insert(fails);
        let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
        let outcome = Hold::apply(&mut reconciler, &filtered()).await.unwrap();
        assert_eq!(outcome.failed.is_empty(), fails >= up, "{fails}");
        let of_tunnel = outcome
            .failed
            .iter()
            .any(|(group, _)| *group == Group::Tunnel);
        if of_tunnel {
            assert!(filter(&reconciler.present(&filtered()).await.unwrap()).is_none());
        }
        reconciler.stop().await.unwrap();
        assert_eq!(reconciler.host().state, before, "{fails}");
        assert!(!directory.join("nc0.baseline").exists(), "{fails}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Field row B9: who came to need forwarding meanwhile keeps it; whose rules were there before us
/// did without it.
#[tokio::test(flavor = "current_thread")]
async fn forwarding_stays_on_for_others() {
    let directory = directory("forwarders");
    for (before, after, value) in [
        (&[][..], &[][..], "0"),
        (&[], &["chain POSTROUTING of table ip nat"], "1"),
        (&["chain FORWARD"], &["chain FORWARD"], "0"),
        (&["chain FORWARD"], &["chain FORWARD", "chain DOCKER"], "1"),
        (&["chain FORWARD"], &[], "0"),
    ] {
        let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
        reconciler.host().forwarders = before.iter().map(|it| (*it).to_owned()).collect();
        // Those who were there while forwarding was off did not forward, also for a later daemon.
        assert_eq!(reconciler.links().await.unwrap().forwarders, [""; 0]);
        reconciler.apply(&desired()).await.unwrap();
        reconciler.host().forwarders = after.iter().map(|it| (*it).to_owned()).collect();
        let again = Baseline::open(&directory, &tunnel()).unwrap();
        let mut seen = reconciler.host().links(&tunnel()).await.unwrap();
        again.keep_newcomers(&mut seen);
        assert_eq!(
            reconciler.links().await.unwrap().forwarders,
            seen.forwarders
        );
        assert_eq!(seen.forwarders.is_empty(), value == "0");
        assert!(seen.opened.is_empty());
        reconciler.stop().await.unwrap();
        assert!(reconciler.host().state.contains(&setting(FORWARD, value)));
        assert!(!directory.join("nc0.baseline").exists());
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// While something fails, filters that may stand are remembered: the newest, and only so many.
#[tokio::test(flavor = "current_thread")]
async fn filters_of_failed_tries_are_few() {
    let directory = directory("filters");
    let mut kernel = host();
    kernel.devices.remove(&tunnel());
    let mut reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
    let filter = |last: u8| {
        filter_of(FilterClause::SourceNat {
            device: tunnel(),
            address: [203, 0, 113, last].into(),
        })
    };
    for last in 0..50 {
        let mut desired = desired();
        desired.insert(Resource::Filter(filter(last)));
        let _ = reconciler.apply(&desired).await;
        assert!(reconciler.filters.len() <= MOST_FILTERS);
        assert_eq!(reconciler.filters.last(), Some(&filter(last)));
    }
    assert_eq!(reconciler.filters.len(), MOST_FILTERS);
    reconciler.stop().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_stop_tries_again() {
    let directory = directory("stop");
    let before = host().state;
    let mut reconciler = Reconciler::open(host(), &tunnel(), &directory).unwrap();
    let steps = reconciler.apply(&desired()).await.unwrap().executed.len();
    reconciler.host().failing.insert(steps + 1);
    reconciler.stop().await.unwrap();
    assert_eq!(reconciler.host().state, before);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A failure is reported, and the step is tried again only after a pause, even when the kernel sends a notice
/// meanwhile. A stop gives everything back.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn the_loop_keeps_the_host() {
    let directory = directory("loop");
    let mut kernel = host();
    let notice = std::rc::Rc::clone(&kernel.notice);
    kernel.failing.insert(0);
    let reconciler = Reconciler::open(kernel, &tunnel(), &directory).unwrap();
    let (commands, commanded) = mpsc::channel(1);
    let (tell, mut told) = mpsc::unbounded_channel();
    let kept = reconciler.run(|_| desired(), commanded, tell);
    let script = async {
        assert!(matches!(told.recv().await, Some(Event::Links(_))));
        let Some(Event::Failed(reason)) = told.recv().await else {
            panic!("the failure is not told");
        };
        assert!(matches!(told.recv().await, Some(Event::Looked)));
        assert!(reason.contains("as it was before"), "{reason}");
        let asked = clock::now();
        notice.notify_one();
        // While it rests, each look tells the failure again.
        let outcome = loop {
            match told.recv().await {
                Some(Event::Changed(outcome)) => break outcome,
                Some(Event::Failed(_) | Event::Looked) => {}
                other => panic!("it is not tried again: {other:?}"),
            }
        };
        assert!(!outcome.executed.is_empty());
        let waited = asked.elapsed();
        let least = PAUSE_AFTER_FAILURE;
        assert!(waited >= least && waited < 2 * least, "{waited:?}");
        assert!(matches!(told.recv().await, Some(Event::Sound)));
        commands.send(Command::Stop).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(kept, script);
    assert!(!outcome.unwrap().executed.is_empty());
    assert!(!directory.join("nc0.baseline").exists());
    std::fs::remove_dir_all(&directory).unwrap();
}
