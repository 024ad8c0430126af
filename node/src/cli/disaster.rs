//! `tidewater cluster restore` and `recover`: works on the data folder of a stopped node.
//!
//! In: the node's configuration file. Out: a store from which it starts as the only voter of a new
//! cluster, and in words what to do next. No node is asked.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use cluster::Refounded;
use wire::NodeId;

use crate::{
    config::{Config, Sources},
    offline,
};

/// Which node, while it is stopped.
#[derive(Debug, Args)]
pub(super) struct Stopped {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn restore(file: &Path, stopped: &Stopped, sources: Sources) -> anyhow::Result<()> {
    let config = stopped.load(sources)?;
    let (node, refounded) = offline::restore(&config, file)?;
    stopped.say(&node, &refounded, "restored")
}

pub(super) fn recover(stopped: &Stopped, sources: Sources) -> anyhow::Result<()> {
    let config = stopped.load(sources)?;
    let (node, refounded) = offline::recover(&config)?;
    stopped.say(&node, &refounded, "recovered")
}

impl Stopped {
    fn load(&self, sources: Sources) -> anyhow::Result<Config> {
        Ok(Config::load(&Sources { file: Some(self.config.clone()), ..sources })?)
    }

    fn say(&self, node: &NodeId, refounded: &Refounded, what: &str) -> anyhow::Result<()> {
        let Refounded { cluster, from_revision, revision, rooms } = refounded;
        if self.json {
            let json = serde_json::json!({
                "node": node, "cluster": cluster.to_string(), "from_revision": from_revision,
                "revision": revision, "rooms": rooms,
            });
            println!("{json}");
            return Ok(());
        }
        println!("{what}: {node} is the only voter of the new cluster {cluster}");
        println!("  from revision {from_revision}, {rooms} rooms; epochs go on above {revision}");
        println!("Now:");
        println!("  1. start {node}; edges and origins find it by themselves once restarted");
        println!("  2. empty the data folders of all other control nodes and start these");
        println!("  3. tidewater cluster add ID HOST:PORT, for each of them");
        println!(
            "Whatever the former cluster changed after revision {from_revision} is forgotten."
        );
        Ok(())
    }
}

/// Writes a file that was not there, for its owner alone, and to the disk before it returns.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
