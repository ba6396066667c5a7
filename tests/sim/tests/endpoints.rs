//! The endpoints alone, on one link without a tunnel, do what Linux does there (ANCHORS.md 5.1:
//! one CUBIC flow of the kernel on the lab's links).

use std::time::Duration;

use netcombiner_lab::cases::{CaseLink, Change, Step};
use netcombiner_sim::cases::SimLink;
use netcombiner_sim::endpoint::Algorithm;
use netcombiner_sim::measure::outcome::Outcome;
use netcombiner_sim::network::Route;
use netcombiner_sim::packet::Host;
use netcombiner_sim::run::{Load, RunSpec};

fn spec(algorithm: Algorithm, link: CaseLink) -> RunSpec {
    let mut spec = RunSpec::new(vec![SimLink::from(&link)], Duration::from_secs(30));
    spec.load = Load::Tcp(algorithm, 1);
    spec.route = Route::Link(0);
    spec
}

fn run(algorithm: Algorithm, link: CaseLink) -> Outcome {
    spec(algorithm, link).run()
}

#[test]
fn a_clean_link_is_full() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        for (mbps, rtt) in [(50.0, 20), (12.0, 20), (300.0, 10), (50.0, 70)] {
            let outcome = run(algorithm, CaseLink::new(mbps, rtt));
            let efficiency = outcome.efficiency;
            assert!(
                (0.93..=1.0001).contains(&efficiency),
                "{algorithm:?} {mbps} Mbit/s {rtt} ms: {efficiency}"
            );
            assert_eq!(outcome.out_of_order, 0.0);
        }
    }
}

#[test]
fn cubic_fills_the_queue_and_bbr_does_not() {
    let link = CaseLink::new(50.0, 20);
    let [cubic, bbr] = [Algorithm::Cubic, Algorithm::Bbr].map(|a| run(a, link).rtt[0].as_millis());
    assert!((80..=121).contains(&cubic), "{cubic} ms");
    assert!((20..=35).contains(&bbr), "{bbr} ms");
}

#[test]
fn random_loss_holds_cubic_down_as_it_does_the_kernels() {
    let link = CaseLink::new(50.0, 20);
    // Measured: 9 and 8 Mbit/s, 4 and 4.
    for (loss, least, most) in [(0.005, 7.5, 10.0), (0.02, 2.9, 4.6)] {
        let goodput = run(Algorithm::Cubic, link.loss(loss)).goodput;
        assert!((least..=most).contains(&goodput), "{loss}: {goodput}");
    }
}

#[test]
fn random_loss_does_not_hold_bbr_down() {
    let link = CaseLink::new(50.0, 20).loss(0.02);
    let efficiency = run(Algorithm::Bbr, link).efficiency;
    assert!(efficiency > 0.9, "{efficiency}");
}

#[test]
fn jitter_in_order_hurts_nobody() {
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        let outcome = run(algorithm, CaseLink::new(50.0, 20).jitter(5));
        assert!(outcome.efficiency > 0.9, "{}", outcome.efficiency);
        assert_eq!(outcome.out_of_order, 0.0);
    }
}

#[test]
fn after_an_outage_the_timer_starts_the_flow_again() {
    let mut spec = spec(Algorithm::Cubic, CaseLink::new(50.0, 20));
    let step = |second, change| Step {
        at: Duration::from_secs(second),
        link: 0,
        change,
    };
    spec.steps = vec![step(10, Change::Cut), step(12, Change::Restore)];
    let outcome = spec.run();
    assert!(outcome.timeouts >= 2);
    let gap = outcome.gap.as_millis();
    // The timer doubles from a quarter of a second or so: the next try is at most as late again.
    assert!((2000..=4200).contains(&gap), "{gap} ms");
    assert!(outcome.steps[1].reached.is_some());
}

#[test]
fn a_spurious_timeout_is_taken_back() {
    let mut link = SimLink::new(20.0, 20);
    link.pause = Some(netcombiner_lab::cases::Pause {
        every: Duration::from_secs(5),
        lasts: Duration::from_millis(700),
    });
    let mut spec = spec(Algorithm::Cubic, CaseLink::new(20.0, 20));
    spec.links = vec![link];
    let outcome = spec.run();
    // Two of fourteen parts of the time nothing moves.
    assert!(outcome.efficiency > 0.75, "{}", outcome.efficiency);
}

#[test]
fn eight_flows_share_a_link_and_fill_it() {
    let mut spec = spec(Algorithm::Cubic, CaseLink::new(50.0, 20));
    spec.load = Load::Tcp(Algorithm::Cubic, 8);
    let outcome = spec.run();
    assert!(outcome.efficiency > 0.97, "{}", outcome.efficiency);
}

#[test]
fn up_is_like_down() {
    let down = spec(Algorithm::Cubic, CaseLink::new(50.0, 20));
    let mut up = down.clone();
    up.sender = Host::Client;
    let [down, up] = [down, up].map(|spec| spec.run().goodput);
    assert!((up / down - 1.0).abs() < 0.02, "{up} {down}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let lossy = spec(Algorithm::Cubic, CaseLink::new(50.0, 20).loss(0.005));
    let mut tunnel = lossy.clone();
    tunnel.route = Route::Tunnel;
    for spec in [lossy, tunnel] {
        let first = spec.run();
        assert_eq!(first, spec.run());
        let mut other = spec;
        other.seed = 2;
        assert_ne!(first, other.run());
    }
}

#[test]
fn an_idle_tunnel_is_as_fast_as_its_best_link() {
    let links = vec![SimLink::new(50.0, 40), SimLink::new(50.0, 20)];
    let mut spec = RunSpec::new(links, Duration::from_secs(10));
    spec.load = Load::Idle;
    let outcome = spec.run();
    assert!(outcome.idle_added < Duration::from_millis(1));
    let voice = outcome.voice[0];
    assert_eq!(voice.loss, 0.0);
    let added = voice.p99.saturating_sub(outcome.least_delay);
    assert!(added < Duration::from_millis(1), "{added:?}");
}
