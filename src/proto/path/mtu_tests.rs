use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const NEEDED: u16 = 1280 + 33;

/// A path that drops what is longer than its link's MTU, and the numbers of its datagrams.
struct Model {
    mtu: PathMtu,
    headers: u16,
    link: u16,
    /// The network cuts what may be cut.
    cuts: bool,
    now: Instant,
    number: u64,
    probes: u32,
}

impl Model {
    fn new(most: u16, link: u16, ipv6: bool) -> Self {
        let mut mtu = PathMtu::new(most, NEEDED);
        mtu.restart(ipv6, false);
        Self {
            mtu,
            headers: if ipv6 { 48 } else { 28 },
            link,
            cuts: true,
            now: Instant::from_micros(5_000_000),
            number: 0,
            probes: 0,
        }
    }

    fn passes(&self, length: u16, cut: bool) -> bool {
        length + self.headers <= self.link || cut && self.cuts
    }

    /// One probe and what becomes of it, a round trip later. False: none was due.
    fn probe(&mut self) -> bool {
        if self.mtu.due(&Rtt::default()).is_none_or(|at| at > self.now) {
            return false;
        }
        let probe = self.mtu.probe();
        self.number += 1;
        self.probes += 1;
        self.mtu.on_probe_sent(self.now, probe, self.number);
        let mut long = Long::default();
        long.add(self.number, probe.length.into(), Passage::Probe);
        self.now += 30 * MS;
        if self.passes(probe.length, probe.cut) {
            self.mtu.on_arrived(self.now, long);
        } else {
            self.mtu.on_lost(self.now, long);
        }
        true
    }

    fn settle(&mut self) {
        while self.probe() {
            assert!(self.probes < 100, "{:?}", self.mtu);
        }
    }

    /// Datagrams of this length leave; they come or are lost a round trip later.
    fn data(&mut self, length: u16, count: u32) {
        let mut long = Long::default();
        let cut = self.mtu.is_cut(length.into());
        for _ in 0..count {
            self.number += 1;
            let passage = if cut { Passage::Cut } else { Passage::Whole };
            long.add(self.number, length.into(), passage);
        }
        self.now += 30 * MS;
        if self.passes(length, cut) {
            self.mtu.on_arrived(self.now, long);
        } else {
            self.mtu.on_lost(self.now, long);
        }
    }
}

#[test]
fn where_all_is_well_one_probe_is_enough() {
    let mut path = Model::new(1433, 1500, false);
    assert_eq!((path.mtu.settled(), path.mtu.link()), (1433, None));
    assert!(path.mtu.is_cut(1433) && path.mtu.carries(1433));
    path.settle();
    assert_eq!((path.probes, path.mtu.settled()), (1, 1433));
    assert_eq!(path.mtu.link(), Some(1461));
    assert_eq!(path.mtu.due(&Rtt::default()), None);
    assert!(!path.mtu.is_cut(1433));
}

#[test]
fn a_stream_carries_all_lengths() {
    let mut mtu = PathMtu::new(1433, NEEDED);
    mtu.restart(false, true);
    assert_eq!((mtu.settled(), mtu.due(&Rtt::default())), (1433, None));
    assert!(!mtu.is_cut(1433));
}

#[test]
fn the_mtus_of_known_links_are_found_exactly() {
    for link in LINKS {
        for ipv6 in [false, true] {
            let headers = if ipv6 { 48 } else { 28 };
            let mut path = Model::new(1472, link, ipv6);
            path.settle();
            assert_eq!(path.mtu.settled(), (link - headers).min(1472), "{link}");
        }
    }
}

#[test]
fn a_black_hole_is_found_by_losses_and_the_path_goes_on_in_fragments() {
    let mut path = Model::new(1433, 1500, false);
    path.settle();
    path.link = 1280;
    path.data(1433, 2);
    assert!(!path.mtu.is_cut(1433));
    path.data(1433, 1);
    assert!(path.mtu.is_cut(1433) && path.mtu.carries(1433));
    // What is wanted stays what it was until it is known what there is.
    assert_eq!(path.mtu.settled(), 1433);
    path.settle();
    assert_eq!(path.mtu.settled(), 1252);
    assert!(path.mtu.cuts());
    // It ends: after a while more is tried.
    path.link = 1500;
    assert!(!path.probe());
    path.now += RAISE_AFTER;
    path.settle();
    assert_eq!(path.mtu.settled(), 1433);
}

#[test]
fn where_fragments_are_lost_too_only_what_fits_is_carried() {
    let mut path = Model::new(1433, 1500, false);
    path.settle();
    (path.link, path.cuts) = (1280, false);
    path.data(1433, 3);
    path.data(1433, 7);
    assert!(path.mtu.carries(1433));
    path.data(1433, 1);
    assert!(!path.mtu.carries(1433) && path.mtu.carries(500));
    path.settle();
    assert_eq!((path.mtu.settled(), path.mtu.cuts()), (1252, false));
    assert!(path.mtu.carries(1252) && !path.mtu.carries(1253));
}

#[test]
fn fragments_that_are_lost_in_an_outage_are_asked_for_again() {
    let mut path = Model::new(1433, 1280, false);
    path.settle();
    assert!(path.mtu.carries(1313));
    let mut lost = Long::default();
    (100..120).for_each(|n| lost.add(n, 1313, Passage::Cut));
    path.mtu.on_lost(path.now, lost);
    assert!(!path.mtu.carries(1313));
    assert!(path.probe() && !path.probe());
    assert!(path.mtu.carries(1313));
    // On a wide path such losses mean nothing.
    let mut path = Model::new(1433, 1400, false);
    path.settle();
    path.mtu.on_lost(path.now, lost);
    assert!(path.mtu.carries(1433));
}

#[test]
fn chance_and_a_false_alarm_change_nothing_for_long() {
    let mut path = Model::new(1433, 1500, false);
    path.settle();
    // Losses among arrivals: one in four.
    for n in 0..100 {
        let (mut lost, mut came) = (Long::default(), Long::default());
        lost.add(1000 + 4 * n, 1433, Passage::Whole);
        came.add(1001 + 4 * n, 1433, Passage::Whole);
        path.mtu.on_arrived(path.now, came);
        path.mtu.on_lost(path.now, lost);
        assert!(!path.mtu.is_cut(1433));
    }
    path.number = 2000;
    // An outage took them.
    let mut lost = Long::default();
    (1500..1600).for_each(|n| lost.add(n, 1433, Passage::Whole));
    path.mtu.on_lost(path.now, lost);
    assert!(path.mtu.is_cut(1433));
    assert!(path.probe());
    assert!(!path.mtu.is_cut(1433));
    assert_eq!((path.mtu.settled(), path.probes), (1433, 2));
}

#[test]
fn short_datagrams_prove_nothing_and_raise_no_suspicion() {
    let mut path = Model::new(1433, 1500, false);
    path.settle();
    path.data(1433, 0);
    path.link = 900;
    path.data(512, 100);
    assert!(!path.mtu.is_cut(1433));
    path.data(1433, 2);
    path.data(512, 100);
    path.data(1433, 1);
    assert!(path.mtu.is_cut(1433));
}

#[test]
fn what_the_own_device_refuses_is_known_at_once() {
    let mut path = Model::new(1433, 1280, false);
    let probe = path.mtu.probe();
    path.mtu.on_probe_sent(path.now, probe, 1);
    path.mtu.on_refused(path.now, 1433);
    assert_ne!(path.mtu.probe().length, 1433);
    path.settle();
    assert_eq!(path.mtu.settled(), 1252);
    // Data that was well until now.
    path.mtu.on_refused(path.now, 1240);
    assert!(path.mtu.is_cut(1000));
    path.link = 1260;
    path.settle();
    assert!((1216..=1232).contains(&path.mtu.settled()));
}

#[test]
fn silence_says_nothing_of_the_mtu() {
    let mut path = Model::new(1433, 1500, false);
    let probe = path.mtu.probe();
    path.mtu.on_probe_sent(path.now, probe, 1);
    let again = path.mtu.due(&Rtt::default()).unwrap();
    assert!(again >= path.now + LEAST_PATIENCE);
    path.mtu.forget_probe();
    for _ in 0..10 {
        assert_eq!(path.mtu.probe(), probe);
        path.mtu.on_probe_sent(path.now, probe, 1);
        path.mtu.forget_probe();
    }
    path.settle();
    assert_eq!(path.mtu.settled(), 1433);
}

proptest! {
    #[test]
    fn any_mtu_is_found_with_few_probes(
        link in 576_u16..=9100,
        packet in 1280_u16..=9000,
        ipv6: bool,
        cuts: bool,
    ) {
        let most = packet + 33;
        let mut path = Model::new(most, link, ipv6);
        path.cuts = cuts;
        path.settle();
        let there = link.saturating_sub(path.headers).min(most).max(SMALLEST);
        let found = path.mtu.settled();
        prop_assert!(found <= there && there - found < STEP, "{found} of {there}");
        prop_assert!(path.probes <= 40, "{} probes", path.probes);
        if there < NEEDED {
            prop_assert_eq!(path.mtu.cuts(), cuts);
        }
        // It becomes another one, and data finds out.
        let narrow = 576.max(link - link / 3);
        path.link = narrow;
        path.probes = 0;
        for _ in 0..4 {
            path.data(found, 1);
        }
        path.settle();
        let there = narrow.saturating_sub(path.headers).min(most).max(SMALLEST);
        let found = path.mtu.settled();
        prop_assert!(found <= there && there - found < STEP, "{found} of {there}");
        prop_assert!(path.probes <= 40, "{} probes", path.probes);
    }

    #[test]
    fn nothing_that_is_told_breaks_it(steps in prop::collection::vec((0..6_u8, 0..2000_u16, 0..50_u64), 1..200)) {
        let mut mtu = PathMtu::new(1433, NEEDED);
        let mut now = Instant::from_micros(5_000_000);
        for (kind, length, number) in steps {
            now += 10 * MS;
            let mut long = Long::default();
            for (n, passage) in [Passage::Whole, Passage::Cut, Passage::Probe].into_iter().enumerate() {
                if number >> n & 1 == 0 {
                    long.add(number, length.into(), passage);
                }
            }
            match kind {
                0 => mtu.on_arrived(now, long),
                1 => mtu.on_lost(now, long),
                2 => mtu.on_refused(now, length.into()),
                3 => mtu.restart(number % 2 == 0, number % 16 == 0),
                4 => mtu.renumber(),
                _ => {
                    if mtu.due(&Rtt::default()).is_some_and(|at| at <= now) {
                        let probe = mtu.probe();
                        prop_assert!((SMALLEST..=1433).contains(&probe.length), "{probe:?}");
                        mtu.on_probe_sent(now, probe, number);
                    }
                }
            }
            prop_assert!((SMALLEST..=1433).contains(&mtu.proven()));
            prop_assert!((SMALLEST..=1433).contains(&mtu.settled()));
        }
    }
}
