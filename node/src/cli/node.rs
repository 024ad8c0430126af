//! `tidewater dev` and `tidewater run`: the commands that stay.
//!
//! In: their arguments. Out: running nodes until a signal; stdout has the one line of `--json` or the
//! guide for a person, everything else goes to stderr.

use std::io::Write as _;

use anyhow::Context as _;

use super::DevArgs;
use crate::{
    config::{Config, Sources},
    dev::{Dev, Options},
    run,
    shutdown::Signals,
    telemetry::Logs,
};

/// Runs a whole cluster until a signal or a failure.
pub(super) fn dev(args: DevArgs, sources: Sources) -> anyhow::Result<()> {
    let sources = Sources { dev: true, ..sources };
    let config = Config::load(&sources)?;
    runtime()?.block_on(async {
        let logs = Logs::start(&config.log)?;
        let signals = Signals::listen().context("cannot listen for signals")?;
        let options = Options {
            data: args.data,
            edges: args.edges,
            demo: args.demo,
            sources: sources.clone(),
        };
        let dev = tokio::select! {
            dev = Dev::start(options) => dev?,
            () = signals.stop.cancelled() => return Ok(()),
        };
        let ready = if args.json {
            format!("{}\n", serde_json::to_string(dev.ports())?)
        } else {
            dev.ports().guide(args.demo)
        };
        say(&ready)?;
        let live = dev.config().clone();
        let failure = tokio::select! {
            () = signals.stop.cancelled() => None,
            failure = dev.failed() => Some(failure),
            () = run::reload_on_signal(&signals, &sources, &live, &logs) => None,
        };
        signals.stop.cancel();
        let grace = live.borrow().node.shutdown_grace;
        dev.stop(grace).await;
        failure.map_or(Ok(()), Err)
    })
}

/// Runs one node until a signal or a failure.
pub(super) fn run(sources: Sources) -> anyhow::Result<()> {
    runtime()?.block_on(run::run(sources))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start threads")
}

/// Writes to stdout at once: whoever waits for the line has it on the other end of a pipe.
fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}
