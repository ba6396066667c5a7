//! The emulator's accuracy in namespaces, with the kernel's real UDP and TCP: rate within 1 %,
//! delay within 1 ms, at least 500 Mbit/s in all.

#![expect(
    clippy::print_stdout,
    reason = "the figures of a measurement, shown by --nocapture"
)]

use std::error::Error as StdError;
use std::net::UdpSocket;

use netcombiner_lab::clock::Clock;
use netcombiner_lab::prelude::*;

const MS: Duration = Duration::from_millis(1);

type Outcome = Result<(), Box<dyn StdError>>;

fn raise(links: Vec<LinkSpec>) -> Result<Lab, Error> {
    net::enter()?;
    Lab::start(&LabSpec::new(links))
}

fn raw(lab: &Lab, link: usize, sender: Sender) -> Connection<'_> {
    Connection::new(&lab.local, &lab.server, SERVER, sender).bound_to(&Lab::wan(link))
}

/// Tries of a measurement. Whoever else uses the cores may spoil one, but nobody makes an emulator
/// that is wrong look exact.
const TRIES: u32 = 5;

fn measured(part: fn() -> Outcome) -> Outcome {
    for _ in 1..TRIES {
        match std::panic::catch_unwind(part) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => println!("once more: {error}"),
            Err(_) => println!("once more"),
        }
    }
    part()
}

/// One test: the two cores cannot measure two things at once.
#[test]
fn the_emulator_is_exact() -> Outcome {
    for part in [
        delay,
        rate_by_udp,
        goodput_by_tcp,
        changes_while_running,
        speed,
    ] {
        measured(part)?;
    }
    Ok(())
}

fn delay() -> Outcome {
    let lab = raise(vec![
        LinkSpec::symmetric(100.0, 20),
        LinkSpec::symmetric(100.0, 80),
    ])?;
    for (link, rtt) in [(0, 20 * MS), (1, 80 * MS)] {
        let device = Lab::wan(link);
        let ping = Probe::ping_by(&lab.local, SERVER, Some(&device), 10 * MS, 100)?;
        let probes = ping.finish();
        assert_eq!(probes.answered, 100);
        println!(
            "rtt of {rtt:?}: {:?} .. {:?} .. {:?}",
            probes.min,
            probes.mean(),
            probes.max
        );
        let error = probes.mean().abs_diff(rtt);
        assert!(
            error < MS,
            "{error:?} off, real-time thread: {}",
            lab.emulator.realtime()
        );
    }
    assert_eq!(lab.stop()?.count(), 0);
    Ok(())
}

/// Offers 1.5 times the rate in UDP and counts what comes in the middle second and a half.
fn rate_by_udp() -> Outcome {
    let lab = raise(vec![LinkSpec::symmetric(20.0, 15)])?;
    let sender = lab
        .local
        .run(|| UdpSocket::bind((Lab::wan_address(0), 0)))??;
    let receiver = lab.server.run(|| UdpSocket::bind((SERVER, 5000)))??;
    receiver.set_read_timeout(Some(200 * MS))?;
    let clock = Clock::start();
    let offered = std::thread::spawn(move || {
        let datagram = [0; 1472];
        let mut sent = 0u32;
        while clock.read() < 3000 * MS {
            // 1500 bytes at 30 Mbit/s: one each 400 us, in bursts of whatever is due.
            while Duration::from_micros(400) * sent < clock.read() {
                // The kernel's own queue may be full: a datagram not sent is one not offered.
                sent += 1;
                let _ = sender.send_to(&datagram, (SERVER, 5000));
            }
            std::thread::sleep(MS);
        }
        sent
    });
    let mut buffer = [0; 2048];
    let mut arrivals = Vec::new();
    while receiver.recv(&mut buffer).is_ok() {
        let now = clock.read();
        if (1000 * MS..2900 * MS).contains(&now) {
            arrivals.push(now);
        }
    }
    let offered = offered.join().unwrap_or_default();
    let time = arrivals[arrivals.len() - 1] - arrivals[0];
    let mbps = (arrivals.len() - 1) as f64 * 1500.0 * 8.0 / 1e6 / time.as_secs_f64();
    let counters = lab.emulator.counters(0, Direction::Up);
    println!("20 Mbit/s: {mbps:.3} Mbit/s of {offered} datagrams, {counters:?}");
    assert!((mbps / 20.0 - 1.0).abs() < 0.01, "{mbps}");
    assert!(counters.dropped_queue > 1000, "{counters:?}");
    // A full queue of 250 kB at 20 Mbit/s is 100 ms.
    let full = counters.queue_time_max;
    assert!((99 * MS..=102 * MS).contains(&full), "{full:?}");
    Ok(())
}

fn goodput_by_tcp() -> Outcome {
    let lab = raise(vec![LinkSpec::symmetric(50.0, 10)])?;
    for sender in [Sender::Connector, Sender::Listener] {
        let flow = Flow::start(&raw(&lab, 0, sender), 3000 * MS)?;
        let report = flow.finish()?;
        // 1448 of 1500 bytes are payload: 48.3 Mbit/s is all that fits.
        let mbps = report.mbps_after(1000 * MS);
        println!(
            "TCP over 50 Mbit/s, {sender:?} sends: {mbps:.2}, gap {:?}",
            report.longest_gap
        );
        assert!((46.0..48.4).contains(&mbps), "{mbps}");
    }
    transfer(&raw(&lab, 0, Sender::Connector), 3_000_000, 5000 * MS)?;
    Ok(())
}

fn changes_while_running() -> Outcome {
    let lab = raise(vec![LinkSpec::symmetric(40.0, 10)])?;
    let flow = Flow::start(&raw(&lab, 0, Sender::Listener), 6000 * MS)?;
    // What came out of the link, not what the flow got: a hole holds its data back for a while.
    let out = |time: Duration| {
        let clock = Clock::start();
        let bytes = || lab.emulator.counters(0, Direction::Down).out_bytes;
        let before = bytes();
        std::thread::sleep(time);
        (bytes() - before) as f64 * 8.0 / 1e6 / clock.read().as_secs_f64()
    };
    std::thread::sleep(1000 * MS);
    let fast = out(1000 * MS);
    lab.emulator
        .reshape(0, Direction::Down, |shape| shape.rate = Some(10_000_000));
    std::thread::sleep(500 * MS);
    let slow = out(1500 * MS);
    lab.emulator.set_outage(0, Outage::Drop);
    std::thread::sleep(500 * MS);
    lab.emulator.set_outage(0, Outage::None);
    let report = flow.finish()?;
    println!(
        "40 then 10 Mbit/s: {fast:.1}, {slow:.1}; gap {:?}",
        report.longest_gap
    );
    // The counters are up to 10 ms old.
    assert!((38.0..40.5).contains(&fast), "{fast}");
    assert!((9.5..10.2).contains(&slow), "{slow}");
    assert!(
        (480 * MS..1500 * MS).contains(&report.longest_gap),
        "{:?}",
        report.longest_gap
    );
    assert!(lab.emulator.counters(0, Direction::Down).dropped_outage > 0);
    assert_eq!(lab.stop()?.count(), 0);
    Ok(())
}

/// Two unshaped links, each with a flow.
fn speed() -> Outcome {
    let lab = raise(vec![LinkSpec::unshaped(), LinkSpec::unshaped()])?;
    let flow = |link| Flow::start(&raw(&lab, link, Sender::Listener), 2000 * MS);
    let flows = [flow(0)?, flow(1)?];
    let mut mbps = 0.0;
    for flow in flows {
        mbps += flow.finish()?.mbps();
    }
    println!("two unshaped links: {mbps:.0} Mbit/s");
    assert!(mbps > 500.0, "{mbps}");
    Ok(())
}
