//! `sim`: runs cases and prints the table.

use std::io::Write;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use netcombiner_sim::cases::{self, SimCase};
use netcombiner_sim::endpoint::Algorithm;
use netcombiner_sim::network::Route;
use netcombiner_sim::packet::Host;
use netcombiner_sim::run::Load;
use netcombiner_sim::{suite, sweep, table, trace};

const HELP: &str = "\
sim: the simulator of netcombiner.

  --case NAME     only the cases whose name begins so (several times: all of them)
  --seconds N     how long the flows last (default 60)
  --seed N        decides losses and jitter (default 1)
  --flows N       so many connections
  --inner X       cubic, reno or bbr
  --up            the client sends
  --single LINK   only this link of each case, counted from 0
  --raw LINK      beside the tunnel, on this link
  --far MS        one-way delay between the remote portal and the server
  --tick US       granularity of the portals' timers
  --fast          without each link alone
  --trace         what happens each 100 ms, case by case
  --json          the table as JSON
  --sweep         slow links beside fast ones, both ways, against the better link alone; fails when a
                  row is below 97 %. Takes --case, --quick, --rows, --seed and --trace (with --up, --single,
                  --raw)
  --rows SEED     only random rows of the sweep, drawn with this seed
  --quick         only the rows of the sweep that `cargo test` runs
";

/// What was asked for.
struct Options {
    names: Vec<String>,
    seconds: u64,
    seed: u64,
    flows: Option<u16>,
    inner: Option<Algorithm>,
    up: bool,
    single: Option<usize>,
    raw: Option<usize>,
    far: Option<u64>,
    tick: u64,
    fast: bool,
    trace: bool,
    json: bool,
    sweep: bool,
    quick: bool,
    rows: Option<u64>,
}

fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        names: Vec::new(),
        seconds: 60,
        seed: 1,
        flows: None,
        inner: None,
        up: false,
        single: None,
        raw: None,
        far: None,
        tick: 0,
        fast: false,
        trace: false,
        json: false,
        sweep: false,
        quick: false,
        rows: None,
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("case") => options.names.push(parser.value()?.string()?),
            Arg::Long("seconds") => options.seconds = parser.value()?.parse()?,
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("flows") => options.flows = Some(parser.value()?.parse()?),
            Arg::Long("inner") => {
                options.inner = Some(match parser.value()?.string()?.as_str() {
                    "cubic" => Algorithm::Cubic,
                    "reno" => Algorithm::Reno,
                    "bbr" => Algorithm::Bbr,
                    _ => return Err("--inner is cubic, reno or bbr".into()),
                });
            }
            Arg::Long("up") => options.up = true,
            Arg::Long("single") => options.single = Some(parser.value()?.parse()?),
            Arg::Long("raw") => options.raw = Some(parser.value()?.parse()?),
            Arg::Long("far") => options.far = Some(parser.value()?.parse()?),
            Arg::Long("tick") => options.tick = parser.value()?.parse()?,
            Arg::Long("fast") => options.fast = true,
            Arg::Long("trace") => options.trace = true,
            Arg::Long("json") => options.json = true,
            Arg::Long("sweep") => options.sweep = true,
            Arg::Long("quick") => options.quick = true,
            Arg::Long("rows") => options.rows = Some(parser.value()?.parse()?),
            Arg::Long("help") => return Ok(None),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|begin| name.starts_with(begin))
    }

    fn apply(&self, case: SimCase) -> Option<SimCase> {
        let mut case = match self.single {
            Some(link) if link >= case.run.links.len() => return None,
            Some(link) => cases::alone(&case, link),
            None => case,
        };
        let run = &mut case.run;
        run.seed = self.seed;
        run.tick = Duration::from_micros(self.tick);
        if let Load::Tcp(algorithm, count) = run.load {
            let algorithm = self.inner.unwrap_or(algorithm);
            run.load = Load::Tcp(algorithm, self.flows.unwrap_or(count));
        }
        if self.up {
            run.sender = Host::Client;
        }
        if let Some(link) = self.raw {
            if link >= run.links.len() {
                return None;
            }
            run.route = Route::Link(link);
        }
        if let Some(far) = self.far {
            run.far = Duration::from_millis(far);
        }
        Some(case)
    }
}

/// The sweep, and whether every row holds.
fn sweep(options: &Options, out: &mut impl Write) -> std::io::Result<bool> {
    let mut rows = match options.rows {
        Some(seed) => sweep::random(seed),
        None if options.quick => sweep::quick(),
        None => sweep::all(),
    };
    rows.retain(|row| options.wants(&row.name));
    if options.trace {
        let sender = if options.up {
            Host::Client
        } else {
            Host::Server
        };
        for case in rows
            .iter()
            .filter_map(|row| options.apply(row.case(sender)))
        {
            trace::run(&case, out)?;
        }
        return Ok(true);
    }
    let rows = sweep::run(&rows, threads(), options.seed);
    out.write_all(sweep::text(&rows).as_bytes())?;
    write!(out, "\n{}", sweep::LEGEND)?;
    Ok(rows.iter().all(sweep::SweepRow::holds))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let Some(options) = parse()? else {
        out.write_all(HELP.as_bytes())?;
        return Ok(());
    };
    if options.sweep {
        return if sweep(&options, &mut out)? {
            Ok(())
        } else {
            Err("a row falls short".into())
        };
    }
    let lasts = Duration::from_secs(options.seconds);
    let cases: Vec<SimCase> = cases::all(lasts)
        .into_iter()
        .filter(|case| options.wants(&case.name))
        .filter_map(|case| options.apply(case))
        .collect();
    if options.trace {
        for case in &cases {
            trace::run(case, &mut out)?;
        }
        return Ok(());
    }
    let singles = !options.fast && options.single.is_none() && options.raw.is_none();
    let rows = suite::run(&cases, singles, threads());
    if options.json {
        serde_json::to_writer_pretty(&mut out, &table::json(&rows))?;
        writeln!(out)?;
    } else {
        out.write_all(table::text(&rows).as_bytes())?;
        write!(out, "\n{}", table::LEGEND)?;
    }
    Ok(())
}
