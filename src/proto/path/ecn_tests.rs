use proptest::prelude::*;

use super::*;

const RTT: Duration = Duration::from_millis(20);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// A path, and what its network has reported.
struct Run {
    ecn: Ecn,
    ms: u64,
    sent: u64,
    counts: EcnCounts,
}

impl Run {
    fn new() -> Self {
        Self {
            ecn: Ecn::new(true),
            ms: 1000,
            sent: 0,
            counts: EcnCounts::default(),
        }
    }

    /// A batch of so many datagrams leaves; how many of them as ECT(0).
    fn send(&mut self, count: u64) -> u64 {
        if !self.ecn.marks(at(self.ms)) {
            return 0;
        }
        let numbers = self.sent..self.sent + count;
        numbers.for_each(|number| self.ecn.on_sent(PacketNumber(number)));
        self.sent += count;
        count
    }

    /// So many ECT(0) datagrams are acknowledged; they came with these marks.
    fn ack(&mut self, acked: u64, ect0: u16, ce: u16) -> Option<Marks> {
        self.ms += 5;
        self.counts.ect0 = self.counts.ect0.wrapping_add(ect0);
        self.counts.ce = self.counts.ce.wrapping_add(ce);
        let acked = Acked {
            ect: acked,
            advanced: true,
            ..Acked::default()
        };
        self.ecn.on_ack(at(self.ms), self.counts, &acked, RTT)
    }

    fn lose(&mut self, count: u64) {
        self.ms += 5;
        self.ecn.on_lost(at(self.ms), count);
    }

    fn failed(&self) -> Option<EcnFault> {
        match self.ecn.state() {
            EcnState::Failed(fault) => Some(fault),
            EcnState::Off | EcnState::Testing | EcnState::Capable => None,
        }
    }
}

#[test]
fn one_that_arrives_is_enough_and_marks_are_told() {
    let mut run = Run::new();
    assert_eq!(run.send(4), 4);
    assert_eq!(run.ecn.state(), EcnState::Testing);
    assert_eq!(run.ack(0, 0, 0), None);
    assert_eq!(run.ecn.state(), EcnState::Testing, "of others");
    assert_eq!(run.ack(2, 2, 0), None);
    assert_eq!(run.ecn.state(), EcnState::Capable);
    run.send(100);
    assert_eq!(run.ack(10, 7, 3), Some(Marks { marked: 3, of: 10 }));
    assert_eq!(run.ecn.marked(), 3);
}

#[test]
fn a_test_risks_little() {
    let mut run = Run::new();
    assert_eq!((0..20).map(|_| run.send(3)).sum::<u64>(), 12);
    // Nothing was ever heard of them.
    run.ms += 3000;
    assert_eq!(run.send(3), 3);
}

#[test]
fn what_only_loses_marked_datagrams_goes_without() {
    let mut run = Run::new();
    run.send(12);
    run.lose(6);
    assert_eq!(run.ecn.state(), EcnState::Testing);
    run.lose(6);
    assert_eq!(run.failed(), Some(EcnFault::Dropped));
    assert_eq!(run.send(1), 0);
    run.ms += 600_000;
    assert_eq!(run.send(1), 1, "tried again");
    run.ack(1, 1, 0);
    assert_eq!(run.ecn.state(), EcnState::Capable);
}

#[test]
fn a_route_that_begins_to_drop_is_tested_and_a_burst_is_forgiven() {
    let mut run = Run::new();
    run.send(50);
    run.ack(1, 1, 0);
    run.lose(9);
    run.ack(1, 1, 0);
    run.lose(9);
    assert_eq!(run.ecn.state(), EcnState::Capable, "not in a row");
    run.lose(1);
    assert_eq!(run.ecn.state(), EcnState::Testing);
    run.send(10);
    let mut burst = run;
    burst.ack(3, 3, 0);
    assert_eq!(burst.ecn.state(), EcnState::Capable);
    let mut hole = burst;
    hole.lose(10);
    // What is still under way is not the new test's.
    let (none, first) = (PacketNumber(u64::MAX), PacketNumber(hole.sent));
    assert_eq!(hole.ecn.tested_from(), none);
    hole.send(10);
    assert_eq!(hole.ecn.tested_from(), first);
    hole.lose(10);
    assert_eq!(hole.failed(), Some(EcnFault::Dropped));
}

#[test]
fn erased_marks_are_seen() {
    let mut run = Run::new();
    run.send(4);
    run.ack(3, 2, 0);
    assert_eq!(run.failed(), Some(EcnFault::Erased));
    assert_eq!(run.ack(1, 0, 1), None, "what is not sent is not marked");
    // Another way through the network.
    run.ecn.test_again();
    run.send(3);
    run.ack(3, 3, 0);
    assert_eq!(run.ecn.state(), EcnState::Capable);
}

#[test]
fn everything_marked_says_nothing() {
    let mut run = Run::new();
    let mut told = 0;
    for _ in 0..200 {
        run.send(5);
        told += u64::from(run.ack(5, 0, 5).is_some());
    }
    assert_eq!(run.failed(), Some(EcnFault::Everything));
    // 300 ms of acknowledgements each 5 ms.
    assert!((55..=65).contains(&told), "{told}");
    // A queue that marks nearly all is a queue.
    let mut run = Run::new();
    for n in 0..200 {
        run.send(5);
        let plain = u16::from(n % 20 == 0);
        run.ack(5, plain, 5 - plain);
    }
    assert_eq!(run.ecn.state(), EcnState::Capable);
}

#[test]
fn more_than_was_sent_is_a_lie() {
    let mut run = Run::new();
    run.send(4);
    assert_eq!(run.ack(4, 4, 1), None);
    assert_eq!(run.failed(), Some(EcnFault::Impossible));
    assert!(run.ecn.marked() <= 4);
}

#[test]
fn an_overtaken_acknowledgement_takes_nothing_back() {
    let mut run = Run::new();
    run.send(20);
    run.ack(10, 8, 2);
    let acked = Acked {
        ect: 0,
        advanced: false,
        ..Acked::default()
    };
    let old = EcnCounts { ect0: 3, ce: 0 };
    assert_eq!(run.ecn.on_ack(at(run.ms), old, &acked, RTT), None);
    assert_eq!(run.ack(5, 4, 1), Some(Marks { marked: 1, of: 5 }));
    assert_eq!(run.ecn.marked(), 3);
}

#[test]
fn counts_wrap() {
    let mut run = Run::new();
    for _ in 0..3000 {
        run.send(50);
        let told = run.ack(50, 20, 30);
        assert_eq!(told.map(|marks| marks.marked), Some(30));
    }
    assert_eq!(run.ecn.marked(), 90_000);
}

#[test]
fn a_peer_that_restarted_counts_from_zero() {
    let mut run = Run::new();
    run.send(20);
    run.ack(20, 20, 0);
    run.ecn.restart();
    run.counts = EcnCounts::default();
    run.send(3);
    run.ack(3, 3, 0);
    assert_eq!(run.ecn.state(), EcnState::Capable);
}

#[test]
fn off_stays_off() {
    let mut ecn = Ecn::new(false);
    ecn.test_again();
    ecn.restart();
    assert!(!ecn.marks(at(1_000_000)));
    let acked = Acked {
        advanced: true,
        ..Acked::default()
    };
    let counts = EcnCounts { ect0: 5, ce: 7 };
    assert_eq!(ecn.on_ack(at(1), counts, &acked, RTT), None);
    assert_eq!((ecn.state(), ecn.marked()), (EcnState::Off, 0));
}

proptest! {
    /// Whatever a peer says, nothing overflows, and no more is marked than was sent.
    #[test]
    fn lies_do_no_harm(
        steps in proptest::collection::vec(
            (0u8..6, any::<u16>(), any::<u16>(), any::<bool>(), any::<u32>()), 1..200),
    ) {
        let mut ecn = Ecn::new(true);
        let mut now = at(1);
        let mut sent = 0;
        for (step, ect0, ce, advanced, more) in steps {
            now += Duration::from_micros(u64::from(more));
            match step {
                0 => if ecn.marks(now) {
                    let count = u64::from(ect0 % 70);
                    (0..count).for_each(|_| ecn.on_sent(PacketNumber(0)));
                    sent += count;
                },
                1 => ecn.on_lost(now, u64::from(more)),
                2 => ecn.test_again(),
                3 if more % 8 == 0 => ecn.restart(),
                _ => {
                    let acked = Acked { ect: u64::from(more % 100), advanced, ..Acked::default() };
                    let counts = EcnCounts { ect0, ce };
                    if let Some(marks) = ecn.on_ack(now, counts, &acked, RTT) {
                        prop_assert!(marks.marked > 0 && marks.marked <= marks.of);
                        prop_assert!(marks.marked <= sent);
                    }
                }
            }
        }
    }
}
