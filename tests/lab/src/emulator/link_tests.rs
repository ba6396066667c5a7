use super::super::aqm::Aqm;
use super::super::loss::Loss;
use super::*;

const MS: Duration = Duration::from_millis(1);
const PACKET: usize = 1500;

/// Offers a packet every `gap`, `count` times; gives the time each came out, `None` for the lost.
fn run(link: &mut Link<Vec<u8>>, gap: Duration, count: u32) -> Vec<Duration> {
    let mut out = Vec::new();
    for i in 0..count {
        let now = gap * i;
        drain(link, now, &mut out);
        let _ = link.offer(now, vec![0; PACKET]);
    }
    drain(link, Duration::MAX, &mut out);
    out
}

/// Follows the link's own timer up to `until`, and notes when each packet came out.
fn drain(link: &mut Link<Vec<u8>>, until: Duration, out: &mut Vec<Duration>) {
    while let Some(due) = link.next().filter(|due| *due <= until) {
        while link.poll(due).is_some() {
            out.push(due);
        }
    }
}

fn rated(mbps: f64) -> Shape {
    Shape {
        rate: Some((mbps * 1e6) as u64),
        ..Shape::default()
    }
}

#[test]
fn rate_is_exact_when_overloaded() {
    let mut link = Link::new(rated(20.0), 1);
    // 120 Mbit/s offered for ten seconds into 20 Mbit/s.
    let out = run(&mut link, Duration::from_micros(100), 100_000);
    let seconds = (out[out.len() - 1] - out[0]).as_secs_f64();
    let rate = (out.len() - 1) as f64 * PACKET as f64 * 8.0 / seconds;
    assert!((rate / 20e6 - 1.0).abs() < 1e-4, "{rate}");
    let counters = link.counters();
    assert_eq!(
        counters.packets,
        counters.out_packets + counters.dropped_queue
    );
    assert!(counters.dropped_queue > 80_000);
}

#[test]
fn delay_is_transmission_and_propagation() {
    let shape = Shape {
        delay: 15 * MS,
        ..rated(12.0)
    };
    let out = run(&mut Link::new(shape, 1), 100 * MS, 3);
    // 1500 bytes at 12 Mbit/s take one millisecond.
    assert_eq!(out, [16 * MS, 116 * MS, 216 * MS]);
    let free = Shape {
        delay: 15 * MS,
        ..Shape::default()
    };
    assert_eq!(run(&mut Link::new(free, 1), MS, 2), [15 * MS, 16 * MS]);
}

/// A packet that can be marked, and whether it was.
struct Markable(Codepoint);

impl Packet for Markable {
    fn size(&self) -> usize {
        PACKET
    }

    fn codepoint(&self) -> Codepoint {
        self.0
    }

    fn mark(&mut self) -> bool {
        let capable = self.0 != Codepoint::NotCapable;
        if capable {
            self.0 = Codepoint::Experienced;
        }
        capable
    }
}

/// 30 ms of 24 Mbit/s into 12; what came out.
fn crowd(shape: Shape, codepoint: Codepoint) -> (Vec<Codepoint>, Counters) {
    let mut link = Link::new(shape, 1);
    let mut out = Vec::new();
    for n in 0..60 {
        let _ = link.offer(n * MS / 2, Markable(codepoint));
        out.extend(link.poll(n * MS / 2).map(|packet| packet.0));
    }
    while let Some(packet) = link.poll(100 * MS) {
        out.push(packet.0);
    }
    (out, *link.counters())
}

#[test]
fn a_full_queue_marks_what_can_be_marked_and_drops_the_rest() {
    let shape = rated(12.0)
        .with_queue(100 * PACKET)
        .with_aqm(Aqm::Step(5 * MS));
    let (out, counters) = crowd(shape.clone(), Codepoint::Capable);
    let marked = out
        .iter()
        .filter(|it| **it == Codepoint::Experienced)
        .count();
    assert_eq!((out.len(), counters.dropped()), (60, 0));
    assert!((45..55).contains(&marked), "{marked}");
    assert_eq!(counters.marked, marked as u64);
    let (out, counters) = crowd(shape, Codepoint::NotCapable);
    assert_eq!(counters.marked, 0);
    assert!(counters.dropped_aqm > 20, "{counters:?}");
    assert_eq!(out.len() as u64, 60 - counters.dropped_aqm);
    assert!(out.iter().all(|it| *it == Codepoint::NotCapable));
    assert!(counters.queue_time_max <= 7 * MS, "{counters:?}");
}

#[test]
fn a_link_may_be_wrong_about_ecn() {
    let drops = rated(100.0).with_ecn_fault(EcnFault::DropsCapable);
    assert_eq!(
        crowd(drops.clone(), Codepoint::Capable).1.dropped_capable,
        60
    );
    assert_eq!(crowd(drops, Codepoint::NotCapable).0.len(), 60);
    let marks = rated(100.0).with_ecn_fault(EcnFault::MarksAll);
    let (out, _) = crowd(marks.clone(), Codepoint::Capable);
    assert_eq!(out, [Codepoint::Experienced; 60]);
    assert_eq!(crowd(marks, Codepoint::NotCapable).1.marked, 0);
}

#[test]
fn queue_drops_its_tail() {
    let mut link = Link::new(rated(12.0).with_queue(4 * PACKET), 1);
    let taken = (0..10)
        .filter(|_| link.offer(Duration::ZERO, vec![0; PACKET]).is_ok())
        .count();
    assert_eq!((taken, link.counters().dropped_queue), (4, 6));
    assert_eq!(link.counters().queue_peak, 4 * PACKET);
    // One more fits for each that left; a packet larger than the queue fits when it is empty.
    assert!(link.offer(MS, vec![0; PACKET]).is_ok());
    assert!(matches!(
        link.offer(MS, vec![0; PACKET]),
        Err(Refused::Full(_))
    ));
    assert!(link.offer(100 * MS, vec![0; 9000]).is_ok());
    assert_eq!(link.counters().queue_time_max, 4 * MS);
}

#[test]
fn jitter_keeps_the_order_and_its_bounds() {
    let shape = Shape {
        delay: 10 * MS,
        jitter: 5 * MS,
        ..Shape::default()
    };
    let sparse = run(&mut Link::new(shape.clone(), 1), 100 * MS, 500);
    let extra: Vec<Duration> = sparse
        .iter()
        .enumerate()
        .map(|(i, at)| *at - 100 * MS * i as u32 - 10 * MS)
        .collect();
    assert!(extra.iter().all(|x| *x <= 5 * MS));
    let mean = extra.iter().sum::<Duration>() / 500;
    assert!((2 * MS..3 * MS).contains(&mean), "{mean:?}");
    let dense = run(&mut Link::new(shape, 1), MS / 10, 5000);
    assert_eq!(dense.len(), 5000);
    assert!(dense.is_sorted());
}

#[test]
fn a_change_of_rate_is_exact_in_the_middle_of_a_packet() {
    let mut link = Link::new(rated(12.0), 1);
    assert!(link.offer(Duration::ZERO, vec![0; PACKET]).is_ok());
    assert!(link.reshape(MS / 2, rated(6.0)).is_empty());
    assert_eq!(link.next(), Some(MS / 2 + MS));
    assert!(link.poll(MS).is_none());
    assert!(link.poll(MS / 2 + MS).is_some());
}

#[test]
fn a_shorter_delay_lets_nothing_overtake() {
    let mut link = Link::new(
        Shape {
            delay: 50 * MS,
            ..Shape::default()
        },
        1,
    );
    assert!(link.offer(Duration::ZERO, vec![1]).is_ok());
    link.poll(Duration::ZERO);
    link.reshape(
        MS,
        Shape {
            delay: 10 * MS,
            ..Shape::default()
        },
    );
    assert!(link.offer(MS, vec![2]).is_ok());
    assert!(link.poll(49 * MS).is_none());
    assert_eq!(link.poll(50 * MS), Some(vec![1]));
    assert_eq!(link.poll(50 * MS), Some(vec![2]));
}

#[test]
fn a_black_hole_swallows_what_waits_and_flies() {
    let shape = Shape {
        delay: 10 * MS,
        ..rated(12.0)
    };
    let mut link = Link::new(shape.clone(), 1);
    for _ in 0..5 {
        assert!(link.offer(Duration::ZERO, vec![0; PACKET]).is_ok());
    }
    let mut cut = shape.clone();
    cut.outage = Outage::Drop;
    assert_eq!(link.reshape(5 * MS / 2, cut).len(), 5);
    assert!(matches!(
        link.offer(3 * MS, vec![0]),
        Err(Refused::Outage(_))
    ));
    assert_eq!((link.next(), link.poll(Duration::MAX)), (None, None));
    assert_eq!(link.counters().dropped_outage, 6);
    link.reshape(100 * MS, shape);
    assert!(link.offer(100 * MS, vec![0; PACKET]).is_ok());
    assert!(link.poll(111 * MS).is_some());
}

#[test]
fn a_stall_keeps_and_goes_on() {
    let shape = Shape {
        delay: 10 * MS,
        ..rated(12.0)
    };
    let mut link = Link::new(shape.clone(), 1);
    for _ in 0..2 {
        assert!(link.offer(Duration::ZERO, vec![0; PACKET]).is_ok());
    }
    let mut held = shape.clone();
    held.outage = Outage::Hold;
    // Half a packet is sent, then 100 ms of nothing.
    link.reshape(MS / 2, held);
    assert_eq!((link.next(), link.poll(90 * MS)), (None, None));
    link.reshape(100 * MS + MS / 2, shape);
    let mut out = Vec::new();
    drain(&mut link, Duration::MAX, &mut out);
    assert_eq!(out, [111 * MS, 112 * MS]);
}

#[test]
fn loss_takes_its_share_of_the_rate_and_repeats_by_seed() {
    let lossy = |seed| {
        let mut link = Link::new(rated(12.0).with_loss(Loss::Random(0.1)), seed);
        run(&mut link, MS, 20_000)
    };
    let first = lossy(5);
    let lost = 1.0 - first.len() as f64 / 20_000.0;
    assert!((lost - 0.1).abs() < 0.01, "{lost}");
    assert_eq!(first, lossy(5));
    assert_ne!(first, lossy(6));
}
