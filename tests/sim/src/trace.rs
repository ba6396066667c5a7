//! A run, told every 100 ms.

use std::io::{self, Write};
use std::time::Duration;

use netcombiner::proto::event::Side;

use crate::cases::SimCase;
use crate::endpoint::Traffic;
use crate::measure::series::BIN;
use crate::network::World;
use crate::packet::Host;
use crate::run::{START, news};

/// Runs a case and writes what happens: the inner flows' goodput and windows, the sending tunnel's
/// queue and paths, the links' queues, all news.
pub fn run(case: &SimCase, out: &mut impl Write) -> io::Result<()> {
    let (mut world, flows) = case.run.world();
    let sender = match case.run.sender {
        Host::Client => Side::Local,
        Host::Server => Side::Remote,
    };
    writeln!(
        out,
        "{}: payload fraction {:.4}, target rate {:.1} Mbit/s",
        case.name,
        case.run.payload_fraction(),
        case.run.capacity(Duration::ZERO) * case.run.payload_fraction()
    )?;
    let mut at = Duration::ZERO;
    while at < START + case.run.lasts {
        world.run(at + BIN);
        for line in news(&mut world) {
            writeln!(out, "        {line}")?;
        }
        write!(out, "{:>6.1}", at.as_secs_f64() - START.as_secs_f64())?;
        for flow in &flows.load {
            inner(&world.flows[*flow].1, at, out)?;
        }
        tunnel(&mut world, sender, out)?;
        for link in 0..case.run.links.len() {
            let lane = world.lane(link, case.run.direction());
            let waits = lane.waiting().as_secs_f64() * 1e3;
            let counters = lane.counters();
            let drops = counters.dropped_queue + counters.dropped_policer;
            write!(
                out,
                " | wire {link}: {waits:.1} ms, {drops} full, {} lost",
                counters.dropped_loss
            )?;
        }
        writeln!(out)?;
        at += BIN;
    }
    Ok(())
}

fn inner(flow: &Traffic, at: Duration, out: &mut impl Write) -> io::Result<()> {
    match flow {
        Traffic::Tcp(connection) => {
            let mbps = connection.record().delivered.mbps(at, at + BIN);
            write!(out, " {mbps:>6.1} M")?;
            if let Some((window, state)) = connection.window() {
                let count = connection.count();
                let threshold = match window.ssthresh {
                    u32::MAX => String::from("-"),
                    threshold => threshold.to_string(),
                };
                let rtt = connection.record().rtt.last().map(|(_, rtt)| *rtt);
                write!(
                    out,
                    " {state:?} cwnd {}/{threshold} rtt {:.0} resent {} undone {} rto {}",
                    window.cwnd,
                    rtt.unwrap_or_default().as_secs_f64() * 1e3,
                    count.resent,
                    count.undone,
                    count.timeouts,
                )?;
            }
            Ok(())
        }
        Traffic::Stream(stream) => {
            let mbps = stream.record().delivered.mbps(at, at + BIN);
            write!(out, " {mbps:>6.1} M")
        }
    }
}

fn tunnel(world: &mut World, sender: Side, out: &mut impl Write) -> io::Result<()> {
    let now = world.now();
    let receiver = match sender {
        Side::Local => Side::Remote,
        Side::Remote => Side::Local,
    };
    let theirs = world.portal(receiver).stats(now);
    let (held, recovered) = (theirs.reorder_packets, theirs.recovered);
    let stats = world.portal(sender).stats(now);
    write!(
        out,
        " | queue {} held {held} back {recovered}",
        stats.queue_packets
    )?;
    for (cause, count) in &stats.discards {
        write!(out, " {cause:?} {count}")?;
    }
    for path in &stats.paths {
        write!(
            out,
            " | {:?} {:.1} M win {} fly {} rtt {:.0}/{:.0} lost {}",
            path.state,
            path.rate_sent as f64 / 1e6,
            path.window,
            path.in_flight,
            path.rtt.unwrap_or_default().as_secs_f64() * 1e3,
            path.min_rtt.unwrap_or_default().as_secs_f64() * 1e3,
            path.lost,
        )?;
        if let Some(estimate) = path.estimate {
            write!(
                out,
                " bw {:.1} M q {:.1} j {:.1}",
                estimate.bandwidth as f64 * 8e-6,
                estimate.queue.as_secs_f64() * 1e3,
                estimate.jitter.as_secs_f64() * 1e3,
            )?;
        }
    }
    Ok(())
}
