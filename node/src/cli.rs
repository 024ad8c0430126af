//! The command line: one binary, one grammar.
//!
//! In: arguments and the environment. Out: a running node, or an answer on stdout and an exit code.
//! Logs and errors go to stderr. Commands about a cluster ask a node's admin listener; see
//! [`client`].

mod certs;
mod client;
mod cluster;
mod disaster;
mod events;
mod key;
mod node;
mod room;
mod table;
mod token;

use std::{path::PathBuf, process::ExitCode, sync::LazyLock};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, Sources},
    version::Versions,
};

/// Exit codes: 0 is success.
pub const FAILURE: u8 = 1;
/// The arguments were wrong. clap exits with the same.
pub const USAGE: u8 = 2;

static VERSION: LazyLock<String> = LazyLock::new(|| Versions::of_this_build().to_string());

/// Live relay cluster: RTMP in, HLS, LL-HLS, HTTP-FLV and WebSocket-FLV out.
#[derive(Debug, Parser)]
#[command(name = "tidewater", version = VERSION.as_str(), arg_required_else_help = true)]
struct Cli {
    /// Set a configuration key, over file and environment; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster in one process, on loopback and open to all who reach it
    Dev(DevArgs),
    /// Run one node
    Run(RunArgs),
    /// Say what is wrong with a configuration file, or "ok"
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Look at the cluster and change who belongs to it
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Look at rooms and end streams
    #[command(subcommand)]
    Room(room::Command),
    /// Make and revoke publish keys
    #[command(subcommand)]
    Key(key::Command),
    /// Export gifts and events, and add gifts up
    #[command(subcommand)]
    Events(events::Command),
    /// Sign tokens for publishers, viewers and members
    #[command(subcommand)]
    Token(token::Command),
    /// Make the cluster's CA and the certificates of its nodes
    #[command(subcommand)]
    Certs(certs::Command),
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Push a test card (clock and tone) to live/demo
    #[arg(long)]
    demo: bool,
    /// Keep data here; without it, a temporary folder is used and removed
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many edges to run; the first takes http.listen, the others free ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// Print one line of JSON once ready: where everything listens
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What this node does, instead of node.roles
    #[arg(long, value_name = "ROLE,…")]
    roles: Option<String>,
}

/// Which node a command asks.
#[derive(Debug, Args)]
struct Ask {
    /// Configuration file to take admin.listen and the token from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line an error: problems of a configuration are several errors.
            for line in format!("{error:#}").lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(FAILURE)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let sources = Sources { env: environment(), set: cli.set, ..Sources::default() };
    match cli.command {
        Command::Dev(args) => node::dev(args, sources),
        Command::Run(args) => {
            node::run(Sources { file: Some(args.config), roles: args.roles, ..sources })
        }
        Command::CheckConfig { file } => {
            Config::load(&Sources { file: Some(file), ..sources })?;
            println!("ok");
            Ok(())
        }
        Command::Cluster(command) => cluster::execute(command, sources),
        Command::Room(command) => room::execute(command, sources),
        Command::Key(command) => key::execute(command, sources),
        Command::Events(command) => events::execute(command, sources),
        Command::Token(command) => token::execute(command, sources),
        Command::Certs(command) => certs::execute(command),
    }
}

/// The environment as text; variables that are not are none of ours.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as section.key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn set_is_taken_on_every_command() {
        for line in [
            "tidewater --set a.b=1 dev",
            "tidewater dev --set a.b=1 --demo",
            "tidewater run --config x --set a.b=1",
            "tidewater check-config x --set a.b=1",
            "tidewater cluster status --json --set a.b=1",
            "tidewater room show live/c --set a.b=1",
            "tidewater key create live/c --set a.b=1",
            "tidewater events export --since 24h --set a.b=1",
            "tidewater certs init --dir d --set a.b=1",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.set, [("a.b".to_owned(), "1".to_owned())], "{line}");
        }
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for line in ["tidewater dev --set hls.part", "tidewater run", "tidewater dev --edges 0"] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
        }
    }
}
