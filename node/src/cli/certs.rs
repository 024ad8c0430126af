//! `tidewater certs …`: the cluster's CA and the certificates of its nodes.
//!
//! Works on files alone; no node is asked. How certificates look is the wire crate's business.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Subcommand;
use wire::{
    NodeId,
    identity::authority::{Authority, Existing, NODE_VALIDITY},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the cluster's CA: ca.pem for every node, ca.key to be kept away
    Init {
        /// Folder to write to
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
    },
    /// Issue the certificate of a node: ID.pem and ID.key
    Node {
        /// Folder with ca.pem and ca.key, and to write to
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// The node's id, as in node.id
        #[arg(value_parser = NodeId::new)]
        id: NodeId,
        /// Further name or address in the certificate; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Replace files that are there: how a certificate is renewed
        #[arg(long)]
        replace: bool,
    },
}

pub(super) fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { dir } => {
            let (cert, key) = Authority::create(SystemTime::now())?.write(&dir)?;
            println!("{}  for every node", cert.display());
            println!("{}  keep it off the nodes: who has it can join the cluster", key.display());
            Ok(())
        }
        Command::Node { dir, id, hosts, replace } => {
            let authority = load(&dir)?;
            let issued = authority.issue(&id, &hosts, SystemTime::now(), NODE_VALIDITY)?;
            let existing = if replace { Existing::Replace } else { Existing::Keep };
            let (cert, key) = issued.write(&dir, existing)?;
            println!("{}\n{}", cert.display(), key.display());
            Ok(())
        }
    }
}

fn load(dir: &Path) -> anyhow::Result<Authority> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    anyhow::ensure!(
        cert.exists() && key.exists(),
        "there is no ca.pem and ca.key in {}; make them with: tidewater certs init --dir {}",
        dir.display(),
        dir.display(),
    );
    Ok(Authority::load(&cert, &key)?)
}
