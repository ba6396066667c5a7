//! Looks on while a flow runs: the live table, and what the chart is drawn from.

use std::time::Duration;

use super::interrupt;
use super::screen::Screen;
use crate::emulator::{Direction, Outage};
use crate::error::Error;
use crate::topology::Lab;
use crate::traffic::{Flow, FlowReport, Probe};

/// How often the counters are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Ticks of one line of the table: a second.
const LINE: usize = 4;

/// Widest bar of the table.
const BAR: usize = 30;

/// Cuts a link at a time of the flow, and lets it return at another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Which link.
    pub(super) link: usize,
    /// When it is cut.
    pub(super) from: Duration,
    /// When it returns.
    pub(super) to: Duration,
}

/// One tick, in Mbit/s.
#[derive(Debug, Clone)]
struct Sample {
    total: f64,
    links: Vec<f64>,
}

/// The state of the table between two ticks.
struct Monitor<'a> {
    screen: &'a Screen,
    lab: &'a Lab,
    ping: &'a Probe,
    direction: Direction,
    /// Full scale, Mbit/s.
    scale: f64,
    samples: Vec<Sample>,
    received: u64,
    counted: Vec<u64>,
    answered: u32,
}

/// Watches a flow whose data takes this direction through the links; gives its report.
pub(super) fn watch(
    screen: &Screen,
    lab: &Lab,
    ping: &Probe,
    flow: Flow,
    direction: Direction,
    cut: Option<Cut>,
) -> Result<FlowReport, Error> {
    let rates = (0..lab.links()).map(|link| lab.emulator.shape(link, direction).rate);
    let mut monitor = Monitor {
        screen,
        lab,
        ping,
        direction,
        scale: rates
            .map(|rate| rate.unwrap_or(0) as f64 / 1e6)
            .sum::<f64>()
            .max(1.0),
        samples: Vec::new(),
        received: 0,
        counted: (0..lab.links())
            .map(|l| lab.emulator.counters(l, direction).out_bytes)
            .collect(),
        answered: 0,
    };
    monitor.head()?;
    let mut down = false;
    while !flow.ended() {
        let due = TICK * (monitor.samples.len() as u32 + 1);
        interrupt::sleep(due.saturating_sub(flow.elapsed()))?;
        monitor.tick(&flow);
        if let Some(cut) = cut {
            let now_down = (cut.from..cut.to).contains(&flow.elapsed());
            if now_down != down {
                down = now_down;
                lab.emulator
                    .set_outage(cut.link, if down { Outage::Drop } else { Outage::None });
            }
        }
        if monitor.samples.len().is_multiple_of(LINE) {
            // A line tells of the second before it.
            let middle = (TICK * (monitor.samples.len() - LINE / 2) as u32).as_millis();
            let in_it = |cut: &Cut| (cut.from.as_millis()..cut.to.as_millis()).contains(&middle);
            monitor.line(cut.filter(in_it))?;
        }
    }
    let report = flow.finish()?;
    monitor.chart(cut)?;
    Ok(report)
}

impl Monitor<'_> {
    fn head(&self) -> Result<(), Error> {
        let mut line = "   s   Mbit/s".to_owned();
        for link in 0..self.lab.links() {
            line += &format!("  {:>6}", Lab::wan(link));
        }
        self.screen.line(&format!("{line}      RTT"))
    }

    fn tick(&mut self, flow: &Flow) {
        let mbps = |bytes: u64| bytes as f64 * 8.0 / 1e6 / TICK.as_secs_f64();
        let received = flow.received();
        let total = mbps(received - self.received);
        self.received = received;
        let mut links = Vec::new();
        for (link, counted) in self.counted.iter_mut().enumerate() {
            let bytes = self.lab.emulator.counters(link, self.direction).out_bytes;
            links.push(mbps(bytes - *counted));
            *counted = bytes;
        }
        self.samples.push(Sample { total, links });
    }

    /// One second of the table.
    fn line(&mut self, cut: Option<Cut>) -> Result<(), Error> {
        let last = &self.samples[self.samples.len() - LINE..];
        let total = last.iter().map(|sample| sample.total).sum::<f64>() / LINE as f64;
        let mut line = format!("{:4}   {total:6.1}", self.samples.len() / LINE);
        for link in 0..self.lab.links() {
            let mean = last.iter().map(|sample| sample.links[link]).sum::<f64>() / LINE as f64;
            line += &format!("  {mean:6.1}");
        }
        let probes = self.ping.so_far();
        line += &match probes.last.filter(|_| probes.answered > self.answered) {
            Some(rtt) => format!("  {:4.0} ms", rtt.as_secs_f64() * 1e3),
            None => "   no answer".into(),
        };
        self.answered = probes.answered;
        line += &format!("  {}", self.screen.style.bar(total, self.scale, BAR));
        if let Some(cut) = cut {
            line += &self
                .screen
                .alarm(&format!(" {} is cut", Lab::wan(cut.link)));
        }
        self.screen.line(&line)
    }

    fn chart(&self, cut: Option<Cut>) -> Result<(), Error> {
        let totals: Vec<f64> = self.samples.iter().map(|sample| sample.total).collect();
        let lines = self.screen.style.chart(&totals, self.scale, 5);
        self.screen.line("")?;
        for (i, line) in lines.iter().enumerate() {
            let label = if i == 0 {
                format!("{:.0}", self.scale)
            } else {
                String::new()
            };
            self.screen.line(&format!("{label:>7} |{line}"))?;
        }
        for link in 0..self.lab.links() {
            let values: Vec<f64> = self
                .samples
                .iter()
                .map(|sample| sample.links[link])
                .collect();
            let rate = self
                .lab
                .emulator
                .shape(link, self.direction)
                .rate
                .unwrap_or(0) as f64
                / 1e6;
            for line in self.screen.style.chart(&values, rate.max(1.0), 1) {
                self.screen
                    .line(&format!("{:>7} |{line}", Lab::wan(link)))?;
            }
        }
        if let Some(cut) = cut {
            let column = |at: Duration| (at.as_millis() / TICK.as_millis()) as usize;
            let marks: String = (0..self.samples.len())
                .map(|i| {
                    if (column(cut.from)..column(cut.to)).contains(&i) {
                        'x'
                    } else {
                        ' '
                    }
                })
                .collect();
            self.screen
                .line(&format!("{:>7} |{}", "cut", marks.trim_end()))?;
        }
        Ok(())
    }
}
