//! The command line.
//!
//! In: arguments. Out: a report on stdout, progress on stderr, and an exit code: 0 the figures can be
//! believed, 1 they cannot or the run failed, 2 the arguments are wrong.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::baseline::room::Repeater;
use crate::baseline::{self, Load};
use crate::measure::{self, MeasureArgs};
use crate::run::{self, Show};
use crate::scenario::{Options, Scenario};
use crate::{html, limits};

/// Loads a live streaming server and says what it delivers, how late, and at what cost.
#[derive(Debug, Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish and watch
    Run(Box<RunArgs>),
    /// Make the named measurements of a cluster and write the table of results
    Measure(MeasureArgs),
    /// Be the bare send loop that servers are held against; watch it with `run --flv`
    Baseline(BaselineArgs),
    /// Be the bare repeater of messages that rooms are held against; join it with
    /// `run --members N --form plain`
    Repeater(RepeaterArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Read the options from a file first
    #[arg(long, value_name = "FILE")]
    preset: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct BaselineArgs {
    /// Where to listen; the address is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Milliseconds between two sends to a viewer
    #[arg(long, value_name = "MS", default_value_t = 33)]
    interval: u64,
    /// To each viewer, kbit/s
    #[arg(long, value_name = "KBITS", default_value_t = 2000)]
    bitrate: u64,
}

#[derive(Debug, Args)]
struct RepeaterArgs {
    /// Where to listen; the address is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How messages are repeated
    #[arg(long, value_enum, default_value = "loop")]
    by: Repeater,
}

#[derive(Debug, Clone, Args)]
struct Output {
    /// Print JSON lines: one a second, then one for each protocol, then a summary
    #[arg(long)]
    json: bool,
    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Run on this core alone
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether the figures can be believed.
fn execute(cli: Cli) -> Result<bool> {
    match cli.command {
        Command::Run(args) => run_scenario(*args),
        Command::Measure(args) => measure::measure(&args),
        Command::Baseline(args) => {
            let load = Load {
                interval: Duration::from_millis(args.interval.max(1)),
                bits_per_second: args.bitrate * 1000,
            };
            baseline::serve(args.listen, load).map(|()| true)
        }
        Command::Repeater(args) => baseline::room::serve(args.listen, args.by).map(|()| true),
    }
}

fn run_scenario(args: RunArgs) -> Result<bool> {
    let options = match args.preset.as_deref().map(Options::read).transpose()? {
        Some(preset) => args.options.over(preset),
        None => args.options,
    };
    let scenario = Scenario::new(options)?;
    if let Some(core) = args.output.core {
        limits::pin(core)?;
    }
    let show = if args.output.json { Show::Json } else { Show::Lines };
    let report = run::run(&scenario, show)?;
    if let Some(path) = &args.output.html {
        let title = format!("bench run, {:.0} s", report.window.as_secs_f64());
        std::fs::write(path, html::page(&report, &title))
            .with_context(|| path.display().to_string())?;
    }
    if args.output.json {
        for line in report.json() {
            println!("{line}");
        }
    } else {
        print!("{}", report.table());
    }
    for problem in &report.problems {
        eprintln!("bench: {problem}");
    }
    Ok(report.problems.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}
