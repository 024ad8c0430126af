//! The named measurements: a cluster of separate processes, a scenario, three runs, medians.
//!
//! In: the server's binary and which measurements to make. Out: rows of `RESULTS.md`. Server and load
//! generator have a core each; home and edge share the server's. Where a figure is a ratio, both sides
//! run one after the other, alternating, so that a busy machine disturbs them alike.

mod cases;
mod results;
mod servers;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::report::Report;
use crate::run;
use crate::scenario::{Options, Scenario};
pub(crate) use cases::{CASES, Case, Figure, Setting};
use results::{Results, Row};
use servers::{Cluster, SendLoop};

/// The options of `bench measure`.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Which; all of them by default
    names: Vec<String>,
    /// The server's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/tidewater")]
    server: PathBuf,
    /// Runs of each, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// The core of the server
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    server_core: usize,
    /// The core of the load generator
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    core: usize,
    /// Replace the rows of what was measured in this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say what can be measured
    #[arg(long)]
    list: bool,
}

/// Measures; says whether every figure can be believed.
pub(crate) fn measure(args: &MeasureArgs) -> Result<bool> {
    if args.list {
        for case in CASES {
            println!("{:<18}{}", case.name, case.about);
        }
        return Ok(true);
    }
    let cases = chosen(&args.names)?;
    ensure!(args.server.exists(), "{} is not there: cargo build --release", args.server.display());
    ensure!(args.server_core != args.core, "server and load generator need a core each");
    crate::limits::pin(args.core)?;
    let mut results = match &args.out {
        Some(path) => Results::read(path)?,
        None => Results::default(),
    };
    let mut believed = true;
    for case in cases {
        let mut runs = Vec::new();
        let mut problems = Vec::new();
        for number in 1..=args.runs {
            eprintln!("{} {number}/{}: {}", case.name, args.runs, case.about);
            let (figures, found) = once(case, args).with_context(|| case.name)?;
            for figure in &figures {
                eprintln!("  {}: {:.2} {}", figure.name, figure.value, figure.unit);
            }
            for problem in &found {
                eprintln!("  {problem}");
            }
            problems.extend(found);
            runs.push(figures);
        }
        believed &= problems.is_empty();
        results.replace(case, Row::of(case, &runs, problems.len()));
        if let Some(path) = &args.out {
            results.write(path)?;
        }
    }
    print!("{}", results.text());
    Ok(believed)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let find = |name: &String| {
        let case = CASES.iter().find(|case| case.name == name);
        case.with_context(|| format!("there is no measurement {name}: see bench measure --list"))
    };
    names.iter().map(find).collect()
}

/// What one run of a measurement found.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// The most upstream subscriptions the edge had at once.
    pub(crate) upstreams: f64,
    /// The send loop's run beside it, where there is one.
    pub(crate) bound: Option<Report>,
}

fn once(case: &Case, args: &MeasureArgs) -> Result<(Vec<Figure>, Vec<String>)> {
    let options: Options =
        toml::from_str(case.preset).with_context(|| format!("the preset of {}", case.name))?;
    let cluster = Cluster::start(&args.server, args.server_core)?;
    let watch = cluster.watch_upstreams();
    let own = Options {
        target: vec![cluster.edge_url()],
        rtmp: Some(cluster.rtmp_url()),
        pid: cluster.pids(),
        ..Options::default()
    };
    let report = run::run(&Scenario::new(own.over(options.clone()))?, true)?;
    let upstreams = watch.most();
    drop(cluster);
    let mut problems = report.problems.clone();
    let bound = match case.setting {
        Setting::Cluster => None,
        Setting::BesideSendLoop { interval_ms } => {
            let kbits = options.bitrate.context("the preset needs a bit rate")?;
            let send_loop = SendLoop::start(interval_ms, kbits, args.server_core)?;
            let own = Options {
                target: vec![send_loop.url()],
                publishers: Some(0),
                pid: vec![send_loop.pid()],
                ..Options::default()
            };
            let report = run::run(&Scenario::new(own.over(options))?, true)?;
            problems.extend(report.problems.iter().map(|p| format!("send loop: {p}")));
            Some(report)
        }
    };
    let figures = (case.figures)(&Outcome { report, upstreams, bound });
    Ok((figures.context("a figure is missing: the run gave too little data")?, problems))
}
