//! The rows as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::run::Load;
use crate::suite::Row;

const COLUMNS: &str = "\
case            links Mbit/s   eff target   over    t90   rtt50  rtt99  v50+  v99+  vloss  idle+    gap   reord  resent rto  queues
                                 %      %   best      s      ms     ms    ms    ms      %     ms     ms       %       %      ms
";

/// What the columns mean.
pub const LEGEND: &str = "\
Mbit/s, eff: payload from second 5 on; share of the sum of the rates times the payload fraction
over best: goodput over that of the best link alone through the tunnel
t90: end of the first second at 90 % of the sum; rtt50, rtt99: the inner flow's round trip
v50+, v99+, vloss: a voice call beside it: delay over the best link's, loss
idle+: round trip of the idle tunnel over the best link's; gap: longest delivery gap (0: under 20)
reord: segments out of order at the receiver; resent: by the inner sender (UDP: lost); rto: timeouts
queues: of each link, 95 % of the time no more
";

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The table of the rows.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    if let Some(row) = rows.first() {
        let fraction = row.case.run.payload_fraction();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            out,
            "payload fraction {fraction:.4} of the IP packets, which the links count"
        );
    }
    out.push_str(COLUMNS);
    for row in rows {
        let _ = line(&mut out, row);
    }
    let changing: Vec<&Row> = rows
        .iter()
        .filter(|row| (1..=4).contains(&row.bond.steps.len()))
        .collect();
    if !changing.is_empty() {
        out.push_str("\nafter a step    at s   gap ms  90 % after s\n");
        for row in changing {
            let _ = steps(&mut out, row);
        }
    }
    out
}

fn line(out: &mut String, row: &Row) -> std::fmt::Result {
    let bond = &row.bond;
    let percent = |share: f64| share * 100.0;
    let voice = &bond.voice[0];
    let over = |delay: Duration| ms(delay) - ms(bond.least_delay);
    let loaded = row.case.run.load != Load::Idle;
    write!(out, "{:<15} {:>5}", row.case.name, bond.links.len())?;
    cell(out, 6, 1, loaded.then_some(bond.goodput))?;
    cell(out, 5, 1, loaded.then_some(percent(bond.efficiency)))?;
    cell(out, 6, 0, row.case.target.map(percent))?;
    cell(out, 6, 2, row.over_best())?;
    cell(out, 6, 1, bond.t90.map(|t90| t90.as_secs_f64()))?;
    let tcp = matches!(row.case.run.load, Load::Tcp(..));
    cell(out, 7, 1, tcp.then(|| ms(bond.rtt[0])))?;
    cell(out, 6, 1, tcp.then(|| ms(bond.rtt[1])))?;
    cell(out, 5, 1, Some(over(voice.p50)))?;
    cell(out, 5, 1, Some(over(voice.p99)))?;
    cell(out, 6, 2, Some(percent(voice.loss)))?;
    cell(out, 6, 1, Some(ms(bond.idle_added)))?;
    cell(out, 6, 0, tcp.then(|| ms(bond.gap)))?;
    cell(out, 7, 2, loaded.then_some(percent(bond.out_of_order)))?;
    cell(out, 7, 3, loaded.then_some(percent(bond.resent)))?;
    cell(out, 3, 0, tcp.then_some(bond.timeouts as f64))?;
    write!(out, " ")?;
    for link in &bond.links {
        write!(out, " {:.0}", ms(link.queue))?;
    }
    if let Some(foreign) = bond.foreign {
        write!(out, "  foreign flow: {foreign:.2} of its share")?;
    }
    writeln!(out)
}

fn cell(out: &mut String, width: usize, digits: usize, value: Option<f64>) -> std::fmt::Result {
    match value {
        // Less than half of the last digit is nothing, not minus nothing.
        Some(value) => {
            let least = 0.5 * 0.1_f64.powi(digits as i32);
            let value = if value.abs() < least { 0.0 } else { value };
            write!(out, " {value:>width$.digits$}")
        }
        None => write!(out, " {:>width$}", "-"),
    }
}

fn steps(out: &mut String, row: &Row) -> std::fmt::Result {
    for step in &row.bond.steps {
        let at = step.at.as_secs();
        write!(out, "{:<15} {at:>4} {:>8.0}", row.case.name, ms(step.gap))?;
        match step.reached {
            Some(reached) => writeln!(out, " {:>13.1}", reached.as_secs_f64())?,
            None => writeln!(out, "         never")?,
        }
    }
    Ok(())
}

/// The rows as JSON.
pub fn json(rows: &[Row]) -> serde_json::Value {
    let row = |row: &Row| {
        let bond = &row.bond;
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let voice = bond.voice.map(|voice| {
            serde_json::json!({
                "p50_ms": ms(voice.p50), "p99_ms": ms(voice.p99), "max_ms": ms(voice.max),
                "loss": voice.loss,
            })
        });
        let links = bond.links.iter().map(|link| {
            serde_json::json!({
                "mbps": link.mbps, "queue_p95_ms": ms(link.queue), "dropped": link.dropped,
            })
        });
        let steps = bond.steps.iter().map(|step| {
            serde_json::json!({
                "at_s": step.at.as_secs_f64(), "gap_ms": ms(step.gap),
                "reached_s": seconds(step.reached),
            })
        });
        serde_json::json!({
            "case": row.case.name, "target": row.case.target,
            "payload_fraction": row.case.run.payload_fraction(),
            "goodput_mbps": bond.goodput, "goodput_all_mbps": bond.goodput_all,
            "efficiency": bond.efficiency, "efficiency_all": bond.efficiency_all,
            "best_link": row.best.map(|(link, _)| link),
            "best_link_mbps": row.best.map(|(_, goodput)| goodput),
            "t90_s": seconds(bond.t90),
            "rtt_p50_ms": ms(bond.rtt[0]), "rtt_p99_ms": ms(bond.rtt[1]),
            "voice": voice, "least_delay_ms": ms(bond.least_delay),
            "idle_added_ms": ms(bond.idle_added), "gap_ms": ms(bond.gap),
            "out_of_order": bond.out_of_order, "resent": bond.resent, "timeouts": bond.timeouts,
            "links": links.collect::<Vec<_>>(), "steps": steps.collect::<Vec<_>>(),
            "foreign_share": bond.foreign,
        })
    };
    serde_json::Value::Array(rows.iter().map(row).collect())
}
