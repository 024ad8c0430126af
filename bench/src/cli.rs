//! The command line.
//!
//! In: arguments. Out: a report on stdout, progress on stderr, and an exit code: 0 the figures can be
//! believed, 1 they cannot or the run failed, 2 the arguments are wrong.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::scenario::{Options, Scenario};
use crate::{limits, run};

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
    Run(RunArgs),
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

#[derive(Debug, Clone, Copy, Args)]
struct Output {
    /// Print JSON lines: one for each protocol, then a summary
    #[arg(long)]
    json: bool,
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
        Command::Run(args) => {
            let preset = args.preset.as_deref().map(Options::read).transpose()?;
            let options = match preset {
                Some(preset) => args.options.over(preset),
                None => args.options,
            };
            let scenario = Scenario::new(options)?;
            if let Some(core) = args.output.core {
                limits::pin(core)?;
            }
            let report = run::run(&scenario, false)?;
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
    }
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
