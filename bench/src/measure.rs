//! The named measurements: a cluster of separate processes, a scenario, three runs, medians.
//!
//! In: the server's binary and which measurements to make. Out: rows of `RESULTS.md`. Server and load
//! generator have a core each; home and edge share the server's. Where a figure is a ratio, both sides
//! run one after the other, alternating, so that a busy machine disturbs them alike.

mod cases;
mod child;
mod peers;
mod results;
mod rooms;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::report::Report;
use crate::requests::{self, Answered};
use crate::run::{self, Show};
use crate::scenario::{Form, Options, Scenario};
use crate::tail::{self, Tail};
pub(crate) use cases::{CASES, Case, Document, Figure, Peer, Setting};
use child::get;
use peers::{Nginx, NodeMediaServer};
use results::{Results, Row};
use rooms::Repeater;
use servers::{Cluster, SendLoop};

/// Connections that ask for a document.
const ASKING: u32 = 64;
/// What messages to other servers have: as many bytes as ours have with what the protocol puts around them.
const PLAIN_BYTES: usize = 200;
/// How long documents are asked for; those of a live stream stay longer.
const ASK_WARMUP: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_secs(4);

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
    /// Only what is held against servers of other makes
    #[arg(long)]
    peers: bool,
    /// Where scripts/compare.sh puts what it installs from npm
    #[arg(long, value_name = "FOLDER", default_value = "target/compare")]
    installed: PathBuf,
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
    let cases = chosen(args)?;
    ensure!(args.server.exists(), "{} is not there: cargo build --release", args.server.display());
    ensure!(args.server_core != args.core, "server and load generator need a core each");
    crate::limits::pin(args.core)?;
    let mut results = match &args.out {
        Some(path) => Results::read(path)?,
        None => Results::default(),
    };
    results.taken_here(&peers::versions(&args.installed));
    let mut believed = true;
    for case in cases {
        let mut runs = Vec::new();
        let mut problems = Vec::new();
        let count = args.runs.min(case.max_runs);
        for number in 1..=count {
            eprintln!("{} {number}/{count}: {}", case.name, case.about);
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

fn chosen(args: &MeasureArgs) -> Result<Vec<&'static Case>> {
    if args.names.is_empty() {
        let cases = CASES.iter().filter(|case| !args.peers || case.compares());
        return Ok(cases.filter(|case| is_possible(case, args)).collect());
    }
    let find = |name: &String| {
        let case = CASES.iter().find(|case| case.name == name);
        case.with_context(|| format!("there is no measurement {name}: see bench measure --list"))
    };
    args.names.iter().map(find).collect()
}

/// Whether the case can be measured with what is installed; says what is missing.
fn is_possible(case: &Case, args: &MeasureArgs) -> bool {
    let possible = match case.setting {
        Setting::Requests(_) => peers::has_nginx(&args.installed),
        _ => true,
    };
    if !possible {
        eprintln!("{}: left out, nginx is not installed (scripts/compare.sh)", case.name);
    }
    possible
}

/// What one run of a measurement found.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Ours; none where documents were asked for.
    pub(crate) report: Option<Report>,
    /// The most upstream subscriptions the edge had at once.
    pub(crate) upstreams: f64,
    /// The runs of the others beside it.
    pub(crate) peers: Vec<(Peer, Report)>,
    /// Our answers and nginx's, where documents were asked for.
    pub(crate) answered: Option<(Answered, Answered)>,
}

/// One run of a measurement, every side of it in turn; the figures and what is wrong with them.
fn once(case: &Case, args: &MeasureArgs) -> Result<(Vec<Figure>, Vec<String>)> {
    let options: Options =
        toml::from_str(case.preset).with_context(|| format!("the preset of {}", case.name))?;
    let mut problems = Vec::new();
    let outcome = match case.setting {
        Setting::Requests(document) => {
            let answered = ask(case, options, document, args)?;
            problems.extend(answered.0.problems.iter().cloned());
            problems.extend(answered.1.problems.iter().map(|p| format!("nginx: {p}")));
            Outcome { answered: Some(answered), ..Outcome::default() }
        }
        Setting::Cluster | Setting::Beside(_) => {
            let mut outcome = watch(case, options.clone(), args)?;
            problems.extend(outcome.report.iter().flat_map(|r| r.problems.clone()));
            let Setting::Beside(others) = case.setting else {
                return figures(case, &outcome, problems);
            };
            for peer in others {
                let Some(report) = beside(*peer, options.clone(), args)? else {
                    eprintln!("  {} is not installed (scripts/compare.sh)", peer.name());
                    continue;
                };
                let name = peer.name();
                problems.extend(report.problems.iter().map(|p| format!("{name}: {p}")));
                outcome.peers.push((*peer, report));
            }
            outcome
        }
    };
    figures(case, &outcome, problems)
}

fn figures(
    case: &Case,
    outcome: &Outcome,
    problems: Vec<String>,
) -> Result<(Vec<Figure>, Vec<String>)> {
    let figures = (case.figures)(outcome);
    let too_little =
        || format!("a figure is missing: the run gave too little data: {}", problems.join("; "));
    Ok((figures.with_context(too_little)?, problems))
}

/// Our own servers under the case's load.
fn watch(case: &Case, options: Options, args: &MeasureArgs) -> Result<Outcome> {
    let cluster = Cluster::start(&args.server, args.server_core, case.settings)?;
    let upstreams = cluster.watch_upstreams();
    let own = Options {
        target: vec![cluster.edge_url()],
        rtmp: Some(cluster.rtmp_url()),
        pid: cluster.pids(),
        ..Options::default()
    };
    let report = run::run(&Scenario::new(own.over(options))?, Show::Nothing)?;
    Ok(Outcome { report: Some(report), upstreams: upstreams.most(), ..Outcome::default() })
}

/// Another server under the same load; none if it is not installed.
fn beside(peer: Peer, options: Options, args: &MeasureArgs) -> Result<Option<Report>> {
    let core = args.server_core;
    let run = |own: Options| {
        run::run(&Scenario::new(own.over(options.clone()))?, Show::Nothing).map(Some)
    };
    match peer {
        Peer::SendLoop { interval_ms } => {
            let kbits = options.bitrate.context("the preset needs a bit rate")?;
            let server = SendLoop::start(interval_ms, kbits, core)?;
            run(Options {
                target: vec![server.url()],
                publishers: Some(0),
                pid: vec![server.pid()],
                ..Options::default()
            })
        }
        Peer::NginxRtmp { hls } => {
            if !peers::has_nginx(&args.installed) {
                return Ok(None);
            }
            let server = Nginx::rtmp((&args.installed, core), hls)?;
            run(Options {
                rtmp: Some(server.rtmp_url()),
                flv: Some(0),
                // Where HLS is written nobody plays: viewers would take files.
                rtmpplay: options.flv.filter(|_| !hls),
                pid: vec![server.pid()?],
                ..Options::default()
            })
        }
        Peer::Repeater { .. } | Peer::Ws | Peer::Picows | Peer::Nchan => {
            let Some(server) = Repeater::start(peer, (&args.installed, core))? else {
                return Ok(None);
            };
            run(Options {
                target: vec![server.url()],
                form: Some(Form::Plain),
                chat_bytes: Some(PLAIN_BYTES),
                pid: vec![server.pid()],
                ..Options::default()
            })
        }
        Peer::NodeMediaServer => {
            if !peers::has_node_media_server(&args.installed) {
                return Ok(None);
            }
            let server = NodeMediaServer::start(core, &args.installed)?;
            run(Options {
                target: vec![server.url()],
                rtmp: Some(server.rtmp_url()),
                pid: vec![server.pid()],
                ..Options::default()
            })
        }
    }
}

/// Asks the edge for a document of a live stream, then nginx for a file with the same bytes.
fn ask(
    case: &Case,
    options: Options,
    document: Document,
    args: &MeasureArgs,
) -> Result<(Answered, Answered)> {
    let cluster = Cluster::start(&args.server, args.server_core, case.settings)?;
    let own = Options { rtmp: Some(cluster.rtmp_url()), ..Options::default() };
    let scenario = Scenario::new(own.over(options))?;
    let load = |to, path: &str, pid| requests::Load {
        to,
        path: path.to_owned(),
        connections: ASKING,
        warmup: ASK_WARMUP,
        measure: ASK,
        pid,
    };
    let edge = cluster.edge_address();
    let pid = cluster.pids()[0];
    let (path, bytes, ours) = run::while_publishing(&scenario, || {
        let (path, bytes) = find(edge, document)?;
        let ours = requests::ask(&load(edge, &path, pid))?;
        Ok((path, bytes, ours))
    })?;
    drop(cluster);
    let name = path.rsplit('/').next().unwrap_or_default();
    let nginx = Nginx::files((&args.installed, args.server_core), &[(name, &bytes)])?;
    let theirs = requests::ask(&load(nginx.address(), &format!("/{name}"), nginx.pid()?))?;
    Ok((ours, theirs))
}

/// The path and bytes of the newest such document, once the window is full.
fn find(edge: std::net::SocketAddr, document: Document) -> Result<(String, Vec<u8>)> {
    let playlist = "/live/bench/main.m3u8";
    let text = String::from_utf8(get(edge, playlist)?).context("the playlist is no text")?;
    let tail = Tail::read(&text).context("no media playlist")?;
    let path = match document {
        Document::Playlist => playlist.to_owned(),
        Document::Part => tail::resolve(playlist, tail.part.context("no part is listed")?),
        Document::Segment => tail::resolve(playlist, tail.segment.context("no segment is listed")?),
    };
    let bytes = get(edge, &path)?;
    Ok((path, bytes))
}
