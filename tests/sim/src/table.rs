//! The rows as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::suite::Row;

const COLUMNS: &str = "\
case            links Mbit/s  eff% target over   t90   rtt50  rtt99  v50+  v99+  vloss  idle+    gap  reord  resent rto  queue95
                                   %    best     s      ms     ms     ms    ms     %      ms     ms     %      %         ms
";

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The table of the rows, and what its columns mean.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::from(COLUMNS);
    for row in rows {
        // Writing to a string cannot fail.
        let _ = line(&mut out, row);
    }
    let changing: Vec<&Row> = rows
        .iter()
        .filter(|row| (1..=4).contains(&row.bond.steps.len()))
        .collect();
    if !changing.is_empty() {
        out.push_str("\nafter a step    at s   gap ms  90% after s\n");
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
    write!(
        out,
        "{:<15} {:>5} {:>6.1}",
        row.case.name,
        bond.links.len(),
        bond.goodput
    )?;
    write!(out, " {:>5.1}", percent(bond.efficiency))?;
    match row.case.target {
        Some(target) => write!(out, " {:>5.0}", percent(target))?,
        None => write!(out, "     -")?,
    }
    match row.over_best() {
        Some(over) => write!(out, " {over:>6.2}")?,
        None => write!(out, "      -")?,
    }
    match bond.t90 {
        Some(t90) => write!(out, " {:>5.1}", t90.as_secs_f64())?,
        None => write!(out, "     -")?,
    }
    write!(out, " {:>7.1} {:>6.1}", ms(bond.rtt[0]), ms(bond.rtt[1]))?;
    write!(out, " {:>5.1} {:>5.1}", over(voice.p50), over(voice.p99))?;
    write!(
        out,
        " {:>6.2} {:>6.1}",
        percent(voice.loss),
        ms(bond.idle_added)
    )?;
    write!(
        out,
        " {:>6.0} {:>6.2}",
        ms(bond.gap),
        percent(bond.out_of_order)
    )?;
    write!(out, " {:>7.3} {:>3} ", percent(bond.resent), bond.timeouts)?;
    for link in &bond.links {
        write!(out, " {:.0}", ms(link.queue))?;
    }
    if let Some(foreign) = bond.foreign {
        write!(out, "  foreign flow: {foreign:.2} of its share")?;
    }
    writeln!(out)
}

fn steps(out: &mut String, row: &Row) -> std::fmt::Result {
    for step in &row.bond.steps {
        let at = step.at.as_secs();
        write!(out, "{:<15} {at:>4} {:>8.0}", row.case.name, ms(step.gap))?;
        match step.reached {
            Some(reached) => writeln!(out, " {:>12.1}", reached.as_secs_f64())?,
            None => writeln!(out, "        never")?,
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
