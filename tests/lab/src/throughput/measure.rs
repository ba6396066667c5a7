//! One measurement: a load through a tunnel, and what it cost.

use std::time::Duration;

use super::cpu::Used;
use super::flood::Flood;
use super::iperf::Iperf;
use super::pair::Pair;
use super::plan::{Load, WARM_UP};
use super::tunnel::Tunnel;
use crate::clock::Clock;
use crate::demo::interrupt;
use crate::emulator::Direction;
use crate::error::Error;

/// From iperf3's start to the first packet of its flows; the processor time of TCP is read that
/// much later and for twice that less, so that it counts neither the start nor the end.
const MARGIN: Duration = Duration::from_millis(150);

/// What one measurement gave. Gigabytes are 10^9 bytes of payload that arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Payload received, Gbit/s.
    pub(super) gbps: f64,
    /// Datagrams received a second, and the share of the sent that did not arrive; of TCP nothing.
    pub(super) packets: Option<Packets>,
    /// Processor time of both daemons, seconds a gigabyte.
    pub(super) daemons: f64,
    /// Of the whole machine, the ends of the flows included.
    pub(super) machine: f64,
}

/// What one measurement of datagrams gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Packets {
    /// Received a second.
    pub(super) rate: f64,
    /// Share of the sent that did not arrive.
    pub(super) lost: f64,
}

/// Runs a load through a tunnel.
pub(super) fn measure(
    pair: &Pair,
    tunnel: &Tunnel,
    load: Load,
    length: Duration,
) -> Result<Sample, Error> {
    match load {
        Load::Tcp { flows, way } => tcp(pair, tunnel, flows, way, length),
        Load::Udp { payload } => udp(pair, tunnel, payload, length),
    }
}

/// The whole machine's use of its cores, with nothing of ours running, for a second.
pub(super) fn idle_cores() -> Result<f64, Error> {
    let clock = Clock::start();
    let used = used(&clock, &[], Duration::from_secs(1))?;
    Ok(used.machine.as_secs_f64() / used.passed.as_secs_f64())
}

fn tcp(
    pair: &Pair,
    tunnel: &Tunnel,
    flows: u32,
    way: Direction,
    length: Duration,
) -> Result<Sample, Error> {
    let iperf = Iperf::start(pair, tunnel, flows, way, length)?;
    interrupt::sleep(WARM_UP + MARGIN)?;
    let clock = Clock::start();
    let used = used(&clock, &tunnel.daemons(), length.saturating_sub(2 * MARGIN))?;
    sample(iperf.finish()?, None, &used)
}

fn udp(pair: &Pair, tunnel: &Tunnel, payload: u32, length: Duration) -> Result<Sample, Error> {
    let [_, to] = tunnel.ends();
    let flood = Flood::start(pair, to.into(), payload)?;
    interrupt::sleep(WARM_UP)?;
    let clock = Clock::start();
    let before = flood.counts();
    let used = used(&clock, &tunnel.daemons(), length)?;
    let counts = flood.counts().since(before);
    drop(flood);
    let packets = Packets {
        rate: counts.received as f64 / used.passed.as_secs_f64(),
        lost: counts.lost(),
    };
    sample(packets.rate * f64::from(payload), Some(packets), &used)
}

/// What is used while `length` passes.
fn used(clock: &Clock, daemons: &[u32], length: Duration) -> Result<Used, Error> {
    let before = Used::now(clock, daemons);
    interrupt::sleep(length)?;
    Ok(Used::now(clock, daemons).since(&before))
}

fn sample(bytes_a_second: f64, packets: Option<Packets>, used: &Used) -> Result<Sample, Error> {
    if bytes_a_second <= 0.0 {
        return Err(Error::failed("nothing arrived"));
    }
    let gigabytes = bytes_a_second * used.passed.as_secs_f64() / 1e9;
    Ok(Sample {
        gbps: bytes_a_second * 8.0 / 1e9,
        packets,
        daemons: used.daemons.as_secs_f64() / gigabytes,
        machine: used.machine.as_secs_f64() / gigabytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_by_what_arrived() {
        let used = Used {
            daemons: Duration::from_secs(2),
            machine: Duration::from_secs(6),
            passed: Duration::from_secs(4),
        };
        // 0.25 GB/s for 4 s.
        let sample = sample(2.5e8, None, &used).unwrap();
        assert!((sample.gbps - 2.0).abs() < 1e-9);
        assert!((sample.daemons - 2.0).abs() < 1e-9);
        assert!((sample.machine - 6.0).abs() < 1e-9);
        assert!(super::sample(0.0, None, &used).is_err());
    }
}
